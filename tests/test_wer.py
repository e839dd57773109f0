"""Error counts: by hand, against jiwer, and against NIST's sclite."""

from __future__ import annotations

from pathlib import Path

import jiwer
import pytest
from score_pairs import SCLITE, random_pairs, sclite_counts

from speechft.errors import InputError
from speechft.score import nist, wer
from speechft.score.metric import WordErrors


def count(reference: str, hypothesis: str) -> wer.Errors:
    (row,) = wer.align({"a": reference}, {"a": hypothesis}, str.split)
    return row.errors


@pytest.mark.parametrize(
    ("reference", "hypothesis", "hits", "substitutions", "insertions", "deletions", "invented"),
    [
        ("a b c d", "a b c d", 4, 0, 0, 0, 0),
        ("a b c d", "a x c", 2, 1, 0, 1, 0),
        ("a b", "a x y b", 2, 0, 2, 0, 0),
        ("a b c", "", 0, 0, 0, 3, 0),
        ("", "a b", 0, 0, 0, 0, 2),
        ("", "", 0, 0, 0, 0, 0),
        ("metformin", "met for men", 0, 1, 2, 0, 0),
    ],
)
def test_counts_by_hand(
    reference: str,
    hypothesis: str,
    hits: int,
    substitutions: int,
    insertions: int,
    deletions: int,
    invented: int,
) -> None:
    assert count(reference, hypothesis) == wer.Errors(
        hits=hits, substitutions=substitutions, insertions=insertions, deletions=deletions, invented=invented
    )


def test_the_corpus_rate_is_errors_over_words_not_a_mean_of_rates() -> None:
    rows = wer.align({"a": "x", "b": "a b c d e f g h i"}, {"a": "y", "b": "a b c d e f g h i"}, str.split)
    errors = wer.total(row.errors for row in rows)
    assert errors.rate == 0.1  # a mean of rates would be 0.5


def test_words_invented_on_silence_are_counted_apart() -> None:
    rows = wer.align({"a": "", "b": "a b"}, {"a": "thank you so much", "b": "a b"}, str.split)
    errors = wer.total(row.errors for row in rows)
    assert (errors.rate, errors.invented) == (0.0, 4)
    assert wer.total([]).rate is None


def test_more_errors_than_words_is_a_rate_above_one() -> None:
    assert count("a", "b c d").rate == 3.0


def test_rows_are_joined_by_id_in_any_order() -> None:
    rows = list(wer.align({"a": "x", "b": "y"}, {"b": "y", "a": "x"}, str.split))
    assert [row.id for row in rows] == ["a", "b"]
    assert wer.total(row.errors for row in rows).errors == 0


def test_missing_rows_are_an_error() -> None:
    with pytest.raises(InputError, match=r"1 of 2 references have no hypothesis \(ids b\)"):
        list(wer.align({"a": "x", "b": "y"}, {"a": "x"}, str.split))
    with pytest.raises(InputError, match=r"1 of 2 hypotheses have no reference \(ids c\)"):
        list(wer.align({"a": "x"}, {"a": "x", "c": "y"}, str.split))


def test_chunks_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    references, hypotheses = random_pairs(50, seed=3)
    whole = list(wer.align(references, hypotheses, str.split))
    monkeypatch.setattr(wer, "CHUNK_ROWS", 7)
    assert list(wer.align(references, hypotheses, str.split)) == whole


def test_the_metric_class_equals_jiwer_on_ten_thousand_pairs() -> None:
    references, hypotheses = random_pairs(10_000, seed=1)
    ours = WordErrors("raw").compute(predictions=list(hypotheses.values()), references=list(references.values()))
    theirs = jiwer.process_words(list(references.values()), list(hypotheses.values()))
    assert ours is not None
    assert ours["wer"] == theirs.wer
    assert [ours[key] for key in ("hits", "substitutions", "insertions", "deletions")] == [
        theirs.hits,
        theirs.substitutions,
        theirs.insertions,
        theirs.deletions,
    ]
    assert ours["cer"] == pytest.approx(jiwer.cer(list(references.values()), list(hypotheses.values())))


