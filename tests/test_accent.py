"""Voice warps measured on voices whose pitch and formants are known."""

import numpy as np
import pytest
import scipy.signal

from speechft.audio import SAMPLE_RATE
from speechft.augment import accent

RATE = SAMPLE_RATE


def voice(*, f0_hz: float | np.ndarray = 120.0, formant_hz: float = 1000.0, duration_s: float = 1.0) -> np.ndarray:
    """A buzz of known pitch through one resonance of known frequency (bandwidth 120 Hz), peak 0.3."""
    count = round(duration_s * RATE)
    phase = np.cumsum(np.broadcast_to(f0_hz, count) / RATE)
    buzz = np.diff(np.floor(phase), prepend=0.0)
    radius = np.exp(-np.pi * 120 / RATE)
    poles = [1, -2 * radius * np.cos(2 * np.pi * formant_hz / RATE), radius**2]
    samples = scipy.signal.lfilter([1], poles, buzz)
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


def pitch_hz(samples: np.ndarray) -> np.ndarray:
    import pyworld

    signal = samples.astype(np.float64)
    rough, times = pyworld.dio(signal, RATE)
    f0 = pyworld.stonemask(signal, rough, times, RATE)
    return f0[f0 > 0]


def formant_hz(samples: np.ndarray) -> float:
    """Peak of the spectrum's envelope: the middle of the clip, smoothed over more than a harmonic."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    hz, power = scipy.signal.welch(middle, RATE, nperseg=256, nfft=8192)
    return float(hz[200 + np.argmax(power[200:])])


def loudest_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    return float(np.argmax(spectrum)) * RATE / (8 * len(samples))


def tone(hz: float, duration_s: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(duration_s * RATE)) / RATE)).astype(np.float32)


@pytest.mark.parametrize("speed", [0.8, 0.97, 1.0371, 1.25])
def test_speed_moves_tempo_and_pitch_together(speed: float) -> None:
    played = accent.shift_speed(tone(1000), speed=speed)
    assert played.dtype == np.float32
    assert len(played) == round(RATE / speed)
    assert loudest_hz(played) == pytest.approx(1000 * speed, rel=0.001)
    assert np.std(played) == pytest.approx(np.std(tone(1000)), rel=0.02)


def test_speed_removes_what_no_longer_fits() -> None:
    assert np.std(accent.shift_speed(tone(7500), speed=1.2)) < 0.01 * np.std(tone(7500))


@pytest.mark.parametrize("tempo", [0.7, 0.9, 1.1, 1.5])
def test_tempo_keeps_pitch_and_formants(tempo: float) -> None:
    before = voice()
    spoken = accent.shift_tempo(before, tempo=tempo)
    assert len(spoken) == round(len(before) / tempo)
    assert np.median(pitch_hz(spoken)) == pytest.approx(120, rel=0.01)
    assert formant_hz(spoken) == pytest.approx(formant_hz(before), rel=0.02)
    assert np.std(spoken) == pytest.approx(np.std(before), rel=0.1)


@pytest.mark.parametrize("tempo", [0.8, 1.25])
@pytest.mark.parametrize("in_periods", [False, True])
def test_tempo_moves_events_in_proportion(tempo: float, in_periods: bool) -> None:
    before = np.zeros(2 * RATE, np.float32)
    before[RATE : RATE + RATE // 4] = voice(duration_s=0.25)
    spoken = accent.warp(before, tempo=tempo) if in_periods else accent.shift_tempo(before, tempo=tempo)
    loud = np.flatnonzero(np.abs(spoken) > 0.03) / RATE
    assert loud[0] == pytest.approx(1.0 / tempo, abs=0.03)
    assert loud[-1] == pytest.approx(1.25 / tempo, abs=0.03)


@pytest.mark.parametrize("semitones", [-5.0, 3.0])
def test_pitch_moves_and_formants_stay(semitones: float) -> None:
    before = voice()
    spoken = accent.shift_pitch(before, semitones=semitones)
    assert spoken.shape == before.shape
    assert np.median(pitch_hz(spoken)) == pytest.approx(120 * 2 ** (semitones / 12), rel=0.01)
    assert formant_hz(spoken) == pytest.approx(1000, rel=0.06)
    assert np.std(spoken) == pytest.approx(np.std(before), rel=0.01)


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_formants_move_and_pitch_stays(factor: float) -> None:
    spoken = accent.warp_formants(voice(), factor=factor)
    assert np.median(pitch_hz(spoken)) == pytest.approx(120, rel=0.01)
    assert formant_hz(spoken) == pytest.approx(1000 * factor, rel=0.06)


@pytest.mark.parametrize(("f0_hz", "factor", "semitones"), [(79.0, 0.88, 3.0), (120.0, 0.55, 3.0), (390.0, 2.0, -3.0)])
def test_low_and_high_voices_keep_a_pitch_whatever_their_formants(
    f0_hz: float, factor: float, semitones: float
) -> None:
    spoken = accent.warp(voice(f0_hz=f0_hz), formants=factor, pitch_semitones=semitones)
    assert np.median(pitch_hz(spoken)) == pytest.approx(f0_hz * 2 ** (semitones / 12), rel=0.02)


@pytest.mark.parametrize(("factor", "spread_semitones"), [(0.0, 0.0), (0.5, 1.5), (2.0, 6.0)])
def test_contour_scales_pitch_movements(factor: float, spread_semitones: float) -> None:
    time_s = np.arange(2 * RATE) / RATE
    moving = voice(f0_hz=130 * 2 ** (3 * np.sin(2 * np.pi * time_s) / 12), duration_s=2.0)
    semitones = 12 * np.log2(pitch_hz(accent.scale_contour(moving, factor=factor))[10:-10] / 130)
    assert np.mean(semitones) == pytest.approx(0, abs=0.3)
    assert np.percentile(semitones, 99) == pytest.approx(spread_semitones, abs=0.35)


def test_rhythm_moves_within_the_clip() -> None:
    before = np.tile(np.concatenate([voice(duration_s=0.15), np.zeros(RATE // 20, np.float32)]), 10)
    spoken = accent.swing_rhythm(before, depth=0.4, rng=np.random.default_rng(1))
    assert spoken.shape == before.shape
    again = accent.swing_rhythm(before, depth=0.4, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(spoken, again)

    def gaps_s(samples: np.ndarray) -> np.ndarray:
        level = np.convolve(np.abs(samples), np.ones(320) / 320, mode="same")
        onsets = np.flatnonzero(np.diff((level > 0.02).astype(int)) == 1)
        return np.diff(onsets) / RATE

    assert np.std(gaps_s(accent.warp(before))) < 0.005
    assert len(gaps_s(spoken)) == len(gaps_s(before))
    assert np.std(gaps_s(spoken)) > 0.015


def test_rhythm_needs_its_randomness() -> None:
    with pytest.raises(ValueError, match="rng"):
        accent.warp(voice(), rhythm_depth=0.2)


def test_one_pass_does_all_and_is_deterministic() -> None:
    def made() -> np.ndarray:
        return accent.warp(
            voice(), tempo=1.1, pitch_semitones=2, formants=1.1, contour=0.5, rhythm_depth=0.1,
            rng=np.random.default_rng(3),
        )  # fmt: skip

    spoken = made()
    assert len(spoken) == round(RATE / 1.1)
    assert np.median(pitch_hz(spoken)) == pytest.approx(120 * 2 ** (2 / 12), rel=0.01)
    np.testing.assert_array_equal(spoken, made())


@pytest.mark.parametrize("count", [0, 1, 2, 100, 799, 800, 1600])
@pytest.mark.parametrize("silent", [True, False])
def test_short_and_silent_clips_survive(count: int, silent: bool) -> None:
    samples = np.zeros(count, np.float32) if silent else tone(150, count / RATE)
    rng = np.random.default_rng(1)
    for tempo in (0.8, 1.2):
        for result in (
            accent.shift_speed(samples, speed=tempo),
            accent.shift_tempo(samples, tempo=tempo),
            accent.warp(samples, tempo=tempo, formants=0.9, rhythm_depth=0.2, rng=rng),
        ):
            assert len(result) == round(count / tempo)
            assert np.isfinite(result).all()
            assert result.dtype == np.float32


@pytest.mark.parametrize("loud", [False, True])
def test_no_clipping(loud: bool) -> None:
    noise = np.random.default_rng(1).standard_normal(RATE).astype(np.float32)
    samples = np.clip(noise * (0.5 if loud else 0.05), -0.99, 0.99)
    for result in (
        accent.shift_speed(samples, speed=1.07),
        accent.shift_tempo(samples, tempo=0.9),
        accent.warp(samples, formants=1.1),
    ):
        assert np.abs(result).max() <= 0.99 + 1e-6
