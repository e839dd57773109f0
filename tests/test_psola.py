"""Periods found in a voice, and put together again."""

import numpy as np
import pytest
from test_accent import pitch_hz, voice

from speechft.audio import SAMPLE_RATE
from speechft.augment import accent, psola


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
    assert len(places) > 80
    for place, period in zip(places, np.diff(places), strict=False):
        assert period == pytest.approx(SAMPLE_RATE / f0_hz[place], rel=0.05)


def test_with_nothing_changed_it_is_the_recording() -> None:
    samples = np.concatenate([hissing(0.31), voice(f0_hz=np.geomspace(90, 180, 9000), duration_s=9000 / SAMPLE_RATE),
                              hissing(0.13), voice(f0_hz=210, duration_s=0.4), hissing(0.2)])  # fmt: skip
    assert rms(spoken(samples) - samples) < 0.001 * rms(samples)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_pitch_moves_in_voice_and_both_keep_their_level(factor: float) -> None:
    samples = np.concatenate([voice(f0_hz=130.0), hissing(1.0)])
    changed = spoken(samples, factor=factor)
    assert np.median(pitch_hz(changed[:SAMPLE_RATE])) == pytest.approx(130 / factor, rel=0.01)
    steady = slice(1600, SAMPLE_RATE - 1600)
    assert rms(changed[steady]) == pytest.approx(rms(samples[steady]), rel=0.16)  # 1.5 dB
    np.testing.assert_allclose(changed[SAMPLE_RATE + 1600 :], samples[SAMPLE_RATE + 1600 :], atol=1e-6)


@pytest.mark.parametrize("tempo", [0.8, 1.25])
def test_pace_moves_and_pitch_stays_where_it_was(tempo: float) -> None:
    changed = spoken(voice(f0_hz=np.geomspace(100, 160, SAMPLE_RATE)), tempo=tempo)
    assert len(changed) == round(SAMPLE_RATE / tempo)
    for share in (0.25, 0.5, 0.75):
        middle = round(share * len(changed))
        heard = np.median(pitch_hz(changed[middle - 1600 : middle + 1600]))
        assert heard == pytest.approx(100 * 1.6**share, rel=0.03)


@pytest.mark.parametrize("tempo", [0.8, 1.25])
def test_noise_at_another_pace_loses_little(tempo: float) -> None:
    assert rms(spoken(hissing(2.0), tempo=tempo)) == pytest.approx(rms(hissing(2.0)) * 10 ** (-1.2 / 20), rel=0.03)


@pytest.mark.parametrize("count", range(6000, 8000, 131))
def test_a_last_period_that_is_stretched_past_the_end(count: int) -> None:
    falling = voice(f0_hz=np.geomspace(200, 75, 8000), duration_s=0.5)[:count]
    for options in (
        {"contour": 3.0},
        {"contour": 2.0, "pitch_semitones": -6.0},
        {"pitch_semitones": -12.0, "tempo": 0.5},
    ):
        assert len(accent.warp(falling, **options)) == round(count / options.get("tempo", 1.0))
