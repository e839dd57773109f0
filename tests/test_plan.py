"""Views and conditions: the same for any order and process, with the numbers that were used."""

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechft import audio
from speechft.audio import SAMPLE_RATE
from speechft.augment import checks, plan, recordings, room, views
from speechft.augment.recordings import Recording
from speechft.augment.settings import check_voices
from speechft.augment.sources import Materials
from speechft.errors import InputError
from speechft.manifest import Utterance

RATE = SAMPLE_RATE
ALL: dict[str, dict[str, Any]] = {
    "speed": {"p": 1}, "tempo": {"p": 1}, "pitch": {"p": 1}, "formants": {"p": 1}, "contour": {"p": 1},
    "rhythm": {"p": 1}, "room": {"p": 1}, "noise": {"p": 1, "kinds": ["pink", "white", "hum"]},
    "clip": {"p": 1}, "band": {"p": 1}, "telephone": {"p": 1}, "codec": {"p": 1}, "gain": {"p": 1},
}  # fmt: skip


def tone(hz: float, *, duration_s: float = 1.0, peak: float = 0.3) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hz * np.arange(round(duration_s * RATE)) / RATE)).astype(np.float32)


def power_at(samples: np.ndarray, hz: float) -> float:
    """Share of a one-second clip's power in the bin at `hz` and the next ones."""
    power = np.abs(np.fft.rfft(samples[:RATE] * np.hanning(RATE))) ** 2
    return float(power[round(hz) - 2 : round(hz) + 3].sum() / power.sum())


@pytest.fixture(scope="module")
def rooms() -> Materials:
    response = np.zeros(2000, np.float32)
    response[[40, 700, 1900]] = 1.0, 0.4, 0.1
    bank = room.Bank(responses=[response] * 3, direct=[40] * 3, rt60_s=[0.2, 0.3, math.nan], facts=[{}] * 3)
    return Materials(rooms=bank)


@pytest.fixture
def talkers(tmp_path: Path) -> Materials:
    """Speaker a talks at 500 Hz, b at 1500 Hz, c at 2500 Hz."""
    spoken = {}
    for speaker, hz in {"a": 500, "b": 1500, "c": 2500}.items():
        soundfile.write(tmp_path / f"{speaker}.wav", tone(hz), RATE)
        spoken[speaker] = [
            Recording(path=tmp_path / f"{speaker}.wav", duration_s=1.0, id=f"{speaker}1", speaker=speaker)
        ]
    return Materials(talkers=spoken)


def view(
    samples: np.ndarray, settings: dict[str, Any], materials: Materials, *, id: str = "r1", view: int = 1,
    seed: int = 1, speaker: str | None = None,
) -> tuple[np.ndarray, list[plan.Step]]:  # fmt: skip
    return plan.apply(
        samples,
        utterance_id=id,
        view=view,
        settings=settings,
        seed=seed,
        materials=materials,
        speaker=speaker,
    )


def test_view_0_is_the_clean_row(rooms: Materials) -> None:
    samples = tone(440)
    clean, steps = view(samples, ALL, rooms, view=0)
    np.testing.assert_array_equal(clean, samples)
    assert steps == []


def test_steps_come_in_order_with_their_numbers(rooms: Materials) -> None:
    samples, steps = view(tone(440), ALL, rooms)
    names = [step["name"] for step in steps]
    assert [name for name in names if name != "limit"] == list(ALL)
    numbers = {step["name"]: step for step in steps}
    assert len(samples) == round(round(RATE / numbers["speed"]["speed"]) / numbers["tempo"]["tempo"])
    assert numbers["noise"]["measured_snr_db"] == pytest.approx(numbers["noise"]["snr_db"], abs=0.1)
    assert rooms.rooms is not None
    measured = rooms.rooms.rt60_s[numbers["room"]["room"]]
    assert numbers["room"]["rt60_s"] == (measured if math.isfinite(measured) else None)
    assert json.loads(json.dumps(steps, allow_nan=False)) == steps


@pytest.mark.parametrize("samples", [tone(300, duration_s=0.04), np.zeros(RATE, np.float32)])
def test_what_a_clip_has_no_voice_for_is_told(samples: np.ndarray) -> None:
    settings = {"tempo": {"p": 1}, "pitch": {"p": 1}, "formants": {"p": 1}}
    made, steps = view(samples, settings, Materials())
    assert len(made) == round(len(samples) / steps[0]["tempo"])
    assert ["skipped" in step for step in steps] == [False, True, True]


