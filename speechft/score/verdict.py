"""The verdict: better, worse, no difference or too little audio; and general speech against its budget."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from speechft.score.stats import Interval, Paired

SMALLEST_GAIN_SHARE = 0.1  # of the rate before, unless the user names a smallest gain
GAIN_FLOOR = 0.005  # where nothing was wrong before, a tenth of it says nothing
BUDGET_SHARE = 0.1  # of the base's general rate
BUDGET_FLOOR = 0.005
MOST_DECIMALS = 3  # of percentage points


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
        smallest_gain: the smallest difference that matters, a fraction; by default 10 % of the rate before, 0.005
            where that was nothing.
        forgetting_budget: how much general speech may lose, a fraction; by default the larger of 0.005 and
            10 % of its rate before.
        minutes: audio in the test set, when known; without it the sentence says how many times as much is needed.
        size: what the rate rests on, in the sentence, such as "1,234 words".
        general_size: likewise, of general speech.
        rate_name: what the rate is called in the sentence.
        groups_name: what was drawn, in the sentence: speakers, recordings or rows.
    """
    before = test.before.value if test else 0.0
    gain = (SMALLEST_GAIN_SHARE * before or GAIN_FLOOR) if smallest_gain is None else smallest_gain
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
                drawn=drawn_over(test, groups_name, size),
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


def drawn_over(test: Paired | None, groups: str, size: str | None) -> str:
    """What an interval rests on: whom, and how much."""
    if test is None:
        return ""
    drawn = "for these speakers only" if test.drew_rows else f"over {test.groups} {groups}"
    if groups == "rows":
        drawn = f"over {test.groups} rows, whose speakers are not named"
    return f"{drawn}, {size}" if size else drawn


def _test_sentence(outcome: str, test: Paired | None, gain: float, *, needed: str | None, rate: str, drawn: str) -> str:
    if test is None:
        return "Too little test audio to tell: the test set has no reference words."
    decimals = _decimals(test.delta)
    change = f"{rate} {percent(test.before.value, decimals)} before, {percent(test.after.value, decimals)} after"
    if test.delta.low is None or test.delta.high is None:
        return f"Too little test audio to tell: {change}, {_from_few(test)}."
    facts = f"{change} ({_interval(test.delta, decimals)}, {drawn})"
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
    decimals = _decimals(delta)
    change = f"{percent(general.before.value, decimals)} before, {percent(general.after.value, decimals)} after"
    where = ", for these speakers only" if general.drew_rows else ""
    where += f", {size}" if size else ""
    if delta.low is None or delta.high is None:
        return f"General speech: {change}, {_from_few(general)}, so nothing can be said about its budget."
    facts = f"{change} ({_interval(delta, decimals)}{where}; budget {points(budget, sign=False)})"
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
    return f"from {paired.groups} {'rows' if paired.drew_rows else 'speakers or recordings'} alone"


def _interval(delta: Interval, decimals: int) -> str:
    low, high = (points(end or 0.0, decimals=decimals) for end in (delta.low, delta.high))
    return f"difference {points(delta.value, decimals=decimals)} points, 95 % interval {low} to {high}"


def _decimals(delta: Interval) -> int:
    """As many as show that an interval leaves out zero: one, but for differences that are small and sure."""
    ends = delta.ci95 or [0.0, 0.0]
    if ends[0] <= 0 <= ends[1]:
        return 1
    nearer = min(map(abs, ends))
    return next((decimals for decimals in (1, 2) if round(100 * nearer, decimals)), MOST_DECIMALS)


def percent(rate: float, decimals: int = 1) -> str:
    """Write a fraction as a percentage."""
    return f"{100 * rate:.{decimals}f} %"


def points(rate: float, *, sign: bool = True, decimals: int = 1) -> str:
    """Write a difference of fractions as percentage points."""
    text = f"{100 * rate:+.{decimals}f}"
    if not float(text):
        return text[1:]
    return text if sign else f"{100 * rate:.{decimals}f}"
