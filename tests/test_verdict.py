"""The verdict: each outcome from its interval, the budget, and what the sentence says."""

from __future__ import annotations

import pytest

from speechft.score.stats import Interval, Paired
from speechft.score.verdict import decide, judge, judge_general, minutes_to_tell


def paired(
    before: float,
    delta: float,
    low: float | None,
    high: float | None,
    *,
    groups: int = 12,
    drew_rows: bool = False,
) -> Paired:
    known = Interval(value=before, low=before, high=before)
    return Paired(
        before=known,
        after=Interval(value=before + delta, low=None, high=None),
        delta=Interval(value=delta, low=low, high=high),
        groups=groups,
        drew_rows=drew_rows,
    )


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.2, -0.01, "better"),
        (-0.02, -0.001, "better"),  # small, but real
        (0.01, 0.2, "worse"),
        (-0.04, 0.04, "no_difference"),
        (-0.05, 0.05, "no_difference"),  # the edges belong to it
        (-0.051, 0.05, "not_enough_audio"),
        (-0.2, 0.0, "not_enough_audio"),  # an end at zero is not below it
        (0.0, 0.0, "no_difference"),
        (None, None, "not_enough_audio"),
    ],
)
def test_the_outcome_follows_from_the_interval(low: float | None, high: float | None, outcome: str) -> None:
    assert judge(Interval(value=0.0, low=low, high=high), 0.05) == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.01, 0.02, "within_budget"),
        (0.01, 0.03, "within_budget"),
        (0.01, 0.031, "unsure"),
        (0.03, 0.05, "unsure"),
        (0.031, 0.05, "over_budget"),
        (None, None, "unsure"),
    ],
)
def test_general_speech_against_its_budget(low: float | None, high: float | None, outcome: str) -> None:
    assert judge_general(paired(0.2, 0.01, low, high), 0.03) == outcome


def test_defaults_are_a_tenth_of_the_rate_before() -> None:
    verdict = decide(paired(0.4, 0.0, -0.03, 0.03), paired(0.2, 0.0, 0.0, 0.0))
    assert verdict.smallest_gain == pytest.approx(0.04)
    assert verdict.forgetting_budget == pytest.approx(0.02)
    assert verdict.outcome == "no_difference"
    assert decide(None, paired(0.01, 0.0, 0.0, 0.0)).forgetting_budget == 0.005
    assert decide(None, None).general == "not_tested"


def test_minutes_needed_grow_with_the_square_of_the_width() -> None:
    delta = Interval(value=0.0, low=-0.1, high=0.1)
    assert minutes_to_tell(delta, 0.05, 10.0) == pytest.approx(40.0)
    assert minutes_to_tell(delta, 0.05, None) is None
    assert minutes_to_tell(delta, 0.0, 10.0) is None


def test_minutes_needed_are_never_fewer_than_there_are() -> None:
    """Between none and the smallest gain, the interval has to clear the nearer decision: 0.04 or 0.06."""
    undecided = Interval(value=-0.04, low=-0.12, high=0.04)
    assert judge(undecided, 0.1) == "not_enough_audio"
    assert minutes_to_tell(undecided, 0.1, 10.0) == pytest.approx(10.0 * (0.08 / 0.06) ** 2)


@pytest.mark.parametrize(
    ("test", "says"),
    [
        (paired(0.4, -0.2, -0.25, -0.15), "Better: word error rate 40.0 % before, 20.0 % after"),
        (
            paired(0.4, -0.2, -0.25, -0.15),
            "difference -20.0 points, 95 % interval -25.0 to -15.0, over 12 speakers",
        ),
        (paired(0.4, 0.1, 0.05, 0.15), "Worse: "),
        (paired(0.4, 0.0, -0.01, 0.01), "No better: "),
        (paired(0.4, 0.0, -0.01, 0.01), "a difference of 4.0 points or more is ruled out"),
        (paired(0.4, -0.02, -0.1, 0.06), "Too little test audio to tell: "),
        (
            paired(0.4, -0.02, -0.1, 0.06),
            "about 40 minutes of test audio would show a difference of 4.0 points",
        ),
        (paired(0.4, -0.2, -0.3, -0.1, drew_rows=True), "for these speakers only"),
        (paired(0.4, -0.2, None, None, groups=1), "from a single row"),
        (paired(0.4, -0.2, None, None, groups=2, drew_rows=True), "from 2 rows alone."),
        (paired(0.0, 0.0, -0.002, 0.002), "a difference of 0.5 points or more is ruled out"),
        (paired(0.0123, -0.00028, -0.00036, -0.0002), "1.23 % before, 1.20 % after (difference -0.03 points"),
        (None, "the test set has no reference words"),
    ],
)
def test_the_sentence_names_the_outcome(test: Paired | None, says: str) -> None:
    sentence = decide(test, None, minutes=10.0).sentence
    assert says in sentence
    assert "General speech was not tested." in sentence


@pytest.mark.parametrize(
    ("general", "says"),
    [
        (paired(0.2, 0.0, -0.01, 0.01), "General speech is within its budget: 20.0 % before, 20.0 % after"),
        (paired(0.2, 0.01, 0.005, 0.015), "General speech is worse but within its budget"),
        (paired(0.2, 0.1, 0.05, 0.15), "General speech is worse, over its budget"),
        (paired(0.2, 0.02, -0.01, 0.05), "It is not sure that general speech is within its budget"),
        (paired(0.2, 0.02, 0.01, 0.05), "General speech is worse, and it is not sure that it is within its budget"),
    ],
)
def test_a_better_domain_score_never_hides_general_speech(general: Paired, says: str) -> None:
    verdict = decide(paired(0.4, -0.2, -0.25, -0.15), general)
    assert verdict.outcome == "better"
    assert says in verdict.sentence
