"""The encode stage: which clips share a window, and the frozen encoder's states of every window, kept once."""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np

from speechft import audio, files, manifest
from speechft.augment.balance import round_of
from speechft.manifest import Utterance
from speechft.progress import Progress
from speechft.run import Run, told_device
from speechft.whisper import load, states, tokens, windows
from speechft.whisper.load import Whisper
from speechft.whisper.windows import Placed, Window

log = logging.getLogger(__name__)

LABEL_LIMIT = 448 - 8  # tokens: room for the prompt, two timestamps and the end


def encode(run: Run, out: Path) -> dict[str, Any]:
    """Keep states of every training window and every row that will be decoded; write what is where into `out`.

    Training windows are only planned, not encoded, under strategies that change the encoder.

    Returns:
        facts for the stage's record, with `counts`.

    Raises:
        InputError: the base cannot be loaded, or the disk is too small.
    """
    whisper, device = run.load_base(), told_device()
    planned, rejects = (
        plan_windows(run, whisper) if run.pipeline.finetune.strategy not in ("scratch", "prompt") else ([], [])
    )
    singles = [row for rows in run.evaluated().values() for row in rows]
    wanted = {"evaluated": single_windows(singles)}
    if run.from_states and run.pipeline.finetune.strategy != "prompt":
        wanted["train"] = planned
    sizes = {name: states.size_gb(len(content), whisper.model.config) for name, content in wanted.items()}
    total = sum(map(len, wanted.values()))
    log.info("encode: %s windows, %.2f GB of states", f"{total:,}", sum(sizes.values()))
    states.check_disk(run.states, sum(sizes.values()))
    encoder_hash = load.encoder_hash(whisper.model)
    plans: dict[str, Any] = {}
    with Progress("encode") as tell:
        done = 0
        for name, content in wanted.items():
            key = states.key(
                encoder_hash, [_identity(w) for w in content], dtype=run.pipeline.encode.dtype,
                precision=str(device.precision),
            )  # fmt: skip
            states.keep(
                run.states / key, count=len(content), render=functools.partial(_render, content),
                encoder=whisper.model.model.encoder, n_mels=whisper.n_mels, device=device,
                dtype=run.pipeline.encode.dtype, progress=tell.part(done, total),
            )  # fmt: skip
            done += len(content)
            plans[name] = {"key": key, "count": len(content), "gb": round(sizes[name], 3)}
    plans["evaluated"]["ids"] = [row.id for row in singles]
    files.write_json(out / "stores.json", plans)
    files.write_jsonl(out / "rejects.jsonl", rejects)
    files.write_jsonl(out / "windows.jsonl", (_window_row(w, run.pipeline.augment.views) for w in planned))
    counts = {
        "in": len(singles) + sum(len(w.placed) for w in planned), "out": sum(p["count"] for p in plans.values()),
        "rejected": {"label too long": len(rejects)} if rejects else {},
    }  # fmt: skip
    return {"counts": counts, "device": device.label, "states_gb": round(sum(sizes.values()), 3)}


def plan_windows(run: Run, whisper: Whisper) -> tuple[list[Window], list[dict[str, Any]]]:
    """Packed windows of every view, domain and replay; rows whose label is too long are named, never cut."""
    settings, seed = run.pipeline.encode, run.pipeline.augment.seed
    domain = manifest.read(run.dir / "augment" / "train.jsonl")
    turns = [(round_of(u.view, run.pipeline.augment.views), u) for u in domain]
    groups = [(f"v{turn}", turn, [u for t, u in turns if t == turn]) for turn in sorted({t for t, _ in turns})]
    if run.pipeline.finetune.replay_share > 0:
        groups.append(("replay", 0, run.rows("general_train")))
    planned, rejects = [], []
    for name, view, rows in groups:
        counts = {row.id: _label_tokens(whisper, row) for row in rows}
        fit = [row for row in rows if counts[row.id] <= LABEL_LIMIT]
        rejects += [
            {
                "id": row.id,
                "reason": "label too long",
                "detail": f"{counts[row.id]} tokens, over {LABEL_LIMIT}",
            }
            for row in rows
            if counts[row.id] > LABEL_LIMIT
        ]
        packed = windows.pack(
            fit,
            view=view,
            seed=seed,
            gap_s=settings.gap_s,
            single_share=settings.single_share if settings.pack else 1.0,
            max_tokens=LABEL_LIMIT,
            token_counts=counts,
        )
        planned += [dataclasses.replace(w, id=f"{name}-{w.id}") for w in packed]
    return planned, rejects


def _label_tokens(whisper: Whisper, row: Utterance) -> int:
    """Tokens of a row's text, and a pair of timestamps for each of its segments after the first."""
    inner = max(0, len(row.extra.get("segments") or []) - 1)
    return len(tokens.encode_text(whisper.tokenizer, row.text or "")) + 2 * inner


def single_windows(rows: list[Utterance]) -> list[Any]:
    return [
        windows.Window(
            id=row.id,
            placed=(windows.Placed(utterance=row, start_s=0.0, end_s=min(30.0, row.duration or 30.0)),),
        )
        for row in rows
    ]


def _identity(window: Window) -> list[Any]:
    """What a window's states depend on: audio files as they are now, segments and places."""
    parts = []
    for placed in window.placed:
        row, path = placed.utterance, Path(placed.utterance.audio_filepath or "")
        stat = path.stat()
        parts.append([path.name, stat.st_size, stat.st_mtime_ns, row.offset, row.duration, placed.start_s])
    return parts


def _render(content: list[Window], number: int) -> np.ndarray:
    rows = [placed.utterance for placed in content[number].placed]
    clips = [audio.read(row.audio_filepath or "", offset_s=row.offset, duration_s=row.duration) for row in rows]
    return windows.assemble(clips, [placed.start_s for placed in content[number].placed])


def _segments(placed: Placed) -> dict[str, Any]:
    """A clip's own segment times in its window, where it has several; views may have changed its tempo."""
    told = placed.utterance.extra.get("segments") or []
    if len(told) < 2:
        return {}
    stretch = (placed.end_s - placed.start_s) / told[-1]["end"]
    return {
        "segments": [
            {
                "text": segment["text"],
                "start_s": round(placed.start_s + stretch * segment["start"], 2),
                "end_s": round(placed.start_s + stretch * segment["end"], 2),
            }
            for segment in told
        ]
    }


def _window_row(window: Window, views: int) -> dict[str, Any]:
    return {
        "id": window.id,
        "view": max(round_of(p.utterance.view, views) for p in window.placed),
        "replay": window.id.startswith("replay-"),
        "clips": [
            {"id": p.utterance.id, "text": p.utterance.text or "", "start_s": p.start_s, "end_s": p.end_s,
             "audio_filepath": str(p.utterance.audio_filepath), "offset": p.utterance.offset,
             "duration": p.utterance.duration, **_segments(p)}
            for p in window.placed
        ],
    }  # fmt: skip
