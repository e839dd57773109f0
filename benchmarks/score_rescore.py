"""Runs re-scored from their hypothesis files alone, by the command anybody uses, beside their reports.

    python benchmarks/score_rescore.py runs/demo runs/an4-decoder runs/an4-full

Compared is all that the score says: rates with their intervals, verdict, terms, slices, rows, survival; a difference is
printed and is an error.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from speechft import files

# Of the run alone: the base once it may write all tokens; of the command alone: the names of its files.
NOT_COMPARED = {"before_released", "inputs", "table"}


def rescore(run: Path, settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """The result of `speechft score` on a run's own files of hypotheses."""
    held = run / "transcribe"
    options: dict[str, Any] = {
        "--normaliser": settings["score"]["normaliser"], "--terms": settings["data"]["terms"],
        "--smallest-gain": settings["score"]["smallest_gain"],
        "--forgetting-budget": settings["finetune"]["forgetting_budget"],
        "--language": settings["model"]["language"], "--train": run / "ingest" / "train.jsonl", "--out": out,
    }  # fmt: skip
    command: list[Any] = [Path(sys.executable).parent / "speechft", "score", "--reference", held / "before.jsonl"]
    command += ["--hypothesis", held / "before.jsonl", held / "after.jsonl"]
    if (held / "general_after.jsonl").exists():
        command += ["--general", *(held / f"general_{name}.jsonl" for name in ("before", "before", "after"))]
    command += [part for name, value in options.items() if value is not None for part in (name, value)]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    result: dict[str, Any] = files.read_json(out / "score.json")
    return result


def differences(score: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """What is not equal."""
    names = sorted((score.keys() | again.keys()) - NOT_COMPARED)
    return [name for name in names if score.get(name) != again.get(name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    print("| run | words | WER before and after, report | again | differences |")
    print("| :-- | --: | :-- | :-- | :-- |")
    wrong = False
    for run in options.runs:
        report, score = files.read_json(run / "report.json"), files.read_json(run / "score" / "score.json")
        with tempfile.TemporaryDirectory() as folder:
            again = rescore(run, report["settings"], Path(folder))
        unlike = differences(score, again)
        wrong |= bool(unlike)
        rates = [f"{100 * held['wer']['before']:.2f} %, {100 * held['wer']['after']:.2f} %" for held in (report, again)]
        print(f"| {run.name} | {report['wer']['words']:,} | {rates[0]} | {rates[1]} | {', '.join(unlike) or 'none'} |")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
