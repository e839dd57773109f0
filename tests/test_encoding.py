"""The encode stage's plan: what a decoder cannot learn is rejected by name or warned of, and never cut."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import any_whisper
import numpy as np
import pytest
import soundfile
import torch

from speechft import adaptation, config, encoding, files, manifest
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.run import Run
from speechft.transcription import store_of
from speechft.whisper import load, tokens
from speechft.whisper.load import Whisper

DEMO = Path(__file__).resolve().parent.parent / "pipelines" / "demo.toml"


def run_of(folder: Path, *words: int, base: str = "nano") -> Run:
    """A run whose train rows have so many words each, none of which shares a window."""
    settings = [f"model.base={base}", "finetune.replay_share=0.0", "finetune.distil=0.0", "encode.single_share=1.0"]
    run = Run(config.load(DEMO, settings), folder / "run")
    rows = [
        Utterance(
            id=f"row{n}",
            audio_filepath=folder / "talk.wav",
            text=" ".join(["blue"] * count),
            duration=20.0,
            extra={manifest.SOUND: "x"},
        )
        for n, count in enumerate(words)
    ]
    manifest.write(run.dir / "augment" / "train.jsonl", rows)
    return run


def windows_of(run: Run, whisper: Whisper) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Windows planned, and rejects."""
    groups, rejects = encoding.read_clips(run, whisper)
    return list(encoding.plan_windows(run, groups)), rejects


def test_a_label_too_long_for_the_decoder_is_named_and_counted(tmp_path: Path) -> None:
    run = run_of(tmp_path, 5, 1000)
    planned, rejects = windows_of(run, load.load("nano"))
    assert [[clip["id"] for clip in window["clips"]] for window in planned] == [["row0"]]
    assert [(reject["id"], reject["reason"]) for reject in rejects] == [("row1", "label too long")]
    assert f"over {tokens.LABEL_LIMIT}" in rejects[0]["detail"]
    assert rejects[0]["row"]["text"].count("blue") == 1000  # whole, not cut


def test_further_views_of_rare_rows_are_heard_in_their_round(tmp_path: Path) -> None:
    """Of two views each, view 4 is one more for the epoch that hears view 1."""
    run = run_of(tmp_path, 5)
    run = Run(config.load(DEMO, ["augment.views=2", "finetune.replay_share=0.0", "finetune.distil=0.0"]), run.dir)
    row = manifest.read(run.dir / "augment" / "train.jsonl")[0]
    views = [dataclasses.replace(row, id=f"row0#view{v}", view=v) for v in (0, 1, 2, 4)]
    manifest.write(run.dir / "augment" / "train.jsonl", views)
    planned, _ = windows_of(run, load.load("nano"))
    rounds = {clip["id"]: (window["view"], window["id"][:2]) for window in planned for clip in window["clips"]}
    assert rounds == {
        "row0#view0": (0, "v0"), "row0#view1": (1, "v1"), "row0#view2": (2, "v2"), "row0#view4": (1, "v1")
    }  # fmt: skip


def test_too_many_of_them_stop_the_stage_before_it_encodes(tmp_path: Path) -> None:
    run = run_of(tmp_path, 5, 1000)
    with pytest.raises(
        InputError, match=rf"1 of 2 training clips have a label over {tokens.LABEL_LIMIT} .*max_rejected_share"
    ):
        encoding.encode(run, tmp_path / "out")
    assert [row["id"] for row in files.read_jsonl(tmp_path / "out" / "rejects.jsonl")] == ["row1"]
    assert not list(tmp_path.rglob("shard-*"))


def test_a_label_that_the_reference_decoder_would_not_finish_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whisper = load.load("nano")
    words = next(n for n in range(1, 448) if len(tokens.encode_text(whisper.tokenizer, " ".join(["blue"] * n))) > 224)
    with caplog.at_level(logging.WARNING):
        planned, rejects = windows_of(run_of(tmp_path / "long", 5, words), whisper)
        assert (len(planned), rejects) == (2, [])
        assert "1 of 2 windows hold a clip of more than 224 tokens" in caplog.text
        caplog.clear()
        windows_of(run_of(tmp_path / "short", 5, words - 1), whisper)
    assert not caplog.records


