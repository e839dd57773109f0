"""Would more speech help? A run and parts of its training rows, about as many steps each, and how their rates go."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from speechft import files, manifest, stages
from speechft.errors import InputError
from speechft.report import lines
from speechft.run import Run
from speechft.score import stats, tables, verdict, wer
from speechft.score.rows import groups_of, join
from speechft.score.score import units
from speechft.score.terms import read_terms
from speechft.score.verdict import points

log = logging.getLogger(__name__)

SHARES = (0.25, 0.5)
FURTHER = {2: "twice", 4: "four times"}  # as many rows, told beyond what was measured


def measure(run: Run, shares: Sequence[float] = SHARES) -> dict[str, Any]:
    """Run the whole and every part, as far as they are not done; what they show goes into the run's `learning_curve/`.

    A part is a run of its own beside the whole, named by its share. It learns for more epochs, so that all make about
    as many steps: else it would be worse for having learned less long, not from less.

    Returns:
        What learning_curve.json holds: `points` by share; `difference` between the largest part and the whole; and
        `further`, what more rows would change where each step did as much in proportion, nothing where no error is
        left. Rates are fractions.

    Raises:
        InputError: a share is not between 0 and 1, the strategy learns nothing, a part's folder holds another run, or
            no test row has words.
    """
    if not shares or not all(0 < share < 1 for share in shares) or len(set(shares)) < len(shares):
        raise InputError("learning-curve: --shares are different fractions of the training rows, such as 0.25 0.5")
    if run.pipeline.finetune.strategy == "prompt":
        raise InputError("learning-curve: the strategy prompt learns nothing from training rows; choose another")
    runs = {share: _part(run, share) for share in sorted(shares)} | {1.0: run}
    for share, one in sorted(runs.items(), reverse=True):  # the whole first, which finds what is wrong with its rows
        log.info("learning curve: %g of the training rows, in %s", share, one.dir)
        stages.run_stages(one)
    reports = {share: files.read_json(one.dir / "report.json") for share, one in runs.items()}
    difference, further = _compare(runs[max(shares)], run, share=max(shares))
    result = {
        "rate": reports[1.0]["rate"],
        "before": reports[1.0][reports[1.0]["rate"]]["before"],
        "points": [_point(share, runs[share].dir.name, report) for share, report in reports.items()],
        "difference": difference,
        "further": further,
    }
    folder = run.dir / "learning_curve"
    folder.mkdir(exist_ok=True)
    files.write_json(folder / "learning_curve.json", result)
    with files.atomic_write(folder / "table.md") as file:
        file.write(markdown(result))
    return result


def _part(run: Run, share: float) -> Run:
    """The run by a share of its training rows, beside it."""
    data, finetune = run.pipeline.data, run.pipeline.finetune
    part_share = share * data.train_share
    changed = {
        "data": data.model_copy(update={"train_share": part_share}),
        "finetune": finetune.model_copy(update={"epochs": round(finetune.epochs / share)}),
    }
    part = Run(run.pipeline.model_copy(update=changed), run.dir.with_name(f"{run.dir.name}-share-{share:g}"))
    record = part.dir / "ingest" / files.STAGE_FILE
    if record.exists() and files.read_json(record)["settings"]["data"].get("train_share") != part_share:
        raise InputError(f"learning-curve: {part.dir} holds another run; give this one another name (RUN=, --run)")
    return part


def _point(share: float, name: str, report: dict[str, Any]) -> dict[str, Any]:
    """What the table says of a run. Terms that were mined are others in each part, and are left out."""
    learned, rate, terms = report["data"]["train"], report[report["rate"]], report["terms"]
    general = report.get(lines.general_rate(report))
    return {
        "share": share, "run": name, "rows": learned["rows"], "minutes": learned["minutes"],
        "steps": report["model"]["steps"], "rate": rate["after"], "ci95": rate["after_ci95"],
        "term_recall": terms["after"]["recall"] if terms and not terms["mined"] else None,
        "general": general["after"] if general else None,
    }  # fmt: skip


def _compare(part: Run, whole: Run, *, share: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The difference between a part and the whole, and what it would be further on."""
    pipeline = whole.pipeline
    held = [manifest.read(one.dir / "transcribe" / "after.jsonl", need_audio=False) for one in (part, whole)]
    rows = join(held[0], held[1], "the test set").clean()
    counted = units(
        rows.utterances, normaliser=pipeline.score.normaliser, language=pipeline.model.language,
        terms=read_terms(pipeline.data.terms) if pipeline.data.terms else None,
    )  # fmt: skip
    (before, words), (after, _) = (
        wer.counts([row.errors for row in wer.align(rows.references, texts or {}, counted.split)])
        for texts in (rows.before, rows.after)
    )
    groups, kind = groups_of(rows.utterances)
    resamples, seed = pipeline.score.resamples, pipeline.score.seed
    paired = stats.paired_bootstrap(before, after, words, groups, resamples=resamples, seed=seed)
    if paired is None:
        raise InputError("learning-curve: no test row has words; name transcribed speech in data.test")
    size = f"{int(np.sum(words)):,} {'characters' if counted.by_character else 'words'}"
    difference = {**_told(paired.delta), "drawn": verdict.drawn_over(paired, kind, size)}
    steps = [math.log(times) / -math.log(share) for times in FURTHER]
    changes = stats.continued(before, after, words, groups, steps=steps, resamples=resamples, seed=seed)
    return difference, [{"times": times, **_told(change)} for times, change in zip(FURTHER, changes, strict=False)]


