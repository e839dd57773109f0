"""Recordings: how two sources are compared, and how much of a file is read and kept."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_sources import RATE, write

from speechft import files
from speechft.audio import AudioError
from speechft.augment import recordings, room, settings, sources


def test_shared_sources_are_found_however_they_are_written(tmp_path: Path) -> None:
    training = settings.check({"noise": {"from": [str(tmp_path / "musan" / "noise")]}})

    def shared(path: Path) -> list[Path]:
        asked = settings.check({"noise": {"kinds": "babble", "babble_from": str(path)}})
        return recordings.shared(sources.paths(training), sources.paths(asked))

    assert shared(tmp_path / "musan")
    assert shared(tmp_path / "musan" / "noise" / "free-sound")
    assert shared(tmp_path / "other" / ".." / "musan" / "noise")
    assert not shared(tmp_path / "musan" / "speech")


def test_talkers_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "CACHE_BYTES", 3 * RATE * 4)
    talks = [recordings.Recording(path=write(tmp_path / f"{i}.wav", duration_s=1.0), duration_s=1.0) for i in range(8)]
    for recording in [*talks, *talks]:
        assert recordings.read_talk(recording).shape == (RATE,)
        assert recordings._talk_cache_bytes == sum(talk.nbytes for talk in recordings._talk_cache.values())
        assert recordings._talk_cache_bytes <= 3 * RATE * 4


def test_long_talk_is_read_in_part(tmp_path: Path) -> None:
    long = recordings.Recording(path=write(tmp_path / "lecture.wav", duration_s=35.0), duration_s=35.0)
    assert len(recordings.read_talk(long)) == round(recordings.LONGEST_TALK_S * RATE)


def test_what_was_read_before_changes_nothing(tmp_path: Path) -> None:
    """A recording that serves as talk, of which 30 s are enough, and as noise, which is read whole."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 50 * RATE).astype(np.float32), RATE)
    recording = recordings.Recording(path=path, duration_s=50.0)
    recordings.read_talk(recording)
    after_talk = [recordings.read_stretch(recording, RATE, np.random.default_rng(seed)) for seed in range(6)]
    recordings._talk_cache.clear()
    recordings._talk_cache_bytes = 0
    for seed, (stretch, start_s) in enumerate(after_talk):
        for keep in (True, False):
            again, again_s = recordings.read_stretch(recording, RATE, np.random.default_rng(seed), keep=keep)
            np.testing.assert_array_equal(again, stretch)
            assert again_s == start_s
    assert max(start_s for _, start_s in after_talk) > 30
    assert sources.Materials(recordings=[recording] * 10).keep_noise
    assert not sources.Materials(recordings=[recording] * 20).keep_noise


def test_a_name_that_is_not_utf8_is_one_reject(tmp_path: Path) -> None:
    write(tmp_path / "good.wav", duration_s=1.0)
    try:
        shutil.copy(tmp_path / "good.wav", tmp_path / os.fsdecode(b"caf\xe9.wav"))
    except OSError:
        pytest.skip("this file system takes no such names")
    found, _, rejects = recordings.find(tmp_path)
    assert [recording.id for recording in found] == ["good.wav"]
    bank = room.load(tmp_path)
    assert len(bank.responses) == 1
    for reject in (*rejects, *bank.rejects):
        assert "caf\\udce9.wav" in reject.detail
        files.write_json(tmp_path / "told.json", reject.row)
    assert len(rejects) == len(bank.rejects) == 1


def test_what_a_link_leads_to_is_searched_once(tmp_path: Path) -> None:
    write(tmp_path / "far" / "hum.wav", duration_s=1.0)
    write(tmp_path / "near" / "a.wav", duration_s=1.0)
    (tmp_path / "near" / "linked").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "round").symlink_to(tmp_path / "near")
    found, _, _ = recordings.find(tmp_path / "near")
    assert [recording.id for recording in found] == ["a.wav", "linked/hum.wav"]
    (tmp_path / "near" / "again").symlink_to(tmp_path / "far")
    assert [recording.id for recording in recordings.find(tmp_path / "near")[0]] == ["a.wav", "again/hum.wav"]


def test_a_stretch_lies_inside_its_segment(tmp_path: Path) -> None:
    ramp = (np.arange(4 * RATE) / (4 * RATE)).astype(np.float32)
    soundfile.write(tmp_path / "ramp.wav", ramp, RATE, subtype="FLOAT")
    recording = recordings.Recording(path=tmp_path / "ramp.wav", offset_s=1.0, duration_s=2.0)
    rng = np.random.default_rng(1)
    for _ in range(5):
        stretch, start_s = recordings.read_stretch(recording, RATE, rng)
        assert len(stretch) == RATE
        assert 1.0 <= start_s <= 2.0
        assert stretch[0] == pytest.approx(start_s / 4, abs=1e-4)
    stretch, start_s = recordings.read_stretch(recording, 3 * RATE, rng)
    assert (len(stretch), start_s) == (2 * RATE, 1.0)
    with pytest.raises(AudioError):
        recordings.read_stretch(recordings.Recording(path=tmp_path / "gone.wav", duration_s=1.0), RATE, rng)
