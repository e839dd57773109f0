"""The stages of a run, composed from the rooms: each reads files, writes its own folder, and records what it did.

A stage whose settings and inputs are unchanged is done and says so without importing torch.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speechft import files, locks, manifest, spoken, text
from speechft.errors import InputError
from speechft.ingest import readers
from speechft.manifest import Utterance
from speechft.progress import Progress
from speechft.run import CHOOSING, LEARNED, REPORTED, Run, held_by_sources
from speechft.whisper import source

if TYPE_CHECKING:
    from speechft.augment.views import Made

log = logging.getLogger(__name__)

ORDER = ("ingest", "augment", "encode", "finetune", "transcribe", "score", "report")


def run_stages(run: Run, names: tuple[str, ...] = ORDER) -> dict[str, bool]:
    """Run stages in order; tells for each whether there was work to do.

    Raises:
        InputError: the user's input is at fault; nothing finished is lost.
    """
    did = {}
    alone = os.environ.get("RANK", "0") == "0"  # the others of a team work under the first one's lock
    with locks.only_one(run.dir) if alone else contextlib.nullcontext():
        for name in names:
            did[name] = STAGES[name](run)
            if not did[name]:
                log.info("%s: up to date", name)
    return did


def _roles(run: Run) -> dict[str, list[Path]]:
    data = run.pipeline.data
    named = {"train": data.train, "dev": data.dev, "test": data.test, "general": data.general}
    roles = {role: list(paths) for role, paths in named.items() if paths}
    for role in run.spoken_roles:
        held_by = "general" if role == "general_train" else role
        roles.setdefault(held_by, []).append(run.dir / "synth" / f"{role}.jsonl")
    return roles


def ingest(run: Run) -> bool:
    """Manifests in; checked rows per role, rejects and the leak audit out."""
    data, roles = run.pipeline.data, _roles(run)
    for path in (path for paths in roles.values() for path in paths):
        if not path.exists() and run.dir / "synth" not in path.parents:  # what is spoken comes in a moment
            raise InputError(f"{path}: there is no such manifest; correct the pipeline's [data] table{run.made_with}")
    if data.terms and not data.terms.exists():
        raise InputError(f"{data.terms}: there is no such term list; correct data.terms")
    if run.pipeline.synth is not None and not spoken.synth(run):
        log.info("synth: up to date")
    inputs = [path for paths in roles.values() for path in paths] + ([data.terms] if data.terms else [])
    stage = run.stage("ingest", settings=run.table("data"), inputs=inputs)
    if stage.up_to_date() and files.read_json(stage.dir / files.STAGE_FILE).get("sound") == _sound(stage.dir):
        return False
    run.check_ahead()
    if run.base_folder is None:  # on the hub: fetched before hours are spent
        asked = run.pipeline.model
        folder, _ = source.find(asked.base, revision=asked.revision)
        source.check_language(folder, asked.base, language=asked.language, task=asked.task)
    stage.begin()
    from speechft.ingest.stage import ingest as read_and_check

    counts = read_and_check(
        roles,
        out=stage.dir,
        allow_leaks=list(data.allow_leaks),
        max_rejected_share=data.max_rejected_share,
        general_dev_share=data.general_dev_share,
        split_by=data.split_by,
        seed=1,
        train_share=data.train_share,
    )
    stage.finish(counts, stage.outputs(), sound=_sound(stage.dir))
    run.warn_of_other_languages(counts["languages"])
    return True


def _sound(folder: Path) -> str:
    """The sound files of all rows as they are now, rejected ones too: a recording may be made anew, or supplied, under
    a manifest that stays."""
    kept = (path for role in readers.ROLES if (path := folder / f"{role}.jsonl").exists())
    sounds = (row.audio_filepath for path in kept for row in manifest.each(path) if row.audio_filepath)
    named = (str(row["row"].get("audio_filepath")) for row in files.each_jsonl(folder / "rejects.jsonl"))
    return manifest.sound_files(itertools.chain(sounds, (Path(name) for name in named if Path(name).is_absolute())))


def augment(run: Run) -> bool:
    """Views of the training rows and fixed conditions of the test rows, as FLAC with rows that say what was done."""
    page = run.dir / "augment" / "preview.html"
    worked = [_views(run, page), _conditions(run, page)]
    if any(worked) or not page.exists():
        from speechft.augment import preview

        clean = itertools.chain.from_iterable(map(run.each_row, ("train", "test")))
        views = (row for row in manifest.each(run.dir / "augment" / "train.jsonl") if row.view)
        preview.write(page, clean=clean, views=views, conditions=manifest.each(run.dir / "conditions" / "rows.jsonl"))
        log.info("augment: look and listen in %s", page)
    return any(worked)


def _views(run: Run, page: Path) -> bool:
    settings = run.pipeline.augment
    apart = run.kept_apart(settings.transforms, *CHOOSING, *REPORTED)
    inputs = [run.dir / "ingest" / "train.jsonl", *apart]
    wanted = run.table("augment") | run.says_in(settings.transforms) | held_by_sources(settings.transforms)
    stage = run.stage("augment", settings=wanted, inputs=inputs, seed=settings.seed)
    if stage.up_to_date():
        return False
    from speechft.augment.views import Tally, make_views

    run.check_transforms()
    stage.begin()
    page.unlink(missing_ok=True)
    train, tally = manifest.Rows(inputs[0]), Tally(by=settings.balance_by)
    with Progress("augment") as tell:
        made = make_views(
            train, count=settings.views, settings=settings.transforms, seed=settings.seed, out=stage.dir / "views",
            bank=stage.dir / "rooms.npz", language=run.spoken_language, balance_by=settings.balance_by,
            unheard=_rows_in(apart), progress=tell,
        )  # fmt: skip
        manifest.write(stage.dir / "train.jsonl", tally.counted(made.rows))
    facts = tally.facts()
    for reason, count in facts["left_out"].items():
        log.warning("augment: left out of %s views: %s", f"{count:,}", reason)
    counts = {"in": len(train), "out": tally.rows, "rejected": _write_rejects(stage, made)}
    stage.finish(counts, stage.outputs(), **facts)
    return True


def _conditions(run: Run, page: Path) -> bool:
    """A stage of its own: changing what the adapted model is tested under retrains nothing."""
    pipeline = run.pipeline
    apart = _learned(run)
    inputs = [run.dir / "ingest" / "test.jsonl", *apart]
    wanted = run.table("conditions") | run.says_in({name for table in pipeline.conditions.values() for name in table})
    wanted |= (training := run.training_sources())
    wanted |= held_by_sources(*pipeline.conditions.values(), *([pipeline.augment.transforms] if training else []))
    stage = run.stage("conditions", settings=wanted, inputs=inputs, seed=pipeline.augment.seed)
    if stage.up_to_date():
        return False
    from speechft.augment.views import Tally, make_conditions

    run.check_transforms()
    stage.begin()
    page.unlink(missing_ok=True)
    test, tally = run.rows("test"), Tally(by=None)
    with Progress("conditions") as tell:
        made = make_conditions(
            test, conditions=pipeline.conditions, seed=pipeline.augment.seed, out=stage.dir / "sound",
            bank=stage.dir / "rooms.npz", language=run.spoken_language, unheard=_rows_in(apart),
            training=pipeline.augment.transforms, progress=tell,
        )  # fmt: skip
        manifest.write(stage.dir / "rows.jsonl", tally.counted(made.rows))
    counts = {"in": len(test), "out": tally.rows, "rejected": _write_rejects(stage, made)}
    stage.finish(counts, stage.outputs(), **tally.facts())
    return True


def _learned(run: Run) -> list[Path]:
    """Files of what is trained on, where a condition names sources that might hold it."""
    found = [run.kept_apart(tables, *LEARNED) for tables in run.pipeline.conditions.values()]
    return next(filter(None, found), [])


def _rows_in(paths: Sequence[Path]) -> list[Utterance]:
    return [row for path in paths for row in manifest.read(path)]


def _write_rejects(stage: files.Stage, made: Made) -> dict[str, int]:
    """Name sound that was not used and copies that could not be made; counts by reason."""
    rejects = [*made.rejects, *made.failed]
    files.write_jsonl(stage.dir / "rejects.jsonl", (dataclasses.asdict(reject) for reject in rejects))
    return dict(collections.Counter(reject.reason for reject in rejects))


def show_view(run: Run, identity: str) -> str:
    """Make one view or condition again, bit for bit, beside the run's stages; tells where, and what was done.

    Raises:
        InputError: there is no such view.
    """
    import numpy as np

    from speechft import audio
    from speechft.augment import preview
    from speechft.augment.views import show

    pipeline = run.pipeline
    run.check_transforms()
    row = show(
        identity,
        train=run.rows("train"),
        test=run.rows("test"),
        settings=pipeline.augment.transforms,
        conditions=pipeline.conditions,
        seed=pipeline.augment.seed,
        out=run.dir / "show",
        language=run.spoken_language,
        learned=_rows_in(_learned(run)),
        checked=_rows_in(run.kept_apart(pipeline.augment.transforms, *CHOOSING, *REPORTED)),
    )
    assert row.audio_filepath is not None
    lines = [f"{row.audio_filepath}: {row.duration:.2f} s of {row.parent}"]
    lines += [f"  {step['name']}: {preview.tell(step)}" for step in row.transform or []] or ["  nothing was done"]
    folder = run.dir / "augment" / "views" if row.view else run.dir / "conditions" / "sound"
    kept = folder / row.audio_filepath.parent.name / row.audio_filepath.name
    if kept.exists():
        same = np.array_equal(audio.read(kept), audio.read(row.audio_filepath))
        lines.append(f"  {'the same, sample for sample, as' if same else 'DIFFERS from'} {kept}")
    return "\n".join(lines)


def encode(run: Run) -> bool:
    """Encoder states of every view's packed windows and of every row that will be decoded, once."""
    inputs = [run.dir / "augment" / "train.jsonl", *run.evaluated_files(*CHOOSING, *REPORTED), *run.base_files]
    replay = run.dir / "ingest" / "general_train.jsonl"
    if run.pipeline.finetune.replay_share > 0 and replay.exists():
        inputs.append(replay)
    settings = {
        "model": run.table("model")["model"],
        "encode": run.table("encode")["encode"],
        "seed": run.pipeline.augment.seed,
        "learns_from": run.learns_from,
        "replay": run.pipeline.finetune.replay_share > 0,
    }
    stage = run.stage("encode", settings=settings, inputs=inputs)
    if stage.up_to_date() and _stores_exist(run):
        return False
    stage.begin()
    from speechft import encoding

    facts = encoding.encode(run, stage.dir)
    stage.finish(facts.pop("counts"), stage.outputs(), **facts)
    return True


