"""Is a difference real: paired bootstrap over groups, matched-pairs segment test, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from speechft.score.wer import Aligned, Step

MIN_DRAWN = 3  # two can agree by chance, and then nothing seems to vary
NO_SPREAD = 1e-12  # rounding of sums is below this, a word in a million words above it
MIN_GROUPS = 5  # with fewer speakers than this, drawing speakers says next to nothing: rows are drawn
CONFIDENCE = 0.95
CELLS_AT_ONCE = 2_000_000  # draws x distinct groups held in memory at one time: 16 MB
SEGMENT_GOOD_WORDS = 2  # words both systems have right that close a segment, NIST's default


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and its 95 % interval; the interval is None when too little was there to draw from."""

    value: float
    low: float | None
    high: float | None
    p_value: float | None = None

    @property
    def ci95(self) -> list[float] | None:
        """The interval as a list for JSON."""
        return None if self.low is None or self.high is None else [self.low, self.high]

    @property
    def half_width(self) -> float | None:
        """Half the interval's width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A rate before and after, and their difference, from the same draws; `groups` is what was drawn."""

    before: Interval
    after: Interval
    delta: Interval
    groups: int
    drew_rows: bool


def paired_bootstrap(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    denominators: NDArray[np.float64],
    groups: Sequence[Hashable],
    *,
    resamples: int,
    seed: int,
    after_denominators: NDArray[np.float64] | None = None,
) -> Paired | None:
    """Bootstrap two rates and their difference by drawing whole groups, both systems on the same draw.

    The interval is the estimate plus and minus t(n-1) x sqrt(n/(n-1)) standard deviations of the draws, n the
    effective number of groups: 1.96 of them are too few when few groups are drawn (Bisani and Ney 2004 for the
    paired bootstrap of word errors; Hesterberg 2015, "What teachers should know about the bootstrap", for the
    correction). The p value is of the same t, so it is below 0.05 exactly when the interval leaves out zero.
    A rate's interval ends at zero. With fewer than `MIN_GROUPS` groups that have words, rows are drawn, and there is no
    interval from fewer than `MIN_DRAWN` of them. Where no draw changes a value, as all rows show the same, the interval
    is what rows of another kind, that happened not to be heard, would make of it (see `_unheard`).

    Args:
        before: numerators of the first rate per row (such as errors), shape (rows,).
        after: numerators of the second rate, shape (rows,).
        denominators: such as reference words, shape (rows,).
        groups: what each row belongs to: a speaker, a recording.
        resamples: number of draws.
        seed: of the draws; the same numbers in any order of rows of the same groups give the same interval.
        after_denominators: when the second rate divides by something else.

    Returns:
        None when the denominators are all zero.
    """
    after_denominators = denominators if after_denominators is None else after_denominators
    if not denominators.sum() or not after_denominators.sum():
        return None
    columns = np.stack([before, denominators, after, after_denominators])
    sums, drew_rows = _sum_groups(columns, groups)
    number = sums.shape[1]
    first, second, difference = _rates(sums.sum(axis=1))
    estimates = np.array([first, second, difference])
    if number < MIN_DRAWN:
        alone = [Interval(value=float(value), low=None, high=None) for value in estimates]
        return Paired(before=alone[0], after=alone[1], delta=alone[2], groups=number, drew_rows=drew_rows)
    draws = np.concatenate(list(_draw(sums, resamples=resamples, seed=seed)), axis=1)
    effective, quantile, small_sample = _small_sample(sums[1])
    intervals = []
    for value, drawn, unheard in zip(map(float, estimates), draws, _unheard(columns), strict=True):
        spread = float(drawn[np.isfinite(drawn)].std()) * small_sample
        margin = quantile * spread if spread > NO_SPREAD else unheard
        p_value = float(2 * stdtr(effective - 1, -abs(value) / margin * quantile))
        intervals.append(Interval(value=value, low=value - margin, high=value + margin, p_value=p_value))
    before_rate, after_rate = (replace(rate, low=max(0.0, rate.low or 0.0)) for rate in intervals[:2])
    return Paired(before=before_rate, after=after_rate, delta=intervals[2], groups=number, drew_rows=drew_rows)


