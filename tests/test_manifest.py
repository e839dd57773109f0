"""Manifests of every kind people have, and the name of each fault in them."""

import json
import os
import threading
from pathlib import Path

import pytest

from speechft import manifest
from speechft.errors import InputError
from speechft.manifest import Utterance


def write_lines(path: Path, *lines: str | dict, end: str = "\n", start: str = "") -> Path:
    text = start + "".join((json.dumps(line) if isinstance(line, dict) else line) + end for line in lines)
    path.write_bytes(text.encode())
    return path


def test_rows_survive_a_round_trip(tmp_path: Path) -> None:
    rows = [
        Utterance(id="a", audio_filepath=tmp_path / "a.wav", text="", duration=1.5, extra={"source": {"n": 1}}),
        Utterance(
            id="a#2",
            audio_filepath=tmp_path / "b.wav",
            text="drink 5 mg/dL, Zoë",
            offset=0.25,
            duration=2.0,
            speaker="s1",
            parent="a",
            view=2,
            transform=[{"name": "noise", "snr_db": 5.0}],
            hypothesis="",
        ),
    ]
    assert manifest.write(tmp_path / "m.jsonl", rows) == 2
    assert manifest.read(tmp_path / "m.jsonl") == rows


def test_only_keys_that_are_set_are_written() -> None:
    row = Utterance(id="a", audio_filepath=Path("/x/a.wav"), text="hi", extra={"licence": "CC0"}).row()
    assert row == {"id": "a", "audio_filepath": "/x/a.wav", "text": "hi", "licence": "CC0"}
    assert Utterance(id="b", audio_filepath=None, text=None, parent="a").row() == {
        "id": "b",
        "parent": "a",
        "view": 0,
    }


def test_paths_are_joined_to_the_manifest_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    path = write_lines(
        tmp_path / "link" / "m.jsonl",
        {"audio_filepath": "audio/ä b.wav", "text": "x"},
        {"audio_filepath": "/abs/c.wav", "text": "y"},
    )
    first, second = manifest.read(path)
    assert first.audio_filepath == tmp_path / "link" / "audio" / "ä b.wav"
    assert second.audio_filepath == Path("/abs/c.wav")


def test_made_ids_are_stable_and_tell_segments_apart(tmp_path: Path) -> None:
    rows = [
        {"audio_filepath": "talk.wav", "offset": 0, "duration": 2, "text": "a"},
        {"audio_filepath": "talk.wav", "offset": 2.0, "duration": 2, "text": "b"},
        {"audio_filepath": "other/talk.wav", "text": "c"},
    ]
    (tmp_path / "moved").mkdir()
    here = manifest.read(write_lines(tmp_path / "m.jsonl", *rows))
    there = manifest.read(write_lines(tmp_path / "moved" / "m.jsonl", *rows))
    assert [row.id for row in here] == [row.id for row in there]
    assert len({row.id for row in here}) == 3
    assert here[0].id.startswith("talk-")


@pytest.mark.parametrize(("end", "start"), [("\n", ""), ("\r\n", ""), ("\n", "\ufeff"), ("\r\n", "\ufeff")])
def test_line_ends_and_byte_order_marks(tmp_path: Path, end: str, start: str) -> None:
    row = {"id": "ø", "audio_filepath": "Zoë.wav", "text": "日本 naïve"}
    path = write_lines(
        tmp_path / "m.jsonl", json.dumps(row, ensure_ascii=False), "", row | {"id": "2"}, end=end, start=start
    )
    first, second = manifest.read(path)
    assert (first.id, first.text, first.audio_filepath) == ("ø", "日本 naïve", tmp_path / "Zoë.wav")
    assert second.id == "2"


