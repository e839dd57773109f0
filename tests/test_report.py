"""The report: its schema, its page and its Markdown, whole or with parts absent, and never half-written."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import random
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest

from speechft import audio, files, manifest
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.report import charts, collect, examples, facts, lines, write
from speechft.report.pipeline_text import to_toml
from speechft.score.score import score_run
from speechft.score.terms import read_terms

MISHEARD = {"metformin": "met for men", "apixaban": "a pixel ban", "dyspnoea": "disney a", "120/80": "120 over 80"}
SENTENCES = [
    "Start metformin 500 mg twice a day.",
    "No dyspnoea today, pressure 120/80",
    "she takes apixaban for her heart",
    "the wound is clean and dry",
]
GENERAL = ["the old castle is open in summer", "a glass of cold water please", "our flight was late again"]
SETTINGS: dict[str, Any] = {
    "model": {"base": "openai/whisper-tiny.en", "revision": None, "language": "en", "task": "transcribe"},
    "data": {
        "train": ["manifests/train.jsonl"],
        "dev": [],
        "test": ["manifests/test.jsonl"],
        "general": ["manifests/general.jsonl"],
        "terms": None,
        "allow_leaks": [],
    },
    "augment": {"views": 1, "seed": 1, "noise": {"p": 0.7, "snr_db": [3.0, 20.0]}},
    "conditions": {"babble5": {"noise": {"snr_db": [5.0, 5.0]}}},
    "finetune": {"strategy": "decoder", "epochs": 3, "learning_rate": 2e-06, "forgetting_budget": None},
    "score": {"normaliser": "jargon-safe", "seed": 1},
}


def mishear(text: str, rng: random.Random, *, terms: float, words: float) -> str:
    """Write a text as a recogniser might: a share of terms misheard, of other words lost, doubled or changed."""
    written = []
    for word in text.split():
        bare = word.strip(".,").lower()
        if bare in MISHEARD:
            written.append(MISHEARD[bare] if rng.random() < terms else word)
        elif rng.random() < words:
            written += rng.choice([[], [word, word], ["mist"]])
        else:
            written.append(word)
    return " ".join(written)


def utterances(sentences: Sequence[str], folder: Path, *, prefix: str, **known: Any) -> list[Utterance]:
    """Six speakers say each sentence."""
    return [
        Utterance(
            id=f"{prefix}-{speaker}-{number}",
            audio_filepath=folder / "audio of it" / f"{prefix}-{speaker}-{number}.wav",
            text=sentence,
            duration=3.0 + number,
            speaker=f"s{speaker}",
            accent=("Scottish", "US")[speaker % 2],
            **known,
        )
        for speaker in range(6)
        for number, sentence in enumerate(sentences)
    ]


def record(run: Path, name: str, outputs: Sequence[Path] = (), **facts: Any) -> None:
    """Write a stage's record as `files.Stage.finish` does."""
    stage = {
        "stage": name,
        "settings": {},
        "inputs": [],
        "outputs": [files.fingerprint(path) for path in outputs],
        "counts": {"in": 24, "out": 24, "rejected": {}},
        "versions": {"speechft": "0.1.0", "torch": "2.11.0"},
        "git_commit": None,
        "seconds": 75.5,
        "peak_memory_mb": 1200.0,
        **facts,
    }
    files.write_json(run / name / "stage.json", stage)


