"""Other failures: one row of each kind, and one that only looks like it."""

from __future__ import annotations

from typing import Any

import pytest

from speechft.score import wer
from speechft.score.survival import Row, is_loop, wrong_script
from speechft.score.survival import survival as survival_of_groups


def row(reference: str, hypothesis: str) -> Row:
    (aligned,) = wer.align({"a": reference}, {"a": hypothesis}, lambda text: text.lower().split())
    return Row(aligned=aligned, reference=reference, hypothesis=hypothesis)


def survival(before: list[Row], after: list[Row] | None) -> dict[str, dict[str, Any]]:
    return survival_of_groups(before, after, list(range(len(before))), resamples=200, seed=1)


def rates(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without its intervals."""
    return {name: value for name, value in entry.items() if not name.endswith("ci95")}


@pytest.mark.parametrize(
    ("reference", "hypothesis", "loop"),
    [
        ("go home", "go home home home home", True),
        ("thank you", "thank you thank you thank you thank you", True),
        ("no no no no", "no no no no", False),
        ("a b", "a b a b a b", False),
        ("a", "a b c d e f a b c d e f a b c d e f a b c d e f", True),
        ("a", "", False),
        ("hello", "thanks for watching please subscribe to my channel " * 6, True),
    ],
)
def test_loops(reference: str, hypothesis: str, loop: bool) -> None:
    assert is_loop(reference.split(), hypothesis.split()) == loop


def test_loops_that_normalising_hides_or_that_have_no_spaces() -> None:
    spoken = row("take five", "five five five five five five five five")
    merged = Row(
        aligned=next(wer.align({"a": "take 5"}, {"a": "55555555"}, str.split)),
        reference=spoken.reference,
        hypothesis=spoken.hypothesis,
    )
    assert survival([merged], None)["loops"]["value"] == 1.0
    phrase = "ご視聴ありがとうございました"
    (aligned,) = wer.align({"a": "はい"}, {"a": phrase * 10}, wer.characters)
    assert survival([Row(aligned=aligned, reference="はい", hypothesis=phrase * 10)], None)["loops"]["value"] == 1.0


@pytest.mark.parametrize(
    ("reference", "hypothesis", "script"),
    [
        ("hello", "привет", True),
        ("hello", "hello wörld", False),
        ("東京に行く", "东京行く", False),
        ("hello there", "hello κόσμε", True),
        ("5 mg", "5 mg", False),
        ("120", "привет", False),
    ],
)
def test_wrong_script(reference: str, hypothesis: str, script: bool) -> None:
    assert wrong_script(reference, hypothesis) == script


def test_each_failure_has_a_rate_before_and_after() -> None:
    good = [
        row("Start the drug today.", "Start the drug today."),
        row("one two three four five six", "one two three four five six"),
        row("", ""),
    ]
    bad = [
        row("Start the drug today.", "start the drug today"),
        row("one two three four five six", "one two"),
        row("", "thank you"),
    ]
    result = survival(good, bad)
    assert rates(result["early_stops"]) == {"rows": 2, "before": 0.0, "after": 0.5, "delta": 0.5}
    assert rates(result["words_on_silence"]) == {
        "rows": 1,
        "before": 0.0,
        "after": 1.0,
        "delta": 1.0,
        "words_before": 0,
        "words_after": 2,
    }
    for lost in ("lost_punctuation", "lost_case"):
        assert rates(result[lost]) == {"rows": 1, "before": 0.0, "after": 1.0, "delta": 1.0}
    assert result["wrong_script"]["rows"] == 2
    assert rates(result["loops"]) == {"rows": 3, "before": 0.0, "after": 0.0, "delta": 0.0}


def test_a_share_of_rows_has_an_interval_that_ends_at_one() -> None:
    good, bad = row("one two three four five six", "one two three four five six"), row("one two three four", "one")
    result = survival([good] * 3 + [bad] * 27, [good] * 27 + [bad] * 3)["early_stops"]
    assert result["delta"] == pytest.approx(-0.8)
    assert result["before_ci95"] == pytest.approx([0.786, 1.0], abs=0.02)  # 0.9 +- t(29) x sqrt(0.09 / 29)
    assert result["delta_ci95"][1] < 0


def test_wrong_words_at_the_end_are_no_early_stop() -> None:
    result = survival([row("one two three four five six", "one two x y z w")], None)
    assert result["early_stops"] == {"rows": 1, "value": 0.0, "ci95": None}


def test_nothing_to_lose_has_no_rate() -> None:
    result = survival([row("all lower", "all lower")], None)
    assert result["lost_case"] == {"rows": 0, "value": None, "ci95": None}
