"""The encode stage: which clips share a window, and the frozen encoder's states of every window, kept once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechft import audio, files, manifest
from speechft.augment.balance import round_of
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.progress import Progress
from speechft.run import CHOOSING, REPORTED, Run
from speechft.whisper import load, states, tokens, windows
from speechft.whisper.load import Whisper
from speechft.whisper.windows import Clip, Placed, Window

log = logging.getLogger(__name__)


def encode(run: Run, out: Path) -> dict[str, Any]:
    """Keep states of every training window and every row that will be decoded; write what is where into `out`.

    Training windows are only planned, not encoded, under strategies that change the encoder.

    Returns:
        facts for the stage's record, with `counts`.

    Raises:
        InputError: the base cannot be loaded, too many labels are too long, or the disk is too small.
    """
    whisper, device = run.load_base(), load.told_device()
    groups, rejects = read_clips(run, whisper) if run.learns_from in ("states", "audio") else ([], [])
    files.write_jsonl(out / "rejects.jsonl", rejects)
    clips = sum(len(group.clips) for group in groups)
    _refuse_too_many(len(rejects), clips, allowed=run.pipeline.data.max_rejected_share, where=out / "rejects.jsonl")
    files.write_jsonl(out / "windows.jsonl", plan_windows(run, groups))
    del groups  # before the encoder takes its memory; what it hears is read back
    decoded = {"choosing": run.evaluated(*CHOOSING), "reported": run.evaluated(*REPORTED)}
    singles = {name: [row for rows in roles.values() for row in rows] for name, roles in decoded.items()}
    contents: dict[str, Any] = {name: [{"clips": [_clip(row)]} for row in rows] for name, rows in singles.items()}
    contents["train"] = files.JsonLines(out / "windows.jsonl")
    encoder_hash = load.encoder_hash(whisper.model)
    # A GPU's log-mels differ from a processor's in their last bits; a processor's key is what it has always been.
    precision = str(device.precision)
    if device.name != "cpu":
        precision = f"{device.name} {states.computed_in(device)} throughout"
    plans: dict[str, Any] = {}
    for name in run.stores():
        identities = map(_identity, contents[name])
        key = states.key(encoder_hash, identities, dtype=run.pipeline.encode.dtype, precision=precision)
        gb = states.size_gb(len(contents[name]), whisper.model.config)
        plans[name] = {"key": key, "count": len(contents[name]), "gb": round(gb, 3)}
    total, all_gb = sum(plan["count"] for plan in plans.values()), sum(plan["gb"] for plan in plans.values())
    log.info("encode: %s windows, %.2f GB of states", f"{total:,}", all_gb)
    held_gb = sum(states.held_gb(run.states / plan["key"]) for plan in plans.values())
    states.check_disk(run.states, all_gb - held_gb)
    done = 0
    with Progress("encode") as tell:
        for name, plan in plans.items():
            states.keep(
                run.states / plan["key"], count=plan["count"], render=functools.partial(_render, contents[name]),
                end=functools.partial(_end, contents[name]),
                encoder=whisper.model.model.encoder, n_mels=whisper.n_mels, device=device,
                dtype=run.pipeline.encode.dtype, progress=tell.part(done, total),
            )  # fmt: skip
            done += plan["count"]
    for name, plan in plans.items():
        ids = {"ids": [row.id for row in singles[name]]} if name in singles else {}
        files.write_json(out / f"{name}.json", plan | ids)
    clips += sum(map(len, singles.values()))
    counts = {
        "in": clips + len(rejects), "out": clips, "windows": total,
        "rejected": {"label too long": len(rejects)} if rejects else {},
    }  # fmt: skip
    return {
        "counts": counts, "device": device.label, "states_gb": round(all_gb, 3), "revision": whisper.revision,
    }  # fmt: skip


def _refuse_too_many(rejected: int, kept: int, *, allowed: float, where: Path) -> None:
    """Stop where more clips were rejected here than the pipeline allows."""
    clips = rejected + kept
    if rejected > allowed * clips:
        raise InputError(
            f"{rejected:,} of {clips:,} training clips have a label over {tokens.LABEL_LIMIT} tokens (in {where}), "
            f"more than data.max_rejected_share = {allowed:g} allows; cut them into shorter segments"
        )


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows of a manifest that share windows with each other alone: a round of training, or general speech."""

    name: str
    view: int
    rows: manifest.Rows
    clips: list[Clip]


def read_clips(run: Run, whisper: Whisper) -> tuple[list[Group], list[dict[str, Any]]]:
    """What packing asks of every view and replay; rows whose label is too long are named, never cut.

    Of each row little is held: there may be millions.
    """
    general, views = run.dir / "ingest" / "general_train.jsonl", run.pipeline.augment.views
    replays = run.pipeline.finetune.replay_share > 0 and general.exists()
    groups: dict[str, Group] = {}
    rejects: list[dict[str, Any]] = []
    for path in [run.dir / "augment" / "train.jsonl", *([general] if replays else [])]:
        rows = manifest.Rows(path)
        for number, row in enumerate(rows):
            count = _label_tokens(whisper, row)
            if count > tokens.LABEL_LIMIT:
                detail = f"{count} tokens, over {tokens.LABEL_LIMIT}"
                rejects.append({"id": row.id, "reason": "label too long", "detail": detail, "row": row.row()})
                continue
            turn = 0 if path == general else round_of(row.view, views)
            name = "replay" if path == general else f"v{turn}"
            group = groups.setdefault(name, Group(name=name, view=turn, rows=rows, clips=[]))
            group.clips.append(Clip(id=row.id, number=number, duration_s=row.duration or 0.0, tokens=count))
    return sorted(groups.values(), key=lambda group: (group.name == "replay", group.view)), rejects