@pytest.mark.parametrize(
    ("line", "reason", "sentence"),
    [
        ('{"audio_filepath": "a.wav", "te', "broken line", "not valid JSON"),
        ('["a.wav", "text"]', "broken line", "must be a JSON object, got list"),
        ('{"audio_filepath": "a.wav", "text": "\\ud800"}', "broken line", "not valid UTF-8"),
        ('{"text": "no audio"}', "missing key", "no audio_filepath"),
        ('{"audio_filepath": "", "text": "x"}', "missing key", "no audio_filepath"),
        ('{"id": "first", "audio_filepath": "b.wav"}', "duplicate id", 'id "first" was used in line 1'),
        ('{"audio_filepath": "a.wav", "text": 5}', "bad value", "text must be text, got 5"),
        ('{"audio_filepath": ["a.wav"]}', "bad value", "audio_filepath must be text"),
        ('{"audio_filepath": "a.wav", "text": "x", "spoken": 120}', "bad value", "spoken must be text, got 120"),
        ('{"audio_filepath": "a.wav", "duration": -1.0}', "bad value", "duration must be > 0, got -1.0"),
        ('{"audio_filepath": "a.wav", "duration": 0}', "bad value", "duration must be > 0, got 0.0"),
        ('{"audio_filepath": "a.wav", "offset": "soon"}', "bad value", "offset must be a number of seconds"),
        ('{"audio_filepath": "a.wav", "offset": NaN}', "bad value", "offset must be a number of seconds"),
        ('{"audio_filepath": "a.wav", "speaker": {}}', "bad value", "speaker must be text"),
        ('{"audio_filepath": "a.wav", "view": -1}', "bad value", "view must be a whole number"),
        ('{"audio_filepath": "a.wav", "transform": ["noise"]}', "bad value", "transform must be a list"),
    ],
)
def test_each_fault_rejects_its_row_only(tmp_path: Path, line: str, reason: str, sentence: str) -> None:
    good = {"id": "first", "audio_filepath": "a.wav", "text": "x"}
    path = write_lines(tmp_path / "m.jsonl", good, line, good | {"id": "last"})
    utterances, rejects = manifest.scan(path)
    assert [utterance.id for utterance in utterances] == ["first", "last"]
    assert [(reject.reason, reject.where) for reject in rejects] == [(reason, f"{path}:2")]
    assert rejects[0].detail.startswith(f"{path}:2: ")
    assert sentence in rejects[0].detail
    with pytest.raises(InputError, match=r"m\.jsonl:2: "):
        manifest.read(path)


def test_what_pandas_writes_of_missing_and_whole_numbers(tmp_path: Path) -> None:
    """A column of numbers with gaps is written as floats, and its gaps as NaN."""
    lines = ['{"id": "a", "speaker": NaN, "snr_db": NaN}', '{"id": "b", "speaker": 12.0, "snr_db": 5.0}']
    rows = manifest.read(write_lines(tmp_path / "m.jsonl", *lines), need_audio=False)
    assert [(row.speaker, row.extra) for row in rows] == [(None, {}), ("12", {"snr_db": 5.0})]


def test_a_line_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"audio_filepath": "a.wav", "text": "na\xefve"}\n{"audio_filepath": "b.wav"}\n')
    utterances, rejects = manifest.scan(path)
    assert len(utterances) == 1
    assert rejects[0].reason == "broken line"
    assert "UTF-8" in rejects[0].detail


def test_a_key_with_two_values_is_a_fault(tmp_path: Path) -> None:
    sound = '"audio_filepath": "a.wav", "id"'
    path = write_lines(
        tmp_path / "m.jsonl", f'{{{sound}: "1", "text": "met", "text": "metformin"}}', f'{{{sound}: "2", "id": "2"}}',
        f'{{{sound}: "3", "more": {{"tag": 1, "tag": 2}}}}',
    )  # fmt: skip
    rows, rejects = manifest.scan(path)
    assert [row.id for row in rows] == ["2", "3"]
    assert [reject.detail for reject in rejects] == [f'{path}:1: the line gives "text" twice, and not the same']