def test_draws_depend_on_seed_row_and_view_alone(rooms: Materials) -> None:
    samples = tone(440, duration_s=0.3)
    keys = [("r1", 1, 1), ("r1", 2, 1), ("r2", 1, 1), ("r1", 1, 2)]
    first = {key: view(samples, ALL, rooms, id=key[0], view=key[1], seed=key[2]) for key in keys}
    again = {key: view(samples, ALL, rooms, id=key[0], view=key[1], seed=key[2]) for key in reversed(keys)}
    for key in keys:
        np.testing.assert_array_equal(first[key][0], again[key][0])
        assert first[key][1] == again[key][1]
    assert len({json.dumps(steps) for _, steps in first.values()}) == len(keys)


def test_another_process_makes_the_same_view() -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from speechft.augment import plan\n"
        "settings = {'tempo': {'p': 1}, 'noise': {'p': 1, 'kinds': 'brown'}, 'telephone': {'p': 1}}\n"
        "samples = np.sin(np.arange(8000, dtype=np.float32) / 7) * np.float32(0.3)\n"
        "made, steps = plan.apply(\n"
        "    samples, utterance_id='r9', view=3, settings=settings, seed=5, materials=plan.Materials()\n"
        ")\n"
        "told = [hashlib.sha256(made.tobytes()).hexdigest(), steps]"
    )
    here: dict[str, Any] = {}
    exec(program, here)
    there = subprocess.run(
        [sys.executable, "-c", program + "\nprint(told)"], capture_output=True, text=True, check=True
    ).stdout
    assert there.strip() == str(here["told"])
    assert "brown" in there


def test_changing_one_transform_leaves_the_others_numbers(rooms: Materials) -> None:
    def others(settings: dict[str, Any]) -> list[plan.Step]:
        steps = view(tone(440), settings, rooms)[1]
        return [step for step in steps if step["name"] in ("tempo", "gain", "room")]

    ours = {name: ALL[name] for name in ("tempo", "room", "noise")}
    changed = {**ours, "noise": {"p": 1, "kinds": "white", "snr_db": 30}, "codec": {"p": 1}}
    assert others(ours) == others(changed)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_p_is_how_often_a_transform_happens(p: float) -> None:
    samples = tone(440, duration_s=0.01)
    count = sum(bool(view(samples, {"gain": {"p": p}}, Materials(), id=f"r{i}")[1]) for i in range(1000))
    assert count == pytest.approx(1000 * p, abs=45)  # three standard deviations


def test_snr_from_a_number_a_range_and_a_list() -> None:
    def drawn(snr_db: Any) -> list[float]:
        settings = {"noise": {"p": 1, "kinds": "white", "snr_db": snr_db}}
        return [view(tone(440), settings, Materials(), id=f"r{i}")[1][0]["snr_db"] for i in range(40)]

    assert set(drawn(7)) == {7.0}
    assert set(drawn([0, 5, 10])) == {0.0, 5.0, 10.0}
    spread = drawn([0, 10])
    assert 0 <= min(spread) < 2
    assert 8 < max(spread) <= 10


def test_babble_is_never_the_rows_own_speaker(talkers: Materials) -> None:
    settings = {"noise": {"p": 1, "kinds": "babble", "snr_db": 0, "talkers": [2, 5]}}
    for index in range(10):
        noisy, steps = view(tone(3500), settings, talkers, id=f"r{index}", speaker="b")
        assert steps[0]["kind"] == "babble"
        assert set(steps[0]["talkers"]) <= {"a1", "c1"}
        assert 2 <= len(steps[0]["talkers"]) <= 5
        assert power_at(noisy, 1500) < 1e-3
        assert power_at(noisy, 500) + power_at(noisy, 2500) > 0.4


def test_rows_of_unknown_speakers_get_other_noise_than_the_rows_babble(talkers: Materials) -> None:
    settings = {"noise": {"p": 1, "kinds": ["babble", "pink"]}}
    assert {view(tone(440), settings, talkers, id=f"r{i}")[1][0]["kind"] for i in range(10)} == {"pink"}
    samples, steps = view(tone(440), {"noise": {"p": 1, "kinds": "babble"}}, talkers)
    np.testing.assert_array_equal(samples, tone(440))
    assert steps[0]["skipped"] == "babble: nobody else's speech"
    named = Materials(talkers=talkers.talkers, talkers_named=True)
    assert view(tone(440), {"noise": {"p": 1, "kinds": "babble"}}, named)[1][0]["kind"] == "babble"


