"""Saying it again: the same samples whatever was said before, foreign sounds, replaced ones, and other commands."""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechft import audio
from speechft.audio import SAMPLE_RATE
from speechft.augment import checks, draws, phonemes, plan, say, settings, synth
from speechft.augment.sources import Materials
from speechft.errors import InputError

TEXT = "take five milligrams"
HELLO = [["h", "@", "l", "'oU"], ["T", "'I", "N", "z"]]


def voices(**more: Any) -> settings.Say:
    checked = settings.check({"say": more}).say
    assert checked is not None
    return checked


def said(
    label: str = "1", *, held_out: bool = False, level_db: float = -26.0, language: str = "en", **more: Any
) -> tuple[np.ndarray, dict]:
    given: dict[str, Any] = {"held_out": held_out, "level_db": level_db, "language": language}
    return say.say(TEXT, voices(**more), draws.generator(label), **given)


def view(text: str | None, table: dict[str, Any], *, samples: np.ndarray | None = None, row: str = "r1") -> Any:
    spoken = np.full(SAMPLE_RATE, 0.1, np.float32) if samples is None else samples
    return plan.apply(
        spoken, utterance_id=row, view=1, settings={"say": {"p": 1, **table}}, seed=1, materials=Materials(), text=text
    )


def program(folder: Path, body: str) -> str:
    """A command that runs a little Python program with the arguments {text} and {wav}."""
    path = folder / "speak.py"
    path.write_text("import sys, numpy, soundfile\n" + body)
    return f"{shlex.quote(sys.executable)} {path} {{wav}}"


def test_a_text_is_said_the_same_way_whatever_was_said_before() -> None:
    for label in "123":
        first, facts = said(label)
        for other in "abc":
            said(other)
        again, _ = said(label)
        np.testing.assert_array_equal(first, again)
        assert facts["speaker"].startswith("espeak-")


@pytest.mark.parametrize("variant", ["m1", "klatt3", "Reed", "caleb"])  # the last two draw noise from the C library
def test_every_kind_of_timbre_repeats(variant: str) -> None:
    voice = synth.Voice(name="en-us", variant=variant)
    first = synth.speak(TEXT, voice)
    synth.speak("something else", voice)
    np.testing.assert_array_equal(first, synth.speak(TEXT, voice))


def test_level_and_length_fit_a_window() -> None:
    samples, _ = said(level_db=-30.0)
    assert audio.active_level_db(samples) == pytest.approx(-30, abs=0.5)
    assert np.abs(samples).max() <= 0.99
    assert 0.8 * SAMPLE_RATE < len(samples) < 4 * SAMPLE_RATE
    with pytest.raises(InputError, match="saying it takes over 30 s"):
        say.say(TEXT * 30, voices(), draws.generator("1"), held_out=False)


def test_english_in_the_sounds_of_another_language() -> None:
    assert phonemes.in_language(HELLO, "de") == [["h", "@", "l", "'o:"], ["s", "'I", "N", "z"]]
    assert phonemes.in_language(HELLO, "fr") == [["@", "l", "'o", "u"], ["s", "'i", "N", "z"]]
    assert phonemes.in_language([["?!"]], "it") == []
    for language in phonemes.LANGUAGES:
        _, facts = said(language, foreign=language, foreign_share=1)
        assert facts["accent"] == language
        assert facts["phonemes"]
    thin = synth.phonemes("the thin thing", language="en-us")
    assert {"D", "T"} <= {name for word in thin for name in word}
    german = voices(foreign="de", foreign_share=1, substitute=0.0)
    _, facts = say.say("the thin thing", german, draws.generator("1"), held_out=False)
    sounds = {phonemes.split_stress(name)[1] for name in facts["phonemes"].replace(" ", "_").split("_")}
    assert not {"D", "T"} & sounds
    assert "N" in sounds


def test_sounds_of_the_default_accents_are_known() -> None:
    """Scottish vowels are vowels, and an n that is a syllable of its own is no less an n."""
    rng = draws.generator("1")
    words = [["w", "'aI2", "d"], ["f", "'VR", "s", "t"], ["n-", "@-"]]
    for _ in range(20):
        changed, _ = phonemes.substitute(words, rate=1.0, rng=rng)
        assert [name.strip("'") in phonemes.VOWELS for name in changed[0]] == [False, True, False]
        assert [name.strip("'") in phonemes.VOWELS for name in changed[2]] == [False, True]
    assert phonemes.in_language([["'i:", "?", "n-"]], "es") == [["'i", "n"]]


