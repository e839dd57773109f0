"""The verdict: better, worse, no difference or too little audio; and general speech against its budget."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from speechft.score.stats import MIN_DRAWN, Interval, Paired

SMALLEST_GAIN_SHARE = 0.1  # of the rate before, unless the user names a smallest gain
BUDGET_SHARE = 0.1  # of the base's general rate
BUDGET_FLOOR = 0.005


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a person may conclude; `minutes_needed` of test audio in all, only when there was not enough."""

    outcome: str
    general: str
    sentence: str
    minutes_needed: float | None
    smallest_gain: float
    forgetting_budget: float | None

    def row(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return asdict(self)


def decide(
    test: Paired | None,
    general: Paired | None,
    *,
    smallest_gain: float | None = None,
    forgetting_budget: float | None = None,
    minutes: float | None = None,
    size: str | None = None,
    general_size: str | None = None,
    rate_name: str = "word error rate",
    groups_name: str = "speakers",
) -> Verdict:
    """Decide from the differences' intervals.

    Args:
        test: the clean test set; None when it has no reference words.
        general: general speech; None when it was not tested.
        smallest_gain: the smallest difference that matters, a fraction; by default 10 % of the rate before.
        forgetting_budget: how much general speech may lose, a fraction; by default the larger of 0.005 and
            10 % of its rate before.
        minutes: audio in the test set, when known; without it the sentence says how many times as much is needed.
        size: what the rate rests on, in the sentence, such as "1,234 words".
        general_size: likewise, of general speech.
        rate_name: what the rate is called in the sentence.
        groups_name: what was drawn, in the sentence: speakers, recordings or rows.
    """
    before = test.before.value if test else 0.0
    gain = SMALLEST_GAIN_SHARE * before if smallest_gain is None else smallest_gain
    budget = forgetting_budget
    if budget is None and general is not None:
        budget = max(BUDGET_FLOOR, BUDGET_SHARE * general.before.value)
    outcome = judge(test.delta, gain) if test else "not_enough_audio"
    times_needed = minutes_needed = None
    if test and outcome == "not_enough_audio":
        times_needed = minutes_to_tell(test.delta, gain, 1.0)
        minutes_needed = minutes_to_tell(test.delta, gain, minutes)
    general_outcome = judge_general(general, budget)
    sentence = " ".join(
        part
        for part in (
            _test_sentence(
                outcome,
                test,
                gain,
                needed=_needed(times_needed, minutes_needed),
                rate=rate_name,
                drawn=_drawn(test, groups_name, size),
            ),
            _general_sentence(general_outcome, general, budget, general_size),
        )
        if part
    )
    return Verdict(
        outcome=outcome,
        general=general_outcome,
        sentence=sentence,
        minutes_needed=minutes_needed,
        smallest_gain=gain,
        forgetting_budget=budget,
    )


def judge(delta: Interval, smallest_gain: float) -> str:
    """Return better, worse, no_difference or not_enough_audio for a difference of error rates."""
    if delta.low is None or delta.high is None:
        return "not_enough_audio"
    if delta.high < 0:
        return "better"
    if delta.low > 0:
        return "worse"
    if -smallest_gain <= delta.low and delta.high <= smallest_gain:
        return "no_difference"
    return "not_enough_audio"


def judge_general(general: Paired | None, budget: float | None) -> str:
    """Return within_budget, over_budget, unsure or not_tested."""
    if general is None or budget is None:
        return "not_tested"
    if general.delta.low is None or general.delta.high is None:
        return "unsure"
    if general.delta.high <= budget:
        return "within_budget"
    return "over_budget" if general.delta.low > budget else "unsure"


def minutes_to_tell(delta: Interval, smallest_gain: float, minutes: float | None) -> float | None:
    """Return how many minutes of test audio in all would show a difference of the size hoped for.

    That is minutes x (half-width / smallest_gain)^2, since an interval shrinks with the root of the audio.
    Where this is no more than there is already (the estimate lies between none and the smallest gain), the
    interval has to clear the nearer of the two decisions instead.
    """
    if minutes is None or delta.half_width is None or smallest_gain <= 0:
        return None
    factor = (delta.half_width / smallest_gain) ** 2
    if factor <= 1:
        clearance = max(abs(delta.value), smallest_gain - abs(delta.value))
        factor = max(1.0, (delta.half_width / clearance) ** 2)
    return minutes * factor


def _needed(times: float | None, minutes: float | None) -> str | None:
    if minutes is not None:
        return f"{math.ceil(minutes)} minutes of test audio"
    return None if times is None else f"{times:.1f} times as much test audio"


def _drawn(test: Paired | None, groups: str, size: str | None) -> str:
    if test is None:
        return ""
    drawn = "for these speakers only" if test.drew_rows else f"over {test.groups} {groups}"
    return f"{drawn}, {size}" if size else drawn


def _test_sentence(outcome: str, test: Paired | None, gain: float, *, needed: str | None, rate: str, drawn: str) -> str:
    if test is None:
        return "Too little test audio to tell: the test set has no reference words."
    change = f"{rate} {percent(test.before.value)} before, {percent(test.after.value)} after"
    if test.delta.low is None or test.delta.high is None:
        return f"Too little test audio to tell: {change}, {_from_few(test)}."
    interval = (
        f"difference {points(test.delta.value)} points, 95 % interval {points(test.delta.low)} to "
        f"{points(test.delta.high)}"
    )
    facts = f"{change} ({interval}, {drawn})"
    if outcome == "better":
        return f"Better: {facts}."
    if outcome == "worse":
        return f"Worse: {facts}."
    if outcome == "no_difference":
        return f"No better: {facts}; a difference of {points(gain, sign=False)} points or more is ruled out."
    more = f"; about {needed} would show a difference of {points(gain, sign=False)} points" if needed else ""
    return f"Too little test audio to tell: {facts}{more}."


def _general_sentence(outcome: str, general: Paired | None, budget: float | None, size: str | None) -> str:
    if general is None or budget is None:
        return "General speech was not tested."
    delta = general.delta
    change = f"{percent(general.before.value)} before, {percent(general.after.value)} after"
    where = ", for these speakers only" if general.drew_rows else ""
    where += f", {size}" if size else ""
    if delta.low is None or delta.high is None:
        return f"General speech: {change}, {_from_few(general)}, so nothing can be said about its budget."
    facts = (
        f"{change} (difference {points(delta.value)} points, 95 % interval {points(delta.low)} to "
        f"{points(delta.high)}{where}; budget {points(budget, sign=False)})"
    )
    worse = "worse but " if delta.low > 0 else ""
    if outcome == "within_budget":
        return f"General speech is {worse}within its budget: {facts}."
    if outcome == "over_budget":
        return f"General speech is worse, over its budget: {facts}."
    if worse:
        return f"General speech is worse, and it is not sure that it is within its budget: {facts}."
    return f"It is not sure that general speech is within its budget: {facts}."


def _from_few(paired: Paired) -> str:
    if paired.groups == 1:
        return "from a single row"
    few = f"from {paired.groups} {'rows' if paired.drew_rows else 'speakers or recordings'} alone"
    return few if paired.groups < MIN_DRAWN else f"{few}, which all show the same difference"


def percent(rate: float) -> str:
    """Write a fraction as a percentage with one decimal."""
    return f"{100 * rate:.1f} %"


def points(rate: float, *, sign: bool = True) -> str:
    """Write a difference of fractions as percentage points with one decimal."""
    text = f"{100 * rate:+.1f}" if sign else f"{100 * rate:.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
