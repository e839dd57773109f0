"""Where an error rate goes as there is more to learn from: a power law through a few amounts, with its interval."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from speechft.score.stats import CONFIDENCE, MIN_DRAWN, MIN_GROUPS, Interval, effective_groups, group_numbers

HALF_AN_ERROR = 0.5  # added to a count, as the logarithm of none is none


def extrapolate(
    errors: NDArray[np.float64],
    words: NDArray[np.float64],
    groups: Sequence[Hashable],
    *,
    amounts: Sequence[float],
    at: Sequence[float],
    resamples: int,
    seed: int,
) -> list[Interval]:
    """The error rate that a power law through several systems' rates gives for other amounts of training speech.

    Error falls as a power of the amount over wide ranges (Hestness et al. 2017, "Deep learning scaling is predictable,
    empirically"), so log rates lie on a line over log amounts, which least squares finds. The interval is of the
    test set's groups, drawn as `stats.paired_bootstrap` draws them, in log rates: what another training run
    would give, and whether the law holds beyond what was measured, are not in it.

    Args:
        errors: of each system on each row, shape (systems, rows); two systems or more.
        words: of each row's reference, shape (rows,); some must be above zero.
        groups: what each row belongs to: a speaker, a recording.
        amounts: what each system learned from, such as minutes, all different.
        at: for which amounts to tell the rate.
        resamples: number of draws.
        seed: of the draws.
    """
    said = words > 0
    numbers, count = group_numbers([group for group, counts in zip(groups, said, strict=True) if counts])
    if count < MIN_GROUPS:
        numbers, count = np.arange(said.sum()), int(said.sum())
    columns = np.vstack([errors, words])[:, said]
    sums = np.stack([np.bincount(numbers, weights=column, minlength=count) for column in columns]).astype(np.float64)
    line = np.stack([np.ones(len(amounts)), np.log(amounts)], axis=1)
    weights = np.stack([np.ones(len(at)), np.log(at)], axis=1) @ np.linalg.pinv(line)  # of each measured log rate
    estimates = weights @ _log_rates(sums.sum(axis=1))
    if count < MIN_DRAWN:
        return [Interval(value=math.exp(value), low=None, high=None) for value in estimates]
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    drawn = weights @ _log_rates(sums @ times.T)
    effective = effective_groups(sums[-1])
    quantile = float(stdtrit(effective - 1, 0.5 + CONFIDENCE / 2)) * math.sqrt(effective / (effective - 1))
    return [
        Interval(value=math.exp(value), low=math.exp(value - margin), high=math.exp(value + margin))
        for value, margin in zip(estimates, quantile * drawn.std(axis=1), strict=True)
    ]


def _log_rates(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of errors by words, which are the last row."""
    rates: NDArray[np.float64] = np.log((sums[:-1] + HALF_AN_ERROR) / sums[-1])
    return rates
