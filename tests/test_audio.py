"""Every kind of sound file people have, in; and a name for each that cannot be used."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechft import audio
from speechft.errors import InputError


def tone(duration_s: float, *, rate: int = 16000, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(duration_s * rate)) / rate)).astype(np.float32)


def loudest_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * audio.SAMPLE_RATE / len(samples)


def reason(path: Path, **segment: float) -> str:
    with pytest.raises(audio.AudioError) as caught:
        audio.read(path, **segment)
    assert str(path) in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 44101, 48000, 96000])
def test_any_rate_becomes_16_khz(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0, rate=rate), rate)
    samples = audio.read(tmp_path / "a.wav")
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - 16000) <= 1
    assert loudest_hz(samples) == pytest.approx(440, abs=2)
    assert float(np.abs(samples[1000:-1000]).max()) == pytest.approx(0.5, abs=0.01)


def test_resampling_removes_what_16_khz_cannot_hold(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0, rate=96000, hz=20000), 96000)
    assert float(np.abs(audio.read(tmp_path / "a.wav")[1000:-1000]).max()) < 0.01


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = tone(0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav"), left / 2, atol=1e-7)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.1)])
def test_written_audio_reads_back(tmp_path: Path, suffix: str, tolerance: float) -> None:
    samples = tone(1.0) * np.hanning(16000).astype(np.float32)
    audio.write(tmp_path / f"a{suffix}", samples)
    back = audio.read(tmp_path / f"a{suffix}")
    assert len(back) == 16000
    np.testing.assert_allclose(back, samples, atol=tolerance)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"written as \.wav, \.flac, \.ogg, not as \.m4a"):
        audio.write(tmp_path / "a.m4a", tone(0.1))


def test_probe_reads_the_header(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((4000, 2)), 8000)
    assert audio.probe(tmp_path / "a.wav") == audio.AudioInfo(sample_rate=8000, channels=2, frames=4000, duration_s=0.5)


def test_segments(tmp_path: Path) -> None:
    samples = np.concatenate([tone(1.0, hz=300), tone(1.0, hz=600)])
    soundfile.write(tmp_path / "Zoë 日本.flac", samples, 16000)
    path = tmp_path / "Zoë 日本.flac"
    assert loudest_hz(audio.read(path, offset_s=1.0)) == pytest.approx(600, abs=1)
    assert loudest_hz(audio.read(path, duration_s=1.0)) == pytest.approx(300, abs=1)
    assert len(audio.read(path, offset_s=0.5, duration_s=0.25)) == 4000
    assert len(audio.read(path, offset_s=1.5, duration_s=0.55)) == 8000  # ends 0.05 s late: rounded
    assert reason(path, offset_s=1.5, duration_s=0.7) == "segment past end"
    assert reason(path, offset_s=2.0) == "segment past end"


def test_missing_empty_and_not_audio(tmp_path: Path) -> None:
    (tmp_path / "zero.wav").write_bytes(b"")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    (tmp_path / "text.wav").write_text("this is not sound\n" * 100)
    assert reason(tmp_path / "gone.wav") == "missing file"
    assert reason(tmp_path) == "missing file"
    assert reason(tmp_path / "zero.wav") == "empty audio"
    assert reason(tmp_path / "none.wav") == "empty audio"
    assert reason(tmp_path / "text.wav") == "not audio"


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_not_short_clips(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 16000 * 6).astype(np.float32)
    audio.write(tmp_path / f"a{suffix}", noise)
    content = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(content[: int(len(content) * share)])
    assert reason(tmp_path / f"b{suffix}") == "truncated"


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFDB])
def test_a_wav_from_a_pipe_is_whole(tmp_path: Path, length: int) -> None:
    audio.write(tmp_path / "a.wav", tone(1.0))
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = content[40:44] = length.to_bytes(4, "little")  # sizes unknown when the header was written
    (tmp_path / "a.wav").write_bytes(content)
    assert len(audio.read(tmp_path / "a.wav")) == 16000


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_samples(tmp_path: Path, value: float) -> None:
    samples = tone(0.5)
    samples[100] = value
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert reason(tmp_path / "a.wav") == "NaN samples"


def test_integers_in_a_floating_point_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5) * 32768, 16000, subtype="FLOAT")
    assert reason(tmp_path / "a.wav") == "samples out of range"


def test_active_level_leaves_pauses_out() -> None:
    speech = tone(1.0)
    level = 20 * math.log10(0.5 / math.sqrt(2))
    assert audio.active_level_db(speech) == pytest.approx(level, abs=0.05)
    padded = np.concatenate([np.zeros(32000, np.float32), speech, np.zeros(32000, np.float32)])
    assert audio.active_level_db(padded) == pytest.approx(level, abs=0.05)
    assert audio.active_level_db(np.zeros(1600, np.float32)) == -math.inf
    assert audio.active_level_db(np.zeros(0, np.float32)) == -math.inf


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_sixteen_bits_are_read_as_libsndfile_reads_them(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(1).integers(-(2**15), 2**15, 4000, dtype=np.int16)
    soundfile.write(tmp_path / f"a.{suffix}", values, 16000, subtype="PCM_16")
    own = soundfile.read(tmp_path / f"a.{suffix}", dtype="float32")[0]
    np.testing.assert_array_equal(audio.read(tmp_path / f"a.{suffix}"), own)