def test_the_metric_class_normalises_both_sides() -> None:
    result = WordErrors("jargon-safe").compute(predictions=["five MG of c#"], references=["5 mg of C#."])
    assert result is not None
    assert (result["wer"], result["words"], result["normaliser"]["name"]) == (0.0, 4, "jargon-safe")


def test_nist_costs_prefer_insertion_and_deletion_over_two_substitutions() -> None:
    # 4+4 for two substitutions, 3+3 for a deletion and an insertion around a hit.
    (row,) = nist.align({"a": "x y"}, {"a": "y z"}, str.split)
    assert row.errors == wer.Errors(hits=1, insertions=1, deletions=1)
    assert row.steps == (("delete", 0, 1, 0, 0), ("equal", 1, 2, 0, 1), ("insert", 2, 2, 1, 2))


def test_realigning_equals_aligning() -> None:
    references, hypotheses = random_pairs(200, seed=5)
    rows = list(wer.align(references, hypotheses, str.split))
    assert list(nist.realign(rows)) == list(nist.align(references, hypotheses, str.split))


def test_long_rows_are_aligned_as_short_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    references, hypotheses = random_pairs(200, seed=5)
    short = list(nist.align(references, hypotheses, str.split))
    monkeypatch.setattr(nist, "LONG_CELLS", 0)
    assert list(nist.align(references, hypotheses, str.split)) == short


def test_trn_files_come_back(tmp_path: Path) -> None:
    texts = {"utt-1": "c++ and {x}", "utt.1": "5 mg (now)", "utt_2": "", "b": "@ at"}
    speakers = {"utt-1": "spk-a", "utt.1": "spk-a", "utt_2": None, "b": None}
    assert nist.write_trn(tmp_path / "a.trn", texts, speakers) == 4
    assert nist.read_trn(tmp_path / "a.trn") == {
        "spk.a_utt.1": "c++ and (x)",
        "spk.a_utt.1.": "5 mg (now)",
        "all_utt.2": "",
        "all_b": "@. at",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b c\n", r"a\.trn:1: the line must end in an id"),
        ("a (x)\nb (x)\n", r'a\.trn:2: the id "x" comes twice'),
    ],
)
def test_broken_trn_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.trn").write_text(content)
    with pytest.raises(InputError, match=message):
        nist.read_trn(tmp_path / "a.trn")


@pytest.mark.skipif(SCLITE is None, reason="sclite is not installed (Debian: apt install sctk)")
@pytest.mark.parametrize("error_rate", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("words", [5, 500])
def test_nist_counts_equal_sclite_row_by_row(tmp_path: Path, error_rate: float, words: int) -> None:
    references, hypotheses = random_pairs(250, seed=11, words=words, error_rate=error_rate)
    theirs = sclite_counts(tmp_path, references, hypotheses)
    rows = list(nist.align(references, hypotheses, str.split))
    ours = {
        nist.trn_id(row.id, "s1"): [
            row.errors.hits,
            row.errors.substitutions,
            row.errors.deletions,
            row.errors.insertions,
        ]
        for row in rows
    }
    assert len(ours) == 250
    assert ours == theirs


@pytest.mark.skipif(SCLITE is None, reason="sclite is not installed (Debian: apt install sctk)")
def test_jiwer_totals_equal_sclite_on_realistic_pairs(tmp_path: Path) -> None:
    references, hypotheses = random_pairs(400, seed=12, words=1000, error_rate=0.35)
    theirs = sclite_counts(tmp_path, references, hypotheses)
    errors = wer.total(row.errors for row in wer.align(references, hypotheses, str.split))
    assert errors.errors == sum(sum(numbers[1:]) for numbers in theirs.values())
    assert errors.words == sum(sum(numbers[:3]) for numbers in theirs.values())


@pytest.mark.skipif(SCLITE is None, reason="sclite is not installed (Debian: apt install sctk)")
def test_sclite_reads_jargon_as_the_same_words(tmp_path: Path) -> None:
    texts = {"a": "c++ c# 5% mg/dl #12 user@host {x} @ % / il-6 μm (iv push) ;; naïve 東京 x=5 >90%"}
    theirs = sclite_counts(tmp_path, texts, texts)
    assert theirs == {"s1_a": [len(texts["a"].split()), 0, 0, 0]}
