"""What lies between microphone and recogniser: telephone band, band limits, codecs, clipping, gain."""

import io
import math
from typing import Any

import lameenc
import numpy as np
import scipy.fft
import soundfile

from speechft.audio import SAMPLE_RATE
from speechft.augment import levels

TELEPHONE_HZ = (300.0, 3400.0)  # ITU-T G.712
MU = 255.0  # ITU-T G.711
FILTER_ORDER = 10  # Butterworth magnitude, 60 dB an octave: -14 dB at 4 kHz for the telephone band
FILTER_TAIL = SAMPLE_RATE // 10  # 1600 samples of silence, so that the zero-phase filter does not wrap around
# kbit/s for 16 kHz mono; of Opus and Vorbis at libsndfile's compression levels 1 and 0, linear between.
CODEC_KBPS = {"opus": (6.0, 256.0), "mp3": (8.0, 160.0), "vorbis": (36.0, 88.0)}
LAME_QUALITY = 7  # its quickest; libsndfile has no setting for it, and by its choice encoding takes six times as long
LAME_DELAY = 1105  # samples: 576 of the encoder, 529 of the decoder


def limit_band(samples: np.ndarray, *, low_hz: float, high_hz: float) -> np.ndarray:
    """Keep the frequencies between two edges (-3 dB there, 60 dB an octave beyond), without delay.

    Args:
        samples: float32, shape (samples,).
        low_hz: lower edge; 0 keeps everything below.
        high_hz: upper edge; 8000 or more keeps everything above.

    Returns:
        float32 samples, shape (samples,).
    """
    if not len(samples):
        return samples
    size = scipy.fft.next_fast_len(len(samples) + FILTER_TAIL, real=True)
    spectrum = scipy.fft.rfft(samples, size)
    spectrum *= _band_gain(len(spectrum), SAMPLE_RATE / size, low_hz, high_hz)
    return scipy.fft.irfft(spectrum, size)[: len(samples)]


