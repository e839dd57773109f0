"""Runs re-scored from their hypothesis files alone, by the command anybody uses, beside their reports.

    python benchmarks/score_rescore.py runs/demo runs/an4-decoder runs/an4-full

Compared are all rates with their intervals, the terms and the slices; a difference is printed and is an error.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from speechft import files

RATES = ("wer", "cer", "raw_wer", "whisper_wer", "slices")
# Seen and unseen need the training texts, false alarms need general speech: not in the test set's hypothesis files.
TERMS = ("recall", "precision", "f1", "term_wer", "other_wer", "said")


def rescore(run: Path, *, normaliser: str, terms: str | None, out: Path) -> dict[str, Any]:
    """The result of `speechft score` on a run's own before.jsonl and after.jsonl."""
    before, after = run / "transcribe" / "before.jsonl", run / "transcribe" / "after.jsonl"
    command = [
        str(Path(sys.executable).parent / "speechft"),
        "score",
        "--reference",
        before,
        "--hypothesis",
        before,
        after,
    ]
    command += ["--normaliser", normaliser, "--out", out, *(["--terms", terms] if terms else [])]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    result: dict[str, Any] = files.read_json(out / "score.json")
    return result


def differences(report: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """What is not equal."""
    found = [name for name in RATES if report[name] != again[name]]
    if report.get("terms") and again.get("terms"):  # without a list, terms are mined from the training texts
        for side in ("before", "after"):
            old, new = report["terms"][side], again["terms"][side]
            found += [f"terms.{side}.{key}" for key in TERMS if old[key] != new[key]]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    print("| run | words | WER before and after, report | again | differences |")
    print("| :-- | --: | :-- | :-- | :-- |")
    wrong = False
    for run in options.runs:
        report = files.read_json(run / "report.json")
        settings = report["settings"]
        with tempfile.TemporaryDirectory() as folder:
            again = rescore(
                run, normaliser=settings["score"]["normaliser"], terms=settings["data"]["terms"], out=Path(folder)
            )
        unlike = differences(report, again)
        wrong |= bool(unlike)
        rates = [f"{100 * held['wer']['before']:.2f} %, {100 * held['wer']['after']:.2f} %" for held in (report, again)]
        print(f"| {run.name} | {report['wer']['words']:,} | {rates[0]} | {rates[1]} | {', '.join(unlike) or 'none'} |")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
