"""What was whole and is no more is made again or named in one sentence; nothing of a user's is written over."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import any_whisper
import numpy as np
import pytest
import soundfile
import torch
from safetensors import SafetensorError as safetensors_error
from safetensors import torch as safetensors
from test_files import finish, make_stage
from test_pipeline import write_pipeline
from test_segments import cut, row_of
from test_views import fix, make, some_rows, told

from speechft import audio, cli, config, encoding, files, manifest, stages
from speechft.adapt import standing
from speechft.augment import room
from speechft.errors import InputError
from speechft.run import Run
from speechft.score import command
from speechft.whisper import load


@pytest.mark.parametrize(
    ("damage", "message"),
    [("lost", "lack tensors .*decoder.layers.1.* and"), ("surplus", "has no place for"), ("nan", "are not finite")],
)
def test_a_model_that_is_not_whole_is_not_used(tmp_path: Path, damage: str, message: str) -> None:
    """transformers would draw what is missing at random, and say so in a notice."""
    base = any_whisper.save(tmp_path / "base", 51864)
    path = base / "model.safetensors"
    weights = safetensors.load_file(path)
    first = next(name for name in weights if ".decoder.layers.1." in name)
    if damage == "lost":
        weights = {name: value for name, value in weights.items() if ".decoder.layers.1." not in name}
    elif damage == "surplus":
        weights[first.replace("layers.1.", "layers.9.")] = weights[first].clone()
    else:
        weights[first][0] = torch.nan
    safetensors.save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=message):
        load.load(str(base))


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b""])
def test_weights_that_are_none_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    base = any_whisper.save(tmp_path / "base", 51864)
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(InputError, match="cannot be loaded as a Whisper model"):
        load.load(str(base))


def test_a_damaged_output_of_a_finished_stage_is_made_again_and_the_others_stay(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    stage.begin()
    (stage.dir / "dev.jsonl").write_text("{}\n")
    files.write_jsonl(stage.dir / "train.jsonl", [{"id": "a"}])
    stage.finish({}, stage.outputs())
    (stage.dir / "train.jsonl").write_text("")
    again = make_stage(tmp_path)
    assert not again.up_to_date()
    again.begin()
    assert [path.name for path in again.outputs()] == ["dev.jsonl"]


@pytest.mark.parametrize("record", ['{"inputs": null}', '{"outputs": null}', '{"inputs": []'])
def test_a_record_that_holds_no_lists_counts_as_none(tmp_path: Path, record: str) -> None:
    stage = make_stage(tmp_path)
    stage.begin()
    finish(stage)
    (stage.dir / files.STAGE_FILE).write_text(record)
    assert not make_stage(tmp_path).up_to_date()


def test_a_recording_that_was_missing_is_taken_once_it_is_there(tmp_path: Path) -> None:
    path = write_pipeline(tmp_path)
    rows = files.read_jsonl(tmp_path / "train.jsonl")
    late = tmp_path / "late.flac"
    files.write_jsonl(tmp_path / "train.jsonl", [{**rows[0], "audio_filepath": str(late)}, *rows[1:]])
    run = Run(config.load(path, ["data.max_rejected_share=0.5"]), tmp_path / "runs" / "small")
    assert stages.ingest(run)
    assert not stages.ingest(run)
    shutil.copy(rows[0]["audio_filepath"], late)
    assert stages.ingest(run)
    assert rows[0]["id"] in {row.id for row in run.rows("train")}


def test_a_quotation_mark_that_is_not_closed_swallows_no_rows(tmp_path: Path) -> None:
    lines = ["audio_filepath\ttext", "a.wav\tone", 'b.wav\t"So he', "c.wav\tthree", 'd.wav\tand so" on', "e.wav\tfive"]
    (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
    rows, rejects = manifest.scan(tmp_path / "m.tsv")
    assert [row.text for row in rows] == ["one", "five"]
    assert "m.tsv:3: lines 3 to 5 are one row" in rejects[0].detail
    assert [reject.detail for reject in rejects[1:]] == [
        f"{tmp_path}/m.tsv:3: the line was swallowed by the quotation mark in line 3"
    ] * 2
    # As a spreadsheet writes breaks.
    whole = 'audio_filepath,text\na.wav,"one,\ntwo"\nb.wav,"Hello.\nMr. Smith, come in"\n'
    (tmp_path / "whole.csv").write_text(whole)
    assert [row.text for row in manifest.read(tmp_path / "whole.csv")] == ["one,\ntwo", "Hello.\nMr. Smith, come in"]


@pytest.mark.parametrize(("name", "comma"), [("h.tsv", "\t"), ("h.csv", ",")])
def test_without_audio_ids_tell_swallowed_rows(tmp_path: Path, name: str, comma: str) -> None:
    lines = ["id,hypothesis", 'u1,"So he', "u2,three", 'u3,and so" on', 'u4,"Well.\nYes, 5 or so"']
    (tmp_path / name).write_text("\n".join(lines).replace(",", comma) + "\n")
    with pytest.raises(InputError, match="lines 2 to 4 are one row"):
        manifest.read(tmp_path / name, need_audio=False)
    (tmp_path / name).write_text("\n".join([lines[0], lines[-1]]).replace(",", comma) + "\n")
    assert len(manifest.read(tmp_path / name, need_audio=False)) == 1


def test_a_quotation_mark_that_is_never_closed_names_every_line(tmp_path: Path) -> None:
    """Also where the rest of the file is longer than the library lets a cell be."""
    lines = ["audio_filepath\ttext", 'a.wav\t"one', *(f"{n}.wav\t{'word ' * 10}" for n in range(4000))]
    (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
    rows, rejects = manifest.scan(tmp_path / "m.tsv")
    assert not rows
    assert len(rejects) == 4001


def test_a_heading_that_comes_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("audio_filepath,text,text\na.wav,right,wrong\n")
    with pytest.raises(InputError, match=r"m\.csv:1: the heading names text twice"):
        manifest.scan(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("row", "named"),
    [('"view": 1e999', "view"), ('"duration": 1e308', "duration"), ('"audio_filepath": "a\\u0000.wav"', "null")],
)
def test_a_row_of_nonsense_is_one_reject(tmp_path: Path, row: str, named: str) -> None:
    known = "" if "audio_filepath" in row else '"audio_filepath": "b.wav", '
    (tmp_path / "m.jsonl").write_text(f'{{{known}{row}}}\n{{"audio_filepath": "a.wav"}}\n')
    rows, rejects = manifest.scan(tmp_path / "m.jsonl")
    assert (len(rows), len(rejects)) == (1, 1)
    assert named in rejects[0].detail


def test_segments_beyond_their_row_are_rejected() -> None:
    beyond, talk = row_of((0.0, 3.5, "one")), row_of((0.0, 20.0, "one"), (20.0, 40.0, "two"))
    short = dataclasses.replace(beyond.utterance, id="beyond", duration=1.5)
    beyond = dataclasses.replace(beyond, utterance=short)
    kept, rejects = cut(beyond, talk)
    assert [row.utterance.id for row in kept] == ["talk@0.00", "talk@20.00"]
    assert [reject.reason for reject in rejects] == ["bad segments"]
    assert "the segment at 0.00 s ends at 3.50 s, the row at 1.50 s" in rejects[0].detail


def test_scores_are_not_written_over_what_was_given(tmp_path: Path) -> None:
    for name, text in (("reference", "The Quick fox"), ("before", "The Quick box")):
        (tmp_path / f"{name}.trn").write_text(f"{text} (a_1)\n")
    with pytest.raises(InputError, match=r"reference\.trn would be written over; choose another folder"):
        command.run(tmp_path / "reference.trn", tmp_path / "before.trn", out=tmp_path)
    assert (tmp_path / "reference.trn").read_text() == "The Quick fox (a_1)\n"


@pytest.mark.parametrize("name", ["../escaped", "a/b", ".", "..", "states", "/tmp/x"])
def test_a_run_has_a_plain_name(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--pipeline", str(write_pipeline(tmp_path)), "--runs", str(tmp_path / "runs"), "--run", name]
    assert cli.main(["ingest", *given]) == 2
    assert "by one plain name" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_view_whose_sound_or_record_is_gone_is_made_again(tmp_path: Path) -> None:
    rows = some_rows(tmp_path / "in")
    made = make(rows, tmp_path / "out", count=1)
    paths = [row.audio_filepath for row in made if row.view and row.audio_filepath]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    paths[2].with_suffix(".json").write_text("{}")
    paths[3].with_suffix(".json").write_text("{")
    assert told(make(rows, tmp_path / "out", count=1)) == told(made)


def test_ids_that_copies_would_have_are_refused_before_any_is_made(tmp_path: Path) -> None:
    rows = some_rows(tmp_path / "in")
    with pytest.raises(InputError, match='the id "r0#view1" is a row\'s'):
        make([*rows, dataclasses.replace(rows[1], id="r0#view1")], tmp_path / "out")
    with pytest.raises(InputError, match='the id "r0#phone" is a row\'s'):
        fix([*rows, dataclasses.replace(rows[1], id="r0#phone")], {"phone": {"telephone": {}}}, tmp_path / "out")
    conditioned = [dataclasses.replace(row, condition="street") for row in rows]
    with pytest.raises(InputError, match="every test row has a `condition` already"):
        fix(conditioned, {"phone": {"telephone": {}}}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_view_that_is_gone_names_what_to_remove(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "small" / "augment" / "views" / "view-1" / "a.flac"
    row = manifest.Utterance(id="a#view1", audio_filepath=path, text="x", duration=1.0, transform=[])
    with pytest.raises(InputError, match=r"a\.flac: cannot be read any more .*; put it back"):  # made by nobody known
        encoding._clip(row)
    path.parent.mkdir(parents=True)
    (path.parents[2] / files.STAGE_FILE).write_text("{}")
    with pytest.raises(InputError, match=r"a\.flac: cannot be read .*; remove .*/small/augment, and the same command"):
        encoding._clip(row)
    soundfile.write(path, np.zeros(8000), 16000)
    with pytest.raises(InputError, match="remove .*/small/augment, and the same command makes it again"):
        encoding.sound({"clips": [encoding._clip(row)]})


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "finetune" / "checkpoint.pt"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged .*; remove .*finetune, and the same command trains anew"):
        standing.read_checkpoint(path)


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        standing.read_checkpoint(tmp_path / "best.pt")


def test_damaged_rooms_are_simulated_again(tmp_path: Path) -> None:
    given: dict[str, Any] = {"count": 2, "seed": "1", "rt60_s": (0.2, 0.4)}
    first = room.simulate_once(tmp_path / "rooms.npz", **given)
    (tmp_path / "rooms.npz").write_bytes((tmp_path / "rooms.npz").read_bytes()[:500])
    again = room.simulate_once(tmp_path / "rooms.npz", **given)
    assert all(np.array_equal(one, other) for one, other in zip(first.responses, again.responses, strict=True))


def test_sound_without_a_header_or_with_a_rate_of_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(8000))
    soundfile.write(tmp_path / "slow.wav", np.zeros(100), 8)
    for name, why in (("a.raw", "has no header"), ("slow.wav", "the header says 8 Hz")):
        with pytest.raises(audio.AudioError, match=why):
            audio.read(tmp_path / name)


@pytest.mark.parametrize(
    "setting", ["score.seed=-1", "score.smallest_gain=5", "finetune.distil=inf", "finetune.lora_rank=1000000"]
)
def test_settings_that_would_fail_hours_later_are_refused_at_once(tmp_path: Path, setting: str) -> None:
    with pytest.raises(InputError, match=setting.split("=")[0].replace(".", r"\.")):
        config.load(write_pipeline(tmp_path), [setting])


def test_a_disk_that_is_full_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As safetensors says it, by an error of its own."""

    def full(*_: Any) -> Any:
        raise safetensors_error("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(cli, "_run", full)
    assert cli.main(["ingest", "--pipeline", "pipelines/demo.toml"]) == 2
    assert (
        capsys.readouterr().err == "speechft: no space is left on the disk; free some, and the same command goes on\n"
    )


def test_a_test_set_without_a_clean_row_is_refused_before_training(tmp_path: Path) -> None:
    path = write_pipeline(tmp_path)
    rows = files.read_jsonl(tmp_path / "test.jsonl")
    files.write_jsonl(tmp_path / "test.jsonl", ({**row, "condition": "street"} for row in rows))
    with pytest.raises(InputError, match="none is clean"):
        stages.ingest(Run(config.load(path), tmp_path / "runs" / "small"))