def test_sounds_are_replaced_in_what_is_said() -> None:
    plain, told = said(foreign_share=0, substitute=0.0)
    changed, facts = said(foreign_share=0, substitute=0.5)
    assert "replaced" not in told
    assert 0 < facts["replaced"] < facts["of"]
    assert len(plain) != len(changed) or not np.array_equal(plain, changed)


def test_every_sound_of_english_is_known_in_every_language() -> None:
    text = "the thin boy judged her vision, which you know now, near our poor fair yacht; chew long rough sheep"
    for accent in voices().accents:
        words = synth.phonemes(text, language=accent, stress=True)
        known = {*phonemes.FIVE, *phonemes.CONSONANTS}
        unknown = {phonemes.split_stress(name)[1] for word in words for name in word} - known
        assert len(unknown) <= 4, (accent, unknown)  # an accent's own vowels; foreign voices take en-us's
    words = synth.phonemes(text, language="en-us", stress=True)
    assert not {phonemes.split_stress(name)[1] for word in words for name in word} - known


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_phonemes_are_replaced_at_the_rate_asked_for(rate: float) -> None:
    words = HELLO * 200
    replaced, count = phonemes.substitute(words, rate=rate, rng=np.random.default_rng(1))
    differing = sum(a != b for one, two in zip(words, replaced, strict=True) for a, b in zip(one, two, strict=True))
    assert differing == count
    assert count == pytest.approx(rate * 1600, abs=4 * (1600 * rate * (1 - rate)) ** 0.5)
    for one, two in zip(words, replaced, strict=True):
        for a, b in zip(one, two, strict=True):
            assert phonemes.split_stress(a)[0] == phonemes.split_stress(b)[0]
            assert (phonemes.split_stress(a)[1] in phonemes.VOWELS) == (phonemes.split_stress(b)[1] in phonemes.VOWELS)


def test_stress_is_kept_only_when_asked_for() -> None:
    assert synth.phonemes("hello") == [["h", "@", "l", "oU"]]
    assert synth.phonemes("hello", stress=True) == [["h", "@", "l", "'oU"]]


def test_a_view_says_it_again_and_the_ratio_is_p() -> None:
    samples, steps = view(TEXT, {})
    assert steps[0]["name"] == "say"
    assert audio.active_level_db(samples) == pytest.approx(-20, abs=0.5)  # as loud as the recording
    count = 0
    for index in range(300):
        quick = plan.apply(
            np.zeros(160, np.float32), utterance_id=f"r{index}", view=1, settings={"say": {"p": 0.25}}, seed=1,
            materials=Materials(), text="",
        )  # fmt: skip
        count += bool(quick[1])
    assert count == pytest.approx(75, abs=25)


@pytest.mark.parametrize("text", [None, "", "  "])
def test_without_a_text_the_recording_stays(text: str | None) -> None:
    samples, steps = view(text, {})
    assert steps == [{"name": "say", "skipped": "there is no text to say"}]
    assert len(samples) == SAMPLE_RATE
    with pytest.raises(InputError, match="r1: cannot be said again"):
        plan.condition(
            samples, name="c", settings={"say": {}}, utterance_id="r1", seed=1, materials=Materials(), text=text
        )


def test_another_voice_is_one_setting(tmp_path: Path) -> None:
    tone = "soundfile.write(sys.argv[1], 0.1 * numpy.sin(numpy.arange(len(sys.stdin.read()) * 1000) / 9), 8000)"
    samples, facts = said(command=program(tmp_path, tone))
    assert facts["accent"] == "command"
    assert "rate" not in facts  # which a command is not told
    assert len(samples) > len(TEXT) * 2000  # 1000 samples a letter at 8 kHz


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit('no licence')", "failed with status 1: no licence"),
        ("import time; time.sleep(9)", "took over 0.5 s"),
        ("pass", "wrote no file"),
        ("soundfile.write(sys.argv[1], numpy.zeros(0), 16000)", "made no sound"),
        ("soundfile.write(sys.argv[1], numpy.zeros(9000), 16000)", "made no sound"),
        ("open(sys.argv[1], 'w').write('text')", "is not a WAV"),
        ("soundfile.write(sys.argv[1], numpy.full(9000, numpy.nan), 16000, 'FLOAT')", "holds samples that are no num"),
        ("sys.stderr.buffer.write(b'caf\\xe9'); sys.exit(3)", "failed with status 3: caf"),
    ],
)
def test_a_command_that_fails_leaves_the_recording_and_says_why(tmp_path: Path, body: str, why: str) -> None:
    timeout = 0.5 if "sleep" in body else 60
    samples, steps = view(TEXT, {"command": program(tmp_path, body), "timeout_s": timeout})
    assert why in steps[0]["skipped"]
    assert len(samples) == SAMPLE_RATE


