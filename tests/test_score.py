"""The whole score, from rows to a table: what it says, what it refuses, and that files alone repeat it."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from speechft import manifest
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.score import command, nist, tables
from speechft.score.score import score_run, units
from speechft.text import Term

SENTENCES = [
    "start metformin 5 mg today",
    "blood pressure is 120/80 mmHg",
    "the patient is well and at home",
    "use C++ or C# for it",
    "no pain in the left arm",
    "stop insulin glargine at night",
]
TERMS = [Term(term="metformin"), Term(term="insulin glargine"), Term(term="120/80")]


def utterances(spoil: int, **known: Any) -> list[Utterance]:
    """Return 36 rows of 6 speakers; every `spoil`-th word is wrong."""
    rows = []
    position = 0
    for speaker in range(6):
        for number, sentence in enumerate(SENTENCES):
            words = []
            for word in sentence.split():
                position += 1
                words.append("wrong" if position % spoil == 0 else word)
            rows.append(
                Utterance(
                    **{
                        "id": f"s{speaker}-{number}",
                        "audio_filepath": None,
                        "text": sentence,
                        "hypothesis": " ".join(words),
                        "speaker": f"s{speaker}",
                        "duration": 5.0,
                        **known,
                    }
                )
            )
    return rows


def score(before: list[Utterance], after: list[Utterance] | None = None, **settings: Any) -> dict[str, Any]:
    return score_run(before, after, **{"resamples": 300, **settings})


def test_a_real_gain_is_better_and_every_field_is_there() -> None:
    general = utterances(40)
    result = score(
        utterances(2),
        utterances(10),
        general_before=general,
        general_after=general,
        terms=TERMS,
        train_texts=["metformin was started", "blood pressure 120 / 80"],
        forgetting_budget=0.02,
    )
    words = 6 * sum(len(sentence.split()) for sentence in SENTENCES)
    assert result["wer"]["words"] == words
    assert result["wer"]["before"] == pytest.approx((words // 2) / words)
    assert result["wer"]["after"] == pytest.approx((words // 10) / words)
    assert result["wer"]["delta"] == pytest.approx(result["wer"]["after"] - result["wer"]["before"])
    low, high = result["wer"]["delta_ci95"]
    assert low < result["wer"]["delta"] < high < 0
    for name in ("cer", "raw_wer", "whisper_wer", "general_wer", "general_raw_wer", "general_whisper_wer"):
        assert set(result[name]) >= {
            "before",
            "before_ci95",
            "after",
            "after_ci95",
            "delta",
            "delta_ci95",
            "words",
        }
    assert result["verdict"]["outcome"] == "better"
    assert result["verdict"]["general"] == "within_budget"
    assert result["minutes"] == 3.0
    assert result["groups"] == {"count": 6, "what": "speakers", "drawn": "speakers"}
    assert result["normaliser"]["name"] == "jargon-safe"
    assert sum(result["rows"].values()) == 36
    assert result["mapsswe"]["statistic"] > 2
    assert result["terms"]["said"] == 18
    assert result["terms"]["before"]["seen_said"] == 12
    assert result["terms"]["before"]["unseen_said"] == 6
    assert result["terms"]["before"]["false_alarms"] == 0
    assert result["terms"]["recall_delta_ci95"][0] <= result["terms"]["after"]["recall"]
    counts = result["counts"]["before"]
    assert counts["substitutions"] + counts["insertions"] + counts["deletions"] == words // 2
    json.dumps(result, allow_nan=False)


def test_the_same_output_twice_is_no_difference() -> None:
    result = score(utterances(5), utterances(5))
    assert result["verdict"]["outcome"] == "no_difference"
    low, high = result["wer"]["delta_ci95"]
    assert low == -high < 0  # other rows might differ
    assert result["rows"] == {"wins": 0, "losses": 0, "ties": 36}
    assert result["verdict"]["general"] == "not_tested"
    assert result["general_wer"] is None


def test_a_better_test_set_does_not_hide_lost_general_speech() -> None:
    result = score(utterances(2), utterances(10), general_before=utterances(50), general_after=utterances(3))
    assert (result["verdict"]["outcome"], result["verdict"]["general"]) == ("better", "over_budget")
    assert "General speech is worse, over its budget" in result["verdict"]["sentence"]
    assert command.is_worse(result)


def test_worse_rows_come_first() -> None:
    before, after = utterances(50), utterances(50)
    after[7] = dataclasses.replace(after[7], hypothesis="")
    after[3] = dataclasses.replace(after[3], hypothesis=f"{after[3].hypothesis} again and again")
    worst = score(before, after)["worst_rows"]
    assert [entry["id"] for entry in worst] == [after[7].id, after[3].id]
    assert worst[1]["errors"] == {"before": 0, "after": 3}
    assert worst[0]["reference"] == after[7].text


def test_conditions_are_slices_and_not_in_the_rate() -> None:
    clean, noisy = utterances(10), utterances(2, condition="babble5")
    noisy = [dataclasses.replace(row, id=f"{row.id}#babble5") for row in noisy]
    alone, both = score(clean, clean), score(clean + noisy, clean + noisy)
    assert both["wer"] == alone["wer"]
    assert both["minutes"] == alone["minutes"]
    found = {entry["value"]: entry["before"] for entry in both["slices"] if entry["by"] == "condition"}
    assert found["babble5"] > 4 * found["clean"]


def test_one_system_alone() -> None:
    result = score(utterances(4), terms=TERMS)
    assert set(result["wer"]) == {"value", "ci95", "words"}
    assert "verdict" not in result
    assert result["terms"]["value"]["recall"] < 1.0


def test_order_does_not_matter() -> None:
    before, after = utterances(3), utterances(7)
    one, two = score(before, after), score(before[::-1], after)
    assert one["wer"] == two["wer"]
    assert one["verdict"] == two["verdict"]
    assert one["worst_rows"] == two["worst_rows"]


def test_the_pipelines_language_counts_where_rows_name_none() -> None:
    rows = [Utterance(id="a", audio_filepath=None, text="Tokyo に iku", hypothesis="")]
    assert not units(rows).by_character
    counted = units(rows, language="ja")
    assert (counted.by_character, counted.language) == (True, "ja")
    assert counted.split("abcd") == list("abcd")
    assert units([dataclasses.replace(rows[0], lang="de")], language="ja").split("ab cd") == ["ab", "cd"]


def test_japanese_is_judged_by_characters() -> None:
    before = [
        Utterance(id=str(i), audio_filepath=None, text="東京に、行きます", hypothesis="京都に行くます", lang="ja")
        for i in range(20)
    ]
    after = [dataclasses.replace(row, hypothesis="東京に行きます") for row in before]  # the comma is no error
    result = score(before, after, terms=[Term(term="東京")], train_texts=["東京は"])
    assert result["rate"] == "cer"
    assert result["cer"]["characters"] == 140
    assert result["cer"]["before"] == result["slices"][0]["before"] == pytest.approx(3 / 7)
    assert result["counts"]["before"]["substitutions"] == 60
    assert result["whisper_cer"]["before"] == pytest.approx(3 / 7)
    assert result["raw_cer"]["before"] == pytest.approx(4 / 8)
    assert "| slice | before | after | difference in points (95 %) | characters |" in tables.markdown(result)
    assert (result["terms"]["before"]["seen_recall"], result["terms"]["after"]["recall"]) == (0.0, 1.0)
    assert "character error rate" in result["verdict"]["sentence"]
    assert result["verdict"]["outcome"] == "better"


def test_words_on_silence_are_reported_and_not_divided() -> None:
    silent = Utterance(id="quiet", audio_filepath=None, text="", hypothesis="thank you", speaker="s1", duration=1.0)
    better = dataclasses.replace(silent, hypothesis="")
    with_silence = score([*utterances(4), silent], [*utterances(4), better])
    assert with_silence["wer"] == score(utterances(4), utterances(4))["wer"]
    silent_speakers = [dataclasses.replace(silent, id=f"mute{n}", speaker=f"mute{n}") for n in range(9)]
    few = [*(row for row in utterances(4) if row.speaker in ("s0", "s1")), *silent_speakers]
    assert score(few, few)["groups"]["drawn"] == "rows"
    assert with_silence["survival"]["words_on_silence"]["words_before"] == 2
    assert with_silence["counts"]["before"]["invented"] == 2
    assert with_silence["rows"]["wins"] == 1


def test_terms_are_mined_when_none_are_listed() -> None:
    result = score(
        utterances(4),
        general_before=[
            Utterance(id=str(i), audio_filepath=None, text=text, hypothesis=text)
            for i, text in enumerate(["the patient is at home and well for it today"] * 40)
        ],
        train_texts=["start metformin today", "metformin at home", "the metformin is well"],
    )
    assert result["terms"]["mined"]
    assert [row["term"] for row in result["terms"]["per_term"]] == ["metformin"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], r"1 of 36 references have no hypothesis \(ids s0-0\)"),
        (lambda rows: [*rows, rows[0]], 'two rows have the id "s0-0"'),
        (
            lambda rows: [dataclasses.replace(rows[0], id="new"), *rows],
            "1 of 37 hypotheses have no reference",
        ),
        (lambda rows: [dataclasses.replace(rows[0], hypothesis=None), *rows[1:]], '"s0-0" has no hypothesis'),
        (
            lambda rows: [dataclasses.replace(rows[0], text="other"), *rows[1:]],
            "another text before than after",
        ),
        (lambda rows: [], "have no hypothesis"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(utterances(3), change(utterances(3)))


def test_an_empty_test_set_and_half_a_general_set_are_refused() -> None:
    with pytest.raises(InputError, match="the test set has no rows"):
        score([], [])
    with pytest.raises(InputError, match="every test row has a condition"):
        score(utterances(3, condition="noise"))
    with pytest.raises(InputError, match="not after"):
        score(utterances(3), utterances(3), general_before=utterances(3))


def test_the_table_shows_words_and_the_verdict() -> None:
    result = score(
        utterances(2), utterances(10), terms=TERMS, general_before=utterances(9), general_after=utterances(9)
    )
    table = tables.markdown(result)
    assert table.startswith(result["verdict"]["sentence"])
    assert re.search(r"\| word errors \| 50\.0 % \(\d.*\) \| \d+\.\d % \(\d", table)
    assert "term recall" in table
    for line in table.splitlines():
        if line.startswith("| word errors"):
            assert line.rstrip(" |").split("| ")[-1].split()[0].replace(",", "").isdigit(), line
    assert "condition: clean" in tables.markdown(score(utterances(4)))


def write_forms(folder: Path, rows: list[Utterance]) -> dict[str, Path]:
    """Write the same rows as JSON Lines, CSV and .trn."""
    manifest.write(folder / "reference.jsonl", [dataclasses.replace(row, hypothesis=None) for row in rows])
    with (folder / "hypothesis.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([row.id, row.hypothesis] for row in rows)
    lines = [f"{row.hypothesis} ({row.id})\n" for row in rows]
    (folder / "hypothesis.trn").write_text("".join(lines))
    (folder / "reference.trn").write_text("".join(f"{row.text} ({row.id})\n" for row in rows))
    (folder / "terms.txt").write_text("metformin\n120/80\n")
    return {path.name: path for path in folder.iterdir()}


def test_the_command_scores_any_form_and_writes_what_repeats_it(tmp_path: Path) -> None:
    paths = write_forms(tmp_path, utterances(4))
    out = tmp_path / "out"
    first = command.run(
        paths["reference.jsonl"], paths["hypothesis.csv"], terms=paths["terms.txt"], out=out, resamples=200
    )
    second = command.run(paths["reference.trn"], paths["hypothesis.trn"], terms=paths["terms.txt"], resamples=200)
    assert first["wer"] == second["wer"]
    assert second["groups"]["what"] == "speakers"  # from the ids, as sclite reads them
    saved = json.loads((out / "score.json").read_text())
    assert saved["wer"]["value"] == first["wer"]["value"]
    assert len(saved["inputs"]["reference"]["sha256"]) == 64
    assert (out / "table.md").read_text() == first["table"]
    assert (out / "table.md").read_text().count("word errors") >= 2
    again = command.run(out / "reference.trn", out / "before.trn", normaliser="raw", resamples=200)
    assert again["counts"]["value"] == first["counts"]["value"]  # the .trn files hold the normalised words


def test_the_command_compares_two_systems(tmp_path: Path) -> None:
    paths = write_forms(tmp_path, utterances(3))
    manifest.write(tmp_path / "after.jsonl", utterances(12))
    result = command.run(
        paths["reference.jsonl"],
        paths["hypothesis.csv"],
        tmp_path / "after.jsonl",
        out=tmp_path / "o",
        resamples=200,
    )
    assert result["verdict"]["outcome"] == "better"
    assert not command.is_worse(result)
    counts = [json.loads(line) for line in (tmp_path / "o" / "rows.jsonl").read_text().splitlines()]
    assert sum(row["before"]["substitutions"] for row in counts) == result["counts"]["before"]["substitutions"]
    assert [row["id"] for row in counts] == [row.id for row in utterances(3)]
    assert (tmp_path / "o" / "after.trn").exists()
    general = [paths["reference.jsonl"], tmp_path / "after.jsonl", paths["hypothesis.csv"]]
    lost = command.run(
        paths["reference.jsonl"], paths["hypothesis.csv"], tmp_path / "after.jsonl", general=general, resamples=200,
        train=paths["reference.jsonl"], terms=paths["terms.txt"],
    )  # fmt: skip
    assert (lost["verdict"]["outcome"], lost["verdict"]["general"]) == ("better", "over_budget")
    assert command.is_worse(lost)
    assert "words" in lost["verdict"]["sentence"].split("General speech")[1]
    assert lost["terms"]["after"]["seen_said"] > 0
    with pytest.raises(InputError, match="2 hypothesis files, got 2 files"):
        command.run(*general, general=general[:2])
    back = command.run(paths["reference.jsonl"], tmp_path / "after.jsonl", paths["hypothesis.csv"], resamples=200)
    assert command.is_worse(back)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "s0-0", "text": "a"}\n', "35 references have no hypothesis"),
        ('{"id": "s0-0"}\n', "no row has `hypothesis` or `text`"),
    ],
)
def test_the_command_names_the_file_that_does_not_fit(tmp_path: Path, content: str, message: str) -> None:
    paths = write_forms(tmp_path, utterances(4))
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(InputError, match=rf"bad\.jsonl: {message}"):
        command.run(paths["reference.jsonl"], tmp_path / "bad.jsonl")


def test_silence_in_csv_and_alternatives_in_trn(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("id,text\na,one two\nb,\n")
    (tmp_path / "h.csv").write_text("id,text\na,one two\nb,thank you\n")
    result = command.run(tmp_path / "r.csv", tmp_path / "h.csv", resamples=100)
    assert (result["counts"]["silent_rows"], result["counts"]["value"]["invented"]) == (1, 2)
    (tmp_path / "r.trn").write_text("{ c / see } d (a)\n")
    with pytest.raises(InputError, match=r"r\.trn:1: alternatives are not read"):
        command.run(tmp_path / "r.trn", tmp_path / "r.trn")


def test_what_nemo_writes_is_the_output_and_not_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "nemo.jsonl"
    path.write_text('{"id": "1", "text": "x y", "pred_text": "q z"}\n{"id": "2", "text": "z", "pred_text": ""}\n')
    assert command.read_hypotheses(path) == {"1": "q z", "2": ""}
    assert command.run(path, path)["wer"]["value"] == 1.0


def test_a_language_that_no_row_names_can_be_given(tmp_path: Path) -> None:
    for name, said in (("r", "Das ist schön"), ("h", "Das ist schon")):
        (tmp_path / f"{name}.trn").write_text(f"{said} (a_1)\n")
    rates = [
        command.run(tmp_path / "r.trn", tmp_path / "h.trn", language=language)["wer"]["value"]
        for language in (None, "de")
    ]
    assert rates == [0.0, pytest.approx(1 / 3)]


def test_ids_of_trn_stay_what_they_were(tmp_path: Path) -> None:
    (tmp_path / "r.trn").write_text("a b (spk_a)\nc d (spk_b)\n")
    command.run(tmp_path / "r.trn", tmp_path / "r.trn", out=tmp_path / "out")
    assert nist.read_trn(tmp_path / "out" / "before.trn") == {"spk_a": "a b", "spk_b": "c d"}


def test_general_speech_that_is_surely_worse_fails_unless_it_is_surely_within_budget() -> None:
    failing = {"outcome": "better", "general": "unsure"}
    general = {"general_wer": {"delta_ci95": [0.001, 0.02]}}
    assert command.is_worse({"rate": "wer", "verdict": failing} | general)
    assert not command.is_worse({"rate": "wer", "verdict": failing, "general_wer": {"delta_ci95": [-0.001, 0.02]}})
    assert not command.is_worse({"rate": "wer", "verdict": {**failing, "general": "within_budget"}} | general)


def test_scoring_needs_no_torch() -> None:
    code = (
        "import sys; import speechft.score.command, speechft.score.tables; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'evaluate')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
