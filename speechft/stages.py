"""The stages of a run, composed from the rooms: each reads files, writes its own folder, and records what it did.

A stage whose settings and inputs are unchanged is done and says so without importing torch.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from speechft import files, manifest
from speechft.errors import InputError
from speechft.progress import Progress
from speechft.run import CHOOSING, REPORTED, Run

if TYPE_CHECKING:
    from speechft.augment.script import Line

log = logging.getLogger(__name__)

ORDER = ("ingest", "augment", "encode", "finetune", "transcribe", "score", "report")


def run_stages(run: Run, names: tuple[str, ...] = ORDER) -> dict[str, bool]:
    """Run stages in order; tells for each whether there was work to do.

    Raises:
        InputError: the user's input is at fault; nothing finished is lost.
    """
    did = {}
    for name in names:
        did[name] = STAGES[name](run)
        if not did[name]:
            log.info("%s: up to date", name)
    return did


def _roles(run: Run) -> dict[str, list[Path]]:
    data = run.pipeline.data
    named = {"train": data.train, "dev": data.dev, "test": data.test, "general": data.general}
    roles = {role: list(paths) for role, paths in named.items() if paths}
    for role in _spoken_roles(run):
        held_by = "general" if role == "general_train" else role
        roles.setdefault(held_by, []).append(run.dir / "synth" / f"{role}.jsonl")
    return roles


def _spoken_roles(run: Run) -> tuple[str, ...]:
    """Roles that [synth] speaks: train, those of dev and test where nothing recorded is named, and replay."""
    data = run.pipeline.data
    if run.pipeline.synth is None:
        return ()
    dev = () if data.dev or data.train else ("dev",)
    replay = ("general_train",) if run.pipeline.synth.replay else ()
    return ("train", *dev, *(() if data.test else ("test",)), *replay)


def script_of(run: Run) -> dict[str, list[Line]]:
    """What `synth` is to say, by role; nothing without a [synth] table.

    Raises:
        InputError: the term list, the templates or the sentences cannot be used.
    """
    settings, terms_path = run.pipeline.synth, run.pipeline.data.terms
    if settings is None:
        return {}
    from speechft.augment import script
    from speechft.score.terms import read_terms

    terms = read_terms(terms_path) if terms_path and settings.per_term else []
    sentences = [line for path in settings.sentences for line in script.read_sentences(path)]
    carriers = script.read_carriers(settings.templates, terms)
    roles = [role for role in _spoken_roles(run) if role != "general_train"]
    lines = script.write(terms, carriers, sentences, per_term=settings.per_term, roles=roles, seed=settings.seed)
    if settings.replay:
        lines["general_train"] = [line for path in settings.replay for line in script.read_sentences(path)]
    return lines


def synth(run: Run) -> bool:
    """Rows by synthetic voices, of sentences and of a term list: no recordings needed."""
    settings, terms_path = run.pipeline.synth, run.pipeline.data.terms
    if settings is None:
        raise InputError("synth: the pipeline has no [synth] table, so there is nothing to say")
    from speechft.augment import script

    inputs = [
        *settings.sentences,
        *settings.replay,
        *([terms_path] if terms_path else []),
        settings.templates or script.SHIPPED,
    ]
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path}: there is no such file; correct data.terms or the [synth] table")
    roles = _spoken_roles(run)
    wanted = {**run.table("synth"), "roles": list(roles)}
    stage = run.stage("synth", settings=wanted, inputs=inputs, seed=settings.seed)
    if stage.up_to_date():
        return False
    from speechft.augment.settings import check_voices
    from speechft.augment.speak import speak

    voices, lines = check_voices(settings.voices), script_of(run)
    stage.begin()
    rejects = []
    with Progress("synth") as tell:
        for role in roles:
            rows, failed = speak(
                lines[role], role=role, voices=voices, seed=settings.seed, out=stage.dir / role, progress=tell
            )
            rejects += failed
            if len(failed) > settings.max_failed_share * len(lines[role]):
                raise InputError(
                    f"synth: {len(failed):,} of {len(lines[role]):,} {role} lines could not be said, more than "
                    f"synth.max_failed_share = {settings.max_failed_share:g} allows; the first: {failed[0].detail}"
                )
            manifest.write(stage.dir / f"{role}.jsonl", rows)
    files.write_jsonl(stage.dir / "rejects.jsonl", (dataclasses.asdict(reject) for reject in rejects))
    total = sum(map(len, lines.values()))
    reasons = dict(collections.Counter(reject.reason for reject in rejects))
    stage.finish({"in": total, "out": total - len(rejects), "rejected": reasons}, _outputs(stage))
    return True


def ingest(run: Run) -> bool:
    """Manifests in; checked rows per role, rejects and the leak audit out."""
    if run.pipeline.synth is not None and not synth(run):
        log.info("synth: up to date")
    data, roles = run.pipeline.data, _roles(run)
    for paths in roles.values():
        for path in paths:
            if not path.exists():
                raise InputError(f"{path}: there is no such manifest; correct the pipeline's [data] table")
    inputs = [path for paths in roles.values() for path in paths] + ([data.terms] if data.terms else [])
    if data.terms and not data.terms.exists():
        raise InputError(f"{data.terms}: there is no such term list; correct data.terms")
    stage = run.stage("ingest", settings=run.table("data"), inputs=inputs)
    if stage.up_to_date():
        return False
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
    )
    stage.finish(counts, _outputs(stage))
    return True


def augment(run: Run) -> bool:
    """Views of the training rows and fixed conditions of the test rows, as FLAC with rows that say what was done."""
    pipeline = run.pipeline
    inputs = [run.dir / "ingest" / "train.jsonl", run.dir / "ingest" / "test.jsonl"]
    stage = run.stage("augment", settings=run.table("augment", "conditions"), inputs=inputs, seed=pipeline.augment.seed)
    if stage.up_to_date():
        return False
    from speechft.augment import plan, preview
    from speechft.augment.views import augmented_facts, make_conditions, make_views

    plan.check(pipeline.augment.transforms, pipeline.conditions)
    stage.begin()
    train, test = run.rows("train"), run.rows("test")
    with Progress("augment") as tell:
        views = make_views(
            train,
            count=pipeline.augment.views,
            settings=pipeline.augment.transforms,
            seed=pipeline.augment.seed,
            out=stage.dir / "views",
            bank=stage.dir / "rooms.npz",
            balance_by=pipeline.augment.balance_by,
            progress=tell,
        )
        conditions = make_conditions(
            test,
            conditions=pipeline.conditions,
            seed=pipeline.augment.seed,
            out=stage.dir / "conditions",
            bank=stage.dir / "rooms.npz",
            progress=tell,
        )
    outputs = [stage.dir / name for name in ("train.jsonl", "conditions.jsonl", "rejects.jsonl", "preview.html")]
    manifest.write(outputs[0], views.rows)
    manifest.write(outputs[1], conditions.rows)
    rejects = views.rejects + conditions.rejects
    files.write_jsonl(outputs[2], (dataclasses.asdict(reject) for reject in rejects))
    preview.write(outputs[3], clean=[*train, *test], views=views.rows[len(train) :], conditions=conditions.rows)
    log.info("augment: look and listen in %s", outputs[3])
    reasons = collections.Counter(f"noise: {reject.reason}" for reject in rejects)
    counts = {"in": len(train), "out": len(views.rows), "conditions": len(conditions.rows), "rejected": reasons}
    stage.finish(counts, outputs, **augmented_facts(views.rows, by=pipeline.augment.balance_by))
    return True


def show_view(run: Run, identity: str) -> str:
    """Make one view or condition again, bit for bit, beside the run's stages; tells where, and what was done.

    Raises:
        InputError: there is no such view.
    """
    import numpy as np

    from speechft import audio
    from speechft.augment import plan, preview
    from speechft.augment.views import show

    pipeline = run.pipeline
    plan.check(pipeline.augment.transforms, pipeline.conditions)
    row = show(
        identity,
        train=run.rows("train"),
        test=run.rows("test"),
        settings=pipeline.augment.transforms,
        conditions=pipeline.conditions,
        seed=pipeline.augment.seed,
        out=run.dir / "show",
    )
    assert row.audio_filepath is not None
    lines = [f"{row.audio_filepath}: {row.duration:.2f} s of {row.parent}"]
    lines += [f"  {step['name']}: {preview.tell(step)}" for step in row.transform or []] or ["  nothing was done"]
    folder = "views" if row.view else "conditions"
    kept = run.dir / "augment" / folder / row.audio_filepath.parent.name / row.audio_filepath.name
    if kept.exists():
        same = np.array_equal(audio.read(kept), audio.read(row.audio_filepath))
        lines.append(f"  {'the same, sample for sample, as' if same else 'DIFFERS from'} {kept}")
    return "\n".join(lines)


def encode(run: Run) -> bool:
    """Encoder states of every view's packed windows and of every row that will be decoded, once."""
    pipeline = run.pipeline
    inputs = [run.dir / "augment" / "train.jsonl", run.dir / "augment" / "conditions.jsonl", *run.base_files]
    inputs += [
        p for role in (*CHOOSING, *REPORTED, "general_train") if (p := run.dir / "ingest" / f"{role}.jsonl").exists()
    ]
    settings = {
        "model": run.table("model")["model"],
        "encode": run.table("encode")["encode"],
        "seed": pipeline.augment.seed,
    }
    settings["from_audio"] = not run.from_states
    stage = run.stage("encode", settings=settings, inputs=inputs)
    if stage.up_to_date() and _stores_exist(run):
        return False
    stage.begin()
    from speechft import encoding

    facts = encoding.encode(run, stage.dir)
    stage.finish(facts.pop("counts"), _outputs(stage), **facts)
    return True


