"""Views of training rows and fixed conditions of test rows, written as FLAC with rows that say what was done.

Views are written, not made inside `encode`, because a change of tempo changes the duration that packing needs, and
because a user can then listen to them; an hour of 16 kHz FLAC is about 60 MB. Every draw depends on seed, row id and
view alone, so any number of processes, order or resumption gives the same audio.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft import audio, files, manifest, workers
from speechft.augment import balance, plan
from speechft.augment.plan import Materials
from speechft.errors import InputError
from speechft.manifest import Reject, Utterance

log = logging.getLogger(__name__)

Tell = Callable[[int, int], None]
UNEVEN = ("say", "rhythm")  # after which no part of a row is where its share of the length would be


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One output file: which row, which view or condition, with what."""

    row: Utterance
    view: int
    condition: str | None
    settings: Mapping[str, Any]
    seed: int
    path: Path
    language: str | None


@dataclass(frozen=True, kw_only=True)
class Made:
    """Rows with their sound, what could not be used, and which copies could not be made.

    Attributes:
        rows: what is made, and what it is made from where that is learned too; to be taken once, each made when its
            turn comes, as there may be millions.
        rejects: noise files, babble rows and impulse responses; whole once the rows are taken.
        failed: test rows that a condition cannot be made of; whole once the rows are taken.
    """

    rows: Iterator[Utterance]
    rejects: list[Reject] = dataclasses.field(default_factory=list)
    failed: list[Reject] = dataclasses.field(default_factory=list)


def make_views(
    rows: Sequence[Utterance], *, count: int, settings: Mapping[str, Any], seed: int, out: Path, bank: Path,
    language: str | None = "en", balance_by: str | None = None, unheard: Sequence[Utterance] = (),
    processes: int | None = None, progress: Tell = lambda done, total: None,
) -> Made:  # fmt: skip
    """The clean rows (view 0), then `count` augmented views of each, and more of rarer groups if balanced.

    Babble is mixed from the training rows themselves, never of the same speaker.

    Args:
        rows: training rows; gone through several times, and none is held, so that `manifest.Rows` may be millions.
        count: views of each row.
        settings: {transform: {"p": probability, ...}}.
        seed: of every draw.
        out: folder of the views' sound.
        bank: where simulated rooms are kept.
        language: of rows that name none; None where the texts are not what was said but a translation.
        balance_by: a label such as "accent": its rarer values get more views, see `balance.more_views`.
        unheard: dev and test rows: what a noise source holds of them is left out.
        processes: worker processes; one a core unless said.
        progress: told how many of how many files are done.

    Raises:
        InputError: the settings are wrong, a source is missing, or no row has the label.
    """
    more = [] if balance_by is None else balance.more_views(rows, by=balance_by, count=count, seed=seed)
    total = count * len(rows) + len(more)
    if not total:
        return Made(rows=iter(rows))

    def wanted() -> Iterator[tuple[Utterance, int]]:
        yield from ((row, view) for view in range(1, count + 1) for row in rows)
        yield from ((rows[number], view) for number, view in more)

    _require_new(rows, (f"{row.id}#view{view}" for row, view in wanted()))
    given: dict[str, Any] = {"settings": settings, "seed": seed, "out": out, "language": language}
    materials = plan.materials(rows, settings=settings, seed=seed, bank=bank, unheard=unheard)
    jobs = (_view_job(row, view, **given) for row, view in wanted())
    made = _run(jobs, total, materials=materials, processes=processes, progress=progress)
    views = (_row_of(job, facts) for job, facts in made if not isinstance(facts, Reject))
    return Made(rows=itertools.chain(rows, views), rejects=list(materials.rejects))


def make_conditions(
    rows: Sequence[Utterance], *, conditions: Mapping[str, Mapping[str, Any]], seed: int, out: Path, bank: Path,
    language: str | None = "en", unheard: Sequence[Utterance] = (), training: Mapping[str, Any] | None = None,
    processes: int | None = None, progress: Tell = lambda done, total: None,
) -> Made:  # fmt: skip
    """A copy of each clean test row under each named condition, ids `row#condition`.

    Materials come only from what the condition names, without what `unheard`, the training rows, hold of it, without
    these rows' speakers, and without the noise, babble and rooms of `training`, the tables of training's views. Rows
    that a condition cannot be made of (a text that no voice can say, the pitch of silence) are named.

    Raises:
        InputError: no row is clean, or a row has an id that a copy would have; and, while the rows are taken: the
            settings are wrong, or a condition lacks what it needs, or can be made of no row.
    """
    clean = [row for row in rows if row.condition in (None, "clean")]
    if conditions and not clean:
        raise InputError("conditions: every test row has a `condition` already; leave that key out of the clean rows")
    _require_new(rows, (f"{row.id}#{name}" for name in conditions for row in clean))
    rejects, failed = list[Reject](), list[Reject]()

    def made() -> Iterator[Utterance]:
        for name, settings in conditions.items():
            given: dict[str, Any] = {"settings": settings, "seed": seed, "out": out, "language": language}
            held = plan.materials(
                (), settings=settings, seed=seed, bank=bank, condition=name, unheard=unheard, training=training,
                disturbed=clean,
            )  # fmt: skip
            rejects.extend(held.rejects)
            jobs = (_condition_job(row, name, **given) for row in clean)
            without = list[Reject]()
            for job, facts in _run(jobs, len(clean), materials=held, processes=processes, progress=progress):
                if isinstance(facts, Reject):
                    without.append(facts)
                else:
                    yield _row_of(job, facts)
            if without and len(without) == len(clean):
                raise InputError(f"conditions.{name}: can be made of no row; the first is {without[0].detail}")
            failed.extend(without)
        if failed:
            first = "; ".join(reject.detail for reject in failed[:5])
            log.warning("conditions: %d copies cannot be made: %s", len(failed), first)

    return Made(rows=made(), rejects=rejects, failed=failed)