def test_states_are_known_by_the_sound_and_not_by_the_file(tmp_path: Path) -> None:
    """Two files of one name, size and time, as archives leave them, are two; a copy under another name is one."""
    row = Utterance(id="r", audio_filepath=tmp_path / "a" / "talk.wav", text="blue", duration=1.0)
    for folder, level in (("a", 0.1), ("b", 0.2)):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "talk.wav", np.full(16000, level), 16000)
        os.utime(tmp_path / folder / "talk.wav", (1, 1))

    def identity(path: Path, **more: Any) -> Any:
        one = dataclasses.replace(row, audio_filepath=path, **more)
        return encoding._identity({"clips": [encoding._clip(one)]})

    shutil.copy(tmp_path / "a" / "talk.wav", tmp_path / "copy.wav")
    assert identity(tmp_path / "a" / "talk.wav") != identity(tmp_path / "b" / "talk.wav")
    assert identity(tmp_path / "a" / "talk.wav") == identity(tmp_path / "copy.wav")
    assert identity(tmp_path / "a" / "talk.wav") != identity(tmp_path / "a" / "talk.wav", offset=0.5)
    assert identity(tmp_path / "gone.wav", extra={manifest.SOUND: "x"}) == [["x", 1.0, 0.0]]
    made = {"extra": {manifest.SOUND: "x"}, "transform": []}  # a view has the row's label, and another sound
    assert identity(tmp_path / "a" / "talk.wav", **made) != identity(tmp_path / "b" / "talk.wav", **made)


def test_a_kept_window_is_known_by_what_windows_jsonl_tells(tmp_path: Path) -> None:
    """As version 3 of the stage knew it, so that states which were kept then are found; of zeros behind it besides."""
    planned, _ = windows_of(run_of(tmp_path, *[5] * 20), load.load("nano"))
    files.write_jsonl(tmp_path / "windows.jsonl", planned)
    kept = files.JsonLines(tmp_path / "windows.jsonl")
    assert len({encoding.end(w) for w in kept}) == 2
    for window in kept:
        filled = encoding.end(window) == 2000
        assert encoding._identity(window) == ([["x", 20.0, 0.0], "filled"] if filled else [["x", 20.0, 0.0]])


def test_states_and_log_mels_of_a_window_end_where_its_sound_does(tmp_path: Path) -> None:
    """Those that are kept, and those that a learning encoder hears, are of the same features."""
    run = run_of(tmp_path, *[1] * 6)
    manifest.write(run.dir / "conditions" / "rows.jsonl", [])
    soundfile.write(tmp_path / "talk.wav", np.random.default_rng(1).normal(0, 0.1, 320_000), 16000)
    whisper = load.load("nano")
    encoding.encode(run, run.dir / "encode")
    planned = files.JsonLines(run.dir / "encode" / "windows.jsonl")
    features = adaptation._features(planned, whisper)(range(6))
    ended = [not window[:, 2000:].any() for window in features]
    assert ended == [window["filled"] for window in planned]
    assert 0 < sum(ended) < 6
    kept = store_of(run, "train").read(range(6)).float()
    with torch.inference_mode():
        found = whisper.model.model.encoder(features).last_hidden_state
    gone = (kept - found).norm(dim=(1, 2)) / found.norm(dim=(1, 2))
    other = (found[ended.index(True)] - found[ended.index(False)]).norm() / found[0].norm()
    assert gone.max() < 0.03
    assert other > 0.15


def test_a_checkpoints_max_length_of_20_rejects_nothing(tmp_path: Path) -> None:
    """As in the released large-v3, whose config still says 20."""
    base = any_whisper.save(tmp_path / "base", 51866)
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_length": 20}))
    planned, rejects = windows_of(run_of(tmp_path, 60, base=str(base)), load.load(str(base)))
    assert (len(planned), rejects) == (1, [])
