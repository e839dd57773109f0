"""Noise of known colour, and mixtures whose ratio is measured back."""

import math

import numpy as np
import pytest

from speechft import audio
from speechft.augment import noise

RATE = audio.SAMPLE_RATE


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(duration_s: float, *, hz: float = 440.0, rms: float = 0.1) -> np.ndarray:
    time_s = np.arange(round(duration_s * RATE)) / RATE
    return (rms * math.sqrt(2) * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def rms_db(samples: np.ndarray) -> float:
    return 10 * math.log10(float(np.mean(np.square(samples, dtype=np.float64))))


def octave_db(samples: np.ndarray, low_hz: float) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return 10 * math.log10(float(power[(hz >= low_hz) & (hz < 2 * low_hz)].sum()))


@pytest.mark.parametrize(("kind", "db_an_octave"), [("white", 3.0), ("pink", 0.0), ("brown", -3.0)])
def test_power_of_one_octave_over_the_one_below(kind: str, db_an_octave: float) -> None:
    samples, facts = noise.generate(kind, 2**18, rng())
    steps = [octave_db(samples, 2 * hz) - octave_db(samples, hz) for hz in (125, 250, 500, 1000, 2000)]
    assert np.mean(steps) == pytest.approx(db_an_octave, abs=0.2)
    assert facts == {}


def test_hum_is_mains_and_its_harmonics() -> None:
    seen = set()
    for seed in range(6):
        samples, facts = noise.generate("hum", RATE, rng(seed))
        power = np.abs(np.fft.rfft(samples)) ** 2  # bins of 1 Hz
        harmonics = np.arange(facts["mains_hz"], 1001, facts["mains_hz"]).astype(int)
        assert power[harmonics].sum() / power.sum() > 0.998
        seen.add(facts["mains_hz"])
    assert seen == {50.0, 60.0}


@pytest.mark.parametrize("kind", noise.GENERATED)
@pytest.mark.parametrize("count", [0, 1, 1600, 16001])
def test_generated_noise_has_the_length_asked_for_and_rms_1(kind: str, count: int) -> None:
    samples, _ = noise.generate(kind, count, rng())
    assert samples.shape == (count,)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    if count > 1:
        assert rms_db(samples) == pytest.approx(0.0, abs=0.01)
    np.testing.assert_array_equal(samples, noise.generate(kind, count, rng())[0])


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="got 'grey'"):
        noise.generate("grey", 10, rng())


def test_babble_brings_every_voice_to_one_level() -> None:
    quiet, loud = tone(0.5, hz=500, rms=0.001), tone(2.0, hz=2000, rms=0.3)
    mixed = noise.babble([quiet, loud, np.zeros(500, np.float32), np.zeros(0, np.float32)], RATE, rng())
    assert mixed.shape == (RATE,)
    assert rms_db(mixed) == pytest.approx(0.0, abs=0.01)
    assert octave_db(mixed, 400) == pytest.approx(octave_db(mixed, 1600), abs=0.2)


def test_babble_of_nobody_is_silent() -> None:
    assert not noise.babble([], 100, rng()).any()
    assert not noise.babble([np.zeros(100, np.float32)], 100, rng()).any()


def test_loop_takes_a_stretch_or_starts_over() -> None:
    ramp = np.arange(10, dtype=np.float32)
    stretch = noise.loop(ramp, 4, rng())
    np.testing.assert_array_equal(np.diff(stretch), 1)
    over = noise.loop(ramp, 25, rng())
    assert len(over) == 25
    np.testing.assert_array_equal(over[:10], over[10:20])
    np.testing.assert_array_equal(np.sort(over[:10]), ramp)
    assert not noise.loop(np.zeros(0, np.float32), 5, rng()).any()


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 5.0, 20.0, 40.0])
def test_snr_is_reached_over_active_speech(snr_db: float) -> None:
    # A second of speech at -40 dB and a second of pause: the noise must relate to -40, not to -43.
    speech = np.concatenate([tone(1.0, rms=0.01), np.zeros(RATE, np.float32)])
    mixed, measured_db = noise.mix(speech, noise.generate("pink", len(speech), rng())[0], snr_db=snr_db)
    assert measured_db == pytest.approx(snr_db, abs=0.1)
    assert rms_db(mixed - speech) == pytest.approx(-40 - snr_db, abs=0.05)
    assert np.abs(mixed).max() <= 0.99


def test_loud_mixtures_are_scaled_whole() -> None:
    speech, white = tone(1.0, rms=0.5), noise.generate("white", RATE, rng())[0]
    mixed, measured_db = noise.mix(speech, white, snr_db=0.0)
    assert np.abs(mixed).max() == pytest.approx(0.99, abs=1e-4)
    assert measured_db == pytest.approx(0.0, abs=0.1)
    # The part of the mixture that is speech, by projection, and what is left.
    part = float(np.dot(mixed, speech) / np.dot(speech, speech)) * speech
    assert rms_db(part) - rms_db(mixed - part) == pytest.approx(0.0, abs=0.2)


def test_silence_gets_noise_at_the_level_usual_speech_would_give_it() -> None:
    mixed, measured_db = noise.mix(np.zeros(RATE, np.float32), noise.generate("white", RATE, rng())[0], snr_db=10)
    assert measured_db == -math.inf
    assert rms_db(mixed) == pytest.approx(-36, abs=0.05)


def test_silent_noise_and_empty_clips_change_nothing() -> None:
    speech, empty = tone(0.1), np.zeros(0, np.float32)
    mixed, measured_db = noise.mix(speech, np.zeros_like(speech), snr_db=5)
    np.testing.assert_array_equal(mixed, speech)
    assert measured_db == math.inf
    assert noise.mix(empty, empty, snr_db=5)[0].shape == (0,)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="speech has 100 samples, noise 99"):
        noise.mix(np.ones(100, np.float32), np.ones(99, np.float32), snr_db=5)