def plan_windows(run: Run, groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Packed windows of each group, as windows.jsonl tells them."""
    settings, seed = run.pipeline.encode, run.pipeline.augment.seed
    count = long = 0
    for group in groups:
        packed = windows.pack(
            group.clips,
            name=group.name,
            view=group.view,
            seed=seed,
            gap_s=settings.gap_s,
            single_share=settings.single_share if settings.pack else 1.0,
            max_tokens=tokens.REFERENCE_SAMPLE_LEN,
        )
        count += len(packed)
        long += sum(window.placed[0].clip.tokens > tokens.REFERENCE_SAMPLE_LEN for window in packed)
        for window in packed:
            yield _window_row(window, group)
    if long:
        log.warning(
            "encode: %s of %s windows hold a clip of more than %d tokens: the reference decoder stops there, so what "
            "is learned of their ends cannot be used; cut such recordings into shorter segments",
            f"{long:,}", f"{count:,}", tokens.REFERENCE_SAMPLE_LEN,
        )  # fmt: skip


def _label_tokens(whisper: Whisper, row: Utterance) -> int:
    """Tokens of a row's text, and a pair of timestamps for each of its segments after the first."""
    inner = max(0, len(row.extra.get("segments") or []) - 1)
    return len(tokens.encode_text(whisper.tokenizer, row.text or "")) + 2 * inner


def _identity(window: Mapping[str, Any]) -> list[Any]:
    """What a window's states depend on: its clips' sound, lengths and places, and how it is filled up."""
    clips = [[clip["sound"], clip["duration"], clip["start_s"]] for clip in window["clips"]]
    return [*clips, "filled"] if window.get("filled") else clips


def _content(row: Utterance) -> str:
    """Which sound a row holds, whatever its file is called: of what `augment` made by the file's bytes."""
    checked: str | None = row.extra.get(manifest.SOUND)
    if row.transform is not None or checked is None:
        path = Path(row.audio_filepath or "")
        try:
            stat = path.stat()
        except OSError as error:
            raise _unreadable(path, error.strerror) from error
        return f"{_hash(path, stat.st_size, stat.st_mtime_ns)} at {row.offset:g} s"
    return checked


@functools.lru_cache(maxsize=1024)  # rows may be segments of one file
def _hash(path: Path, _size: int, _mtime_ns: int) -> str:
    return files.sha256(path)


def sound(window: Mapping[str, Any]) -> np.ndarray:
    """The 480,000 samples of a window, as windows.jsonl tells it.

    Raises:
        InputError: a clip's file is not there any more, or cannot be read.
    """
    return windows.assemble([_heard(clip) for clip in window["clips"]], [clip["start_s"] for clip in window["clips"]])


def end(window: Mapping[str, Any]) -> int:
    """The first log-mel frame behind the last clip of a window that ends in zeros, and 3000 for others."""
    return round(window["clips"][-1]["end_s"] * windows.FRAMES_PER_S) if window.get("filled") else windows.N_FRAMES


def _end(content: Sequence[Mapping[str, Any]], number: int) -> int:
    return end(content[number])


def _render(content: Sequence[Mapping[str, Any]], number: int) -> np.ndarray:
    return sound(content[number])


def _heard(clip: Mapping[str, Any]) -> np.ndarray:
    try:
        return audio.read(clip["audio_filepath"], offset_s=clip["offset"], duration_s=clip["duration"])
    except audio.AudioError as error:
        raise _unreadable(Path(clip["audio_filepath"]), str(error)) from error


def _unreadable(path: Path, why: str | None) -> InputError:
    """What to do about sound that was there when its row was checked or made."""
    made = next((folder for folder in path.parents if (folder / files.STAGE_FILE).exists()), None)
    if made is None or made.name not in ("augment", "conditions"):
        return InputError(f"{path}: cannot be read any more ({why}); put it back, and the same command goes on")
    return InputError(f"{path}: cannot be read ({why}); remove {made}, and the same command makes it again")


def _segments(row: Utterance, placed: Placed) -> dict[str, Any]:
    """A clip's own segment times in its window, where it has several; views may have changed its tempo."""
    told = row.extra.get("segments") or []
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


def _window_row(window: Window, group: Group) -> dict[str, Any]:
    rows = [group.rows[placed.clip.number] for placed in window.placed]
    return {
        "id": window.id,
        "view": group.view,
        "replay": group.name == "replay",
        "filled": window.filled,
        "clips": [
            {"id": row.id, "text": row.text or "", "end_s": placed.end_s, **_clip(row, placed.start_s),
             **_segments(row, placed)}
            for row, placed in zip(rows, window.placed, strict=True)
        ],
    }  # fmt: skip


def _clip(row: Utterance, start_s: float = 0.0) -> dict[str, Any]:
    """Which sound, and where in its window it starts."""
    return {
        "start_s": start_s, "audio_filepath": str(row.audio_filepath), "offset": row.offset, "duration": row.duration,
        "sound": _content(row),
    }  # fmt: skip