def continued(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    denominators: NDArray[np.float64],
    groups: Sequence[Hashable],
    *,
    steps: Sequence[float],
    resamples: int,
    seed: int,
) -> list[Interval]:
    """How a rate would change further if its last change went on in proportion: after ((after / before)^steps - 1).

    Where a step is so many times as much to learn from, that is a power law (Hestness et al. 2017, "Deep learning
    scaling is predictable, empirically"); where something else limits the rate it promises too much. Intervals are
    those of `paired_bootstrap`, of the same draws.

    Args:
        before: numerators per row of the rate before the last change, shape (rows,).
        after: those after it.
        denominators: such as reference words, shape (rows,).
        groups: what each row belongs to.
        steps: how many times over.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        A change for each of `steps`; none where a rate is zero.
    """
    if not before.sum() or not after.sum():
        return []
    sums, _ = _sum_groups(np.stack([before, denominators, after, denominators]), groups)
    first, second, _ = _rates(sums.sum(axis=1))
    estimates = _further(first, second, steps)
    if sums.shape[1] < MIN_DRAWN:
        return [Interval(value=float(value), low=None, high=None) for value in estimates]
    rates = np.concatenate(list(_draw(sums, resamples=resamples, seed=seed)), axis=1)
    drawn = _further(rates[0], rates[1], steps)
    _, quantile, small_sample = _small_sample(sums[1])
    margins = quantile * small_sample * np.nanstd(np.where(np.isfinite(drawn), drawn, np.nan), axis=1)
    return [
        Interval(value=float(value), low=float(value - margin), high=float(value + margin))
        for value, margin in zip(estimates, margins, strict=True)
    ]


def _further(before: NDArray[np.float64], after: NDArray[np.float64], steps: Sequence[float]) -> NDArray[np.float64]:
    """Changes by step, shape (steps, ...)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([after * ((after / before) ** step - 1) for step in steps])


def _small_sample(sizes: NDArray[np.float64]) -> tuple[float, float, float]:
    """Effective number of groups, the quantile of t, and what widens the spread of draws: see `paired_bootstrap`."""
    effective = effective_groups(sizes)
    return effective, float(stdtrit(effective - 1, 0.5 + CONFIDENCE / 2)), math.sqrt(effective / (effective - 1))


def values(paired: Paired | None, *, compared: bool, most: float = math.inf) -> dict[str, Any]:
    """Return rates and their intervals as JSON values, all None when there is nothing to divide by.

    Args:
        paired: the rates.
        compared: of two systems, `before`, `after`, `delta` and `before_ci95` and so on; of one, `value` and `ci95`.
        most: what no rate exceeds, nor its interval: one for shares.
    """
    names = {"before": "before", "after": "after", "delta": "delta"} if compared else {"value": "before"}
    found: dict[str, Any] = {}
    for name, side in names.items():
        interval: Interval | None = getattr(paired, side) if paired else None
        ends = interval.ci95 if interval else None
        found[name] = interval.value if interval else None
        found[f"{name}_ci95" if compared else "ci95"] = ends and [max(-most, min(most, end)) for end in ends]
    return found


def effective_groups(sizes: NDArray[np.float64]) -> float:
    """How many groups of one size would vary as much: (sum of sizes)^2 / sum of squares (Kish 1965, section 11.7).

    Where one speaker said most of the words there are fewer independent pieces than names. Equal sizes give their
    number; never less than 2, the fewest that can vary.

    Args:
        sizes: such as reference words by group, shape (groups,).
    """
    return max(2.0, float(sizes.sum() ** 2 / np.square(sizes).sum()))


def group_numbers(groups: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    """Return each row's group as a number, and how many groups there are."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64), len(numbers)


def _sum_groups(columns: NDArray[np.float64], groups: Sequence[Hashable]) -> tuple[NDArray[np.float64], bool]:
    """Add rows up by group, unless there are too few groups; order does not matter afterwards."""
    said = _with_words(columns)  # a speaker of silence alone is no group
    used = columns[:, said]
    numbers, number = group_numbers([group for group, counts in zip(groups, said, strict=True) if counts])
    if number < MIN_GROUPS:
        return used, True
    sums = np.stack([np.bincount(numbers, weights=column, minlength=number) for column in used]).astype(np.float64)
    return sums, False