def show(
    identity: str, *, train: Sequence[Utterance], test: Sequence[Utterance], settings: Mapping[str, Any],
    conditions: Mapping[str, Mapping[str, Any]], seed: int, out: Path, language: str | None = "en",
    learned: Sequence[Utterance] = (), checked: Sequence[Utterance] = (),
) -> Utterance:  # fmt: skip
    """Make one view (`row#view2`) or condition (`row#babble5`) again, bit for bit, from nothing that was kept.

    Args:
        identity: the id of the view's row.
        train: clean training rows.
        test: clean test rows.
        settings: tables of the plan.
        conditions: tables of the fixed conditions.
        seed: of the plan.
        out: folder to write to.
        language: of rows that name none, as in `make_views`.
        learned: all rows that are trained on, `unheard` in conditions.
        checked: all rows of dev and test, `unheard` in views.

    Raises:
        InputError: there is no such row, view or condition.
    """
    parent, hash_sign, name = identity.rpartition("#")
    bank = out / "rooms.npz"
    if not hash_sign:
        raise InputError(f"--show {identity}: give the id of a view, such as {identity}#view1")
    given: dict[str, Any] = {"seed": seed, "out": out, "language": language}
    if name in conditions:
        job = _condition_job(_find(parent, test, "test", identity), name, settings=conditions[name], **given)
        materials = plan.materials(
            (), settings=conditions[name], seed=seed, bank=bank, condition=name, unheard=learned, training=settings,
            disturbed=test,
        )  # fmt: skip
    elif name.startswith("view") and name[4:].isdecimal() and int(name[4:]):
        row = _find(parent, train, "training", identity)
        job = _view_job(row, int(name[4:]), settings=settings, **given)
        materials = plan.materials(train, settings=settings, seed=seed, bank=bank, unheard=checked)
    else:
        known = ", ".join(f"#{name}" for name in conditions)
        raise InputError(f"--show {identity}: end it with #view1, #view2, ...{' or ' + known if known else ''}")
    job.path.with_suffix(".json").unlink(missing_ok=True)
    _set_materials(materials)
    made = _make(job)
    if isinstance(made, Reject):
        raise InputError(f"--show {made.detail}")
    return _row_of(job, made)


def _require_new(rows: Sequence[Utterance], made: Iterable[str]) -> None:
    """Refuse rows whose ids are those that copies of others will have."""
    taken = {row.id for row in rows if "#" in row.id}
    if taken and (twice := next((identity for identity in made if identity in taken), None)):
        raise InputError(f'the id "{twice}" is a row\'s, and a copy of another row would have it; give the row another')


def _find(identity: str, rows: Sequence[Utterance], what: str, asked: str) -> Utterance:
    for row in rows:
        if row.id == identity:
            return row
    raise InputError(f"--show {asked}: no {what} row has the id {identity!r}; see ingest/*.jsonl in the run's folder")


def _view_job(
    row: Utterance, view: int, *, settings: Mapping[str, Any], seed: int, out: Path, language: str | None
) -> _Job:
    path = out / f"view-{view}" / file_name(row.id)
    return _Job(row=row, view=view, condition=None, settings=settings, seed=seed, path=path, language=language)


def _condition_job(
    row: Utterance, name: str, *, settings: Mapping[str, Any], seed: int, out: Path, language: str | None
) -> _Job:
    path = out / name / file_name(row.id)
    return _Job(row=row, view=0, condition=name, settings=settings, seed=seed, path=path, language=language)


