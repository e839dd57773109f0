"""Pitch-synchronous overlap-add: a voice cut into periods and put together at another pitch and pace.

Moulines and Charpentier 1990, "Pitch-synchronous waveform processing techniques for text-to-speech synthesis using
diphones" (TD-PSOLA). Each period keeps its shape, so formants stay where the recording has them.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from speechft.audio import SAMPLE_RATE

FRAME = SAMPLE_RATE // 200  # samples between two values of the pitch, 5 ms
F0_DECIMATION = 8  # of the pitch search: 2 kHz is enough for pitch below 800 Hz and seven times as fast
HOP = SAMPLE_RATE // 100  # samples between the pieces of what has no pitch, 10 ms
SEARCH = 0.12  # how far, in periods, the next period may be from where the pitch says
STRAY = 0.75  # periods from the nearest mark, beyond which a place at the edge of a stretch has no period
SLOWEST = 0.1  # pace: below it a stretch's first period is not moved further
MARGIN = SAMPLE_RATE // 20  # samples of silence at both ends, and the longest half of a piece: more than a period


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


class Stretch(NamedTuple):
    """A voice without a pause: the frames first to last - 1 of the pitch, and a place in each period, in samples."""

    first: int
    last: int
    places: list[int]


def mark_periods(samples: np.ndarray, f0: np.ndarray) -> list[Stretch]:
    """A place in each period, walked from a stretch's loudest one by which the waveform repeats itself best.

    Args:
        samples: float32, shape (samples,).
        f0: in hertz every 80 samples, shape (frames,); 0 where there is no pitch.

    Returns:
        The stretches that are at least two periods long, each with two places or more.
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
            found.append(Stretch(first, last, [*before[::-1], peak, *after]))
    return found


def _walk(samples: np.ndarray, place: int, step: int, start: int, end: int, periods: Sequence[int]) -> list[int]:
    """Places after `place` (step 1) or before it (-1), the nearest first, as long as they lie in start to end."""
    found: list[int] = []
    while True:
        period = periods[(place - start) // FRAME]
        half, slack = period // 2, int(SEARCH * period) + 1
        expected = place + step * period
        low, high = expected - slack - half, expected + slack + half
        inside = start <= expected - slack and expected + slack < end
        if not inside or min(low, place - half) < 0 or max(high, place + half) > len(samples):
            return found
        likeness = np.correlate(samples[low:high], samples[place - half : place + half])
        place = expected - slack + int(likeness.argmax())
        found.append(place)


class _Grain(NamedTuple):
    """A piece of the recording around the sample `centre`, to be heard around the sample `put` of the result.

    `before`, `after`: samples to the neighbouring periods in the recording; 0 where a stretch begins or ends, and where
    there is no pitch.
    """

    put: int
    centre: int
    before: int = 0
    after: int = 0


def speak(samples: np.ndarray, *, f0: np.ndarray, stretched: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Put a recording's periods together at another pitch and pace.

    Args:
        samples: float32, shape (samples,).
        f0: in hertz every 80 samples, shape (frames,); 0 where there is no pitch.
        stretched: factor on the period at each frame of `f0`, shape (frames,), above 1 for a lower pitch; ignored where
            there is none.
        places: which sample of the recording is heard at each of so many evenly spaced moments of the result, from
            its start to its end; increasing, shape (moments,).
        count: samples of the result.

    Returns:
        float32, shape (count,). Where pitch and pace stay, the recording itself; a voice that is moved by up to four
        semitones has its level within 1.5 dB, and noise at another pace is 1.2 dB lower.
    """
    moments = np.arange(0, count + 2 * FRAME, FRAME)
    heard = np.interp(moments, np.linspace(0, count, len(places)), places) + np.maximum(moments - count, 0)
    grains = _draw_grains(mark_periods(samples, f0), heard.tolist(), stretched.tolist(), count)
    grains.append(_Grain(count, round(places[-1])))
    padded = np.zeros(len(samples) + 2 * MARGIN, np.float32)
    padded[MARGIN : MARGIN + len(samples)] = samples
    spoken = np.zeros(count + 2 * MARGIN, np.float32)
    for last, grain, following in zip([grains[0], *grains[:-1]], grains, [*grains[1:], grains[-1]], strict=True):
        # A period to each side, as the recording has it; to the neighbour where it has none.
        left = grain.before if grain.before and last.after else grain.put - last.put
        right = grain.after if grain.after and following.before else following.put - grain.put
        left, right = min(left, MARGIN), min(right, MARGIN)
        piece = padded[MARGIN + grain.centre - left : MARGIN + grain.centre + right]
        spoken[MARGIN + grain.put - left : MARGIN + grain.put] += piece[:left] * _rise(left)
        spoken[MARGIN + grain.put : MARGIN + grain.put + right] += piece[left:] * (1 - _rise(right))
    return spoken[MARGIN : MARGIN + count]


def _draw_grains(
    stretches: Sequence[Stretch], heard: Sequence[float], stretched: Sequence[float], count: int
) -> list[_Grain]:
    """What is heard when: `heard` is the recording's sample at each frame of the result."""
    which = [-1] * len(stretched)
    for number, stretch in enumerate(stretches):
        which[stretch.first : stretch.last] = [number] * (stretch.last - stretch.first)
    grains = [_Grain(0, round(heard[0]))]
    put, inside, mark = 0.0, -1, 0
    places: Sequence[int] = ()
    while put < count:
        moment = int(put) // FRAME
        pace = (heard[moment + 1] - heard[moment]) / FRAME
        place = heard[moment] + pace * (put - moment * FRAME)
        frame = min(int(place) // FRAME, len(which) - 1)
        was_inside, inside = inside, which[frame]
        before = after = 0
        if inside >= 0:
            if inside != was_inside:
                places, mark = stretches[inside].places, 0
            while mark + 1 < len(places) and places[mark + 1] - place < place - places[mark]:
                mark += 1
            before = places[mark] - places[mark - 1] if mark else 0
            after = places[mark + 1] - places[mark] if mark + 1 < len(places) else 0
            if abs(places[mark] - place) > STRAY * (after or before):
                inside = -1
        if inside < 0:
            grains.append(_Grain(round(put), round(place)))
            put += HOP
            continue
        if inside != was_inside:  # its first period is heard when its time comes, not at the next hop
            put = max(put + (places[mark] - place) / max(pace, SLOWEST), grains[-1].put + 1.0)
            if put >= count:
                break
        grains.append(_Grain(round(put), places[mark], before if inside == was_inside else 0, after))
        put += (after or before) * stretched[frame]
    return grains


@functools.cache
def _rise(count: int) -> np.ndarray:
    """The first half of a Hann window: with one minus itself, which falls, it adds up to 1."""
    return (0.5 - 0.5 * np.cos(np.pi * np.arange(count) / max(count, 1))).astype(np.float32)
