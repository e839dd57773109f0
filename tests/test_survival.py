"""Other failures: one row of each kind, and one that only looks like it."""

from __future__ import annotations

import pytest

from speechft.score import wer
from speechft.score.survival import Row, is_loop, survival, wrong_script


def row(reference: str, hypothesis: str) -> Row:
    (aligned,) = wer.align({"a": reference}, {"a": hypothesis}, lambda text: text.lower().split())
    return Row(aligned=aligned, reference=reference, hypothesis=hypothesis)


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
    assert result["early_stops"] == {"rows": 2, "before": 0.0, "after": 0.5}
    assert result["words_on_silence"] == {
        "rows": 1,
        "before": 0.0,
        "after": 1.0,
        "words_before": 0,
        "words_after": 2,
    }
    assert result["lost_punctuation"] == {"rows": 1, "before": 0.0, "after": 1.0}
    assert result["lost_case"] == {"rows": 1, "before": 0.0, "after": 1.0}
    assert result["wrong_script"]["rows"] == 2
    assert result["loops"] == {"rows": 3, "before": 0.0, "after": 0.0}


def test_wrong_words_at_the_end_are_no_early_stop() -> None:
    result = survival([row("one two three four five six", "one two x y z w")], None)
    assert result["early_stops"] == {"rows": 1, "value": 0.0}


def test_nothing_to_lose_has_no_rate() -> None:
    result = survival([row("all lower", "all lower")], None)
    assert result["lost_case"] == {"rows": 0, "value": None}
