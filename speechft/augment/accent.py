"""Warps of a recorded voice: speed, tempo, pitch, formants, pitch contour and rhythm.

These only approximate accents. They move a voice's rate, melody and vocal-tract length, in which accents and
speakers differ, but no vowel becomes another vowel and no sound is replaced: for that, a text has to be said
again.
"""

import math

import numpy as np
import soxr

from speechft.audio import SAMPLE_RATE
from speechft.augment import levels, psola

FRAME_S = 0.025  # of WSOLA
HOP_S = 0.0125
SEARCH_S = 0.008  # each way: one period of a 62 Hz voice
SHORTEST_S = 0.05  # a pitch search needs a few pitch periods; shorter clips are returned as they are
SYLLABLES_A_SECOND = 4.0  # how fast local tempo swings, about once every two syllables


def shift_speed(samples: np.ndarray, *, speed: float) -> np.ndarray:
    """Play faster (above 1) or slower: tempo, pitch and formants move together. Band-limited, by soxr.

    Args:
        samples: float32, shape (samples,).
        speed: ratio, 1.1 is a tenth faster.

    Returns:
        float32, shape (round(samples / speed),).
    """
    if speed == 1.0 or len(samples) < 2:
        return samples
    played = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE, quality="HQ")
    return levels.limited(_fit(played, round(len(samples) / speed)))


def shift_tempo(samples: np.ndarray, *, tempo: float) -> np.ndarray:
    """Speak faster (above 1) or slower, pitch and formants kept, by WSOLA (Verhelst and Roelands 1993).

    Args:
        samples: float32, shape (samples,).
        tempo: ratio, 1.1 is a tenth faster.

    Returns:
        float32, shape (round(samples / tempo),).
    """
    count = round(len(samples) / tempo)
    if tempo == 1.0 or len(samples) < round(SHORTEST_S * SAMPLE_RATE):
        return _fit(samples, count)
    frame, hop, search = (round(seconds * SAMPLE_RATE) for seconds in (FRAME_S, HOP_S, SEARCH_S))
    window = np.hanning(frame + 1)[:frame].astype(np.float32)  # its halves, one hop apart, add up to 1
    frames = math.ceil(count / hop) + 1
    padded = np.zeros(len(samples) + 2 * (frame + search) + hop + round(hop * tempo), np.float32)
    lead = hop + search
    padded[lead : lead + len(samples)] = samples
    spoken = np.zeros((frames + 1) * hop, np.float32)
    energy = np.concatenate([[0.0], np.cumsum(np.square(padded, dtype=np.float64))])
    place = search
    for index in range(frames):
        if index:
            nominal = min(search + round(index * hop * tempo), len(padded) - frame - search)
            # What followed the last frame in the recording is what should follow it here.
            wanted = padded[place + hop : place + hop + frame]
            if len(wanted) == frame and wanted.any():
                place = nominal - search + _best_match(padded, wanted, energy, nominal - search, 2 * search + 1)
            else:
                place = nominal
        spoken[index * hop : index * hop + frame] += padded[place : place + frame] * window
    return levels.limited(_fit(spoken[hop:], count))


def _best_match(padded: np.ndarray, wanted: np.ndarray, energy: np.ndarray, start: int, count: int) -> int:
    """Offset from `start` at which `padded` looks most like `wanted` (normalised cross-correlation)."""
    length = len(wanted)
    correlation = np.correlate(padded[start : start + count - 1 + length], wanted, mode="valid")
    energies = energy[start + length : start + length + count] - energy[start : start + count]
    return int(np.argmax(correlation / np.sqrt(energies + 1e-9)))


def can_warp(samples: np.ndarray) -> bool:
    """Whether `warp` has anything to change: 0.05 s or more, and not silent."""
    return len(samples) >= round(SHORTEST_S * SAMPLE_RATE) and bool(samples.any())