def test_recorded_noise_is_named_and_broken_files_are_passed_over(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "fan.wav", tone(2000, duration_s=0.4), RATE)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(RATE), RATE)
    noises = [Recording(path=tmp_path / f"{name}.wav", duration_s=0.4, id=name) for name in ("fan", "gone", "nothing")]
    settings = {"noise": {"p": 1, "kinds": "recorded", "from": str(tmp_path), "snr_db": 0}}
    kinds = []
    for index in range(10):
        noisy, steps = view(tone(440), settings, Materials(recordings=noises), id=f"r{index}")
        kinds.append(steps[0].get("source"))
        if steps[0]["kind"] == "recorded":
            assert power_at(noisy, 2000) == pytest.approx(0.5, abs=0.05)
    assert set(kinds) <= {"fan", None}
    assert kinds.count("fan") >= 6
    samples, steps = view(tone(440), settings, Materials(recordings=noises[1:]))
    np.testing.assert_array_equal(samples, tone(440))
    assert steps[0]["skipped"] == "recorded: no recording that is not broken or silent"


def test_a_condition_is_fixed_and_complete(talkers: Materials) -> None:
    settings = {"noise": {"kinds": "babble", "snr_db": 5}}

    def made(name: str, **more: Any) -> tuple[np.ndarray, list[plan.Step]]:
        arguments = {
            "settings": settings,
            "utterance_id": "r1",
            "seed": 1,
            "materials": talkers,
            "speaker": "a",
        }
        return plan.condition(tone(440), name=name, **{**arguments, **more})

    noisy, steps = made("babble")
    assert (steps[0]["kind"], steps[0]["snr_db"]) == ("babble", 5.0)
    assert steps[0]["measured_snr_db"] == pytest.approx(5, abs=0.1)
    np.testing.assert_array_equal(noisy, made("babble")[0])
    assert not np.array_equal(noisy, made("other")[0])
    assert not np.array_equal(noisy, view(tone(440), {"noise": {**settings["noise"], "p": 1}}, talkers, speaker="a")[0])
    with pytest.raises(InputError, match=r"r1: no babble noise, as there is nobody else's speech"):
        made("babble", speaker=None)
    with pytest.raises(InputError, match=r"conditions\.quiet: names no transform"):
        made("quiet", settings={})


@pytest.mark.parametrize("count", [0, 1, 160, 1600, 16001])
@pytest.mark.parametrize("peak", [0.0, 0.3, 1.0])
def test_every_length_and_level_survives_everything(rooms: Materials, count: int, peak: float) -> None:
    samples = tone(300, duration_s=count / RATE, peak=peak)
    for number in range(1, 4):
        made, _ = view(samples, ALL, rooms, view=number)
        assert np.isfinite(made).all()
        assert made.dtype == np.float32
        assert np.abs(made).max(initial=0.0) <= 1.0
    same_length = {name: table for name, table in ALL.items() if name not in ("speed", "tempo")}
    assert view(samples, same_length, rooms)[0].shape == samples.shape


def test_an_empty_clip_has_nothing_done_to_it(rooms: Materials) -> None:
    assert view(np.zeros(0, np.float32), ALL, rooms)[1] == []


def test_overshoot_of_a_filter_is_scaled_down_and_recorded() -> None:
    square = np.sign(tone(300)).astype(np.float32)  # full scale; without its upper harmonics it overshoots
    made, steps = view(square, {"band": {"p": 1, "low_hz": 0, "high_hz": 3500}}, Materials())
    assert [step["name"] for step in steps] == ["band", "limit"]
    assert steps[1]["gain_db"] < -0.5
    assert np.abs(made).max() == pytest.approx(0.99, abs=1e-4)


def test_one_voice_talks_in_different_words(tmp_path: Path) -> None:
    spoken = []
    for index in range(4):
        soundfile.write(tmp_path / f"{index}.wav", tone(500 + 500 * index), RATE)
        spoken.append(Recording(path=tmp_path / f"{index}.wav", duration_s=1.0, id=f"u{index}", speaker="a"))
    settings = {"noise": {"p": 1, "kinds": "babble", "talkers": 4}}
    materials = Materials(talkers={"a": spoken}, talkers_named=True)
    step = view(tone(3500), settings, materials)[1][0]
    assert sorted(step["talkers"]) == ["u0", "u1", "u2", "u3"]


def test_input_is_left_alone(rooms: Materials) -> None:
    samples = tone(300)
    samples.flags.writeable = False
    view(samples, ALL, rooms)


def test_no_settings_mean_the_default_chain(rooms: Materials) -> None:
    names = {step["name"] for i in range(30) for step in view(tone(300, duration_s=0.1), {}, rooms, id=f"r{i}")[1]}
    assert {"tempo", "room", "noise", "gain"} <= names


def test_materials_that_do_not_fit_are_named() -> None:
    with pytest.raises(InputError, match="the materials hold none"):
        view(tone(300), {"room": {"p": 1}}, Materials())


