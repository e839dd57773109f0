"""Noise and babble sources: what is found, what is refused by name, what is never mixed."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechft.audio import SAMPLE_RATE
from speechft.augment import recordings, settings, sources
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.run import held_by_sources

RATE = SAMPLE_RATE


def write(path: Path, *, duration_s: float = 1.0, rate: int = RATE, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(1).standard_normal((round(duration_s * rate), channels))
    soundfile.write(path, samples, rate)
    return path


def row(path: Path, speaker: str | None = "a", **more: object) -> Utterance:
    return Utterance(**{"id": path.stem, "audio_filepath": path, "text": "x", "speaker": speaker, **more})  # type: ignore[arg-type]


def collect(
    tables: dict,
    rows: list[Utterance] | None = None,
    *,
    bank: Path = Path("rooms.npz"),
    held_out: bool = False,
) -> sources.Materials:
    return sources.materials(rows or [], settings=settings.check(tables), seed=1, bank=bank, held_out=held_out)


def test_of_a_million_rows_no_more_talk_is_held_than_is_mixed_whatever_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "MOST_TALKS", 20)
    rows = [row(Path(f"/{number}.wav"), f"s{number % 3}") for number in range(200)]
    found, turned = (collect({"noise": {"kinds": "babble"}}, some).talkers for some in (rows, rows[::-1]))
    assert found == turned
    assert list(found) == ["s0", "s1", "s2"]
    assert sum(map(len, found.values())) == 20


def test_of_a_corpus_of_one_voice_and_another_both_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_OF_ONE", 5)
    monkeypatch.setattr(sources, "MOST_TALKS", 20)
    rows = [row(Path(f"/{number}.wav"), "b" if number == 77 else "a") for number in range(200)]
    found, turned = (collect({"noise": {"kinds": "babble"}}, some).talkers for some in (rows, rows[::-1]))
    assert found == turned
    assert {speaker: len(talks) for speaker, talks in found.items()} == {"a": 5, "b": 1}


def test_a_folder_is_searched_whole_and_unreadable_files_are_named_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "street" / "a.wav")
    write(tmp_path / "b.flac", duration_s=2.0, rate=44100, channels=2)
    (tmp_path / "notes.txt").write_text("not audio, and not meant to be")
    (tmp_path / "broken.wav").write_bytes(b"RIFF but not really")
    (tmp_path / "empty.mp3").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        found = collect({"noise": {"kinds": "recorded", "from": str(tmp_path)}})
    assert [recording.id for recording in found.recordings] == ["b.flac", "street/a.wav"]
    assert found.recordings[0].duration_s == pytest.approx(2.0)
    assert sorted(reject.where for reject in found.rejects) == [
        str(tmp_path / "broken.wav"),
        str(tmp_path / "empty.mp3"),
    ]
    assert "2 files or rows cannot be used" in caplog.text
    assert "broken.wav" in caplog.text


def test_musans_speech_is_babble_and_the_rest_noise(tmp_path: Path) -> None:
    for place in ("music/fma/music-1.wav", "noise/free-sound/noise-1.wav", "speech/librivox/speech-1.wav"):
        write(tmp_path / place)
    found = collect({"noise": {"from": str(tmp_path)}})
    assert [recording.id for recording in found.recordings] == [
        "music/fma/music-1.wav", "noise/free-sound/noise-1.wav",
    ]  # fmt: skip
    talks = [talk.id for talk_of in found.talkers.values() for talk in talk_of]
    assert talks == ["speech/librivox/speech-1.wav"]
    assert found.talkers_named
    # As babble, the same folder gives its speech alone.
    found = collect({"noise": {"kinds": "babble", "babble_from": str(tmp_path)}})
    assert [talk.id for talk_of in found.talkers.values() for talk in talk_of] == talks


def test_musan_is_known_where_its_parent_is_named(tmp_path: Path) -> None:
    for name in ("speech/librivox/s.wav", "music/rfm/m.wav", "noise/free-sound/n.wav"):
        write(tmp_path / "corpora" / "musan" / name)
    write(tmp_path / "corpora" / "speech" / "no_musan.wav")
    found, speech, _ = recordings.find(tmp_path / "corpora")
    assert [one.path.name for one in speech] == ["s.wav"]
    assert sorted(one.path.name for one in found) == ["m.wav", "n.wav", "no_musan.wav"]


def test_a_manifest_names_noise_by_segment(tmp_path: Path) -> None:
    write(tmp_path / "long.wav", duration_s=3.0)
    manifest = tmp_path / "noise.jsonl"
    manifest.write_text(
        '{"audio_filepath": "long.wav", "offset": 1.0, "duration": 0.5, "id": "n1"}\n'
        '{"audio_filepath": "gone.wav", "id": "n2"}\n'
        "broken\n"
    )
    found, speech, rejects = recordings.find(manifest)
    assert [(r.id, r.offset_s, r.duration_s) for r in found] == [("n1", 1.0, 0.5)]
    assert not speech
    assert sorted(reject.reason for reject in rejects) == ["broken line", "missing file"]


def test_sources_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder, manifest or sound file"):
        collect({"noise": {"kinds": "recorded", "from": str(tmp_path / "absent")}})
    with pytest.raises(InputError, match="holds no sound file that can be used"):
        collect({"noise": {"kinds": "recorded", "from": str(tmp_path)}})


def test_babble_takes_only_known_speakers_of_training_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    rows = [
        row(path, "a", id="1"), row(path, "b", id="2"), row(path, None, id="unknown"),
        row(path, "c", id="dev", split="dev"), row(path, "c", id="test", split="test"),
        row(path, "a", id="silence", text=""), row(path, "a", id="view", view=1),
    ]  # fmt: skip
    found = collect({"noise": {}}, rows)
    assert {name: [talk.id for talk in talks] for name, talks in found.talkers.items()} == {
        "a": ["1"], "b": ["2"],
    }  # fmt: skip
    assert not found.talkers_named
    assert "c" in collect({"noise": {}}, rows, held_out=True).talkers


def test_babble_alone_needs_two_speakers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(write(tmp_path / "a.wav"))]
    with pytest.raises(InputError, match="babble needs rows of two speakers"):
        collect({"noise": {"kinds": "babble"}}, rows)
    collect({"noise": {"kinds": ["babble", "pink"]}}, rows)
    assert "no babble" in caplog.text


def test_nothing_is_collected_for_what_never_happens() -> None:
    found = collect({"noise": {"p": 0, "kinds": "recorded", "from": "absent"}, "room": {"p": 0, "from": "absent"}})
    assert found.rooms is None
    assert not found.recordings


def test_test_conditions_get_rooms_that_training_has_not(tmp_path: Path) -> None:
    tables = {"room": {"count": 2, "rt60_s": [0.2, 0.5]}}
    training = collect(tables, bank=tmp_path / "rooms.npz").rooms
    held_out = collect(tables, bank=tmp_path / "rooms.npz", held_out=True).rooms
    assert training is not None
    assert held_out is not None
    assert not {str(facts) for facts in training.facts} & {str(facts) for facts in held_out.facts}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rooms-conditions.npz", "rooms.npz"]


def test_what_is_kept_apart_is_not_heard_whatever_it_is_called(tmp_path: Path) -> None:
    """By place, in part or as a copy of the file: dev and test rows in training's noise, training rows in a
    condition's."""
    (tmp_path / "noise").mkdir()
    for seed, name in enumerate(("long", "other", "checked")):
        soundfile.write(
            tmp_path / "noise" / f"{name}.wav", np.random.default_rng(seed).uniform(-0.1, 0.1, 32000), 16000
        )
    shutil.copy(tmp_path / "noise" / "checked.wav", tmp_path / "test.wav")  # the test row is the copy
    talk = {"audio_filepath": "noise/long.wav", "duration": 1.0, "text": "x"}
    rows = [{**talk, "id": "a", "speaker": "a", "offset": 0.0}, {**talk, "id": "b", "speaker": "b", "offset": 1.0}]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {
        "kinds": ["recorded", "babble"],
        "from": str(tmp_path / "noise"),
        "babble_from": str(tmp_path / "talk.jsonl"),
    }
    long = tmp_path / "noise" / "long.wav"
    unheard = [row(tmp_path / "test.wav", "x"), row(long, "x", offset=1.2, duration=0.5)]
    for held_out, whose in ((False, "dev or test"), (True, "training")):
        found = sources.materials(
            [], settings=settings.check({"noise": asked}), seed=1, bank=tmp_path / "rooms.npz", held_out=held_out,
            unheard=unheard,
        )  # fmt: skip
        assert [recording.id for recording in found.recordings] == ["other.wav"]
        assert list(found.talkers) == ["a"]
        assert [reject.reason for reject in found.rejects] == [f"noise: {sources.LEAKS}"] * 3
        assert all(f"{whose} rows hold this sound" in reject.detail for reject in found.rejects)
    with pytest.raises(InputError, match="holds no sound file that can be used"):
        sources.materials(
            [], settings=settings.check({"noise": {"kinds": "recorded", "from": str(tmp_path / "test.wav")}}), seed=1,
            bank=tmp_path / "rooms.npz", held_out=False, unheard=unheard,
        )  # fmt: skip


