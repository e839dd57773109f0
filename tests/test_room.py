"""Rooms with known reverberation, and convolution that keeps words in place."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechft.audio import SAMPLE_RATE
from speechft.augment import room
from speechft.errors import InputError

RATE = SAMPLE_RATE
RT60_S = (0.2, 0.5)


@pytest.fixture(scope="module")
def bank() -> room.Bank:
    return room.simulate(count=4, seed="test", rt60_s=RT60_S)


def decaying(rt60_s: float, *, seed: int | None = None) -> np.ndarray:
    """An impulse response that falls by 60 dB in `rt60_s`: smooth, or noise."""
    time_s = np.arange(round(1.2 * rt60_s * RATE)) / RATE
    envelope = 10 ** (-3 * time_s / rt60_s)
    return envelope if seed is None else envelope * np.random.default_rng(seed).standard_normal(len(time_s))


@pytest.mark.parametrize("rt60_s", [0.1, 0.4, 1.3])
def test_rt60_is_measured_back(rt60_s: float) -> None:
    assert room.measure_rt60(decaying(rt60_s)) == pytest.approx(rt60_s, rel=0.005)
    assert room.measure_rt60(decaying(rt60_s, seed=1)) == pytest.approx(rt60_s, rel=0.06)


def test_rt60_agrees_with_the_simulators_own_measure(bank: room.Bank) -> None:
    from pyroomacoustics.experimental import measure_rt60

    for response, direct, rt60_s in zip(bank.responses, bank.direct, bank.rt60_s, strict=True):
        assert rt60_s == pytest.approx(measure_rt60(response[direct:], RATE, decay_db=30), rel=0.1)


@pytest.mark.parametrize("response", [np.zeros(0), np.zeros(100), np.array([1.0]), np.ones(100)])
def test_what_does_not_decay_by_35_db_has_no_rt60(response: np.ndarray) -> None:
    assert math.isnan(room.measure_rt60(response))


def test_simulated_rooms_hold_what_was_asked(bank: room.Bank) -> None:
    assert len(bank) == 4
    for response, direct, rt60_s, facts in zip(bank.responses, bank.direct, bank.rt60_s, bank.facts, strict=True):
        assert RT60_S[0] <= rt60_s <= RT60_S[1]
        assert response.dtype == np.float32
        assert response[direct] == 1.0
        # Nothing arrives before the direct sound but the ripple of its fractional delay.
        assert np.abs(response[: direct - 2]).max(initial=0.0) < 0.35
        assert room.DISTANCE_M[0] <= facts["distance_m"] <= room.DISTANCE_M[1]
        assert all(low <= side <= high for side, low, high in zip(facts["size_m"], *room.SIZE_M, strict=True))


def test_rooms_depend_on_the_seed_alone(bank: room.Bank) -> None:
    again = room.simulate(count=2, seed="test", rt60_s=RT60_S)
    np.testing.assert_array_equal(again.responses[1], bank.responses[1])
    other = room.simulate(count=1, seed="other", rt60_s=RT60_S)
    assert not np.array_equal(other.responses[0], bank.responses[0])


def test_impossible_rooms_are_refused() -> None:
    with pytest.raises(InputError, match=r"room\.rt60_s: only 0 of 1 rooms with an RT60 of 1\.99 to 1\.99 s"):
        room.simulate(count=1, seed="test", rt60_s=(1.99, 1.99))


def test_a_bank_is_simulated_once(bank: room.Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def simulate(*, count: int, seed: str, rt60_s: tuple[float, float]) -> room.Bank:
        calls.append(seed)
        return bank

    monkeypatch.setattr(room, "simulate", simulate)
    for seed in ("1", "1", "2", "2"):
        kept = room.simulate_once(tmp_path / "rooms.npz", count=4, seed=seed, rt60_s=RT60_S)
        assert list(kept.facts) == list(bank.facts)
        assert list(kept.direct) == list(bank.direct)
        assert list(kept.rt60_s) == list(bank.rt60_s)
        for ours, theirs in zip(kept.responses, bank.responses, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert calls == ["1", "2"]


def test_within_keeps_the_rooms_of_a_range() -> None:
    bank = room.Bank(
        responses=[np.ones(n, np.float32) for n in (1, 2, 3)],
        direct=[0, 0, 0],
        rt60_s=[0.2, math.nan, 0.6],
        facts=[{"file": name} for name in "abc"],
    )
    kept = bank.within(0.5, 0.7)
    assert kept.facts == [{"file": "c"}]
    assert len(kept.responses[0]) == 3
    with pytest.raises(InputError, match=r"none of 3 impulse responses has an RT60 of 1\.0 to 2\.0 s"):
        bank.within(1.0, 2.0)


def test_direct_sound_stays_in_place() -> None:
    clicks = np.zeros(RATE, np.float32)
    clicks[[1000, 9000]] = 0.5
    response = np.zeros(3000, np.float32)
    response[[40, 2040]] = 1.0, 0.5  # direct sound at 40, an echo 2000 samples later
    heard = room.convolve(clicks, response, direct=40)
    assert heard.shape == clicks.shape
    np.testing.assert_array_equal(np.flatnonzero(np.abs(heard) > 1e-3), [1000, 3000, 9000, 11000])
    assert heard[3000] == pytest.approx(heard[1000] / 2, rel=1e-3)
    assert np.sum(heard**2) == pytest.approx(np.sum(clicks**2), rel=1e-3)


def test_reverberation_keeps_the_level_and_does_not_clip(bank: room.Bank) -> None:
    noise = np.random.default_rng(1).standard_normal(RATE).astype(np.float32)
    for level in (0.01, 0.4):
        samples = np.clip(level * noise, -0.99, 0.99)
        heard = room.convolve(samples, bank.responses[0], direct=bank.direct[0])
        assert np.abs(heard).max() <= 0.99 + 1e-6
        assert np.std(heard) <= np.std(samples) * 1.001
        if level == 0.01:
            assert np.std(heard) == pytest.approx(np.std(samples), rel=1e-3)


@pytest.mark.parametrize("count", [0, 1, 1600])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_short_and_silent_clips_survive(bank: room.Bank, count: int, level: float) -> None:
    heard = room.convolve(np.full(count, level, np.float32), bank.responses[0], direct=bank.direct[0])
    assert heard.shape == (count,)
    assert np.isfinite(heard).all()


def test_responses_are_read_from_a_folder(tmp_path: Path) -> None:
    response = np.concatenate([np.zeros(500), 0.9 * decaying(0.3)]).astype(np.float32)
    soundfile.write(tmp_path / "hall.wav", response, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "silent.wav", np.zeros(100), RATE)
    (tmp_path / "broken.wav").write_bytes(b"not a sound")
    bank = room.load(tmp_path)
    assert list(bank.facts) == [{"file": "hall.wav"}]
    assert bank.rt60_s[0] == pytest.approx(0.3, rel=0.02)
    assert bank.responses[0][bank.direct[0]] == 1.0
    assert [Path(reject.where).name for reject in bank.rejects] == ["broken.wav", "silent.wav"]
    two = np.zeros((len(response) + 10, 2), np.float32)  # a second microphone further away, and louder than full scale
    two[: len(response), 0], two[10:, 1] = 4 * response, 4 * response
    soundfile.write(tmp_path / "hall.wav", two, RATE, subtype="FLOAT")
    np.testing.assert_allclose(room.load(tmp_path).responses[0], bank.responses[0], atol=1e-6)
    (tmp_path / "hall.wav").unlink()
    with pytest.raises(InputError, match="holds no impulse response"):
        room.load(tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        room.load(tmp_path / "absent")