def warp(
    samples: np.ndarray,
    *,
    tempo: float = 1.0,
    pitch_semitones: float = 0.0,
    formants: float = 1.0,
    contour: float = 1.0,
    rhythm_depth: float = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Say the same with another pitch, pace or vocal tract, period by period (see `psola`).

    Formants are moved by playing faster or slower, after which pitch and pace are put right, as Praat's "Change gender"
    does (Boersma 2001). One pass serves all changes. Clips under 0.05 s are only brought to length.

    Args:
        samples: float32, shape (samples,).
        tempo: ratio, above 1 faster; pitch kept.
        pitch_semitones: added to the pitch.
        formants: factor on the formant frequencies, above 1 for a shorter vocal tract.
        contour: factor on pitch movements around the clip's mean pitch in semitones: 0 is monotone.
        rhythm_depth: how far, as a share, local tempo swings; the clip's length is kept.
        rng: where the swings come from; needed when `rhythm_depth` is not 0.

    Returns:
        float32, shape (round(samples / tempo),), with the RMS of the input, lower only where the peak would
        pass 0.99.

    Raises:
        ValueError: `rhythm_depth` without `rng`.
    """
    count = round(len(samples) / tempo)
    if not can_warp(samples):
        return _fit(samples, count)
    played = samples if formants == 1.0 else soxr.resample(samples, SAMPLE_RATE * formants, SAMPLE_RATE, quality="HQ")
    # Found in the recording: resampled, a low or high voice would leave the range of the search.
    found = psola.find_pitch(samples)
    frames = np.rint(np.arange(len(played) // psola.FRAME + 1) * formants).astype(int)
    found = found[np.minimum(frames, len(found) - 1)]
    f0, wanted = found * formants, found * 2.0 ** (pitch_semitones / 12.0)
    if contour != 1.0:
        wanted = _scale_contour(wanted, contour)
    places = np.array([0.0, len(played)])
    if rhythm_depth:
        if rng is None:
            raise ValueError("rhythm_depth needs rng, from which its swings are drawn")
        places = _swing(len(samples), rhythm_depth, rng) * len(played)
    longer = np.divide(f0, wanted, out=np.ones_like(f0), where=f0 > 0)
    spoken = psola.speak(played, f0=f0, stretched=longer, places=places, count=count)
    level, spoken_level = (math.sqrt(float(np.dot(s, s)) / len(s)) for s in (samples, spoken))
    return levels.limited(spoken * np.float32(level / spoken_level)) if spoken_level > 0 else spoken


def shift_pitch(samples: np.ndarray, *, semitones: float) -> np.ndarray:
    """A higher or lower voice, formants and tempo kept, shape (samples,); see `warp`."""
    return warp(samples, pitch_semitones=semitones)


def warp_formants(samples: np.ndarray, *, factor: float) -> np.ndarray:
    """A shorter (above 1) or longer vocal tract, pitch and tempo kept, shape (samples,); see `warp`."""
    return warp(samples, formants=factor)


def scale_contour(samples: np.ndarray, *, factor: float) -> np.ndarray:
    """A livelier (above 1) or flatter melody around the same mean pitch, shape (samples,); see `warp`."""
    return warp(samples, contour=factor)


def swing_rhythm(samples: np.ndarray, *, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Some syllables longer, others shorter, the whole as long as before, shape (samples,); see `warp`."""
    return warp(samples, rhythm_depth=depth, rng=rng)


def _scale_contour(f0: np.ndarray, factor: float) -> np.ndarray:
    voiced = f0 > 0
    if not voiced.any():
        return f0
    scaled = f0.copy()
    log_f0 = np.log(f0[voiced])
    scaled[voiced] = np.exp(log_f0.mean() + (log_f0 - log_f0.mean()) * factor)
    return scaled


def _swing(count: int, depth: float, rng: np.random.Generator) -> np.ndarray:
    """What share of a clip of `count` samples is heard by each of so many moments: a pace that varies by `depth`."""
    frames = max(2, count // psola.FRAME)
    knots = max(2, math.ceil(count / SAMPLE_RATE * SYLLABLES_A_SECOND / 2) + 1)
    pace = np.interp(np.linspace(0, knots - 1, frames), np.arange(knots), 1 + depth * rng.uniform(-1, 1, knots))
    place = np.concatenate([[0.0], np.cumsum(pace)])
    return place / place[-1]


def _fit(samples: np.ndarray, count: int) -> np.ndarray:
    if len(samples) >= count:
        return samples[:count]
    fitted = np.zeros(count, np.float32)
    fitted[: len(samples)] = samples
    return fitted
