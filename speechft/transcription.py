"""Transcribing within a run: hypotheses from kept states or from audio, before and after."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechft import audio, manifest
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.progress import Progress
from speechft.run import REPORTED, Run
from speechft.score import terms as term_lists
from speechft.whisper import decode, load, states

if TYPE_CHECKING:
    from speechft.whisper.load import Device, Whisper


def transcribe_reported(run: Run, out: Path) -> dict[str, Any]:
    """Write before, after, general_before and general_after .jsonl: the reported rows with `hypothesis`.

    Where the base may not write tokens that the test set needs (`/ # (`), before_released.jsonl holds what it writes
    once it may, so that a gain by training is told from a gain by leave to write.
    """
    device = load.told_device()
    base = run.load_base()
    adapted = load.load(str(run.dir / "finetune" / "model"), language=base.language, task=base.task)
    adapted.trained = True
    evaluated = run.evaluated(*REPORTED)
    done, total = 0, 2 * sum(len(evaluated.get(role, [])) for role in REPORTED)
    own_list = copy.deepcopy(base.model.generation_config)
    released = load.release_tokens(base, [r.text or "" for r in evaluated["test"]] + term_texts(run))
    released_list, base.model.generation_config = base.model.generation_config, own_list
    clean = [row for row in evaluated["test"] if row.condition in (None, "clean")]
    wanted = [
        (f"{prefix}{suffix}", model, evaluated.get(role, []))
        for model, suffix in ((base, "before"), (adapted, "after"))
        for role, prefix in (("test", ""), ("general_test", "general_"))
    ]
    if released:
        wanted.append(("before_released", base, clean))
        total += len(clean)
    with Progress("transcribe") as tell:
        for name, model, rows in wanted:
            path = out / f"{name}.jsonl"
            if not rows:
                continue
            if not path.exists():  # each file is whole once it is there: a resumed run keeps it
                if name == "before_released":
                    base.model.generation_config = released_list
                found = hypotheses(run, model, rows, device, store="reported", tell=tell.part(done, total))
                manifest.write(path, (dataclasses.replace(r, hypothesis=h) for r, h in zip(rows, found, strict=True)))
            done += len(rows)
    return {
        "counts": {"in": done, "out": done, "rejected": {}},
        "device": device.label,
        "base_suppresses": released,
    }


def hypotheses(
    run: Run,
    whisper: Whisper,
    rows: Sequence[Utterance],
    device: Device,
    *,
    store: str,
    tell: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Transcribe rows: from a store of kept states while the encoder is the base's, else from audio.

    The decode path is one.
    """
    settings = run.pipeline.decode
    order = sorted(rows, key=lambda row: row.duration or 0.0)  # like lengths end together
    if encoder_is_base(run, whisper):
        number = {identity: index for index, identity in enumerate(run.store(store)["ids"])}
        found = decode.from_store(
            whisper, store_of(run, store), [number[row.id] for row in order], device=device, batch=settings.batch,
            beam=settings.beam, progress=tell,
        )  # fmt: skip
    else:
        found = []
        for start in range(0, len(order), settings.batch):
            clips: list[np.ndarray] = [
                audio.read(row.audio_filepath, offset_s=row.offset, duration_s=row.duration)
                for row in order[start : start + settings.batch]
                if row.audio_filepath is not None
            ]
            found += decode.from_audio(whisper, clips, device=device, beam=settings.beam)
            tell(len(found))
    by_id = {row.id: hypothesis for row, hypothesis in zip(order, found, strict=True)}
    return [by_id[row.id] for row in rows]


def encoder_is_base(run: Run, whisper: Whisper) -> bool:
    """Whether kept states fit: under strategies that leave the encoder alone, and always for the untouched base."""
    return run.keeps_encoder or not whisper.trained


def prove_saved(folder: Path, run: Run, whisper: Whisper, device: Device) -> None:
    """Saved means: reloaded, and one row decoded to the same words.

    Raises:
        InputError: the saved model answers differently.
    """
    again = load.load(str(folder), language=whisper.language, task=whisper.task)
    again.trained = True
    row = run.rows("dev")[:1]
    first, second = (hypotheses(run, w, row, device, store="choosing")[0] for w in (whisper, again))
    if first != second:
        raise InputError(
            f"{folder}: the saved model answers {second!r} where the trained one says {first!r}; check the disk"
        )


def store_of(run: Run, name: str) -> states.Store:
    """Kept states by name: `train`, `choosing` or `reported`."""
    plan = run.store(name)
    return states.Store(path=run.states / plan["key"], count=plan["count"], dtype=run.pipeline.encode.dtype)


def term_texts(run: Run) -> list[str]:
    """The pipeline's terms as they are written; none without a list."""
    path = run.pipeline.data.terms
    return [term.term for term in term_lists.read_terms(path)] if path else []