def _stores_exist(run: Run) -> bool:
    plans = files.read_json(run.dir / "encode" / "stores.json")
    return all((run.states / plan["key"]).is_dir() for plan in plans.values())


def finetune(run: Run) -> bool:
    """Train, then choose the blend with the base that is best on dev inside the forgetting budget."""
    settings = run.pipeline.finetune
    inputs = [run.dir / "encode" / "windows.jsonl", run.dir / "encode" / "stores.json"]
    if run.pipeline.data.terms:
        inputs.append(run.pipeline.data.terms)
    wanted = {
        "finetune": run.table("finetune")["finetune"],
        "model": run.table("model")["model"],
        "normaliser": run.pipeline.score.normaliser,
    }
    from speechft.adapt.team import Team

    team = Team()
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
    return True


def transcribe(run: Run) -> bool:
    """Hypotheses of every reported row by the base and by the adapted model, through one decode path."""
    inputs = [run.dir / "finetune" / "stage.json", run.dir / "encode" / "stores.json"]
    settings = {"decode": run.table("decode")["decode"], "model": run.table("model")["model"]}
    stage = run.stage("transcribe", settings=settings, inputs=inputs)
    if stage.up_to_date():
        return False
    stage.begin()
    from speechft import adaptation

    facts = adaptation.transcribe_reported(run, stage.dir)
    stage.finish(facts.pop("counts"), _outputs(stage), **facts)
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
    }
    stage = run.stage("score", settings=settings, inputs=inputs, seed=pipeline.score.seed)
    if stage.up_to_date():
        return False
    stage.begin()
    from speechft.score import score as scoring
    from speechft.score import tables, terms

    held = {path.stem: manifest.read(path, need_audio=False) for path in inputs if path.parent == folder}
    result = scoring.score_run(
        held["before"],
        held["after"],
        general_before=held.get("general_before"),
        general_after=held.get("general_after"),
        normaliser=pipeline.score.normaliser,
        terms=terms.read_terms(pipeline.data.terms) if pipeline.data.terms else None,
        train_texts=[row.text or "" for row in run.rows("train")],
        smallest_gain=pipeline.score.smallest_gain,
        forgetting_budget=pipeline.finetune.forgetting_budget,
        resamples=pipeline.score.resamples,
        seed=pipeline.score.seed,
    )
    if released := held.get("before_released"):  # the base, once it may write what the test set needs
        alone = scoring.score_run(
            released, normaliser=pipeline.score.normaliser, resamples=pipeline.score.resamples, seed=pipeline.score.seed
        )
        result["before_released"] = alone["wer"]
    files.write_json(stage.dir / "score.json", result)
    with files.atomic_write(stage.dir / "table.md") as file:
        file.write(tables.markdown(result))
    stage.finish({"in": sum(map(len, held.values())), "out": len(held["before"]), "rejected": {}}, _outputs(stage))
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


def _outputs(stage: files.Stage) -> list[Path]:
    records = (files.STAGE_FILE, files.STARTED_FILE)
    return [path for path in sorted(stage.dir.iterdir()) if path.is_file() and path.name not in records]


STAGES: dict[str, Callable[[Run], bool]] = {
    "synth": synth, "ingest": ingest, "augment": augment, "encode": encode, "finetune": finetune,
    "transcribe": transcribe, "score": score, "report": report,
}  # fmt: skip
