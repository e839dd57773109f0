"""Rows without recordings: scripts from term lists, spoken rows, and that none becomes dev or test by chance."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechft import audio, cli, config, files, manifest, spoken, stages
from speechft.augment import script, settings, speak
from speechft.errors import InputError
from speechft.ingest.stage import ingest
from speechft.run import Run
from speechft.score.terms import read_terms
from speechft.text import Term

TERMS = [
    Term(term="xqz-12", spoken="ex queue zed twelve"),
    Term(term="metformin", kind="drug"),
    Term(term="ascites", kind="finding"),
]
ROLES = ("train", "dev", "test")


def write(**more: Any) -> dict[str, list[script.Line]]:
    given = {"per_term": 8, "roles": ROLES, "seed": 1, "sentences": [], "terms": TERMS}
    given |= {"carriers": script.read_carriers(None, TERMS)} | more
    return script.write(given.pop("terms"), given.pop("carriers"), given.pop("sentences"), **given)


def test_every_term_is_said_in_sentences_that_no_other_role_has() -> None:
    lines = write()
    carriers = {role: {line.text.replace(line.term or "", "@") for line in lines[role]} for role in ROLES}
    assert (
        not carriers["train"] & carriers["dev"]
        | carriers["train"] & carriers["test"]
        | carriers["dev"] & carriers["test"]
    )
    for term in TERMS:
        texts = [line.text for line in lines["train"] if line.term == term.term]
        assert len(set(texts)) == 8
        assert all(term.term in text for text in texts)
    assert {line.term for line in lines["test"]} == {term.term for term in TERMS}
    assert len({line.id for held in lines.values() for line in held}) == sum(map(len, lines.values()))
    assert write() == lines
    assert write(seed=2) != lines


@pytest.mark.parametrize(("terms", "each"), [(1, 480), (8, 60), (40, 12), (120, 12)])
def test_a_short_list_gets_more_sentences_of_each_term(terms: int, each: int) -> None:
    assert script.default_per_term(terms) == each


def test_a_term_is_written_one_way_and_said_another() -> None:
    line = next(line for line in write()["train"] if line.term == "xqz-12")
    assert "xqz-12" in line.text
    assert "ex queue zed twelve" in line.spoken
    assert "xqz-12" not in line.spoken


def test_templates_of_a_kind_carry_terms_of_that_kind() -> None:
    lines = write(per_term=200)["train"]
    assert all(line.term == "metformin" for line in lines if "pharmacy" in line.text)
    assert any("pharmacy" in line.text for line in lines)
    assert not any(line.text.startswith("drug:") for line in lines)


def test_a_list_changes_only_its_own_lines() -> None:
    alone = write(terms=TERMS[:1])["train"]
    assert [line for line in write()["train"] if line.term == "xqz-12"] == alone


def test_users_sentences_and_templates(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("one sentence\n# a note\n\nanother: one\n")
    (tmp_path / "s.jsonl").write_text('{"id": "a", "text": "5 mg", "spoken": "five milligrams"}\n')
    plain, rows = (script.read_sentences(tmp_path / name) for name in ("s.txt", "s.jsonl"))
    assert [line.text for line in plain] == ["one sentence", "another: one"]
    assert (rows[0].id, rows[0].text, rows[0].spoken) == ("synth-a", "5 mg", "five milligrams")
    assert write(sentences=plain)["train"][:2] == plain
    (tmp_path / "t.txt").write_text("say {term}\nthe slot is missing\n")
    with pytest.raises(InputError, match=r"t\.txt:2: a template needs \{term\}"):
        script.read_carriers(tmp_path / "t.txt", TERMS)
    (tmp_path / "t.txt").write_text("say {term}\ndrug: give {term}\n")
    few = script.read_carriers(tmp_path / "t.txt", TERMS)
    assert [carrier.kind for carrier in few] == [None, "drug"]
    assert len(write(carriers=few, roles=("train",))["train"]) == 24
    with pytest.raises(InputError, match="6 sentences for terms of any kind are needed"):
        write(carriers=few)
    (tmp_path / "bad.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl:1: `text` must be"):
        script.read_sentences(tmp_path / "bad.jsonl")
    with pytest.raises(InputError, match=r"absent\.txt: cannot be read"):
        script.read_sentences(tmp_path / "absent.txt")


def test_a_term_list_may_say_how_to_say_it(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"term": "B12", "spoken": "bee twelve"}\n')
    assert read_terms(tmp_path / "t.jsonl")[0].spoken == "bee twelve"
    (tmp_path / "t.jsonl").write_text('{"term": "B12", "spoken": 12}\n')
    with pytest.raises(InputError, match=r"t\.jsonl:1: `spoken` must be text"):
        read_terms(tmp_path / "t.jsonl")


def test_rows_are_marked_and_repeat_for_any_workers(tmp_path: Path) -> None:
    lines = write(per_term=1)
    given = {"voices": settings.Voices(), "seed": 1}
    one, rejects = speak.speak(lines["train"], role="train", out=tmp_path / "one", processes=1, **given)
    two, _ = speak.speak(lines["train"][::-1], role="train", out=tmp_path / "two", processes=2, **given)
    assert not rejects
    assert all(row.extra["synthetic"] and row.split == "train" and row.extra["term"] for row in one)
    for row, again in zip(one, two[::-1], strict=True):
        np.testing.assert_array_equal(audio.read(row.audio_filepath or ""), audio.read(again.audio_filepath or ""))
    voices = {role: speak.speak(lines[role], role=role, out=tmp_path / role, **given)[0] for role in ROLES}
    heard = [{(row.speaker or "").rsplit("-", 1)[1] for row in rows} for rows in voices.values()]
    assert not heard[0] & heard[1] | heard[0] & heard[2] | heard[1] & heard[2]


def test_another_language_is_spoken_by_its_own_voices_in_every_role(tmp_path: Path) -> None:
    lines = write(per_term=1)
    german = settings.Voices(accents=("de",))
    for role in ROLES:
        rows, rejects = speak.speak(
            lines[role][:3], role=role, voices=german, seed=1, out=tmp_path / role, language="de"
        )
        assert not rejects
        assert {(row.lang, row.accent) for row in rows} == {("de", "de")}
    _, rejects = speak.speak(lines["dev"], role="dev", voices=settings.Voices(), seed=1, out=tmp_path, language="de")
    assert len(rejects) == len(lines["dev"])
    assert "none of `accents` speaks 'de'" in rejects[0].detail


def test_failures_are_counted_by_row_and_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "speak.py"
    program.write_text(
        "import sys, numpy, soundfile\ntext = sys.stdin.read()\n"
        "if 'xqz' in text or 'queue' in text: sys.exit('cannot say that')\n"
        "soundfile.write(sys.argv[1], 0.1 * numpy.sin(numpy.arange(9000) / 9), 16000)\n"
    )
    voices = settings.check_voices({"command": f"{shlex.quote(sys.executable)} {program} {{wav}}"})
    lines = write(per_term=1)["train"]
    rows, rejects = speak.speak(lines, role="train", voices=voices, seed=1, out=tmp_path / "out")
    assert (len(rows), len(rejects)) == (2, 1)
    assert "cannot say that" in rejects[0].detail
    assert rejects[0].row["text"] == lines[0].text
    assert {row.speaker for row in rows} == {f"command-{Path(sys.executable).name}"}
    program.write_text(program.read_text().replace("sys.exit('cannot say that')", "pass"))
    assert len(speak.speak(lines, role="train", voices=voices, seed=1, out=tmp_path / "out")[0]) == 3


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "terms.txt").write_text("flibanserin\nzolpidem\n")
    path = tmp_path / "p.toml"
    path.write_text(f'[data]\nterms = "{tmp_path / "terms.txt"}"\n[synth]\nper_term = 2\n')
    return Run(config.load(path), tmp_path / "runs" / "p")


def test_a_term_list_alone_makes_all_roles(run: Run) -> None:
    assert stages.ingest(run)
    counts = [len(run.rows(role)) for role in ROLES]
    assert counts[0] == 4
    assert min(counts[1:]) >= 10  # two terms, each in every sentence that is kept for checking
    assert all(row.extra["synthetic"] for role in ROLES for row in run.rows(role))
    assert not spoken.synth(run)
    assert not stages.ingest(run)


@pytest.mark.parametrize("where", ["synth.voices", "augment.say"])
def test_nobody_who_says_test_rows_says_training_rows(run: Run, tmp_path: Path, where: str) -> None:
    voices = f'[{where}]\naccents = "en-us"\nvariants = ["m1", "{speak.CHECKING_VARIANTS["test"][0]}"]\n'
    (tmp_path / "p.toml").write_text((tmp_path / "p.toml").read_text() + voices)
    shared = Run(config.load(tmp_path / "p.toml"), run.dir)
    with pytest.raises(InputError, match=rf"{where}\.variants: \w+ says the test rows of \[synth\]; leave it out"):
        shared.check_transforms()
    own = Run(config.load(tmp_path / "p.toml", ["data.dev=dev.jsonl", "data.test=test.jsonl"]), run.dir)
    own.check_transforms()


def test_sentences_of_one_name_are_refused_before_anything_is_said(run: Run, tmp_path: Path) -> None:
    for folder in ("mine", "everyday"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "lines.txt").write_text(f"a sentence of {folder}\n")
    named = [f"synth.sentences={tmp_path}/mine/lines.txt", f"synth.replay={tmp_path}/everyday/lines.txt"]
    with pytest.raises(InputError, match="2 sentences would be called 'synth-lines-00001'"):
        spoken.synth(Run(config.load(tmp_path / "p.toml", named), run.dir))
    assert not (run.dir / "synth").exists()


def test_voices_accents_and_rates_are_drawn_for_each_sentence(tmp_path: Path) -> None:
    words = {"text": "the same words", "spoken": "the same words"}
    same = [dataclasses.replace(line, **words) for line in write(per_term=6)["train"]]
    rows, _ = speak.speak(same, role="train", voices=settings.Voices(), seed=1, out=tmp_path)
    assert len({row.speaker for row in rows}) > len(rows) / 2
    assert len({row.accent for row in rows}) > 3
    by_voice = {"foreign_share": 0.0, "accents": ("en-us",), "variants": ("m1",)}
    rows, _ = speak.speak(same, role="train", voices=settings.Voices(**by_voice), seed=1, out=tmp_path / "one")
    lengths = [row.duration or 0.0 for row in rows]
    assert max(lengths) > 1.15 * min(lengths)  # rates of 0.8 to 1.2


def test_lines_that_cannot_be_said_are_listed_even_when_they_stop_the_stage(run: Run, tmp_path: Path) -> None:
    program = tmp_path / "speak.py"
    program.write_text("raise SystemExit('no voice')")
    command = f"{shlex.quote(sys.executable)} {program} {{wav}}"
    more = f"[synth.voices]\ncommand = {json.dumps(command)}\n"
    (tmp_path / "p.toml").write_text((tmp_path / "p.toml").read_text() + more)
    broken = Run(config.load(tmp_path / "p.toml"), run.dir)
    with pytest.raises(InputError, match=r"4 of 4 train lines could not be said, .* = 0\.05 allows.*rejects\.jsonl"):
        spoken.synth(broken)
    rejects = files.read_jsonl(run.dir / "synth" / "rejects.jsonl")
    assert len(rejects) == 4
    assert all("no voice" in reject["detail"] for reject in rejects)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ('language = "de"', r"synth\.voices\.accents: none speaks 'de'; name eSpeak NG's voices of it$"),
        (
            'language = "de"\n[synth.voices]\ncommand = "piper -f {wav}"',
            r"none speaks 'de'; .* \(they say dev and test",
        ),
        ('language = "de"\n[synth.voices]\naccents = "de"', "the shipped sentences are English; .* in 'de'"),
        ('task = "translate"', "synth: a voice would speak the translation"),
    ],
)
def test_english_sentences_are_not_taken_for_another_language(run: Run, tmp_path: Path, model: str, why: str) -> None:
    (tmp_path / "p.toml").write_text((tmp_path / "p.toml").read_text() + f'[model]\nbase = "some/whisper"\n{model}\n')
    with pytest.raises(InputError, match=why):
        spoken.synth(Run(config.load(tmp_path / "p.toml"), run.dir))


def test_synthetic_rows_are_never_drawn_for_dev(run: Run, tmp_path: Path) -> None:
    """With the user's recordings to split, what synth said stays in train."""
    spoken.synth(run)
    recorded = []
    for index in range(12):
        audio.write(tmp_path / f"{index}.wav", np.random.default_rng(index).uniform(-0.3, 0.3, 16000).astype("f4"))
        recorded.append(manifest.Utterance(
            id=f"r{index}", audio_filepath=tmp_path / f"{index}.wav", text=f"{'abcdefghijkl'[index] * 3} said so",
            speaker=f"s{index}",
        ))  # fmt: skip
    manifest.write(tmp_path / "mine.jsonl", recorded)
    out = tmp_path / "out"
    ingest(
        {"train": [tmp_path / "mine.jsonl", run.dir / "synth" / "train.jsonl"]}, out=out, allow_leaks=["near_text"],
        max_rejected_share=0.0, general_dev_share=0.3, split_by=None, seed=1, train_share=1.0,
    )  # fmt: skip
    train, dev = (manifest.read(out / f"{role}.jsonl") for role in ("train", "dev"))
    assert dev
    assert not any(row.extra.get("synthetic") for row in dev)
    assert sum(bool(row.extra.get("synthetic")) for row in train) == 4


