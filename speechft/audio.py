"""Sound: any readable file in, 16 kHz mono float32 out, and a named reason when that cannot be done."""

import functools
import math
import stat
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from speechft import files
from speechft.errors import InputError

SAMPLE_RATE = 16000  # samples a second, what Whisper's log-mel is computed from
END_TOLERANCE_S = 0.1  # a segment may end this much after its file: manifests round durations
FULL_SCALE_LIMIT = 16.0  # floating-point files above this hold integers, not samples in [-1, 1]
ACTIVE_FRAME = SAMPLE_RATE // 50  # 320 samples, 20 ms
ACTIVE_RANGE_DB = 40.0  # frames within this of the loudest count as speech
SUBTYPES = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "OPUS")}
FAINT = 0.1  # FLAC with a lower peak is written in 24 bits: the rounding of 16 would add to its noise
OGG_PAGE_BYTES = 27 + 255 + 255 * 255  # 65307, the largest page
# The data size of a WAV file written to a pipe is 0, or by SoX, arecord and FFmpeg one of several from here on.
UNKNOWN_FROM = 0x7FFFF000

LOWEST_RATE = 1000  # Hz; speech starts where telephones do, and resampling from less takes a filter without end


class AudioError(InputError):
    """A sound file that cannot be used; `reason` is the short category it is counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What a sound file's header says."""

    sample_rate: int
    channels: int
    frames: int
    duration_s: float


def probe(path: str | Path) -> AudioInfo:
    """Read a sound file's header.

    Raises:
        AudioError: the file is missing, empty, unreadable, truncated or not audio.
    """
    with _open(Path(path)) as file:
        return AudioInfo(
            sample_rate=file.samplerate,
            channels=file.channels,
            frames=file.frames,
            duration_s=file.frames / file.samplerate,
        )


def read(path: str | Path, *, offset_s: float = 0.0, duration_s: float | None = None) -> np.ndarray:
    """Read a file, or a segment of it, as 16 kHz mono.

    Channels are averaged; other rates are resampled with torchaudio's windowed sinc.

    Args:
        path: any format libsndfile reads (WAV, FLAC, Ogg, MP3, ...).
        offset_s: where the segment starts.
        duration_s: its length; None means to the end of the file.

    Returns:
        float32 samples in [-1, 1], shape (samples,).

    Raises:
        AudioError: the file is missing, empty, unreadable, truncated or not audio, holds NaN samples or
            values far outside [-1, 1], or ends before the segment does.
    """
    path = path if isinstance(path, Path) else Path(path)  # to take a path apart again costs as much as a check
    with _open(path) as file:
        rate = file.samplerate
        start = round(offset_s * rate)
        stop = file.frames if duration_s is None else round((offset_s + duration_s) * rate)
        if start >= file.frames or stop > file.frames + END_TOLERANCE_S * rate:
            raise AudioError(
                "segment past end",
                f"{path}: the segment ends at {stop / rate:.2f} s, the file at {file.frames / rate:.2f} s",
            )
        stop = min(stop, file.frames)
        try:
            file.seek(start)
            whole = file.subtype == "PCM_16"  # libsndfile takes five times as long to make floats of it
            samples = file.read(stop - start, dtype="int16" if whole else "float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError("truncated", f"{path}: decoding stops half-way ({error.error_string})") from error
        # MP3 headers may promise a little more than the decoder delivers.
        slack = END_TOLERANCE_S * rate if file.format in ("MP3", "MPEG") else 0
        if len(samples) + slack < stop - start:
            got_s, want_s = len(samples) / rate, (stop - start) / rate
            raise AudioError("truncated", f"{path}: only {got_s:.2f} of {want_s:.2f} s can be decoded")
    if not len(samples):
        raise AudioError("empty audio", f"{path}: holds no samples")
    if whole:
        samples = np.multiply(samples, np.float32(2**-15), dtype=np.float32)  # finite, and within [-1, 1]
    else:
        _check_values(samples, path)
    mono: np.ndarray = samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0]
    if whole and rate == SAMPLE_RATE:
        return mono
    clipped: np.ndarray = np.clip(resample(mono, rate=rate), -1.0, 1.0)
    return clipped


def _check_values(samples: np.ndarray, path: Path) -> None:
    lowest, highest = float(samples.min()), float(samples.max())  # not finite where one sample is not
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        raise AudioError("NaN samples", f"{path}: {bad:,} of {samples.size:,} samples are NaN or infinite")
    peak = max(highest, -lowest)
    if peak > FULL_SCALE_LIMIT:
        raise AudioError("samples out of range", f"{path}: samples reach {peak:.0f}, floating point must be in [-1, 1]")