def _told(interval: stats.Interval) -> dict[str, Any]:
    return {"value": interval.value, "ci95": interval.ci95}


def markdown(result: dict[str, Any]) -> str:
    """The runs as a table, and what they say, in Markdown."""
    rate = tables.RATE_NAMES[result["rate"]]
    rows = [["nothing (the base)", "-", "-", "-", tables.percent(result["before"]), "-", "-"]]
    rows += [
        [
            f"{100 * point['share']:g} %", f"{point['rows']:,}", f"{point['minutes']:.1f}", f"{point['steps']:,}",
            tables.with_interval(point["rate"], point["ci95"]), tables.percent(point["term_recall"]),
            tables.percent(point["general"]),
        ]
        for point in result["points"]
    ]  # fmt: skip
    heading = ["learned from", "rows", "minutes", "steps", f"{rate} (95 %)", "term recall", "general speech"]
    return f"# Learning curve\n\n{tables.table(heading, rows)}\n\n{sentence(result)}\n"


def sentence(result: dict[str, Any]) -> str:
    """Whether more rows helped so far, and what still more would bring at best."""
    rate, difference = tables.RATE_NAMES[result["rate"]], result["difference"]
    share, ends = f"{100 * result['points'][-2]['share']:g} %", difference["ci95"]
    told = f"From {share} of the training rows to all of them, {rate} changed by {points(difference['value'])} points"
    if ends is None:
        return f"{told}; there is too little test speech to tell whether that is chance."
    told += f" (95 % interval {points(ends[0])} to {points(ends[1])}, {difference['drawn']})."
    if ends[0] <= 0 <= ends[1]:
        told += " That may be chance: whether more rows like these would help is not clear."
    elif ends[0] > 0:
        told += " More rows did not help."
    elif result["further"]:
        further = " and ".join(
            f"by {points(more['value'])} with {FURTHER[more['times']]} as many"
            + (f" ({points(more['ci95'][0])} to {points(more['ci95'][1])})" if more["ci95"] else "")
            for more in result["further"]
        )
        told += (
            f" Where every further row did as much in proportion, which is at best so, they would change {further}: "
            "such a curve flattens where something else is the limit."
        )
    return f"{told} Two training runs on the same rows differ as well, by what no interval here tells."