@pytest.mark.parametrize(
    ("command", "text", "why"),
    [
        ("no-such-program {wav}", TEXT, "'no-such-program' was not found"),
        ("/dev/null {wav}", TEXT, "'/dev/null' cannot be started"),
        ("speak 'it {wav}", TEXT, "cannot be taken apart: No closing quotation"),
        ("echo {text} {wav}", "a\0b", "cannot be started"),
    ],
)
def test_a_command_that_cannot_start_is_a_sentence(command: str, text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        synth.speak(text, synth.Voice(engine="command", name=command))


def test_a_command_that_takes_too_long_ends_with_all_it_started(tmp_path: Path) -> None:
    script = tmp_path / "speak.sh"
    script.write_text(f"sleep 60 & echo $! > {tmp_path}/pid; wait\n")
    with pytest.raises(InputError, match="took over 0.5 s"):
        synth.speak(TEXT, synth.Voice(engine="command", name=f"sh {script} {{wav}}"), timeout_s=0.5)
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    deadline = time.monotonic() + 5
    while stat.exists() and stat.read_text().split()[2] != "Z":  # a zombie, where nobody reaps orphans
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_conditions_have_voices_of_their_own() -> None:
    checks.check({"say": {}}, {"scots": {"say": {"accents": "en-gb-scotland", "foreign_share": 0}}})
    scots = {"accents": "en-gb-scotland", "foreign_share": 0, "variants": "m1"}
    for training in ({}, {"accents": "en-us", "foreign_share": 0}):  # in another accent it is the same timbre
        with pytest.raises(InputError, match=r"conditions\.x\.say: m1 speaks in training too"):
            checks.check({"say": training}, {"x": {"say": scots}})
    checks.check({"say": {"variants": "m2"}}, {"x": {"say": scots}})
    own = {said(str(i), held_out=True)[1]["speaker"] for i in range(6)}
    theirs = {said(str(i))[1]["speaker"] for i in range(6)}
    assert not own & theirs


def test_another_language_is_said_by_its_own_voices_in_its_own_sounds() -> None:
    accents = ["de", "en-us", "fr", "cmn"]
    for label in map(str, range(12)):
        facts = said(label, language="de-AT", accents=accents)[1]
        assert facts["accent"] == "de"
        assert "phonemes" not in facts
    assert said(language="Chinese", accents=accents)[1]["accent"] == "cmn"
    english = {said(str(i), accents=accents, foreign_share=0.0)[1]["accent"] for i in range(12)}
    assert english == {"en-us"}
    with pytest.raises(InputError, match=r"none of `accents` speaks 'de': name eSpeak NG's voices of it"):
        said(language="de")


def test_a_pipeline_without_a_voice_of_its_language_is_refused() -> None:
    german = {"say": {"accents": ["de", "en-us"]}}
    checks.check(german, {"again": german | {"say": {"accents": "de", "foreign_share": 0}}}, language="de")
    checks.check({}, {}, language="de")  # the default chain says nothing again
    checks.check({}, {}, language=None)
    for settings_, conditions in (({"say": {}}, {}), ({"gain": {}}, {"scots": {"say": {}}})):
        with pytest.raises(InputError, match=r"say\.accents: none speaks 'de'; name eSpeak NG's voices of it"):
            checks.check(settings_, conditions, language="de")
        with pytest.raises(InputError, match=r"say: the rows' texts are translations, .* set model\.task"):
            checks.check(settings_, conditions, language=None)


def test_without_espeak_only_what_speaks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise InputError(synth.MISSING_ESPEAK)

    monkeypatch.setattr(synth, "espeak_names", missing)
    with pytest.raises(InputError, match="pip install"):
        checks.check({"say": {}}, {})
    checks.check({"say": {"p": 0}}, {})
    checks.check({}, {})


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"accents": "en-xx"}, r"augment\.say: eSpeak NG has no voice or variant 'en-xx'"),
        ({"variants": "m99"}, "no voice or variant 'm99'"),
        ({"foreign": "tlh"}, "knows the sounds of ar, .*not of tlh"),
        ({"command": "piper"}, r"must hold \{wav\}"),
        ({"substitute": 0.9}, "must lie within 0 to 0.5"),
    ],
)
def test_faults_are_named(table: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        checks.check({"say": table}, {})