def resample(samples: np.ndarray, *, rate: int, new_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Resample float32 samples (samples,) from `rate` to `new_rate` with torchaudio's windowed sinc."""
    if rate == new_rate:
        return samples
    import torch
    import torchaudio

    # The filter holds rate x new_rate values over their common divisor: gigabytes for 44,101 Hz. A ratio of
    # small numbers differs by less than one part in a million there, and not at all for usual rates.
    ratio = Fraction(rate, new_rate).limit_denominator(1000)
    wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    resampled: np.ndarray = torchaudio.functional.resample(wave, ratio.numerator, ratio.denominator).numpy()
    return resampled


def write(path: str | Path, samples: np.ndarray, *, sample_rate: int = SAMPLE_RATE) -> None:
    """Write mono samples (samples,) in [-1, 1], atomically: .wav and .flac as 16-bit PCM, faint .flac as 24-bit, .ogg
    as Opus.

    Raises:
        InputError: the suffix is none of these.
    """
    path = Path(path)
    if path.suffix.lower() not in SUBTYPES:
        raise InputError(f"{path}: audio is written as {', '.join(SUBTYPES)}, not as {path.suffix or 'no suffix'}")
    container, subtype = SUBTYPES[path.suffix.lower()]
    if container == "FLAC" and len(samples) and np.abs(samples).max() < FAINT:
        subtype = "PCM_24"
    with files.atomic_write(path, "wb") as file:
        soundfile.write(file, np.clip(samples, -1.0, 1.0), sample_rate, format=container, subtype=subtype)


def active_level_db(samples: np.ndarray, *, sample_rate: int = SAMPLE_RATE) -> float:
    """Level of the speech in a clip: dB RMS over its active 20-ms frames, re full scale.

    Active are the frames whose energy lies within 40 dB of the loudest frame's, so pauses do not lower the
    level (the idea of ITU-T P.56, with a fixed margin). Silence gives minus infinity.
    """
    frame = max(1, ACTIVE_FRAME * sample_rate // SAMPLE_RATE)
    whole = len(samples) // frame * frame
    frames = samples[:whole].reshape(-1, frame) if whole else samples.reshape(1, -1)
    # Sums of 320 float32 squares are exact to 1e-6, and twice as fast as in float64.
    energy = np.einsum("ij,ij->i", frames, frames) / np.float64(frames.shape[1]) if frames.size else np.zeros(1)
    loudest = float(energy.max())
    if loudest <= 0.0:
        return -math.inf
    active = energy[energy >= loudest * 10.0 ** (-ACTIVE_RANGE_DB / 10.0)]
    return 10.0 * math.log10(float(np.add.reduce(active)) / len(active))  # `mean` takes twice as long


def _open(path: Path) -> soundfile.SoundFile:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise AudioError("missing file", f"{path}: is a folder; name the files in it, such as {path}/*.wav")
        if not stat.S_ISREG(found.st_mode):
            raise AudioError("missing file", f"{path}: there is no such file")
        if found.st_size == 0:
            raise AudioError("empty audio", f"{path}: the file has no bytes")
        missing = _missing_bytes(path, found.st_size, found.st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError("missing file", f"{path}: there is no such file") from error
    except OSError as error:
        raise AudioError("unreadable file", f"{path}: cannot be read ({error.strerror})") from error
    if missing:
        raise AudioError("truncated", f"{path}: the file breaks off, at least {missing:,} bytes are missing")
    try:
        file = soundfile.SoundFile(path)
    except TypeError as error:  # without a header, by its suffix
        raise AudioError("not audio", f"{path}: has no header; convert it to WAV or FLAC") from error
    except soundfile.LibsndfileError as error:
        raise AudioError(
            "not audio", f"{path}: cannot be read as audio ({error.error_string}); convert it to WAV or FLAC"
        ) from error
    if file.samplerate < LOWEST_RATE:
        file.close()
        raise AudioError("not audio", f"{path}: the header says {file.samplerate} Hz; convert it anew")
    if file.frames <= 0:
        file.close()
        raise AudioError("empty audio", f"{path}: the header says it holds no samples")
    return file


@functools.lru_cache(maxsize=4096)  # noise is read again and again
def _missing_bytes(path: Path, size: int, _changed_ns: int) -> int:
    """How many bytes a file's own structure promises beyond its end; 0 when it cannot be told.

    libsndfile silently shortens broken-off WAV and Ogg files, so a copy that stopped half-way would pass for
    a short clip. Looked at once for as long as the file's size and time stay.
    """
    with path.open("rb") as file:
        start = file.read(4)
        if start == b"RIFF":
            return _missing_in_wav(file, size)
        if start == b"OggS":
            return _missing_in_ogg(file, size)
    return 0


def _missing_in_wav(file: BinaryIO, size: int) -> int:
    file.seek(12)
    while len(header := file.read(8)) == 8:
        name, length = header[:4], struct.unpack("<I", header[4:])[0]
        if name == b"data":
            unknown = length == 0 or length >= UNKNOWN_FROM
            return 0 if unknown else max(0, file.tell() + length - size)
        file.seek(length + length % 2, 1)
    return 0


def _missing_in_ogg(file: BinaryIO, size: int) -> int:
    """The last page's header lists its segment lengths: 27 bytes, their number, then one byte each."""
    file.seek(max(0, size - OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return 1
    return max(0, 27 + page[26] + sum(page[27 : 27 + page[26]]) - len(page))