def test_materials_are_made_for_views_and_for_conditions(talkers: Materials, tmp_path: Path) -> None:
    rows = [
        Utterance(id=talk.id, audio_filepath=talk.path, text="x", speaker=talk.speaker)
        for talks in talkers.talkers.values()
        for talk in talks
    ]
    settings = {"noise": {"p": 1, "kinds": "babble"}, "gain": {}}
    made = plan.materials(rows, settings=settings, seed=1, bank=tmp_path / "rooms.npz")
    assert list(made.talkers) == ["a", "b", "c"]
    assert view(tone(440), settings, pickle.loads(pickle.dumps(made)), speaker="a")[1][0]["kind"] == "babble"
    # Without rows it is a condition, which must name its own voices.
    with pytest.raises(InputError, match="babble_from"):
        plan.materials((), settings=settings, seed=1, bank=tmp_path / "rooms.npz")
    named = {"noise": {"kinds": "babble", "babble_from": str(tmp_path)}}
    assert plan.materials((), settings=named, seed=1, bank=tmp_path / "rooms.npz", condition="babble").talkers_named


def test_a_noise_file_that_fails_in_its_middle_is_told_with_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = recordings.read_stretch

    def fails(recording: Recording, *given: Any, **more: Any) -> Any:
        if recording.id == "bad":
            raise audio.AudioError("unreadable", f"{recording.path}: is cut short")
        return read(recording, *given, **more)

    monkeypatch.setattr(recordings, "read_stretch", fails)
    soundfile.write(tmp_path / "good.wav", np.random.default_rng(1).uniform(-0.1, 0.1, 32000), SAMPLE_RATE)
    held = Materials(
        recordings=[Recording(path=tmp_path / "good.wav", id=name, duration_s=2.0) for name in ("bad", "good")]
    )
    steps = [view(tone(440), {"noise": {"p": 1, "kinds": "recorded", "from": "x"}}, held, id=f"r{i}")[1][0]
             for i in range(20)]  # fmt: skip
    failed = [name for step in steps for name in step.get("unreadable", ())]
    assert set(failed) == {"bad"}
    assert {step.get("source", "good") for step in steps} == {"good"}
    rows = [Utterance(id=str(n), audio_filepath=None, text="x", transform=[step]) for n, step in enumerate(steps)]
    tally = views.Tally(by=None)
    assert len(list(tally.counted(rows))) == tally.rows == 20
    assert tally.facts()["noise_unreadable"] == {"bad": len(failed)}


def test_everything_is_checked_before_a_run(tmp_path: Path) -> None:
    training = {"noise": {"from": str(tmp_path / "street")}}
    checks.check(training, {"cafe": {"noise": {"from": str(tmp_path / "cafe")}}, "phone": {"telephone": {}}})
    with pytest.raises(InputError, match=r"conditions\.street: .*street is used in training too"):
        checks.check(training, {"street": {"noise": {"from": str(tmp_path / "street")}}})
    data = {role: [tmp_path / f"{role}.jsonl"] for role in ("train", "dev", "test")}
    for role in ("dev", "test"):
        with pytest.raises(InputError, match=rf"augment: .*{role}\.jsonl is what data\.{role} names"):
            checks.check({"noise": {"babble_from": str(tmp_path / f"{role}.jsonl")}}, {}, data=data)
    own = {"cafe": {"noise": {"kinds": "babble", "babble_from": str(tmp_path / "train.jsonl")}}}
    with pytest.raises(InputError, match=r"conditions\.cafe: .*train\.jsonl is used in training too"):
        checks.check({}, own, data=data)
    shared_out = {role: [tmp_path / "all.jsonl"] for role in data}  # by `split`, which babble heeds
    checks.check({"noise": {"babble_from": str(tmp_path / "all.jsonl")}}, {}, data=shared_out)
    speaking = check_voices({"accents": ["en-us"], "variants": ["m4"]})
    spoken = {"voice": {"say": {"accents": "en-us", "variants": ["m4"], "foreign_share": 0.0}}}
    checks.check({"gain": {}}, spoken)
    with pytest.raises(InputError, match=r"conditions\.voice\.say: m4 speaks in training too"):
        checks.check({"gain": {}}, spoken, synth_voices=speaking)
    with pytest.raises(InputError, match=r"synth\.voices: eSpeak NG has no voice or variant 'F3'"):
        checks.check({"gain": {}}, {}, synth_voices=check_voices({"accents": ["en-us"], "variants": ["F3"]}))
    with pytest.raises(InputError, match=r"conditions\.x\.nose: there is no such transform"):
        checks.check({}, {"x": {"nose": {}}})
    with pytest.raises(InputError, match=r"augment\.nose: there is no such transform"):
        checks.check({"nose": {}}, {})