def test_csv_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    heading = "audio_filepath,text,speaker,duration,note"
    path = write_lines(
        tmp_path / "m.csv",
        heading,
        'a.wav,"yes, ""please""",12,1.5,first',
        "b.wav,,s2,,",
        ",,,,",
        "c.wav,too,few",
        'd.wav,"two\r\nlines",s3,2,',
        end="\r\n",
        start="\ufeff",
    )
    utterances, rejects = manifest.scan(path)
    assert [(row.text, row.speaker, row.duration) for row in utterances] == [
        ('yes, "please"', "12", 1.5),
        (None, "s2", None),
        ("two\r\nlines", "s3", 2.0),
    ]
    assert utterances[0].extra == {"note": "first"}
    assert [(reject.reason, reject.where) for reject in rejects] == [("broken line", f"{path}:5")]


@pytest.mark.parametrize(("name", "delimiter"), [("m.csv", ";"), ("m.tsv", "\t")])
def test_other_delimiters(tmp_path: Path, name: str, delimiter: str) -> None:
    path = write_lines(tmp_path / name, f"audio_filepath{delimiter}text", f"a.wav{delimiter}one, two")
    assert [row.text for row in manifest.read(path)] == ["one, two"]


def test_a_csv_without_the_heading_names_what_it_has(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.csv", "file,sentence", "a.wav,hello")
    with pytest.raises(InputError, match=r"m\.csv:1: the heading has no audio_filepath, only file, sentence"):
        manifest.scan(path)


def test_scoring_needs_no_audio_but_an_id(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", {"id": "a", "text": "x", "hypothesis": ""}, {"text": "y"})
    utterances, rejects = manifest.scan(path, need_audio=False)
    assert [(row.id, row.audio_filepath, row.hypothesis) for row in utterances] == [("a", None, "")]
    assert rejects[0].reason == "missing key"
    assert "neither id nor audio_filepath" in rejects[0].detail


def test_missing_and_unreadable_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jsonl: there is no such manifest"):
        manifest.scan(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        manifest.scan(tmp_path)
    (tmp_path / "m.jsonl").write_bytes('{"audio_filepath": "a.wav"}'.encode("utf-16"))
    with pytest.raises(InputError, match="is UTF-16"):
        manifest.scan(tmp_path / "m.jsonl")


def test_an_empty_manifest_has_no_rows(tmp_path: Path) -> None:
    assert manifest.scan(write_lines(tmp_path / "m.jsonl")) == ([], [])
    assert manifest.scan(write_lines(tmp_path / "m.csv")) == ([], [])


def test_by_id_refuses_duplicates() -> None:
    rows = [Utterance(id=name, audio_filepath=None, text="") for name in "ab"]
    assert list(manifest.by_id(rows)) == ["a", "b"]
    with pytest.raises(InputError, match='two rows have the id "b"'):
        manifest.by_id([*rows, rows[1]])


def test_a_row_at_a_time_is_the_same_rows_and_words_are_shared(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    steps = [{"name": "noise", "kind": "pink", "snr_db": 5.0}]
    lines = [
        {"id": name, "audio_filepath": "a.wav", "text": "hi", "speaker": "anna", "transform": steps} for name in "ab"
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    one, other = manifest.each(path)
    assert [one, other] == manifest.read(path)
    assert one.speaker is other.speaker
    assert one.audio_filepath is other.audio_filepath
    assert [key for step in one.transform for key in step][2] is [key for step in other.transform for key in step][2]
    with path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match=r"rows\.jsonl:3: the row has no audio_filepath"):
        list(manifest.each(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows", '{"id": "a", "text": "hi"}\n{"id": "b", "text": "ho"}\n'), ("rows.csv", "id,text\na,hi\nb,ho\n")],
)
def test_a_manifest_may_come_through_a_pipe(tmp_path: Path, name: str, content: str) -> None:
    """As `speechft score --reference <(...)` hands one over: it can be read once, from the start."""
    path = tmp_path / name
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(content,))
    writer.start()
    rows = manifest.read(path, need_audio=False)
    writer.join()
    assert [(row.id, row.text) for row in rows] == [("a", "hi"), ("b", "ho")]