def telephone(samples: np.ndarray, *, mu_law: bool = True) -> np.ndarray:
    """A narrow-band telephone line: 300-3400 Hz at 8 kHz, each sample in 8 bits by mu-law (G.711).

    Args:
        samples: float32 in [-1, 1] at 16 kHz, shape (samples,).
        mu_law: False leaves out the 8-bit quantisation, as on a good wide-band line that was cut.

    Returns:
        float32 samples at 16 kHz, shape (samples,).
    """
    if not len(samples):
        return samples
    # Both sizes are fast: the 8 kHz signal is the lower half of the 16 kHz spectrum.
    half = 2 * scipy.fft.next_fast_len((len(samples) + FILTER_TAIL + 3) // 4, real=True)
    spectrum = scipy.fft.rfft(samples, 2 * half)[: half // 2 + 1]
    spectrum *= _band_gain(len(spectrum), SAMPLE_RATE / (2 * half), *TELEPHONE_HZ)
    spectrum[-1] = 0.0  # 4 kHz itself has no phase at 8 kHz
    if mu_law:
        narrow = scipy.fft.irfft(spectrum, half) * np.float32(0.5)
        spectrum = scipy.fft.rfft(_quantise(levels.limited(narrow))) * np.float32(2.0)
        spectrum[-1] = 0.0
    return scipy.fft.irfft(spectrum, 2 * half)[: len(samples)]


def code(samples: np.ndarray, *, codec: str, kbps: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Encode and decode, in memory.

    Args:
        samples: float32, shape (samples,); scaled down first where it would pass full scale.
        codec: "opus", "mp3" or "vorbis".
        kbps: bit rate aimed at, kept within what the codec does at 16 kHz (Opus 6-256, MP3 8-160, Vorbis 36-88).

    Returns:
        float32 samples, shape (samples,), in place with the input, and facts: {"codec", "kbps",
        "measured_kbps"}.

    Raises:
        ValueError: the codec is unknown.
    """
    if codec not in CODEC_KBPS:
        raise ValueError(f"codec must be one of {', '.join(CODEC_KBPS)}, got {codec!r}")
    lowest, highest = CODEC_KBPS[codec]
    kbps = min(max(kbps, lowest), highest)
    facts: dict[str, Any] = {"codec": codec, "kbps": kbps}
    if not len(samples):
        return samples, facts
    if codec == "mp3":
        file, delay = io.BytesIO(_mp3(levels.limited(samples), kbps)), LAME_DELAY
    else:
        file, delay = io.BytesIO(), 0
        soundfile.write(
            file, levels.limited(samples), SAMPLE_RATE, format="OGG", subtype=codec.upper(),
            compression_level=(highest - kbps) / (highest - lowest),
        )  # fmt: skip
    facts["measured_kbps"] = round(len(file.getvalue()) * 8 * SAMPLE_RATE / len(samples) / 1000, 1)
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32")[0][delay : delay + len(samples)]
    fitted = np.zeros_like(samples)
    fitted[: len(decoded)] = decoded
    return fitted, facts


def _mp3(samples: np.ndarray, kbps: float) -> bytes:
    """MP3 by LAME at a constant rate, the nearest that MPEG-2 has (8, 16, 24, ... 160)."""
    encoder = lameenc.Encoder()
    encoder.silence()
    encoder.set_channels(1)
    encoder.set_in_sample_rate(SAMPLE_RATE)
    encoder.set_out_sample_rate(SAMPLE_RATE)
    encoder.set_bit_rate(round(kbps))
    encoder.set_quality(LAME_QUALITY)
    return bytes(encoder.encode(np.rint(samples * np.float32(32767)).astype("<i2").tobytes()) + encoder.flush())


def clip(samples: np.ndarray, *, drive_db: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Overdrive: flatten what lies within `drive_db` of the peak.

    Returns:
        float32 samples, shape (samples,), and facts: {"drive_db", "clipped_share"}.
    """
    peak = levels.peak(samples)
    ceiling = np.float32(peak * 10 ** (-drive_db / 20))
    share = float(np.mean(np.abs(samples) > ceiling)) if len(samples) else 0.0
    return np.clip(samples, -ceiling, ceiling), {"drive_db": drive_db, "clipped_share": round(share, 5)}


def change_gain(samples: np.ndarray, *, gain_db: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Make louder or quieter, but no louder than 0.99 of full scale.

    Returns:
        float32 samples, shape (samples,), and facts: {"gain_db"}, the gain that was possible.
    """
    gain = levels.possible_gain(samples, 10 ** (gain_db / 20))
    return samples * np.float32(gain), {"gain_db": round(20 * math.log10(gain), 4)}


def _band_gain(bins: int, bin_hz: float, low_hz: float, high_hz: float) -> np.ndarray:
    """Zero-phase Butterworth magnitude of a high-pass and a low-pass in a row, shape (bins,)."""
    hz = np.arange(bins, dtype=np.float64) * bin_hz
    hz[0] = 1e-3 * bin_hz
    gain = np.ones(bins)
    if high_hz < SAMPLE_RATE / 2:
        gain /= 1 + np.exp(np.minimum(2 * FILTER_ORDER * np.log(hz / high_hz), 80))
    if low_hz > 0:
        gain /= 1 + np.exp(np.minimum(2 * FILTER_ORDER * np.log(low_hz / hz), 80))
    return np.sqrt(gain).astype(np.float32)


def _quantise(samples: np.ndarray) -> np.ndarray:
    """Mu-law to 8 bits and back: 255 levels, finer near zero."""
    compressed = np.log1p(np.float32(MU) * np.abs(samples)) * np.float32(1 / math.log1p(MU))
    rounded = np.round(compressed * np.float32(127.0)) * np.float32(math.log1p(MU) / 127.0)
    return np.copysign(np.expm1(rounded) * np.float32(1 / MU), samples)
