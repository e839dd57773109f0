"""Periods found in a voice, and put together again."""

import numpy as np
import pytest
from test_accent import pitch_hz, voice

from speechft.audio import SAMPLE_RATE
from speechft.augment import psola


def spoken(samples: np.ndarray, *, factor: float = 1.0, tempo: float = 1.0) -> np.ndarray:
    f0 = psola.find_pitch(samples)
    return psola.speak(
        samples, f0=f0, stretched=np.full(len(f0), factor), places=np.array([0.0, len(samples)]),
        count=round(len(samples) / tempo),
    )  # fmt: skip


def hissing(duration_s: float) -> np.ndarray:
    return 0.05 * np.random.default_rng(1).standard_normal(round(duration_s * SAMPLE_RATE)).astype(np.float32)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


@pytest.mark.parametrize("f0_hz", [80.0, 120.0, 237.0])
def test_every_period_of_a_steady_voice_is_marked_once(f0_hz: float) -> None:
    samples = voice(f0_hz=f0_hz)
    [(_, _, places)] = psola.mark_periods(samples, psola.find_pitch(samples))
    assert np.diff(places) == pytest.approx(SAMPLE_RATE / f0_hz, abs=1.5)
    assert len(places) > 0.8 * f0_hz  # of a second; the first and the last periods have no pitch yet
    # Each mark is at the same moment of its period, so that periods can be put over each other.
    periods = np.stack([samples[place - 20 : place + 20] for place in places[1:-1]])
    assert np.corrcoef(periods).min() > 0.9


def test_what_has_no_pitch_has_no_marks() -> None:
    samples = hissing(1.0)
    assert psola.mark_periods(samples, psola.find_pitch(samples)) == []


def test_marks_follow_a_voice_that_moves() -> None:
    f0_hz = np.geomspace(100, 140, SAMPLE_RATE)
    samples = voice(f0_hz=f0_hz)
    [(_, _, places)] = psola.mark_periods(samples, psola.find_pitch(samples))
    for place, period in zip(places, np.diff(places), strict=False):
        assert period == pytest.approx(SAMPLE_RATE / f0_hz[place], rel=0.05)


def test_with_nothing_changed_it_is_the_recording() -> None:
    samples = np.concatenate([hissing(0.31), voice(f0_hz=np.geomspace(90, 180, 9000), duration_s=9000 / SAMPLE_RATE),
                              hissing(0.13), voice(f0_hz=210, duration_s=0.4), hissing(0.2)])  # fmt: skip
    assert rms(spoken(samples) - samples) < 0.001 * rms(samples)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_pitch_moves_in_voice_and_both_keep_their_level(factor: float) -> None:
    half = SAMPLE_RATE
    samples = np.concatenate([voice(f0_hz=130.0), hissing(1.0)])
    changed = spoken(samples, factor=factor)
    assert np.median(pitch_hz(changed[:half])) == pytest.approx(130 / factor, rel=0.01)
    for part in (slice(1600, half - 1600), slice(half + 1600, -1600)):
        assert rms(changed[part]) == pytest.approx(rms(samples[part]), rel=0.16)
    np.testing.assert_allclose(changed[half + 1600 : -1600], samples[half + 1600 : -1600], atol=1e-6)


@pytest.mark.parametrize("tempo", [0.8, 1.25])
def test_pace_moves_and_pitch_stays(tempo: float) -> None:
    changed = spoken(voice(f0_hz=130.0), tempo=tempo)
    assert len(changed) == round(SAMPLE_RATE / tempo)
    assert np.median(pitch_hz(changed)) == pytest.approx(130, rel=0.01)
