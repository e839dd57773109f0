"""Views of training rows and fixed conditions of test rows, written as FLAC with rows that say what was done.

Views are written, not made inside `encode`, because a change of tempo changes the duration that packing needs, and
because a user can then listen to them; an hour of 16 kHz FLAC is about 60 MB. Every draw depends on seed, row id and
view alone, so any number of processes, order or resumption gives the same audio.
"""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft import audio, files
from speechft.augment import plan
from speechft.augment.plan import Materials
from speechft.manifest import Utterance

Tell = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One output file: which row, which view or condition, with what."""

    row: Utterance
    view: int
    condition: str | None
    settings: Mapping[str, Any]
    seed: int
    path: Path


def make_views(
    rows: Sequence[Utterance], *, count: int, settings: Mapping[str, Any], seed: int, out: Path, bank: Path,
    progress: Tell = lambda done, total: None,
) -> list[Utterance]:  # fmt: skip
    """The clean rows (view 0), then `count` augmented views of each.

    Babble is mixed from the training rows themselves, never of the same speaker.
    """
    jobs = [
        _Job(
            row=row,
            view=view,
            condition=None,
            settings=settings,
            seed=seed,
            path=out / f"view-{view}" / _file_name(row.id),
        )
        for view in range(1, count + 1)
        for row in rows
    ]
    made = _run(jobs, materials=plan.materials(rows, settings=settings, seed=seed, bank=bank), progress=progress)
    return [*rows, *made]


def make_conditions(
    rows: Sequence[Utterance], *, conditions: Mapping[str, Mapping[str, Any]], seed: int, out: Path, bank: Path,
    progress: Tell = lambda done, total: None,
) -> list[Utterance]:  # fmt: skip
    """A copy of each clean test row under each named condition, ids `row#condition`.

    Materials come only from what the condition names, so training noise is never used.
    """
    clean = [row for row in rows if row.condition in (None, "clean")]
    made: list[Utterance] = []
    for name, settings in conditions.items():
        jobs = [
            _Job(
                row=row,
                view=0,
                condition=name,
                settings=settings,
                seed=seed,
                path=out / name / _file_name(row.id),
            )
            for row in clean
        ]
        held = plan.materials((), settings=settings, seed=seed, bank=bank, condition=name)
        made += _run(jobs, materials=held, progress=progress)
    return made


def _file_name(identity: str) -> str:
    """A file name for any id: readable, and unique by its hash."""
    readable = "".join(c if c.isalnum() or c in "-_." else "_" for c in identity)[:60]
    return f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.flac"


def _run(jobs: list[_Job], *, materials: Materials, progress: Tell) -> list[Utterance]:
    if not jobs:
        return []
    processes = max(
        1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
    )
    made: list[Utterance] = []
    with multiprocessing.get_context("fork").Pool(processes, initializer=_set_materials, initargs=(materials,)) as pool:
        for row in pool.imap(_make, jobs, chunksize=4):
            made.append(row)
            progress(len(made), len(jobs))
    return made


_materials: Materials | None = None  # a worker's own copy, set once


def _set_materials(materials: Materials) -> None:
    global _materials
    _materials = materials


def _make(job: _Job) -> Utterance:
    """Make one file unless an earlier attempt did; the sidecar is written last."""
    sidecar = job.path.with_suffix(".json")
    row = job.row
    if not sidecar.exists():
        assert _materials is not None
        assert row.audio_filepath is not None
        samples = audio.read(row.audio_filepath, offset_s=row.offset, duration_s=row.duration)
        if job.condition is None:
            samples, done = plan.apply(
                samples, utterance_id=row.id, view=job.view, settings=dict(job.settings), seed=job.seed,
                materials=_materials, speaker=row.speaker,
            )  # fmt: skip
        else:
            samples, done = plan.condition(
                samples, name=job.condition, settings=dict(job.settings), utterance_id=row.id, seed=job.seed,
                materials=_materials, speaker=row.speaker,
            )  # fmt: skip
        audio.write(job.path, samples)
        files.write_json(sidecar, {"transform": done, "duration": len(samples) / audio.SAMPLE_RATE})
    facts = files.read_json(sidecar)
    suffix = f"view{job.view}" if job.condition is None else job.condition
    return dataclasses.replace(
        row, id=f"{row.id}#{suffix}", audio_filepath=job.path.absolute(), offset=0.0, duration=facts["duration"],
        parent=row.id, view=job.view, transform=facts["transform"], condition=job.condition or row.condition,
    )  # fmt: skip