def test_the_command_shows_one_view_again(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--pipeline", str(tmp_path / "p.toml"), "--runs", str(tmp_path / "runs"), "--set", "augment.views=1"]
    more += ["--set", "augment.say.p=1", "--set", "augment.telephone.p=1", "--set", "augment.balance_by=term"]
    assert cli.main(["augment", *more]) == 0
    folder = run.dir / "augment"
    assert (folder / "preview.html").stat().st_size > 10_000
    record = files.read_json(folder / "stage.json")
    assert (record["recorded"], record["said_again"], record["left_out"]) == (4, 4, {})
    assert record["drawn_shares"] == {"term": {"flibanserin": 0.5, "zolpidem": 0.5}}
    view = manifest.read(folder / "train.jsonl")[-1]
    assert cli.main(["augment", *more, "--show", view.id]) == 0
    shown = capsys.readouterr().out
    assert "the same, sample for sample" in shown
    assert str(run.dir / "show" / "view-1") in shown
    assert cli.main(["augment", *more, "--show", "nobody#view1"]) == 2
    assert "no training row has the id 'nobody'" in capsys.readouterr().err


def test_replay_text_becomes_general_speech_for_training_only(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("xqz-12\n")
    (tmp_path / "everyday.txt").write_text("a walk by the river\nthe bread was still warm\n")
    (tmp_path / "p.toml").write_text(
        f'[data]\nterms = "{tmp_path / "terms.txt"}"\n'
        f'[synth]\nper_term = 3\nreplay = "{tmp_path / "everyday.txt"}"\n'
        f"[synth.voices]\nforeign_share = 0.0\n"
    )
    run = Run(config.load(tmp_path / "p.toml"), tmp_path / "run")
    stages.ingest(run)
    assert sorted(row.text or "" for row in run.rows("general_train")) == [
        "a walk by the river", "the bread was still warm",
    ]  # fmt: skip
    assert all(row.extra["synthetic"] for row in run.rows("general_train"))
    assert not run.rows("general_test")
    assert {row.extra["term"] for row in run.rows("train")} == {"xqz-12"}
