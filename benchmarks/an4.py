"""Real speech: AN4 with the decoder alone and with everything trained; writes docs/an4.md and both runs' report.md.

    python benchmarks/an4.py

Resumable: a run that is finished is only read. Needs data/an4 (see the README).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from speechft import files

OUT = Path("docs")
# Each step of `full` runs the encoder, so clips share windows there.
SETTINGS = {
    "decoder": [],
    "full": ["finetune.epochs=16", "finetune.learning_rate=4e-4", "encode.single_share=0.1"],
}


def row(strategy: str, report: dict[str, Any]) -> str:
    """A line of the table: WER before and after with intervals, general speech, seconds."""
    wer, general = report["wer"], report["general_wer"]
    cells = [
        f"`{strategy}`", _rate(wer["before"], wer["before_ci95"]), _rate(wer["after"], wer["after_ci95"]),
        f"{100 * wer['delta']:+.1f} ({100 * wer['delta_ci95'][0]:+.1f} to {100 * wer['delta_ci95'][1]:+.1f})",
        f"{100 * general['before']:.1f} % to {100 * general['after']:.1f} %", f"{wer['words']:,}",
        f"{sum(report['seconds'].values()):.0f} s",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _rate(value: float, ci95: list[float]) -> str:
    return f"{100 * value:.1f} % ({100 * ci95[0]:.1f} to {100 * ci95[1]:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="pipelines/an4.toml")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="settings")
    options = parser.parse_args()
    lines = []
    for strategy, settings in SETTINGS.items():
        run = f"an4-{strategy}"
        given = [f"finetune.strategy={strategy}", *settings, *options.settings]
        command = [sys.executable, "scripts/run.py", "--pipeline", options.pipeline, "--run", run]
        subprocess.run(command + [part for s in given for part in ("--set", s)], check=True)
        report = files.read_json(Path("runs") / run / "report.json")
        lines.append(row(strategy, report))
        shutil.copy(Path("runs") / run / "report.md", OUT / f"{run}.md")
    print("\n".join(lines))
    text = (OUT / "an4.md").read_text(encoding="utf-8")
    start, end = text.index("| strategy"), text.index("\n\n", text.index("| strategy"))
    head = text[start:end].split("\n")[:2]
    with files.atomic_write(OUT / "an4.md") as file:
        file.write(text[:start] + "\n".join([*head, *lines]) + text[end:])


if __name__ == "__main__":
    main()