def _with_words(columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (columns[1] > 0) | (columns[3] > 0)


def _unheard(columns: NDArray[np.float64]) -> tuple[float, float, float]:
    """How far a kind of row that was not heard could move each rate, and their difference.

    By as many rows as n may miss with a chance of 5 %, n (1 - 0.05^(1/n)), about three (Hanley and Lippman-Hand 1983,
    "If nothing goes wrong, is everything all right?"), each with twice as many errors as those heard, or none, and one
    where those have none; of a difference, by what turns it round, or by as much as the first system has of errors
    where there is none.
    """
    before, words, after, after_words = columns[:, _with_words(columns)]
    missed = words.size * (1 - (1 - CONFIDENCE) ** (1 / words.size))
    typical_before, typical_after = (float(errors[errors > 0].mean()) if errors.any() else 1.0
                                     for errors in (before, after))  # fmt: skip
    changed = np.abs(after - before)
    turned = 2 * float(changed[changed > 0].mean()) if changed.any() else typical_before
    moved = typical_before / words.sum(), typical_after / after_words.sum(), 2 * turned / (words + after_words).sum()
    return missed * float(moved[0]), missed * float(moved[1]), missed * float(moved[2])


def _draw(sums: NDArray[np.float64], *, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield rates of draws, shape (3, draws): before, after, difference.

    Groups with equal counts are interchangeable, so one multinomial over the distinct ones draws the same as
    drawing every group; a corpus of a million words in short rows has a few thousand of them.
    """
    distinct, copies = np.unique(sums, axis=1, return_counts=True)
    number = int(copies.sum())
    generator = np.random.default_rng(seed)
    size = max(1, CELLS_AT_ONCE // distinct.shape[1])
    for start in range(0, resamples, size):
        times = generator.multinomial(number, copies / number, size=min(size, resamples - start))
        with np.errstate(divide="ignore", invalid="ignore"):
            yield np.stack(_rates(times @ distinct.T))


def _rates(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    first, second = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
    return first, second, second - first


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979): the chance of any false alarm among them."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


@dataclass(frozen=True, kw_only=True)
class SegmentTest:
    """The matched-pairs sentence-segment word error test; positive: the first system makes more errors."""

    statistic: float | None
    p_value: float
    segments: int
    mean: float


def mapsswe(first: Iterable[Aligned], second: Iterable[Aligned]) -> SegmentTest:
    """Compare two systems by the errors in each stretch between words that both have right.

    Gillick and Cox 1989, "Some statistical issues in the comparison of speech recognition algorithms", as
    NIST's sc_stats does it: segments are closed by two words right in both systems, and Z is the mean
    difference of errors over its standard error, compared with the normal distribution. Segments depend on
    the alignment: with `nist.align`'s the result is sc_stats' own. Where all segments differ by the same, and not by
    nothing, there is no standard error to divide by: `statistic` is None, and the p value is the sign test's.

    Args:
        first: rows of the first system.
        second: the same rows of the second system, in the same order.
    """
    differences: list[int] = []
    for one, two in zip(first, second, strict=True):
        assert one.id == two.id
        assert len(one.reference) == len(two.reference)
        differences.extend(_segments(one, two))
    number = len(differences)
    mean = sum(differences) / number if number else 0.0
    spread = sum((difference - mean) ** 2 for difference in differences)
    if mean and not spread:
        return SegmentTest(statistic=None, p_value=min(1.0, 2 * 0.5**number), segments=number, mean=mean)
    statistic = mean / math.sqrt(spread / (number - 1) / number) if spread else 0.0
    p_value = math.erfc(abs(statistic) / math.sqrt(2))
    return SegmentTest(statistic=statistic, p_value=p_value, segments=number, mean=mean)


def _segments(one: Aligned, two: Aligned) -> Iterator[int]:
    """Yield, for each segment of one row, the first system's errors less the second's.

    The row is read as one entry per reference word and a last one for its end; an entry is good when both
    systems have the word right and insert nothing before it. Errors outside segments do not exist, and a
    good word's errors are zero, so only the errors since the last close need to be kept.
    """
    length = len(one.reference)
    wrong_one, inserted_one = _by_reference_word(one.steps, length)
    wrong_two, inserted_two = _by_reference_word(two.steps, length)
    errors_one = errors_two = good = 0
    for index in range(length):
        if inserted_one[index] or inserted_two[index]:
            good = 0
            errors_one += inserted_one[index]
            errors_two += inserted_two[index]
        if wrong_one[index] or wrong_two[index]:
            good = 0
            errors_one += wrong_one[index]
            errors_two += wrong_two[index]
            continue
        good += 1
        if good >= SEGMENT_GOOD_WORDS and (errors_one or errors_two):
            yield errors_one - errors_two
            errors_one = errors_two = 0
    errors_one += inserted_one[length]
    errors_two += inserted_two[length]
    if errors_one or errors_two:
        yield errors_one - errors_two


def _by_reference_word(steps: Sequence[Step], length: int) -> tuple[list[int], list[int]]:
    """Return 1 for each wrong reference word, and the words inserted before each and after the last."""
    wrong = [0] * length
    inserted = [0] * (length + 1)
    for kind, reference_start, reference_end, hypothesis_start, hypothesis_end in steps:
        if kind == "insert":
            inserted[reference_start] += hypothesis_end - hypothesis_start
        elif kind != "equal":
            wrong[reference_start:reference_end] = [1] * (reference_end - reference_start)
    return wrong, inserted
