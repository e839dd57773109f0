"""Transform settings: defaults, short forms, and every fault named at once."""

from pathlib import Path

import pytest

from speechft.augment import settings
from speechft.errors import InputError


def test_defaults_are_filled_in_and_absent_transforms_stay_absent() -> None:
    checked = settings.check({"noise": {"snr_db": 5}, "room": {"p": 0.25}})
    assert checked.noise is not None
    assert checked.noise.snr_db == (5.0,)
    assert checked.noise.wanted_kinds == ("babble", "pink", "white", "brown", "hum")
    assert checked.room is not None
    assert (checked.room.p, checked.room.rt60_s) == (0.25, (0.15, 0.8))
    assert checked.tempo is None


def test_single_values_stand_for_lists_and_ranges() -> None:
    checked = settings.check(
        {
            "tempo": {"range": 1.1},
            "codec": {"formats": "mp3"},
            "noise": {"kinds": "recorded", "from": "musan"},
        }
    )
    assert checked.tempo is not None
    assert checked.tempo.range == (1.1, 1.1)
    assert checked.codec is not None
    assert checked.codec.formats == ("mp3",)
    assert checked.noise is not None
    assert checked.noise.source == (Path("musan"),)
    assert checked.noise.wanted_kinds == ("recorded",)


def test_the_users_own_noise_comes_with_babble() -> None:
    noise = settings.check({"noise": {"from": ["a", "b"]}}).noise
    assert noise is not None
    assert noise.wanted_kinds == ("recorded", "babble")


def test_a_condition_always_happens_unless_it_says_otherwise() -> None:
    checked = settings.check_condition({"room": {}, "gain": {"p": 0.5}}, name="hall")
    assert checked.room is not None
    assert checked.gain is not None
    assert (checked.room.p, checked.gain.p) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"reverb": {}}, "augment.reverb: there is no such transform; known are say, speed, tempo"),
        ({"noise": {"snr": 5}}, "augment.noise.snr: there is no such setting"),
        ({"noise": {"p": 1.5}}, "augment.noise.p: .*less than or equal to 1"),
        ({"tempo": {"range": [1.2, 0.9]}}, r"augment.tempo.range: must have the smaller number first"),
        ({"tempo": {"range": [0.1, 0.9]}}, r"augment.tempo.range: must lie within 0.5 to 2"),
        ({"noise": {"kinds": ["recorded"]}}, 'augment.noise: kind "recorded" needs `from`'),
        ({"noise": {"kinds": []}}, "augment.noise.kinds: "),
        ({"noise": {"kinds": ["white"], "from": "musan"}}, '`from` is for kind "recorded", which `kinds` leaves out'),
        ({"band": {"low_hz": 2000, "high_hz": 1000}}, "`low_hz` may reach 2000, which must be below `high_hz`, 1000"),
        ({"gain": 3}, "augment.gain: "),
        ({"band": {"low_hz": True}}, "augment.band.low_hz: "),
    ],
)
def test_faults_are_named(tables: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings.check(tables)


def test_all_faults_come_at_once() -> None:
    with pytest.raises(InputError, match=r"augment\.gain\.p.*augment\.reverb"):
        settings.check({"reverb": {}, "gain": {"p": 2}})


def test_an_empty_condition_is_named() -> None:
    with pytest.raises(InputError, match=r"conditions\.quiet: names no transform"):
        settings.check_condition({}, name="quiet")
    with pytest.raises(InputError, match=r"conditions\.odd\.noise\.snr: there is no such setting"):
        settings.check_condition({"noise": {"snr": 5}}, name="odd")
