"""Do the intervals cover what they claim, and how often is `better` said where nothing is?

    python benchmarks/score_simulation.py --trials 10000

Speakers differ in how hard they are (before) and in how much adaptation changes them; rows differ within
a speaker; both systems hear the same rows. The truth is known, so the share of intervals that hold it can
be counted. With fewer than five speakers the truth is that of the speakers drawn, as the verdict's sentence
says.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechft.score.stats import MIN_GROUPS, paired_bootstrap
from speechft.score.verdict import judge

WORD_ERROR_RATE = 0.30
SPEAKER_SPREAD = 0.30  # standard deviation of a speaker's difficulty, as a share of the rate
ROW_SPREAD = 0.40  # of a row's, within the speaker
GAIN_SPREAD = 0.15  # of what adaptation changes for a speaker, as a share of the speaker's rate
SMALLEST_GAIN = 0.1 * WORD_ERROR_RATE


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One made-up test set, counted."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    words: NDArray[np.float64]
    speakers: list[int]
    truth: float


def make_trial(rng: np.random.Generator, *, speakers: int, gain: float) -> Trial:
    """Draw a test set of 10 to 40 rows a speaker, 4 to 25 words a row.

    Args:
        rng: random numbers.
        speakers: how many.
        gain: the true difference, as a share of the rate before; 0 for none.
    """
    difficulty = rng.gamma(1 / SPEAKER_SPREAD**2, WORD_ERROR_RATE * SPEAKER_SPREAD**2, speakers)
    change = gain + GAIN_SPREAD * rng.standard_normal(speakers)
    counts = rng.integers(10, 41, speakers)
    speaker = np.repeat(np.arange(speakers), counts)
    words = rng.integers(4, 26, speaker.size)
    hardness = rng.gamma(1 / ROW_SPREAD**2, ROW_SPREAD**2, speaker.size)
    before = rng.poisson(words * difficulty[speaker] * hardness)
    after = rng.poisson(words * np.maximum(0.0, difficulty * (1 + change))[speaker] * hardness)
    if speakers < MIN_GROUPS:
        share = np.bincount(speaker, weights=words, minlength=speakers) / words.sum()
        truth = float(np.sum(share * difficulty * change))
    else:
        truth = WORD_ERROR_RATE * gain
    return Trial(
        before=before.astype(float),
        after=after.astype(float),
        words=words.astype(float),
        speakers=speaker.tolist(),
        truth=truth,
    )


def simulate(*, speakers: int, gain: float, trials: int, resamples: int, seed: int) -> dict[str, float]:
    """Return the share of intervals that hold the truth, and the share of each outcome."""
    rng = np.random.default_rng([seed, speakers, round(1000 * abs(gain))])
    covered = 0
    outcomes: Counter[str] = Counter()
    for index in range(trials):
        trial = make_trial(rng, speakers=speakers, gain=gain)
        paired = paired_bootstrap(
            trial.before, trial.after, trial.words, trial.speakers, resamples=resamples, seed=index
        )
        assert paired is not None
        assert paired.delta.low is not None
        assert paired.delta.high is not None
        covered += paired.delta.low <= trial.truth <= paired.delta.high
        outcomes[judge(paired.delta, SMALLEST_GAIN)] += 1
    shares = {name: count / trials for name, count in outcomes.items()}
    return {"covered": covered / trials, **shares}


def main() -> int:
    """Print a Markdown table; fail when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--speakers", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    names = ("better", "worse", "no_difference", "not_enough_audio")
    print("| speakers | true difference | interval holds it | better | worse | no difference | too little |")
    print("| --: | --: | --: | --: | --: | --: | --: |")
    missed = False
    started = time.perf_counter()
    for gain in (0.0, -0.1, -0.3):
        for speakers in arguments.speakers:
            shares = simulate(
                speakers=speakers,
                gain=gain,
                trials=arguments.trials,
                resamples=arguments.resamples,
                seed=arguments.seed,
            )
            cells = " | ".join(f"{100 * shares.get(name, 0.0):.1f} %" for name in names)
            truth = f"{100 * WORD_ERROR_RATE * gain:+.1f} points" if gain else "none"
            print(f"| {speakers} | {truth} | {100 * shares['covered']:.1f} % | {cells} |", flush=True)
            missed |= not 0.93 <= shares["covered"] <= 0.97
            missed |= not gain and shares.get("better", 0.0) > 0.03
    seconds = time.perf_counter() - started
    print(f"{arguments.trials} trials a row, {arguments.resamples} resamples, {seconds:.0f} s")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