def build_run(
    run: Path,
    test: Sequence[Utterance],
    general: Sequence[Utterance] = (),
    *,
    terms: Path | None = None,
    hypotheses: Callable[[str, random.Random, str], str] | None = None,
) -> dict[str, Any]:
    """Leave what the stages of a run leave, and return the run's settings; before is worse than after."""
    rng = random.Random(1)
    shares = {"before": (0.9, 0.2), "after": (0.2, 0.08)}

    def said(row: Utterance, side: str) -> Utterance:
        text = row.text or ""
        if hypotheses is not None:
            written = hypotheses(text, rng, side)
        else:
            noisy = 0.1 if row.condition else 0.0
            written = mishear(text, rng, terms=shares[side][0] + noisy, words=shares[side][1] + noisy)
        return dataclasses.replace(row, hypothesis=written)

    held = {side: [said(row, side) for row in test] for side in ("before", "after")}
    if general:
        held |= {f"general_{side}": [said(row, side) for row in general] for side in ("before", "after")}
    for name, rows in held.items():
        manifest.write(run / "transcribe" / f"{name}.jsonl", rows)
    record(run, "transcribe", base_suppresses=["/"], device="cpu, float32")

    manifest.write(run / "ingest" / "test.jsonl", test)
    size = {"minutes": 1.4, "speakers": 6, "words": 150, "silent_rows": 0, "duplicate_texts": 20, "duplicate_audio": 0}
    roles = {"train": size | {"rows": 24}, "dev": size | {"rows": 12}, "test": size | {"rows": len(test)}}
    roles |= {"general_test": size | {"rows": len(general)}} if general else {}
    files.write_json(
        run / "ingest" / "audit.json", {"roles": roles, "leaks": [], "allow_leaks": [], "warnings": {}, "notes": []}
    )
    named = {"path": "/somewhere/manifests/test.jsonl", "size": 1, "mtime_ns": 1, "sha256": "f" * 64}
    record(run, "ingest", [run / "ingest" / "test.jsonl"], inputs=[named])

    point = {"alpha": 1.0, "dev_wer": 0.12, "general_wer": 0.1 if general else None}
    choice = {
        "alpha": 1.0,
        "inside_budget": True,
        "budget": 0.02 if general else None,
        "limit": 0.012 if general else None,
        "best_epoch": 2,
        "dev_wer_before": 0.4,
        "dev_wer": 0.12,
        "general_dev_wer_before": 0.09 if general else None,
        "general_dev_wer": point["general_wer"],
        "points": [point, point | {"alpha": 0.5, "dev_wer": 0.2}],
    }
    files.write_json(run / "finetune" / "choice.json", choice)
    curve = [{"epoch": 0, "step": 0, "dev_wer": 0.4} | ({"general_wer": 0.09} if general else {})]
    curve += [{"epoch": e, "step": 8 * e, "loss": 3.0 / e, "dev_wer": 0.3 / e, "general_wer": 0.1} for e in (1, 2, 3)]
    files.write_jsonl(run / "finetune" / "curve.jsonl", curve)
    recipe = {"strategy": "decoder", "learning_rate": 2e-06, "batch_clips": 16}
    record(run, "finetune", suppressed_released=["/"], trainable=2_945_280, frozen=2_224_128, steps=24, recipe=recipe)

    score = score_run(
        held["before"],
        held["after"],
        general_before=held.get("general_before"),
        general_after=held.get("general_after"),
        terms=read_terms(terms) if terms else None,
        train_texts=[SENTENCES[0]],
        resamples=200,
    )
    files.write_json(run / "score" / "score.json", score)
    record(run, "score", [run / "score" / "score.json"])
    settings = json.loads(json.dumps(SETTINGS))
    settings["data"]["terms"] = str(terms) if terms else None
    if not general:
        settings["data"]["general"] = []
    return settings


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A run with general speech, terms and a condition, on synthetic voices."""
    terms = tmp_path / "terms.txt"
    terms.write_text("metformin\napixaban\ndyspnoea\n120/80\n", encoding="utf-8")
    test = utterances(SENTENCES, tmp_path, prefix="t", extra={"synthetic": True})
    noisy = [dataclasses.replace(row, id=f"{row.id}#babble5", condition="babble5") for row in test]
    general = utterances(GENERAL, tmp_path, prefix="g", extra={"synthetic": True})
    run = tmp_path / "runs" / "demo"
    return run, build_run(run, [*test, *noisy], general, terms=terms)


class Page(html.parser.HTMLParser):
    """What a page holds: tags that stay open, everything it refers to, ids, and its text."""

    VOID = ("meta", "input", "br", "link", "img", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action") and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element, at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def test_schema(whole: tuple[Path, dict[str, Any]]) -> None:
    run, settings = whole
    assert write(collect(run, settings), run) == [run / "report.json", run / "report.md", run / "report.html"]
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    score = files.read_json(run / "score" / "score.json")
    rate_keys = {"before", "before_ci95", "after", "after_ci95", "delta", "delta_ci95", "words"}
    for name in ("wer", "cer", "raw_wer", "whisper_wer", "general_wer"):
        assert rate_keys <= set(report[name]), name
        assert 0.0 <= report[name]["after"] <= 1.0  # a fraction, not per cent
        assert len(report[name]["delta_ci95"]) == 2
    assert report["wer"]["words"] == score["wer"]["words"] > 100
    for side in ("before", "after"):
        keys = {"recall", "precision", "f1", "seen_recall", "unseen_recall", "false_alarms"}
        assert keys <= set(report["terms"][side])
    assert len(report["terms"]["recall_delta_ci95"]) == 2
    assert {entry["by"] for entry in report["slices"]} == {"condition", "accent", "speaker", "duration"}
    assert all({"by", "value", "words", "before", "after", "delta", "delta_ci95"} <= set(s) for s in report["slices"])
    assert {"outcome", "general", "sentence", "minutes_needed"} <= set(report["verdict"])
    assert report["verdict"]["outcome"] == "better"
    assert sum(report["rows"][key] for key in ("wins", "losses", "ties")) == 24
    assert report["survival"]["loops"]["rows"] == 24
    assert report["seconds"] == {"ingest": 75.5, "finetune": 75.5, "transcribe": 75.5, "score": 75.5}
    assert report["model"] | {"recipe": None} == {
        "base": "openai/whisper-tiny.en",
        "revision": None,
        "strategy": "decoder",
        "trainable": 2_945_280,
        "frozen": 2_224_128,
        "licence": "apache-2.0",
        "language": "en",
        "task": "transcribe",
        "weights_sha256": None,
        "steps": 24,
        "recipe": None,
    }
    assert report["data"]["test"]["minutes"] == 1.4
    assert report["data"]["test"]["sha256"] == files.sha256(run / "ingest" / "test.jsonl")
    assert report["data"]["test"]["manifests"] == [{"path": "manifests/test.jsonl", "sha256": "f" * 64}]
    assert report["normaliser"]["name"] == "jargon-safe"
    assert report["suppressed"] == {"released": ["/"], "base_blocks": ["/"], "before_released": None}
    assert report["leaks_allowed"] == []
    assert report["synthetic"] is True
    assert (report["synthetic_rows"], report["reported_rows"]) == (48 + 18, 48 + 18)
    assert [(c["name"], c["rows"]) for c in report["conditions"]] == [("clean", 24), ("babble5", 24)]
    assert report["choice"]["alpha"] == 1.0
    assert [row["epoch"] for row in report["curve"]] == [0, 1, 2, 3]
    assert "examples" not in report  # the transcripts hold the rows


def test_page_is_whole_and_refers_to_nothing_but_audio(whole: tuple[Path, dict[str, Any]]) -> None:
    run, settings = whole
    write(collect(run, settings), run)
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text.replace("\u00a0", " "))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    anchors = [link for link in page.links if link.startswith("#")]
    assert {link[1:] for link in anchors} <= set(page.ids)
    sounds = [link for link in page.links if not link.startswith("#")]
    assert len(sounds) == 66
    assert all(link.startswith("../../audio%20of%20it/") for link in sounds)
    assert not re.search(r"https?:|@import|url\(", text)
    verdict = json.loads((run / "score" / "score.json").read_text())["verdict"]["sentence"]
    assert page.text.index(verdict) < page.text.index("Before and after", page.text.index(verdict))
    assert "All 66 reported rows are synthetic speech" in page.text
    for part in ("Slices", "Terms", "General speech", "Training", "Rows", "Data", "How far to go", "met for men"):
        assert part in page.text
    assert page.tags.count("svg") >= 4 + len(json.loads((run / "report.json").read_text())["slices"])


def test_markdown(whole: tuple[Path, dict[str, Any]]) -> None:
    run, settings = whole
    content = collect(run, settings)
    write(content, run)
    text = (run / "report.md").read_text(encoding="utf-8")
    assert text.startswith(content["verdict"]["sentence"])
    wer = content["wer"]
    cell = f"| {100 * wer['before']:.1f} % ({100 * wer['before_ci95'][0]:.1f} to {100 * wer['before_ci95'][1]:.1f}) |"
    assert f"| word errors {cell}" in text
    assert f"{wer['words']} words |" in text
    assert "| `metformin` |" in text
    assert "| 1 (chosen) | 12.0 % | 10.0 % |" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") - line.count("\\|") for line in table.splitlines()}) == 1, table
    pipeline = tomllib.loads(re.search(r"```toml\n(.*?)```", text, flags=re.DOTALL)[1])  # type: ignore[index]
    assert pipeline["finetune"] == {"strategy": "decoder", "epochs": 3, "learning_rate": 2e-06}
    assert pipeline["conditions"] == SETTINGS["conditions"]


def test_general_speech_is_told_in_what_the_verdict_counts(whole: tuple[Path, dict[str, Any]]) -> None:
    content = collect(*whole)
    words = lines.general(content)
    assert words.of.endswith(" words")
    content |= {"rate": "cer", "general_cer": content["general_wer"] | {"before": 0.25, "characters": 9000}}
    assert (lines.general(content).before, lines.general(content).of) == ("25.0 %", "9,000 characters")
    assert [name for name, _ in lines.headlines(content)][1] == "character errors, general speech"


def test_how_far_is_told_in_what_choosing_may_take(whole: tuple[Path, dict[str, Any]]) -> None:
    content = collect(*whole)
    assert lines.how_far(content).endswith(
        "Chosen: 1, inside the 1.2 points that choosing may take of the forgetting budget of 2.0 on general dev speech."
    )
    content["choice"] |= {"inside_budget": False}
    assert any("kept to the 1.2 points" in note for note in lines.notes(content))
    content["choice"] |= {"inside_budget": True, "budget": None, "limit": None}  # no general speech to forget
    assert lines.how_far(content).endswith("Chosen: 1.")
    content["model"] |= {"strategy": "prompt"}
    assert lines.how_far(content).startswith("Shares of the longest prompt")


def test_markup_in_texts_is_shown_not_run(tmp_path: Path) -> None:
    attack = "<script> alert </script>"
    test = utterances([f"say {attack} & 'go'"], tmp_path, prefix='"><img src=x onerror=alert(2)>')
    run = tmp_path / "run"
    settings = build_run(run, test, hypotheses=lambda text, rng, side: f"{attack} <b>|{side}" * (1 + (side == "after")))
    write(collect(run, settings), run)
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1  # the page's own
    assert "img" not in page.tags
    assert attack not in text
    assert attack in page.text
    assert "\\|after" in (run / "report.md").read_text(encoding="utf-8")


def test_without_general_speech_terms_and_slices(tmp_path: Path) -> None:
    rows = [Utterance(id=f"r{number}", audio_filepath=None, text=SENTENCES[number % 4]) for number in range(8)]
    run = tmp_path / "run"
    settings = build_run(run, rows)
    score = files.read_json(run / "score" / "score.json")
    files.write_json(run / "score" / "score.json", score | {"slices": [], "gaps": []})
    (run / "finetune" / "choice.json").unlink()
    (run / "finetune" / "curve.jsonl").unlink()
    content = collect(run, settings)
    write(content, run)
    assert content["general_wer"] is None
    assert content["terms"] is None
    assert content["synthetic"] is False
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert "synthetic" not in page.text.lower()
    assert "Not tested" in page.text
    assert "audio" not in page.tags
    assert {"slices", "terms", "training"}.isdisjoint(page.ids)
    text = (run / "report.md").read_text(encoding="utf-8")
    assert "## Slices" not in text
    assert "## Terms" not in text


def test_terms_that_nobody_says(tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("zolpidem\n-\n", encoding="utf-8")
    run = tmp_path / "run"
    settings = build_run(run, utterances(SENTENCES, tmp_path, prefix="t"), terms=terms)
    write(collect(run, settings), run)
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert "None of the 1 listed terms is said" in page.text
    assert "as they read as nothing or as another term: -." in page.text
    assert "as another term: `-`." in (run / "report.md").read_text(encoding="utf-8")


def test_silence_and_empty_hypotheses(tmp_path: Path) -> None:
    run = tmp_path / "run"
    test = utterances(["", "good morning"], tmp_path, prefix="t")
    settings = build_run(run, test, hypotheses=lambda text, rng, side: "" if text else "thank you")
    write(collect(run, settings), run)
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert "(silence)" in page.text
    assert "(nothing written)" not in page.text  # its missing words are shown instead
    assert "errors in 0 words" in page.text


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda score: score.pop("verdict"), "lacks verdict; run the score stage again"),
        (lambda score: score["wer"].pop("after_ci95"), "lacks wer.after_ci95;"),
        (lambda score: score["slices"][0].pop("words"), r"lacks slices\[0\].words;"),
        (lambda score: score["terms"]["after"].pop("f1"), "lacks terms.after.f1;"),
        (lambda score: score.update(rows=None), "lacks rows;"),
    ],
)
def test_incomplete_score(whole: tuple[Path, dict[str, Any]], spoil: Callable[[Any], Any], said: str) -> None:
    run, settings = whole
    score = files.read_json(run / "score" / "score.json")
    spoil(score)
    files.write_json(run / "score" / "score.json", score)
    with pytest.raises(InputError, match=said):
        write(collect(run, settings), run)
    assert not list(run.glob("report.*"))


@pytest.mark.parametrize(
    "name", ["score/score.json", "transcribe/after.jsonl", "ingest/audit.json", "finetune/stage.json"]
)
def test_unfinished_run(whole: tuple[Path, dict[str, Any]], name: str) -> None:
    run, settings = whole
    (run / name).unlink()
    with pytest.raises(InputError, match=f"{name}: is not there, so there is nothing to report; run the"):
        collect(run, settings)


def test_nothing_is_written_when_one_part_fails(
    whole: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settings = whole
    content = collect(run, settings)
    before = {path: path.stat().st_mtime_ns for path in write(content, run)}
    monkeypatch.setattr(charts, "bars", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(content, run)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_leaks_are_told_next_to_the_verdict(whole: tuple[Path, dict[str, Any]]) -> None:
    run, settings = whole
    audit = files.read_json(run / "ingest" / "audit.json")
    leak = {"kind": "near_text", "learned": "train", "held_out": "test", "rows": 5, "allowed": True, "excuse": None}
    audit |= {"leaks": [{**leak, "pairs": [["a", "b"]] * 5}], "allow_leaks": ["near_text"]}
    files.write_json(run / "ingest" / "audit.json", audit)
    content = collect(run, settings)
    assert content["leaks"] == [leak]
    assert content["leaks_allowed"] == ["near_text"]
    assert lines.notes(content)[1] == (
        "5 test rows have nearly a text of train (allowed by data.allow_leaks = near_text), so results on test "
        "may look better than they are."
    )


def test_rows_are_worst_first_and_bounded(whole: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    run, settings = whole
    everything = collect(run, settings)["examples"]
    changes = [row["change"] for row in everything["rows"]]
    assert len(changes) == everything["total"] == 66
    assert changes == sorted(changes, reverse=True)
    monkeypatch.setattr(examples, "SHOWN", 9)
    some = collect(run, settings)["examples"]
    assert (len(some["rows"]), some["total"]) == (9, 66)
    kept = [row["change"] for row in some["rows"]]
    assert kept[:3] == changes[:3]
    assert kept[-3:] == changes[-3:]


@pytest.mark.parametrize(
    ("text", "counted", "expected"),
    [
        ("Start, please.", {"Start,": ["start"], "please.": ["please"]}, ["Start,", "please."]),
        ("BP 120 over 80", {"BP": ["bp"], "120 over 80": ["120/80"]}, ["BP", "120 over 80"]),
        ("uh yes - no", {"yes": ["yes"], "no": ["no"]}, ["yes", "no"]),  # leading noise: counted words stand
        ("yes - no", {"yes": ["yes"], "no": ["no"]}, ["yes -", "no"]),
        ("wanna go", {"wanna": ["want", "to"], "go": ["go"]}, ["want", "to", "go"]),
    ],
)
def test_counted_words_keep_how_they_were_written(
    text: str, counted: dict[str, list[str]], expected: list[str]
) -> None:
    whole_text = [word for words in counted.values() for word in words]

    def words(part: str) -> list[str]:
        if part == text:
            return whole_text
        return counted.get(part, ["?"] if part in ("120", "120 over") else [])

    assert examples.as_written(text, words) == expected


def test_rows_without_spaces_are_counted_as_the_score_counts_them(tmp_path: Path) -> None:
    before = [
        Utterance(
            id="r", audio_filepath=tmp_path / "r.wav", text="今日は、晴れです", lang="ja", hypothesis="今日 は 雨です"
        )
    ]
    after = [dataclasses.replace(row, hypothesis="今日は晴れです") for row in before]
    score = score_run(before, after, resamples=100)
    shown = examples.gather(tmp_path, {"before": before, "after": after}, score, terms=None, language=None)["rows"][0]
    assert (shown["errors_before"], shown["words"]) == (round(score["cer"]["before"] * 7), 7) == (2, 7)
    assert shown["errors_after"] == 0


def test_licence_comes_from_the_card(tmp_path: Path) -> None:
    assert [facts.licence_of(f"openai/whisper-{size}") for size in ("small", "large-v3-turbo")] == ["apache-2.0", "mit"]
    assert facts.licence_of(str(tmp_path)) is None
    (tmp_path / "README.md").write_text('---\nlanguage: en\nlicense: "mit"\n---\n# A model\n', encoding="utf-8")
    assert facts.licence_of(str(tmp_path)) == "mit"
    (tmp_path / "README.md").write_text("# A model\nlicense: no header\n", encoding="utf-8")
    assert facts.licence_of(str(tmp_path)) is None


def test_settings_survive_as_toml() -> None:
    settings = {
        "data": {"train": ['a "b"\\c.jsonl', "ü\n\x7f"], "dev": [], "terms": None},
        "conditions": {"far away": {"noise": {"snr_db": [5.0, 5.0], "on": True}}},
        "finetune": {"learning_rate": 2e-06, "epochs": 3},
    }
    expected = json.loads(json.dumps(settings))
    del expected["data"]["terms"]
    assert tomllib.loads(to_toml(settings)) == expected


def test_bars_reach_as_far_as_their_numbers() -> None:
    row = lines.Line(
        name="a", before="20.0 %", after="10.0 %", delta="-10.0", of="9 words",
        values={"before": 0.2, "after": 0.1, "before_ci95": [0.1, 0.4], "after_ci95": None},
    )  # fmt: skip
    drawn = charts.bars([row])
    assert re.findall(r'class="(?:before|after)" x="0" y="\d+" width="([\d.]+)%"', drawn) == ["42.00", "21.00"]
    assert re.findall(r'whisker" x1="([\d.]+)%" x2="([\d.]+)%"', drawn)[0] == ("21.00", "84.00")
    assert ">20 %<" in drawn
    assert charts.bars([]) == ""


def test_a_scale_of_differences_shows_those_there_are() -> None:
    rows = [
        lines.Line(name="a", before="", after="", delta="", of="", values={"delta": d, "delta_ci95": None})
        for d in (0.0, 0.0, 0.0, 0.08, 0.07)
    ]
    assert charts.forest_limit(rows) == 0.08
    assert charts.forest_limit(rows[:3]) == 1.0


def test_plots_need_two_points() -> None:
    assert charts.learning([{"epoch": 0, "dev_wer": 0.5}], 0) == ""
    flat = charts.losses([{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 1.0}])
    assert "nan" not in flat
    assert flat.count('<circle class="loss"') == 2


@pytest.mark.browser
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")
def test_page_in_a_browser(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """The rows are filtered by the page's own script, the audio is found, and nothing overflows a phone."""
    run, settings = whole
    content = collect(run, settings)
    for name in ("before", "general_before"):
        for row in manifest.read(run / "transcribe" / f"{name}.jsonl"):
            audio.write(Path(row.audio_filepath or ""), np.zeros(1600, dtype=np.float32))
    write(content, run)
    script = """
    const filter = document.getElementById("row-filter");
    const shown = () => [...document.querySelectorAll(".row")].filter((row) => !row.hidden);
    const first = shown().length;
    filter.value = "apixaban g-";
    filter.dispatchEvent(new Event("input"));
    const none = shown().length;
    filter.value = "apixaban";
    filter.dispatchEvent(new Event("input"));
    const some = shown();
    const right = some.every((row) => row.textContent.toLowerCase().includes("apixaban"));
    const player = document.querySelector("audio");
    const overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    const say = (sound) => { document.title = ["probe", first, none, some.length, right, overflow, sound].join(" "); };
    player.addEventListener("loadedmetadata", () => say(player.duration));
    player.addEventListener("error", () => say("no sound"));
    player.preload = "metadata";
    player.load();
    """
    assert browser.answer(run / "report.html", script, folder=tmp_path) == "probe 20 0 12 true 0 0.1"
