"""Background noise: generated, babble mixed from speech, and mixing at a measured signal-to-noise ratio."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft

from speechft import audio
from speechft.audio import SAMPLE_RATE
from speechft.augment import levels

GENERATED = ("white", "pink", "brown", "hum")
COLOUR_EXPONENT = {"pink": 0.5, "brown": 1.0}  # amplitude falls with frequency to this power
COLOUR_FLOOR_HZ = 20.0  # below, the spectrum is flat: nothing audible, and it would eat the whole level
MAINS_HZ = (50.0, 60.0)
HUM_TOP_HZ = 1000.0
HUM_REPEAT = SAMPLE_RATE // 10  # 1600 samples: 5 whole periods of 50 Hz, 6 of 60 Hz
HUM_HISS_DB = -30.0  # white noise under the hum, as the amplifier that picks it up has
SILENCE_DB = -70.0  # quieter "speech" is a silent row: it has no level that noise could be related to
TINY = 1e-12
FAINTEST = 1e-4  # a recording that stays below this is silence, 3 steps of 16 bits


def generate(kind: str, samples_count: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    """Make noise of one RMS.

    White has equal power per hertz, pink per octave (-3 dB an octave), brown falls by 6 dB an octave (both
    flat below 20 Hz); hum is 50 or 60 Hz with its harmonics up to 1 kHz, odd ones stronger, over faint white
    noise.

    Args:
        kind: one of `GENERATED`.
        samples_count: how many samples at 16 kHz.
        rng: where the noise comes from.

    Returns:
        float32 samples of RMS 1, shape (samples_count,), and facts: {"mains_hz": 50.0} for hum, else none.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in GENERATED:
        raise ValueError(f"noise kind must be one of {', '.join(GENERATED)}, got {kind!r}")
    if samples_count <= 0:
        return np.zeros(0, np.float32), {}
    if kind == "hum":
        return _hum(samples_count, rng)
    if kind == "white":
        return _unit(rng.standard_normal(samples_count, dtype=np.float32)), {}
    size = scipy.fft.next_fast_len(samples_count, real=True)
    spectrum = scipy.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    hz = np.arange(len(spectrum), dtype=np.float32) * np.float32(SAMPLE_RATE / size)
    spectrum *= np.maximum(hz, np.float32(COLOUR_FLOOR_HZ)) ** np.float32(-COLOUR_EXPONENT[kind])
    spectrum[0] = 0.0  # no offset
    return _unit(scipy.fft.irfft(spectrum, size)[:samples_count]), {}


def _hum(samples_count: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    mains_hz = float(rng.choice(MAINS_HZ))
    time_s = np.arange(HUM_REPEAT) / SAMPLE_RATE
    hum = np.zeros(HUM_REPEAT)
    for harmonic in range(1, int(HUM_TOP_HZ / mains_hz) + 1):
        strength = rng.uniform(0.3, 1.0) / harmonic * (1.0 if harmonic % 2 else 0.5)
        hum += strength * np.sin(2 * np.pi * (mains_hz * harmonic * time_s + rng.random()))
    hiss = _unit(rng.standard_normal(samples_count, dtype=np.float32)) * np.float32(10 ** (HUM_HISS_DB / 20))
    return _unit(np.resize(_unit(hum.astype(np.float32)), samples_count) + hiss), {"mains_hz": mains_hz}


def babble(utterances: Sequence[np.ndarray], samples_count: int, rng: np.random.Generator) -> np.ndarray:
    """Mix people talking at once: voices of one active level, from random places, repeated as needed.

    Args:
        utterances: one array (samples,) for each voice; silent ones add nothing.
        samples_count: how many samples to make.
        rng: where each voice starts.

    Returns:
        float32 samples of RMS 1, shape (samples_count,); all zeros when every voice is silent.
    """
    mixed = np.zeros(max(0, samples_count), np.float32)
    for utterance in utterances:
        level_db = audio.active_level_db(utterance) if len(utterance) else -math.inf
        if level_db > SILENCE_DB and samples_count > 0:
            mixed += loop(utterance, samples_count, rng) * np.float32(10 ** (-level_db / 20))
    return _unit(mixed)


def loop(noise: np.ndarray, samples_count: int, rng: np.random.Generator) -> np.ndarray:
    """A stretch (samples_count,) of `noise` from a random place, starting over where it ends."""
    if not len(noise) or samples_count <= 0:
        return np.zeros(max(0, samples_count), np.float32)
    if len(noise) >= samples_count:
        start = int(rng.integers(len(noise) - samples_count + 1))
        return noise[start : start + samples_count]
    return np.resize(np.roll(noise, -int(rng.integers(len(noise)))), samples_count)


def is_silent(sound: np.ndarray) -> bool:
    """Whether a recording stays below `FAINTEST`; a sound whose RMS is louder need not be searched for its peak."""
    return _rms(sound) <= FAINTEST and levels.peak(sound) <= FAINTEST


def mix(speech: np.ndarray, noise: np.ndarray, *, snr_db: float) -> tuple[np.ndarray, float]:
    """Add noise at a signal-to-noise ratio.

    The speech level is that of its active frames (`audio.active_level_db`), so pauses do not change it; the
    noise level is its RMS over the clip. Where the mixture would pass 0.99 of full scale, both are scaled
    down together, which leaves the ratio. Silent speech (below -70 dB) gets the noise it would get at -26 dB.

    Args:
        speech: float32 samples in [-1, 1], shape (samples,).
        noise: float32 samples of any level, shape (samples,), the same number.
        snr_db: the ratio to reach.

    Returns:
        The mixture, shape (samples,), and the ratio measured from its two parts: within 0.1 dB of `snr_db`,
        except minus infinity for silent speech and infinity for silent noise (then nothing is added).
    """
    if len(speech) != len(noise):
        raise ValueError(f"speech has {len(speech)} samples, noise {len(noise)}: cut or loop the noise to fit")
    noise_rms = _rms(noise)
    if noise_rms <= TINY:
        return speech, math.inf
    speech_db = audio.active_level_db(speech)
    silent = speech_db < SILENCE_DB
    noise_db = (levels.SPEECH_DB if silent else speech_db) - snr_db
    mixed = noise * np.float32(10 ** (noise_db / 20) / noise_rms)
    scaled_rms = _rms(mixed)
    mixed += speech
    scale = levels.possible_gain(mixed, 1.0)
    if scale < 1.0:
        mixed *= np.float32(scale)
        scaled_rms *= scale
        speech_db = audio.active_level_db(speech * np.float32(scale))
    if silent:
        return mixed, -math.inf
    return mixed, speech_db - 20 * math.log10(max(scaled_rms, TINY))


def _rms(samples: np.ndarray) -> float:
    # A dot product: one pass, and float32 products of a clip's length stay exact to 1e-5.
    return math.sqrt(float(np.dot(samples, samples)) / len(samples)) if len(samples) else 0.0


def _unit(samples: np.ndarray) -> np.ndarray:
    rms = _rms(samples)
    return samples * np.float32(1.0 / rms) if rms > TINY else np.zeros_like(samples)
