"""Views and conditions as files: the same for any workers, order or resume, from training material only."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechft import audio, manifest, workers
from speechft.augment import balance, say, views
from speechft.errors import InputError
from speechft.manifest import Utterance

RATE = audio.SAMPLE_RATE
SETTINGS: dict[str, Any] = {
    "tempo": {"p": 0.5}, "formants": {"p": 0.3}, "room": {"p": 0.5, "count": 3},
    "noise": {"p": 1, "kinds": ["babble", "pink"], "snr_db": [0, 20]}, "codec": {"p": 0.5, "formats": "opus"},
    "telephone": {"p": 0.3}, "gain": {"p": 0.5},
}  # fmt: skip


def write(path: Path, *, hz: float, duration_s: float = 0.4, rate: int = RATE, channels: int = 1) -> Path:
    time_s = np.arange(round(duration_s * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * hz * time_s)[:, None] * np.ones(channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone, rate)
    return path


def some_rows(folder: Path) -> list[Utterance]:
    return [
        Utterance(
            id=f"r{i}", audio_filepath=write(folder / f"r{i}.wav", hz=300 + 100 * i), text="five milligrams",
            speaker=f"s{i % 3}", accent="a" if i < 4 else "b", duration=0.4,
        )
        for i in range(6)
    ]  # fmt: skip


def make(rows: Sequence[Utterance], out: Path, **more: Any) -> list[Utterance]:
    given = {"count": 2, "settings": SETTINGS, "seed": 1, "out": out / "views", "bank": out / "rooms.npz"}
    return list(views.make_views(rows, **{**given, **more}).rows)


def fix(rows: list[Utterance], conditions: dict[str, Any], out: Path, bank: Path | None = None) -> list[Utterance]:
    return list(views.make_conditions(rows, conditions=conditions, seed=1, out=out, bank=bank or out).rows)


def told(rows: list[Utterance]) -> dict[str, tuple[str, str]]:
    """What a view is: hash of its samples, and its steps."""
    return {
        row.id: (hashlib.sha256(audio.read(row.audio_filepath or "").tobytes()).hexdigest(), json.dumps(row.transform))
        for row in rows
    }


def test_workers_order_and_resume_change_nothing(tmp_path: Path) -> None:
    rows = some_rows(tmp_path / "in")
    progress: list[tuple[int, int]] = []
    one = make(rows, tmp_path / "one", processes=1, progress=lambda done, total: progress.append((done, total)))
    assert progress == [(done, 12) for done in range(1, 13)]
    assert [row.view for row in one] == [0] * 6 + [1] * 6 + [2] * 6
    assert told(make(list(reversed(rows)), tmp_path / "three", processes=3)) == told(one)
    for row in one[8:13]:  # as if killed: some files without their records, some gone
        assert row.audio_filepath is not None
        row.audio_filepath.with_suffix(".json").unlink()
    one[8].audio_filepath.unlink()  # type: ignore[union-attr]
    assert told(make(rows, tmp_path / "one", processes=2)) == told(one)


@pytest.mark.parametrize(("cores", "workers_started"), [(3, 3), (64, 12)])
def test_there_is_a_worker_for_each_core_and_none_without_work(
    cores: int, workers_started: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        pass

    def each(function: Any, arguments: Any, *, processes: int, **_: Any) -> None:
        assert processes == workers_started
        raise Enough

    monkeypatch.setattr(workers, "cores", lambda: cores)
    monkeypatch.setattr(workers, "each", each)
    with pytest.raises(Enough):
        make(some_rows(tmp_path / "in"), tmp_path, settings={"gain": {}})


def test_a_view_keeps_its_rows_facts_and_says_what_was_done(tmp_path: Path) -> None:
    rows = some_rows(tmp_path)
    made = make(rows, tmp_path / "out")[6]
    assert (made.id, made.parent, made.view, made.text) == ("r0#view1", "r0", 1, "five milligrams")
    assert (made.speaker, made.accent, made.offset) == ("s0", "a", 0.0)
    assert made.audio_filepath is not None
    assert made.duration == soundfile.info(made.audio_filepath).duration
    manifest.write(tmp_path / "rows.jsonl", [made])
    assert manifest.read(tmp_path / "rows.jsonl")[0].transform == made.transform


def test_what_is_said_again_is_in_the_rows_language_and_never_a_translation(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="eSpeak NG is not installed")
    rows = [
        dataclasses.replace(row, lang=lang) for row, lang in zip(some_rows(tmp_path), ["de", "en", None], strict=False)
    ]
    table = {"say": {"p": 1, "accents": ["de", "en-us"], "foreign_share": 0}}
    made = make(rows, tmp_path / "out", count=1, settings=table, language="de")[3:]
    assert [row.accent for row in made] == ["de", "en-us", "de"]
    translated = make(rows, tmp_path / "other", count=1, settings=table, language=None)[3:]
    assert [row.transform for row in translated] == [[{"name": "say", "skipped": say.TRANSLATED}]] * 3


@pytest.mark.parametrize(("transform", "kept"), [("tempo", True), ("rhythm", False)])
def test_times_of_segments_are_kept_where_they_still_fit(tmp_path: Path, transform: str, kept: bool) -> None:
    told = [{"text": "five", "start": 0.0, "end": 0.4}, {"text": "milligrams", "start": 0.6, "end": 1.0}]
    rows = [dataclasses.replace(row, extra={**row.extra, "segments": told}) for row in some_rows(tmp_path)]
    made = make(rows, tmp_path / "out", count=1, settings={transform: {"p": 1}})[len(rows) :]
    assert all("skipped" not in step for row in made for step in row.transform or [])
    assert all(("segments" in row.extra) == kept for row in made)
    assert all("segments" in row.extra for row in rows)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_stereo_and_other_rates_become_16_khz_mono_of_the_same_length(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "in.wav", hz=440, duration_s=1.0, rate=rate, channels=2)
    rows = [Utterance(id="r", audio_filepath=path, text="x", duration=1.0)]
    made = make(rows, tmp_path / "out", count=1, settings={"gain": {"p": 1}})[1]
    info = soundfile.info(made.audio_filepath)
    assert (info.samplerate, info.channels, info.frames) == (RATE, 1, RATE)


@pytest.mark.parametrize("duration_s", [0.1, 0.4])
def test_silent_and_short_clips_survive_without_clipping(tmp_path: Path, duration_s: float) -> None:
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(round(duration_s * RATE)), RATE)
    loud = write(tmp_path / "loud.wav", hz=300, duration_s=duration_s)
    rows = [
        Utterance(id=path.stem, audio_filepath=path, text="", speaker=path.stem, duration=duration_s)
        for path in (silent, loud)
    ]
    settings = {**SETTINGS, "noise": {"p": 1, "kinds": "white"}, "room": {"p": 1, "count": 2}}
    for row in make(rows, tmp_path / "out", settings=settings)[2:]:
        samples = audio.read(row.audio_filepath or "")
        assert np.isfinite(samples).all()
        assert 0 < np.abs(samples).max() < 1.0  # the silent row holds noise now, and nothing is flattened


def test_the_noise_of_a_faint_recording_is_written_as_it_was_measured(tmp_path: Path) -> None:
    """Speech at -60 dB with noise 25 dB below: the rounding of 16-bit samples would take 0.1 dB and more of it."""
    tone = 2**0.5 * 10 ** (-60 / 20) * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    soundfile.write(tmp_path / "faint.wav", tone, RATE, "FLOAT")
    row = Utterance(id="faint", audio_filepath=tmp_path / "faint.wav", text="x", duration=1.0)
    settings = {"noise": {"p": 1, "kinds": "white", "snr_db": 25}}
    (view,) = make([row], tmp_path / "out", count=1, settings=settings)[1:]
    rest = audio.read(view.audio_filepath or "") - tone
    assert (view.transform or [{}])[0]["measured_snr_db"] == pytest.approx(25, abs=0.01)
    assert 10 * np.log10(np.mean(tone**2) / np.mean(rest**2)) == pytest.approx(25, abs=0.03)


def test_no_test_material_in_training_views(tmp_path: Path) -> None:
    """Whatever a training view is mixed from is a training row, a training room, or generated."""
    train = some_rows(tmp_path / "train")
    held = [
        Utterance(id=f"t{i}", audio_filepath=write(tmp_path / "test" / f"t{i}.wav", hz=3000), text="x",
                  speaker=f"t{i}", split="test", duration=0.4)
        for i in range(3)
    ]  # fmt: skip
    settings = {"noise": {"p": 1, "kinds": "babble"}, "room": {"p": 1, "count": 2}}
    made = make([*train, *held], tmp_path / "out", settings=settings)
    mixed = {talker for row in made for step in row.transform or [] for talker in step.get("talkers", [])}
    assert mixed
    assert mixed <= {row.id for row in train}
    conditions = {"hall": {"room": {"count": 2}}}
    fixed = fix(held, conditions, tmp_path / "fixed", bank=tmp_path / "out" / "rooms.npz")
    rooms = [{step["distance_m"] for row in rows for step in row.transform or [] if step["name"] == "room"}
             for rows in (made, fixed)]  # fmt: skip
    assert not rooms[0] & rooms[1]


def test_an_unreadable_noise_file_is_named_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "noise" / "fan.wav", hz=120)
    (tmp_path / "noise" / "broken.wav").write_bytes(b"RIFF, but no sound")
    settings = {"noise": {"p": 1, "kinds": "recorded", "from": str(tmp_path / "noise")}}
    given = {"count": 1, "settings": settings, "seed": 1, "out": tmp_path / "out", "bank": tmp_path / "rooms.npz"}
    made = views.make_views(some_rows(tmp_path / "in"), **given)
    assert [reject.where for reject in made.rejects] == [str(tmp_path / "noise" / "broken.wav")]
    assert {step["source"] for row in made.rows for step in row.transform or []} == {"fan.wav"}


def test_changed_conditions_leave_the_views_alone(tmp_path: Path) -> None:
    rows = some_rows(tmp_path / "in")
    one = fix(rows, {"phone": {"telephone": {}}}, tmp_path / "a")
    assert [row.id for row in one] == [f"r{i}#phone" for i in range(6)]
    assert {row.condition for row in one} == {"phone"}
    street = [dataclasses.replace(row, id=f"{row.id}#street", condition="street") for row in rows]
    again = fix([*rows, *street], {"hiss": {"noise": {"kinds": "white"}}, "phone": {"telephone": {}}}, tmp_path / "b")
    assert told(again[6:]) == told(one)


def test_a_row_that_a_condition_cannot_be_made_of_is_named_and_the_others_are_made(tmp_path: Path) -> None:
    rows = some_rows(tmp_path / "in")
    soundfile.write(rows[2].audio_filepath, np.zeros(8000), RATE)
    conditions = {"phone": {"telephone": {}}, "high": {"pitch": {"semitones": 3}}}
    given: dict[str, Any] = {"conditions": conditions, "seed": 1, "out": tmp_path / "out", "bank": tmp_path}
    made = views.make_conditions(rows, **given)
    assert [row.id for row in made.rows] == [f"r{i}#{name}" for name in conditions for i in range(6) if i != 2 or
                                             name == "phone"]  # fmt: skip
    assert [reject.reason for reject in made.failed] == ["no high copy"]
    assert made.failed[0].detail.startswith("r2#high: r2: pitch: silent")
    with pytest.raises(InputError, match="--show r2#high: r2: pitch: silent"):
        views.show("r2#high", train=[], test=rows, settings={"gain": {}}, conditions=conditions, seed=1,
                   out=tmp_path / "show")  # fmt: skip
    with pytest.raises(InputError, match=r"conditions\.high: can be made of no row; the first is r2#high: r2: pitch"):
        fix(rows[2:3], {"high": conditions["high"]}, tmp_path / "out")


def test_show_makes_one_view_or_condition_again(tmp_path: Path) -> None:
    rows = some_rows(tmp_path / "in")
    made = make(rows, tmp_path / "out")
    conditions = {"phone": {"telephone": {}}}
    fixed = fix(rows, conditions, tmp_path / "out")
    given = {"train": rows, "test": rows, "settings": SETTINGS, "conditions": conditions, "seed": 1}
    for row in (made[9], made[16], fixed[2]):
        shown = views.show(row.id, **given, out=tmp_path / "show")
        assert told([shown]) == told([row])
    for asked, why in {
        "r1": "give the id of a view", "r1#view0": "end it with #view1", "r9#view1": "no training row has the id 'r9'",
        "r9#phone": "no test row", "r1#hall": "or #phone",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=why):
            views.show(asked, **given, out=tmp_path / "show")


def test_rarer_accents_get_more_views_of_their_own(tmp_path: Path) -> None:
    rows = some_rows(tmp_path)  # four of accent a, two of b
    more = balance.more_views(rows, by="accent", count=2, seed=1)
    assert {rows[number].accent for number, _ in more} == {"b"}
    assert Counter(balance.round_of(view, 2) for _, view in more) == {0: 2, 1: 2, 2: 2}
    assert len(set(more)) == len(more)
    assert all(view > 2 for _, view in more)  # beyond the usual views, and never the clean row again
    assert more == balance.more_views(rows, by="accent", count=2, seed=1)
    turned = balance.more_views(rows[::-1], by="accent", count=2, seed=1)
    assert {(len(rows) - 1 - number, view) for number, view in turned} == set(more)
    made = make(rows, tmp_path / "out", count=1, settings={"gain": {}}, balance_by="accent")
    tally = views.Tally(by="accent")
    assert list(tally.counted(made)) == made
    assert tally.facts()["drawn_shares"] == {"accent": {"a": 0.5, "b": 0.5}}


def test_rows_read_by_number_give_the_views_of_rows_held(tmp_path: Path) -> None:
    rows = some_rows(tmp_path)
    manifest.write(tmp_path / "train.jsonl", rows)
    given: dict[str, Any] = {"count": 1, "settings": {"noise": {"p": 1, "kinds": "babble"}}, "balance_by": "accent"}
    held = make(rows, tmp_path / "held", **given)
    read = make(manifest.Rows(tmp_path / "train.jsonl"), tmp_path / "read", **given)
    assert told(read) == told(held)


def test_a_tiny_group_is_not_repeated_without_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", hz=300)
    rows = [Utterance(id=f"r{i}", audio_filepath=path, text="x", extra={"ward": "icu"}) for i in range(50)]
    rows += [Utterance(id="rare", audio_filepath=path, text="x", extra={"ward": "er"})]
    rows += [Utterance(id="unlabelled", audio_filepath=path, text="x")]
    more = balance.more_views(rows, by="ward", count=0, seed=1)
    assert [rows[number].id for number, _ in more] == ["rare"] * (balance.MOST_REPEATS - 1)
    with pytest.raises(InputError, match="no training row has the key 'dialect'"):
        balance.more_views(rows, by="dialect", count=1, seed=1)
