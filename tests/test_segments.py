"""Long recordings with segment times: cut at segment ends, times kept, and taught as timestamps."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechft import adaptation, encoding, files, manifest
from speechft.ingest import segments
from speechft.ingest.ledger import Row
from speechft.ingest.stage import ingest
from speechft.manifest import Reject, Utterance
from speechft.whisper import load, windows


def row_of(*told: tuple[float, float, str], offset: float = 0.0) -> Row:
    extra = {"segments": [{"start": start, "end": end, "text": text} for start, end, text in told], "room": "A"}
    utterance = Utterance(id="talk", audio_filepath=Path("talk.wav"), text="as a whole", offset=offset, extra=extra)
    return Row(utterance=utterance, where="m.jsonl:1")


def cut(*rows: Row) -> tuple[list[Row], list[Reject]]:
    found = list(segments.cut_all(rows))
    assert len(found) == sum(segments.count(row.utterance) for row in rows)
    return [row for row in found if isinstance(row, Row)], [row for row in found if isinstance(row, Reject)]


def test_neighbours_stay_together_up_to_a_window() -> None:
    row = row_of(
        (1.0, 9.0, "one"), (9.5, 20.0, " two "), (21.0, 30.5, "three"), (30.5, 40.0, ""), (41, 50, "five"), offset=100.0
    )
    kept, rejects = cut(row)
    assert not rejects
    assert [(k.utterance.id, k.utterance.offset, k.utterance.duration, k.utterance.text) for k in kept] == [
        ("talk@1.00", 101.0, 29.5, "one two three"), ("talk@30.50", 130.5, 19.5, "five"),
    ]  # fmt: skip
    assert all(k.utterance.recording == "talk" and k.utterance.extra["room"] == "A" for k in kept)
    assert kept[0].utterance.extra["segments"][2] == {"start": 20.0, "end": 29.5, "text": "three"}


def test_what_cannot_be_cut_is_named() -> None:
    kept, rejects = cut(row_of((0.0, 5.0, "short"), (5.0, 36.0, "long"), (36.0, 40.0, "short again")))
    assert [k.utterance.text for k in kept] == ["short", "short again"]
    assert rejects[0].reason == "too long"
    assert "the segment at 5.00 s lasts over 30 s" in rejects[0].detail


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (((2.0, 1.0, "x"),), "before it ends"),
        (((0.0, 3.0, "x"), (1.0, 4.0, "y")), "segment 2 starts before"),
        (((float("nan"), 3.0, "x"),), "segment 1 must start"),
        ((), "must be a list"),
    ],
)
def test_bad_times_are_one_sentence(told, message: str) -> None:
    kept, rejects = cut(row_of(*told))
    assert not kept
    assert rejects[0].reason == "bad segments"
    assert message in rejects[0].detail


def test_a_long_recording_goes_through_ingest(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "talk.wav", 0.1 * rng.standard_normal(70 * 16000), 16000)
    soundfile.write(tmp_path / "test.wav", 0.1 * rng.standard_normal(3 * 16000), 16000)
    told = [{"start": 7.0 * n, "end": 7.0 * n + 6, "text": f"part {n} of it"} for n in range(10)]
    talk = {"audio_filepath": "talk.wav", "segments": told, "text": "", "speaker": "a"}
    files.write_jsonl(tmp_path / "train.jsonl", [talk])
    files.write_jsonl(tmp_path / "dev.jsonl", [{"audio_filepath": "test.wav", "text": "hello you", "speaker": "b"}])
    roles = {"train": [tmp_path / "train.jsonl"], "dev": [tmp_path / "dev.jsonl"]}
    options = {
        "allow_leaks": ["audio"],
        "max_rejected_share": 0.1,
        "general_dev_share": 0.3,
        "train_share": 1.0,
        "split_by": None,
        "seed": 1,
    }
    counts = ingest(roles, out=tmp_path / "out", **options)
    rows = files.read_jsonl(tmp_path / "out" / "train.jsonl")
    assert [(row.get("offset", 0.0), row["duration"]) for row in rows] == [
        (0.0, 27.0),
        (28.0, 27.0),
        (56.0, 13.0),
    ]
    assert counts["roles"]["train"]["words"] == 40


def test_times_lie_in_the_window_and_follow_the_tempo(tmp_path: Path) -> None:
    whole = cut(row_of((0.0, 4.0, "one"), (5.0, 10.0, "two")))[0][0].utterance
    faster = dataclasses.replace(whole, duration=8.0, extra={**whole.extra, manifest.SOUND: "x"})  # a view, 8 s for 10
    manifest.write(tmp_path / "train.jsonl", [faster])
    clip = windows.Clip(id=faster.id, number=0, duration_s=8.0, tokens=2)
    group = encoding.Group(name="v0", view=0, rows=manifest.Rows(tmp_path / "train.jsonl"), clips=[clip])
    placed = windows.Placed(clip=clip, start_s=2.0, end_s=10.0)
    row = encoding._window_row(windows.Window(id="v0-1", placed=(placed,), filled=True), group)
    assert encoding.end(row) == 1000
    assert row["clips"][0]["segments"] == [
        {"text": "one", "start_s": 2.0, "end_s": 5.2}, {"text": "two", "start_s": 6.0, "end_s": 10.0},
    ]  # fmt: skip
    nano = load.load("nano")
    item = adaptation._item(0, row, nano)
    assert [(s.start_s, s.end_s, nano.tokenizer.decode(s.tokens)) for s in item.segments] == [
        (2.0, 5.2, " one"), (6.0, 10.0, " two"),
    ]  # fmt: skip
