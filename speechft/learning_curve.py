"""Would more speech help? A run and parts of its training rows, as many steps each, and where the error rate goes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechft import files, manifest, stages
from speechft.errors import InputError
from speechft.run import Run
from speechft.score import tables, wer
from speechft.score.extrapolation import extrapolate
from speechft.score.rows import groups_of
from speechft.score.score import units
from speechft.score.slices import CLEAN, condition_of
from speechft.score.stats import Interval, paired_bootstrap
from speechft.score.terms import read_terms
from speechft.score.verdict import percent, points

log = logging.getLogger(__name__)

SHARES = (0.25, 0.5)
FURTHER = (2.0, 4.0)  # times as much speech, told beyond what was measured


def measure(run: Run, shares: Sequence[float] = SHARES) -> dict[str, Any]:
    """Run every part and the whole, as far as they are not done; results into the run's folder.

    Writes learning_curve.json and learning_curve.md. A part is a run of its own beside the whole one, named by its
    share, with more epochs, so that all make as many steps.

    Returns:
        What learning_curve.json holds: `points` by share, `difference` between the largest part and the whole, and
        `further`, the rates that a power law through the points gives for more speech; rates are fractions.

    Raises:
        InputError: a share is not between 0 and 1, the strategy learns nothing, or no test row has words.
    """
    if not shares or not all(0 < share < 1 for share in shares) or len(set(shares)) < len(shares):
        raise InputError("learning-curve: --shares are different fractions of the training rows, such as 0.25 0.5")
    if run.pipeline.finetune.strategy == "prompt":
        raise InputError("learning-curve: the strategy prompt learns nothing from training rows; choose another")
    parts = {share: _part(run, share) for share in sorted(shares)} | {1.0: run}
    for share, part in parts.items():
        log.info("learning curve: %g of the training rows, in %s", share, part.dir)
        stages.run_stages(part)
    reports = {share: files.read_json(part.dir / "report.json") for share, part in parts.items()}
    whole = reports[1.0]
    amounts = [report["data"]["train"]["minutes"] for report in reports.values()]
    errors, words, groups = _errors(list(parts.values()))
    resamples, seed = run.pipeline.score.resamples, run.pipeline.score.seed
    paired = paired_bootstrap(errors[-2], errors[-1], words, groups, resamples=resamples, seed=seed)
    if paired is None:
        raise InputError("learning-curve: no test row has words; name transcribed speech in data.test")
    at = [times * amounts[-1] for times in FURTHER]
    further = extrapolate(errors, words, groups, amounts=amounts, at=at, resamples=resamples, seed=seed)
    rate, learned = whole["rate"], [report["data"]["train"] for report in reports.values()]
    result = {
        "rate": rate,
        "points": [
            {
                "share": share, "run": parts[share].dir.name, "rows": train["rows"], "minutes": train["minutes"],
                "rate": report[rate]["after"], "ci95": report[rate]["after_ci95"],
                "term_recall": ((report["terms"] or {}).get("after") or {}).get("recall"),
                "general": (report["general_wer"] or {}).get("after"),
            }
            for (share, report), train in zip(reports.items(), learned, strict=True)
        ],
        "before": whole[rate]["before"],
        "difference": _told(paired.delta),
        "further": [
            {"times": times, "minutes": minutes, **_told(interval)}
            for times, minutes, interval in zip(FURTHER, at, further, strict=True)
        ],
    }  # fmt: skip
    files.write_json(run.dir / "learning_curve.json", result)
    with files.atomic_write(run.dir / "learning_curve.md") as file:
        file.write(markdown(result))
    return result


def _part(run: Run, share: float) -> Run:
    """The run by a share of its training rows, beside it: more epochs, as many steps."""
    data, finetune = run.pipeline.data, run.pipeline.finetune
    changed = {
        "data": data.model_copy(update={"train_share": share * data.train_share}),
        "finetune": finetune.model_copy(update={"epochs": round(finetune.epochs / share)}),
    }
    return Run(run.pipeline.model_copy(update=changed), run.dir.with_name(f"{run.dir.name}-{share:g}"))


def _errors(parts: Sequence[Run]) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Errors of each run on each clean test row, the rows' words, and whom they belong to."""
    settings = parts[-1].pipeline
    held = [_hypotheses(part.dir) for part in parts]
    rows = list(held[-1].values())
    terms = read_terms(settings.data.terms) if settings.data.terms else None
    split = units(
        rows, normaliser=settings.score.normaliser, terms=terms, language=settings.model.language
    ).split  # fmt: skip
    references = {row.id: row.text or "" for row in rows}
    counted = [
        [
            row.errors
            for row in wer.align(references, {name: row.hypothesis or "" for name, row in found.items()}, split)
        ]
        for found in held
    ]
    errors = np.array([[row.errors for row in system] for system in counted], dtype=np.float64)
    return errors, np.array([row.words for row in counted[-1]], dtype=np.float64), groups_of(rows)[0]


def _hypotheses(folder: Path) -> dict[str, manifest.Utterance]:
    rows = manifest.read(folder / "transcribe" / "after.jsonl", need_audio=False)
    return {row.id: row for row in rows if condition_of(row) == CLEAN}


def _told(interval: Interval) -> dict[str, Any]:
    return {"value": interval.value, "ci95": interval.ci95}


def markdown(result: dict[str, Any]) -> str:
    """The curve as a table, and what it says, in Markdown."""
    rate = tables.RATE_NAMES[result["rate"]]
    rows = [["base", "-", "-", tables.percent(result["before"]), "-", "-"]]
    rows += [
        [
            f"{100 * point['share']:g} %", f"{point['rows']:,}", f"{point['minutes']:.1f}",
            _with_interval(point["rate"], point["ci95"]), tables.percent(point["term_recall"]),
            tables.percent(point["general"]),
        ]
        for point in result["points"]
    ]  # fmt: skip
    heading = ["learned from", "rows", "minutes", f"{rate} (95 %)", "term recall", "general speech"]
    return f"# Learning curve\n\n{tables.table(heading, rows)}\n\n{sentence(result)}\n"


def sentence(result: dict[str, Any]) -> str:
    """Whether more helped so far, and what more still would bring if that goes on."""
    rate, delta = tables.RATE_NAMES[result["rate"]], result["difference"]
    value, ends = delta["value"], delta["ci95"]
    share = f"{100 * result['points'][-2]['share']:g} %"
    told = f"From {share} of the training rows to all of them, {rate} changed by {points(value)} points"
    if ends is None:
        return f"{told}; there is too little test speech to tell whether that is chance."
    told += f" (95 % interval {points(ends[0])} to {points(ends[1])})."
    if ends[0] > 0:
        return f"{told} More speech of this kind did not help."
    if ends[1] >= 0:
        return f"{told} That may be chance: whether more speech of this kind would help is not clear."
    further = " and ".join(
        f"{_with_interval(more['value'], more['ci95'])} by {more['times']:g} times as much"
        for more in result["further"]
    )
    return (
        f"{told} If it goes on so, they would be {further}: a power law through the rows above, with intervals of the "
        "test's speakers alone. Another training run differs too, and the law need not hold so far."
    )


def _with_interval(rate: float, ci95: Sequence[float] | None) -> str:
    ends = f" ({points(ci95[0], sign=False)} to {points(ci95[1], sign=False)})" if ci95 else ""
    return percent(rate) + ends