def _stores_exist(run: Run) -> bool:
    from speechft.whisper import shards

    plans = [run.store(name) for name in run.stores()]
    return all(shards.all_whole(run.states / plan["key"], plan["count"]) for plan in plans)


def finetune(run: Run) -> bool:
    """Train, then choose the blend with the base that is best on dev inside the forgetting budget."""
    settings = run.pipeline.finetune
    stores = [name for name in run.stores() if name != "reported"]
    inputs = [run.dir / "encode" / "windows.jsonl", *(run.dir / "encode" / f"{name}.json" for name in stores)]
    inputs += [*run.evaluated_files(*CHOOSING), *run.base_files]
    if run.pipeline.data.terms:
        inputs.append(run.pipeline.data.terms)
    if settings.strategy == "prompt":  # whose texts give the terms their order
        inputs.append(run.dir / "ingest" / "train.jsonl")
    wanted = {
        "finetune": run.table("finetune")["finetune"],
        "model": run.table("model")["model"],
        "decode": {"beam": run.pipeline.decode.beam},  # not `batch`: less memory must not mean training again
        "normaliser": [run.pipeline.score.normaliser, text.VERSIONS[run.pipeline.score.normaliser]],
    }
    from speechft.adapt.team import Team

    team = Team()
    if team.size > 1 and settings.strategy == "prompt":
        raise InputError("finetune: strategy prompt runs as one process; leave out accelerate launch")
    stage = run.stage("finetune", settings=wanted, inputs=inputs, seed=settings.seed)
    if team.told(team.first and stage.up_to_date()):
        return False
    if team.first:
        stage.begin()
    team.told(None)  # the folder is ready
    from speechft import adaptation

    facts = adaptation.adapt(run, stage.dir, team)
    if not team.first:
        return True
    stage.finish(
        facts.pop("counts"),
        [stage.dir / "model", stage.dir / "curve.jsonl", stage.dir / "choice.json"],
        **facts,
    )
    for name in ("checkpoint.pt", "best.pt"):  # a kill before this goes on from them
        (stage.dir / name).unlink(missing_ok=True)
    return True