class Tally:
    """What the stage's record tells of the rows made, counted as they pass.

    Args:
        by: the label that was balanced by, if any.
    """

    def __init__(self, *, by: str | None) -> None:
        self.rows = 0
        self._by = by
        self._said_again = 0
        self._left_out, self._unreadable, self._labels = Counter[str](), Counter[str](), Counter[str]()

    def counted(self, rows: Iterable[Utterance]) -> Iterator[Utterance]:
        """The same rows."""
        for row in rows:
            self.rows += 1
            for step in row.transform or []:
                if "skipped" in step:
                    self._left_out[f"{step['name']}: {step['skipped']}"] += 1
                elif step["name"] == "say":
                    self._said_again += 1
                self._unreadable.update(step.get("unreadable", ()))
            if self._by is not None and (value := balance.label(row, self._by)) is not None:
                self._labels[value] += 1
            yield row

    def facts(self) -> dict[str, Any]:
        """What was counted.

        Returns:
            {"recorded", "said_again" (rows), "left_out": {reason: rows}, "noise_unreadable": {file: times drawn} of
            files whose header was good, if any, "drawn_shares": {label: {value: share}} of the label balanced by, if
            any}.
        """
        facts: dict[str, Any] = {
            "recorded": self.rows - self._said_again, "said_again": self._said_again, "left_out": dict(self._left_out)
        }  # fmt: skip
        if self._unreadable:
            facts["noise_unreadable"] = dict(self._unreadable)
        return facts if self._by is None else {**facts, "drawn_shares": {self._by: balance.shares(self._labels)}}


def file_name(identity: str) -> str:
    """A file name for any id: readable, and unique by its hash."""
    readable = "".join(c if c.isalnum() or c in "-_." else "_" for c in identity)[:60]
    return f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.flac"


def _run(
    jobs: Iterable[_Job], count: int, *, materials: Materials, processes: int | None, progress: Tell
) -> Iterator[tuple[_Job, dict[str, Any] | Reject]]:
    """Each job, made when its turn comes, with its sidecar or why it could not be made."""
    given, kept = itertools.tee(jobs)
    results = workers.each(
        _make, given, processes=min(processes or workers.cores(), count), preload=__name__,
        initializer=_set_materials, initargs=(materials,),
    )  # fmt: skip
    for number, (job, result) in enumerate(zip(kept, results, strict=True)):
        yield job, result
        progress(number + 1, count)


_materials: Materials | None = None  # a worker's own copy, set once


def _set_materials(materials: Materials) -> None:
    global _materials
    _materials = materials


def _make(job: _Job) -> dict[str, Any] | Reject:
    """Make one file unless an earlier attempt did; its sidecar, which is written last, or why a condition cannot be."""
    sidecar = job.path.with_suffix(".json")
    row = job.row
    facts = _facts_of(job.path, sidecar)
    if facts is None:
        assert _materials is not None
        assert row.audio_filepath is not None
        samples = audio.read(row.audio_filepath, offset_s=row.offset, duration_s=row.duration)
        given: dict[str, Any] = {
            "utterance_id": row.id, "settings": dict(job.settings), "seed": job.seed, "materials": _materials,
            "speaker": row.speaker, "text": row.extra.get("spoken") or row.text,
            "language": job.language and (row.lang or job.language),
        }  # fmt: skip
        if job.condition is None:
            samples, done = plan.apply(samples, view=job.view, **given)
        else:
            try:
                samples, done = plan.condition(samples, name=job.condition, **given)
            except InputError as error:
                where = f"{row.id}#{job.condition}"
                return Reject({"id": row.id}, f"no {job.condition} copy", f"{where}: {error}", where)
        audio.write(job.path, samples)
        duration_s = len(samples) / audio.SAMPLE_RATE
        facts = {"transform": done, "duration": duration_s, "bytes": job.path.stat().st_size}
        files.write_json(sidecar, facts)
    return facts


def _facts_of(path: Path, sidecar: Path) -> dict[str, Any] | None:
    """What an earlier attempt made; None where sound or sidecar are not there, or are damaged."""
    try:
        facts: dict[str, Any] = files.read_json(sidecar)
        whole = path.stat().st_size == facts["bytes"] and "duration" in facts and "transform" in facts
    except (InputError, OSError, KeyError, TypeError):
        return None
    return facts if whole else None


def _row_of(job: _Job, facts: Mapping[str, Any]) -> Utterance:
    """The row of a file that was made; what it has of its parent it shares with it, but for times that fit no more."""
    row, steps = job.row, manifest.compact(facts["transform"])
    if any(step["name"] in UNEVEN and "skipped" not in step for step in steps) and "segments" in row.extra:
        row = dataclasses.replace(row, extra={key: held for key, held in row.extra.items() if key != "segments"})
    suffix = f"view{job.view}" if job.condition is None else job.condition
    made = dataclasses.replace(
        row, id=f"{row.id}#{suffix}", audio_filepath=job.path.absolute(), offset=0.0, duration=facts["duration"],
        parent=row.id, view=job.view, transform=steps, condition=job.condition or row.condition,
    )  # fmt: skip
    again = next((step for step in steps if step["name"] == "say" and "speaker" in step), None)
    if again is None:
        return made
    # Another speaker now, and no person: the row must not pass for a recording of whom it was taken from.
    return dataclasses.replace(
        made, speaker=again["speaker"], accent=again["accent"], extra={**row.extra, "synthetic": True}
    )
