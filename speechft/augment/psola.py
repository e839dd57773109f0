"""Pitch-synchronous overlap-add: a voice cut into periods and put together at another pitch and pace.

Moulines and Charpentier 1990, "Pitch-synchronous waveform processing techniques for text-to-speech synthesis using
diphones", section 3 (TD-PSOLA). Each period keeps its shape, so formants stay where the recording has them.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from speechft.audio import SAMPLE_RATE

FRAME = SAMPLE_RATE // 200  # samples between two values of the pitch, 5 ms
F0_DECIMATION = 8  # of the pitch search: 2 kHz is enough for pitch below 800 Hz and seven times as fast
HOP = SAMPLE_RATE // 100  # between the pieces of what has no pitch, 10 ms
SEARCH = 0.12  # how far, in periods, the next period may be from where the pitch says
MARGIN = SAMPLE_RATE // 20  # samples of silence at both ends; more than a period


def find_pitch(samples: np.ndarray) -> np.ndarray:
    """Pitch every 5 ms in hertz, 0 where there is none, by DIO (Morise, Kawahara and Katayose 2009).

    Args:
        samples: float32 at 16 kHz, shape (samples,), at least 0.05 s.

    Returns:
        float64, shape (samples // 80 + 1,).
    """
    import pyworld

    f0, _ = pyworld.dio(
        samples.astype(np.float64), SAMPLE_RATE, frame_period=1000 * FRAME / SAMPLE_RATE, speed=F0_DECIMATION
    )
    return np.asarray(f0)


def mark_periods(samples: np.ndarray, f0: np.ndarray) -> list[tuple[int, int, list[int]]]:
    """A place in each period, walked from a stretch's loudest one by which the waveform repeats itself best.

    Args:
        samples: float32, shape (samples,).
        f0: from `find_pitch`.

    Returns:
        The stretches that have a pitch: first frame, last frame + 1, and the places in samples, increasing, at least
        two.
    """
    voiced = np.concatenate([[False], f0 > 0, [False]])
    edges = np.flatnonzero(voiced[1:] != voiced[:-1]).tolist()
    found = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        start, end = first * FRAME, min(last * FRAME, len(samples))
        periods = np.rint(SAMPLE_RATE / f0[first:last]).astype(int).tolist()
        if end - start < 2 * max(periods):
            continue
        peak = start + int(np.abs(samples[start:end]).argmax())
        before, after = (_walk(samples, peak, step, start, end, periods) for step in (-1, 1))
        if before or after:
            found.append((first, last, [*before[::-1], peak, *after]))
    return found


def _walk(samples: np.ndarray, place: int, step: int, start: int, end: int, periods: Sequence[int]) -> list[int]:
    """Places after `place` (step 1) or before it (-1), the nearest first, as long as they lie in start to end."""
    found: list[int] = []
    while True:
        period = periods[(place - start) // FRAME]
        half, slack = period // 2, int(SEARCH * period) + 1
        expected = place + step * period
        low, high = expected - slack - half, expected + slack + half
        if not (start <= expected - slack and expected + slack < end and low >= 0 and high <= len(samples)):
            return found
        if place < half or place + half > len(samples):
            return found
        likeness = np.correlate(samples[low:high], samples[place - half : place + half])
        place = expected - slack + int(likeness.argmax())
        found.append(place)


class _Grain(NamedTuple):
    """A piece of the recording to be heard around a moment; `period`: samples to the one before it and after it in
    the recording, 0 at the end of a stretch and where there is no pitch."""

    put: int
    centre: int
    period: tuple[int, int]


def speak(samples: np.ndarray, *, f0: np.ndarray, stretched: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Put a recording's periods together at another pitch and pace.

    Args:
        samples: float32, shape (samples,).
        f0: from `find_pitch`, shape (frames,).
        stretched: factor on the period at each frame of `f0`, above 1 for a lower pitch; ignored where there is none.
        places: which sample of the recording is heard at each of so many evenly spaced moments of the result, from
            its start to its end; increasing.
        count: samples of the result.

    Returns:
        float32, shape (count,). Where pitch and pace stay, the recording itself; a voice that is moved by up to four
        semitones has its level within 1.5 dB.
    """
    moments = np.arange(0, count + HOP + 2 * FRAME, FRAME)
    heard: list[float] = (
        np.interp(moments, np.linspace(0, count, len(places)), places) + np.maximum(moments - count, 0)
    ).tolist()
    factors = stretched.tolist()
    stretches = mark_periods(samples, f0)
    of_frame = np.full(len(f0), -1)
    for number, (first, last, _) in enumerate(stretches):
        of_frame[first:last] = number
    which = of_frame.tolist()

    grains: list[_Grain] = []
    put, now, mark, marks = 0.0, -1, 0, [0]
    while not grains or grains[-1].put < count:
        moment = int(put) // FRAME
        pace = (heard[moment + 1] - heard[moment]) / FRAME
        place = heard[moment] + pace * (put - moment * FRAME)
        frame = min(int(place) // FRAME, len(which) - 1)
        before, now = now, which[frame]
        if now >= 0:
            if now != before:
                marks, mark = stretches[now][2], 0
            last = len(marks) - 1
            while mark < last and marks[mark + 1] - place < place - marks[mark]:
                mark += 1
            after = marks[mark + 1] - marks[mark] if mark < last else 0
            ago = marks[mark] - marks[mark - 1] if mark else 0
            if abs(marks[mark] - place) > 0.75 * (after or ago):  # the edge of a stretch, where no period was found
                now = -1
        if now < 0:
            grains.append(_Grain(round(put), round(place), (0, 0)))
            put += HOP
            continue
        if now != before:  # its first period is heard when its time comes, not at the next hop
            put = max(put + (marks[mark] - place) / max(pace, 0.1), grains[-1].put + 1.0 if grains else 0.0)
        grains.append(_Grain(round(put), marks[mark], (ago if now == before else 0, after)))
        put += (after or ago) * factors[frame]
    return _overlap_add(samples, grains, count)


def _overlap_add(samples: np.ndarray, grains: Sequence[_Grain], count: int) -> np.ndarray:
    padded = np.zeros(len(samples) + 2 * MARGIN, np.float32)
    padded[MARGIN : MARGIN + len(samples)] = samples
    spoken = np.zeros(count + 2 * MARGIN, np.float32)
    ends = [grains[0]._replace(put=grains[0].put - HOP, period=(0, 0)), grains[-1]._replace(put=grains[-1].put + HOP)]
    for before, grain, after in zip([ends[0], *grains], grains, [*grains[1:], ends[1]], strict=False):
        # A period to each side, as the recording has it; to the neighbour where it has none.
        left = (before.period[1] and grain.period[0]) or grain.put - before.put
        right = (after.period[0] and grain.period[1]) or after.put - grain.put
        left, right = min(left, MARGIN), min(right, MARGIN)
        start, to = MARGIN + grain.centre - left, MARGIN + grain.put - left
        spoken[to : to + left + right] += padded[start : start + left + right] * _window(left, right)
    return spoken[MARGIN : MARGIN + count]


@functools.lru_cache(maxsize=4096)
def _window(left: int, right: int) -> np.ndarray:
    """Half a Hann window up over `left` samples and half one down over `right`: neighbours add up to 1."""
    up = 0.5 - 0.5 * np.cos(np.pi * np.arange(left) / max(left, 1))
    down = 0.5 + 0.5 * np.cos(np.pi * np.arange(right) / max(right, 1))
    return np.concatenate([up, down]).astype(np.float32)