def transcribe(run: Run) -> bool:
    """Hypotheses of every reported row by the base and by the adapted model, through one decode path."""
    inputs = [
        run.dir / "finetune" / "stage.json",
        run.dir / "encode" / "reported.json",
        *run.evaluated_files(*REPORTED),
    ]
    if run.pipeline.data.terms:
        inputs.append(run.pipeline.data.terms)  # tokens that the base may not write are looked for in it
    settings = {"decode": run.table("decode")["decode"], "model": run.table("model")["model"]}
    stage = run.stage("transcribe", settings=settings, inputs=inputs)
    if stage.up_to_date():
        return False
    stage.begin()
    from speechft import transcription

    facts = transcription.transcribe_reported(run, stage.dir)
    stage.finish(facts.pop("counts"), stage.outputs(), **facts)
    return True


def score(run: Run) -> bool:
    """Counts, intervals, terms, slices and the verdict, from text alone."""
    pipeline = run.pipeline
    folder = run.dir / "transcribe"
    inputs = [
        folder / f"{name}.jsonl"
        for name in ("before", "after", "general_before", "general_after", "before_released")
        if (folder / f"{name}.jsonl").exists()
    ]
    inputs += [run.dir / "ingest" / "train.jsonl"] + ([pipeline.data.terms] if pipeline.data.terms else [])
    settings = {
        "score": run.table("score")["score"],
        "forgetting_budget": pipeline.finetune.forgetting_budget,
        "language": pipeline.model.language,
        "normaliser_version": text.VERSIONS[pipeline.score.normaliser],
    }
    stage = run.stage("score", settings=settings, inputs=inputs, seed=pipeline.score.seed)
    if stage.up_to_date():
        return False
    stage.begin()
    from speechft.score import score as scoring
    from speechft.score import tables, terms

    held = {path.stem: manifest.read(path, need_audio=False) for path in inputs if path.parent == folder}
    listed = terms.read_terms(pipeline.data.terms) if pipeline.data.terms else None
    result = scoring.score_run(
        held["before"],
        held["after"],
        general_before=held.get("general_before"),
        general_after=held.get("general_after"),
        normaliser=pipeline.score.normaliser,
        terms=listed,
        train_texts=[row.text or "" for row in run.rows("train")],
        language=pipeline.model.language,
        smallest_gain=pipeline.score.smallest_gain,
        forgetting_budget=pipeline.finetune.forgetting_budget,
        resamples=pipeline.score.resamples,
        seed=pipeline.score.seed,
    )
    if released := held.get("before_released"):  # the base, once it may write what the test set needs
        alone = scoring.score_run(
            released,
            normaliser=pipeline.score.normaliser,
            terms=listed,
            language=pipeline.model.language,
            resamples=pipeline.score.resamples,
            seed=pipeline.score.seed,
        )
        result["before_released"] = alone[alone["rate"]]
    files.write_json(stage.dir / "score.json", result)
    with files.atomic_write(stage.dir / "table.md") as file:
        file.write(tables.markdown(result))
    stage.finish({"in": sum(map(len, held.values())), "out": len(held["before"]), "rejected": {}}, stage.outputs())
    return True


def report(run: Run) -> bool:
    """`report.json`, `report.html` and `report.md` at the run's root."""
    inputs = [run.dir / name / "stage.json" for name in ORDER[:-1]] + [run.dir / "score" / "score.json"]
    stage = run.stage("report", settings=run.table("model", "finetune", "data"), inputs=inputs)
    if stage.up_to_date():
        return False
    stage.begin()
    from speechft.report import collect, write

    content = collect(run.dir, run.pipeline.model_dump(mode="json"))
    outputs = write(content, run.dir)
    stage.finish({"in": len(inputs), "out": len(outputs), "rejected": {}}, outputs)
    return True


STAGES: dict[str, Callable[[Run], bool]] = {
    "synth": spoken.synth, "ingest": ingest, "augment": augment, "encode": encode, "finetune": finetune,
    "transcribe": transcribe, "score": score, "report": report,
}  # fmt: skip
