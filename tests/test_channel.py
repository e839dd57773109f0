"""Channels measured with tones: what passes, what is lost, and that nothing moves in time."""

import math

import numpy as np
import pytest

from speechft.audio import SAMPLE_RATE
from speechft.augment import channel

RATE = SAMPLE_RATE


def tone(hz: float, *, peak: float = 0.5, duration_s: float = 1.0) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hz * np.arange(round(duration_s * RATE)) / RATE)).astype(np.float32)


def change_db(before: np.ndarray, after: np.ndarray) -> float:
    middle = slice(len(before) // 4, -len(before) // 4)
    return 20 * math.log10(float(np.std(after[middle]) / np.std(before[middle])) + 1e-12)


def speechlike(count: int) -> np.ndarray:
    """Band-limited noise bursts: a clear place in time, and something codecs keep."""
    white = np.random.default_rng(1).standard_normal(count).astype(np.float32)
    bursts = np.sin(2 * np.pi * 3 * np.arange(count) / RATE) ** 2
    return channel.limit_band((0.1 * white * bursts).astype(np.float32), low_hz=200, high_hz=3000)


def lag(before: np.ndarray, after: np.ndarray) -> int:
    size = 2 * len(before)
    product = np.fft.irfft(np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size)), size)
    place = int(np.argmax(product))
    return place if place < len(before) else place - size


@pytest.mark.parametrize(
    ("hz", "expected_db", "tolerance_db"),
    [(1000, 0.0, 0.01), (300, -3.0, 0.1), (3400, -3.0, 0.1), (150, -60.2, 1.5), (6800, -60.2, 1.5)],
)
def test_band_edges_are_3_db_down_and_fall_by_60_db_an_octave(
    hz: float, expected_db: float, tolerance_db: float
) -> None:
    before = tone(hz)
    after = channel.limit_band(before, low_hz=300, high_hz=3400)
    assert change_db(before, after) == pytest.approx(expected_db, abs=tolerance_db)


def test_open_band_changes_nothing() -> None:
    samples = speechlike(8000)
    np.testing.assert_allclose(channel.limit_band(samples, low_hz=0, high_hz=8000), samples, atol=1e-6)


@pytest.mark.parametrize("mu_law", [True, False])
def test_telephone_keeps_the_voice_band_in_place(mu_law: bool) -> None:
    before = tone(1013)  # not a divisor of 8000, which would meet the same few 8-bit levels again and again
    after = channel.telephone(before, mu_law=mu_law)
    assert after.shape == before.shape
    assert after.dtype == np.float32
    assert change_db(before, after) == pytest.approx(0.0, abs=0.1)
    assert lag(speechlike(RATE), channel.telephone(speechlike(RATE), mu_law=mu_law)) == 0
    for lost_hz in (100, 5000, 7000):
        assert change_db(tone(lost_hz), channel.telephone(tone(lost_hz), mu_law=mu_law)) < -60


def test_mu_law_costs_what_8_bits_cost() -> None:
    before = tone(1000)
    middle = slice(2000, -2000)
    error = (channel.telephone(before) - channel.telephone(before, mu_law=False))[middle]
    snr_db = 20 * math.log10(float(np.std(before[middle]) / np.std(error)))
    assert 35 < snr_db < 42  # the textbook value of mu-law at speech levels is about 38 dB
    # Quiet speech keeps nearly the same ratio: that is what the law is for.
    quiet = tone(1000, peak=0.02)
    error = (channel.telephone(quiet) - channel.telephone(quiet, mu_law=False))[middle]
    assert 20 * math.log10(float(np.std(quiet[middle]) / np.std(error))) > 29


@pytest.mark.parametrize(
    ("codec", "kbps", "tolerance"),
    [("opus", 8.0, 0.5), ("opus", 24.0, 0.2), ("mp3", 8.0, 0.2), ("mp3", 16.0, 0.2), ("mp3", 24.0, 0.2),
     ("mp3", 64.0, 0.2), ("vorbis", 40.0, 0.3)],
)  # fmt: skip
def test_codecs_keep_length_place_and_rate(codec: str, kbps: float, tolerance: float) -> None:
    before = speechlike(2 * RATE)
    after, facts = channel.code(before, codec=codec, kbps=kbps)
    assert after.shape == before.shape
    assert after.dtype == np.float32
    assert abs(lag(before, after)) <= 2
    assert np.corrcoef(before, after)[0, 1] > 0.5
    assert not np.array_equal(before, after)
    assert facts["codec"] == codec
    assert facts["kbps"] == kbps
    assert facts["measured_kbps"] == pytest.approx(kbps, rel=tolerance)


@pytest.mark.parametrize("codec", sorted(channel.CODEC_KBPS))
def test_rates_a_codec_cannot_do_become_the_nearest(codec: str) -> None:
    samples = speechlike(1600)
    lowest, highest = channel.CODEC_KBPS[codec]
    assert channel.code(samples, codec=codec, kbps=1.0)[1]["kbps"] == lowest
    assert channel.code(samples, codec=codec, kbps=999.0)[1]["kbps"] == highest


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(ValueError, match="got 'amr'"):
        channel.code(speechlike(100), codec="amr", kbps=12)


def test_clip_flattens_the_peaks() -> None:
    clipped, facts = channel.clip(tone(100), drive_db=20 * math.log10(2))
    assert np.abs(clipped).max() == pytest.approx(0.25, abs=1e-4)
    assert facts["clipped_share"] == pytest.approx(2 / 3, abs=0.01)  # a sine is above half its peak so often


def test_gain_stops_short_of_clipping() -> None:
    louder, facts = channel.change_gain(tone(100, peak=0.1), gain_db=6.0)
    assert np.abs(louder).max() == pytest.approx(0.1 * 10 ** (6 / 20), rel=1e-3)
    assert facts == {"gain_db": 6.0}
    loudest, facts = channel.change_gain(tone(100, peak=0.5), gain_db=20.0)
    assert np.abs(loudest).max() == pytest.approx(0.99, abs=1e-3)
    assert facts["gain_db"] == pytest.approx(20 * math.log10(0.99 / 0.5), abs=0.01)


@pytest.mark.parametrize("count", [0, 1, 2, 100, 1600])
@pytest.mark.parametrize("silent", [True, False])
def test_short_and_silent_clips_survive(count: int, silent: bool) -> None:
    samples = np.zeros(count, np.float32) if silent else tone(500, duration_s=count / RATE)
    results = [
        channel.limit_band(samples, low_hz=300, high_hz=3400),
        channel.telephone(samples),
        channel.clip(samples, drive_db=6)[0],
        channel.change_gain(samples, gain_db=6)[0],
        *(channel.code(samples, codec=codec, kbps=40)[0] for codec in channel.CODEC_KBPS),
    ]
    for result in results:
        assert result.shape == samples.shape
        assert np.isfinite(result).all()
