"""Slices: which rows belong to which, their correction, their gaps."""

from __future__ import annotations

from typing import Any

import pytest

from speechft.manifest import Utterance
from speechft.score import stats
from speechft.score.slices import gaps, slices, snr_of
from speechft.score.wer import Errors


def row(row_id: str, **known: Any) -> Utterance:
    return Utterance(id=row_id, audio_filepath=None, text="", **known)


def errors(wrong: int, words: int = 10) -> Errors:
    return Errors(hits=words - wrong, substitutions=wrong)


def sliced(rows: list[Utterance], before: list[int], after: list[int] | None) -> list[dict[str, Any]]:
    return slices(
        rows,
        [errors(wrong) for wrong in before],
        None if after is None else [errors(wrong) for wrong in after],
        [item.speaker or item.id for item in rows],
        resamples=300,
        seed=1,
    )


ROWS = [
    row(f"{speaker}-{index}{'#' + condition if condition else ''}", speaker=speaker, accent=accent,
        condition=condition or None, duration=duration, domain="ward")
    for speaker, accent in (("s1", "us"), ("s2", "uk"))
    for index, duration in enumerate((1.0, 3.0, 30.0))
    for condition in ("", "babble5")
]  # fmt: skip


def test_conditions_divide_all_rows_and_the_rest_divides_the_clean_ones() -> None:
    before = [2 if item.condition is None else 6 for item in ROWS]
    found = {(entry["by"], entry["value"]): entry for entry in sliced(ROWS, before, [1] * len(ROWS))}
    assert list(found) == [
        ("condition", "clean"),
        ("condition", "babble5"),
        ("accent", "uk"),
        ("accent", "us"),
        ("speaker", "s1"),
        ("speaker", "s2"),
        ("duration", "below 2 s"),
        ("duration", "2 to 5 s"),
        ("duration", "20 s and more"),
    ]  # one domain divides nothing
    clean, noisy = found["condition", "clean"], found["condition", "babble5"]
    assert (clean["before"], clean["after"], clean["words"]) == (0.2, 0.1, 60)
    assert (noisy["before"], noisy["delta"]) == (0.6, pytest.approx(-0.5))
    assert found["accent", "us"]["words"] == 30
    assert found["accent", "us"]["before"] == 0.2


def test_an_accent_that_only_copies_have_is_shown() -> None:
    rows = [row("a", accent="us"), row("b", accent="us"), row("a#x", accent="in", condition="accented")]
    found = {(entry["by"], entry["value"]): entry["words"] for entry in sliced(rows, [1, 1, 5], [1, 1, 4])}
    assert found["accent", "in"] == 10
    assert found["accent", "us"] == 20


def test_rows_without_words_are_no_slice() -> None:
    rows = [row("a", domain="x"), row("b", domain="y")]
    found = slices(rows, [errors(1), Errors(invented=3)], None, ["a", "b"], resamples=50, seed=1)
    assert [(entry["by"], entry["value"]) for entry in found] == [("condition", "clean"), ("domain", "x")]


def test_p_values_are_corrected_over_all_slices() -> None:
    before = [2, 6, 3, 7, 1, 5] * 2
    after = [1, 5, 3, 8, 1, 4] * 2
    found = sliced(ROWS, before, after)
    known = [entry for entry in found if entry["p_value"] is not None]
    assert len(found) == 9
    assert {entry["rows"] < stats.MIN_DRAWN for entry in found if entry["p_value"] is None} == {True}
    assert len(known) == 6
    smallest = min(known, key=lambda entry: entry["p_value"])
    assert smallest["p_holm"] == pytest.approx(min(1.0, smallest["p_value"] * len(known)))
    assert all(entry["p_holm"] >= entry["p_value"] for entry in known)
    assert all(entry["significant"] == (entry["p_holm"] < 0.05) for entry in known)


def test_one_system_alone_has_rates() -> None:
    found = sliced(ROWS, [1, 2] * 6, None)
    assert found[0]["rate"] == 0.1
    assert "delta" not in found[0]
    assert gaps(found)[0] == {
        "by": "condition",
        "worst": {"value": "babble5", "rate": 0.2, "words": 60},
        "best": {"value": "clean", "rate": 0.1, "words": 60},
        "gap": pytest.approx(0.1),
    }


def test_gaps_leave_out_slices_of_a_few_words() -> None:
    found = [
        {"by": "accent", "value": "us", "words": 500, "before": 0.2, "after": 0.1},
        {"by": "accent", "value": "in", "words": 400, "before": 0.5, "after": 0.3},
        {"by": "accent", "value": "sc", "words": 9, "before": 1.0, "after": 1.0},
        {"by": "domain", "value": "er", "words": 900, "before": 0.5, "after": 0.3},
    ]
    (gap,) = gaps(found)
    assert (gap["worst_after"]["value"], gap["best_after"]["value"]) == ("in", "us")
    assert (gap["gap_before"], gap["gap_after"]) == (pytest.approx(0.3), pytest.approx(0.2))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"extra": {"snr_db": 5}}, 5.0),
        ({"extra": {"snr": "-2.5"}}, -2.5),
        ({"transform": [{"name": "room"}, {"name": "noise", "snr_db": 10.0}]}, 10.0),
        ({"extra": {"snr": "loud"}}, None),
        ({}, None),
    ],
)
def test_where_the_noise_level_comes_from(known: dict[str, Any], expected: float | None) -> None:
    assert snr_of(row("a", **known)) == expected


def test_noise_levels_go_by_size() -> None:
    rows = [row(str(snr), extra={"snr_db": snr}, condition="noise") for snr in (25, -3, 3, 12)] + [row("clean")]
    found = sliced(rows, [1] * 5, [1] * 5)
    assert [entry["value"] for entry in found if entry["by"] == "snr"] == [
        "below 0 dB",
        "0 to 5 dB",
        "10 to 20 dB",
        "20 dB and more",
    ]
