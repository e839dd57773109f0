"""Jargon without recordings: `nano` adapted to the demo's term list by spoken sentences alone.

    python benchmarks/synth_jargon.py

`pipelines/synth.toml` twice: tested on the demo's committed recordings (clean, and in accents), and as `make terms`
does, on other sentences by voices that training never has. No row of the demo's recordings is trained on or chosen by.
Resumable: a run that is finished is only read. Writes docs/benchmarks/synth_jargon.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft import files

OUT = Path("docs/benchmarks/synth_jargon.md")
PIPELINE = "pipelines/synth.toml"
DEMO = Path("pipelines/demo.toml")  # whose voices for spoken terms are none of the recordings'
TESTS = {
    "the demo's recordings": ["data.test=manifests/clinical/test.jsonl"],
    "spoken, unheard voices": [],
}


def adapt(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Every stage, as far as it is not done; the report."""
    command = [sys.executable, "scripts/run.py", "--pipeline", PIPELINE, "--run", name]
    subprocess.run(command + [part for setting in settings for part in ("--set", setting)], check=True)
    report: dict[str, Any] = files.read_json(Path("runs") / name / "report.json")
    return report


def lines_of(test: str, seed: int, report: Mapping[str, Any]) -> list[str]:
    """A line for the test set, and one for each of its conditions."""
    wer, terms, general = report["wer"], report["terms"], report["general_wer"]
    recall = [percent(terms[side]["recall"]) for side in ("before", "after")]
    low, high = terms["recall_delta_ci95"]
    precision, alarms = terms["after"]["precision"], terms["after"]["false_alarms"]
    lines = [
        f"| {test} | {seed} | {change(wer)} | {wer['words']:,} | {recall[0]} to {recall[1]} ({100 * low:+.1f} to "
        f"{100 * high:+.1f}) | {'-' if precision is None else percent(precision)} | {change(general)} | {alarms} "
        f"| {report['choice']['alpha']:g} |"
    ]
    for entry in report["slices"]:
        if entry["by"] == "condition" and entry["value"] != "clean":
            lines.append(f"| - {entry['value']} | {seed} | {change(entry)} | {entry['words']:,} | | | | | |")
    return lines


def change(entry: Mapping[str, Any]) -> str:
    """A rate before and after, with the difference's interval in points."""
    told = f"{percent(entry['before'])} to {percent(entry['after'])}"
    if not (interval := entry["delta_ci95"]):
        return told
    return f"{told} ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"


def percent(rate: float) -> str:
    """A rate with one decimal."""
    return f"{100 * rate:.1f}"


def main() -> int:
    """Adapt for each test and seed, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    variants = tomllib.loads(DEMO.read_text(encoding="utf-8"))["synth"]["voices"]["variants"]
    lines = [
        "# Jargon without recordings",
        "",
        f"    python benchmarks/synth_jargon.py --seeds {options.seeds}",
        "",
        "`pipelines/synth.toml` on the demo's 120 terms: trained on spoken sentences that carry them and, for replay, "
        "on everyday sentences, some spoken for this and some of the general speech that ships (spoken by synthetic "
        "voices too); chosen by other spoken sentences inside the forgetting budget. No recording of a term, and none "
        "of a person, is used for either. All of this speech is synthetic; the demo's recordings are by other voices, "
        "two of them of another synthesiser, and in sentences of their own. Per cent; in brackets the 95 % interval of "
        "the difference in points.",
        "",
        "| test | seed | WER | words | term recall | precision after | general WER | false alarms there | blend |",
        "| :-- | --: | :-- | --: | :-- | --: | :-- | --: | --: |",
    ]
    seconds = 0.0
    for seed in range(1, options.seeds + 1):
        for number, (test, settings) in enumerate(TESTS.items()):
            seeds = [f"{table}.seed={seed}" for table in ("synth", "augment", "finetune")]
            voices = [f"synth.voices.variants={json.dumps(variants)}"]
            report = adapt(f"synth-jargon-{number}-{seed}", [*settings, *voices, *seeds])
            lines += lines_of(test, seed, report)
            seconds += sum(report["seconds"].values())
    lines += ["", f"{seconds / 60:.0f} minutes of stages for {len(TESTS) * options.seeds} runs, one after the other."]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(OUT) as file:
        file.write("\n".join(lines) + "\n")
    print(OUT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