def noises(folder: Path, *names: str) -> Path:
    """A folder of noise, each name another sound."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        sound = np.random.default_rng(list(name.encode())).uniform(-0.1, 0.1, 16000)
        soundfile.write(folder / f"{name}.wav", sound, RATE)
    return folder


@pytest.mark.parametrize("trained_on", ["a manifest that lists it", "the folder of a copy"])
def test_a_condition_has_no_noise_of_trainings(tmp_path: Path, trained_on: str) -> None:
    noises(tmp_path / "noise", "cafe", "street")
    shutil.copytree(noises(tmp_path / "own", "cafe"), tmp_path / "copied")
    (tmp_path / "own.jsonl").write_text(json.dumps({"audio_filepath": "noise/cafe.wav", "text": ""}) + "\n")
    source = tmp_path / ("own.jsonl" if "manifest" in trained_on else "copied")
    found = sources.materials(
        [], settings=settings.check({"noise": {"kinds": "recorded", "from": str(tmp_path / "noise")}}), seed=1,
        bank=tmp_path / "rooms.npz", held_out=True,
        training=settings.check({"noise": {"kinds": "recorded", "from": str(source)}}),
    )  # fmt: skip
    assert [recording.id for recording in found.recordings] == ["street.wav"]
    assert "training's noise, babble or rooms hold this sound" in found.rejects[0].detail


def test_nobody_who_speaks_in_training_babbles_in_a_condition(tmp_path: Path) -> None:
    noises(tmp_path / "talk", "anna", "ben", "mine")
    rows = [{"audio_filepath": f"talk/{name}.wav", "text": "x", "speaker": name} for name in ("anna", "ben")]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = sources.materials(
        [], settings=settings.check({"noise": {"kinds": "babble", "babble_from": str(tmp_path / "talk.jsonl")}}),
        seed=1, bank=tmp_path / "rooms.npz", held_out=True, unheard=[row(tmp_path / "talk" / "mine.wav", "ben")],
    )  # fmt: skip
    assert list(found.talkers) == ["anna"]
    assert "ben speaks in training rows" in found.rejects[0].detail


def test_a_file_without_a_speaker_is_known_for_the_rows_that_holds_it(tmp_path: Path) -> None:
    folder = noises(tmp_path / "talk", "anna", "ben", "nobody", "other")
    shutil.copy(folder / "ben.wav", tmp_path / "copy.wav")
    rows = [row(folder / "anna.wav", "anna"), row(tmp_path / "copy.wav", "ben"), row(folder / "nobody.wav", None)]
    asked = {"noise": {"kinds": "babble", "babble_from": str(folder)}}
    found = sources.materials(
        rows, settings=settings.check(asked), seed=1, bank=tmp_path / "rooms.npz", held_out=False, disturbed=rows
    )
    assert list(found.talkers) == [str(folder / "other.wav"), "anna", "ben"]
    assert [reject.reason for reject in found.rejects] == ["noise: no speaker"]
    assert "names no speaker" in found.rejects[0].detail
    rows.append(row(folder / "other.wav", "anna"))
    rows.append(row(folder / "other.wav", "ben"))  # both talk in one file
    found = sources.materials(
        rows, settings=settings.check(asked), seed=1, bank=tmp_path / "rooms.npz", held_out=False, disturbed=rows
    )
    assert list(found.talkers) == ["anna", "ben"]
    assert "has another speaker than others of this file" in found.rejects[1].detail


def test_impulse_responses_that_cannot_be_used_are_named_and_counted(tmp_path: Path) -> None:
    noises(tmp_path / "rooms", "hall", "attic")
    (tmp_path / "rooms" / "broken.wav").write_bytes(b"RIFF, but no sound")
    write(tmp_path / "rooms" / "silent.wav")
    soundfile.write(tmp_path / "rooms" / "silent.wav", np.zeros(800), RATE)
    shutil.copytree(noises(tmp_path / "own", "attic"), tmp_path / "trained")
    found = sources.materials(
        [], settings=settings.check({"room": {"from": str(tmp_path / "rooms")}}), seed=1, bank=tmp_path / "r.npz",
        held_out=True, training=settings.check({"room": {"from": str(tmp_path / "trained")}}),
    )  # fmt: skip
    assert found.rooms is not None
    assert [fact["file"] for fact in found.rooms.facts] == ["hall.wav"]
    assert [reject.reason for reject in found.rejects] == ["room: kept apart", "room: not audio", "room: silent"]


def test_what_a_source_holds_is_part_of_what_is_made_of_it(tmp_path: Path) -> None:
    folder = noises(tmp_path / "street", "a", "b")
    tables = {"noise": {"from": str(folder)}}
    before = held_by_sources(tables)
    assert before == held_by_sources(tables)
    noises(folder, "c")
    assert before != held_by_sources(tables)
    shutil.rmtree(folder)  # a finished run may be read all the same; what must be made again names the folder
    assert before != held_by_sources(tables)
    assert held_by_sources({"noise": {"kinds": "pink"}}, {"gain": {}}, {"noise": {"from": 5}}) == {}


def test_rooms_may_come_from_a_folder(tmp_path: Path) -> None:
    for name, rt60_s in (("dry", 0.2), ("wet", 0.8)):
        times = np.arange(round(1.5 * rt60_s * 16000)) / 16000
        response = np.random.default_rng(1).standard_normal(len(times)) * np.exp(-6.91 * times / rt60_s)
        (tmp_path / "rooms").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "rooms" / f"{name}.wav", 0.5 * response / np.abs(response).max(), 16000)
    asked = {"from": str(tmp_path / "rooms")}
    assert len(collect({"room": asked}).rooms) == 2
    assert len(collect({"room": {**asked, "rt60_s": [0.6, 1.0]}}).rooms) == 1
