"""The demo over seeds, line by line against its bar; writes docs/benchmarks/demo.md.

    python benchmarks/demo_bar.py --seeds 1 2 3

Resumable: a seed whose run is finished is only read. Each seed draws the views and the training order anew. Times are
those of the stages, on the machine that ran them; one seed alone on 2 cores should take 6 minutes at most.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from speechft import files

OUT = Path("docs/benchmarks/demo.md")
LIMIT_S = 360.0


def bar(report: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Each line of the bar: what is asked, what was measured, whether it holds."""
    wer, terms, general = report["wer"], report["terms"], report["general_wer"]
    recall = [terms[side]["recall"] for side in ("before", "after")]
    slices = {row["value"]: row for row in report["slices"] if row["by"] == "condition"}
    seconds = sum(report["seconds"].values())
    return [
        ("test WER before ≤ 0.75", f"{wer['before']:.3f}", wer["before"] <= 0.75),
        ("test WER after ≤ 0.30", _with_interval(wer["after"], wer["after_ci95"]), wer["after"] <= 0.30),
        ("after ≤ 0.4 of before", f"{wer['after'] / wer['before']:.2f}", wer["after"] <= 0.4 * wer["before"]),
        ("WER difference below 0", _with_interval(wer["delta"], wer["delta_ci95"]), wer["delta_ci95"][1] < 0),
        ("term recall after ≥ 0.60 and twice before", f"{recall[0]:.3f} to {recall[1]:.3f}",
         recall[1] >= max(0.60, 2 * recall[0])),
        ("term recall difference above 0", _interval(terms["recall_delta_ci95"]), terms["recall_delta_ci95"][0] > 0),
        *((f"{name}: difference below 0",
           f"{row['before']:.3f} to {row['after']:.3f}, {_interval(row['delta_ci95'])}", row["delta_ci95"][1] < 0)
          for name, row in sorted(slices.items()) if name != "clean"),
        ("general WER up by ≤ 0.03", f"{general['before']:.3f} to {general['after']:.3f}", general["delta"] <= 0.03),
        ("general difference within 0.05", _with_interval(general["delta"], general["delta_ci95"]),
         general["delta_ci95"][1] <= 0.05),
        (f"stages within {LIMIT_S:.0f} s", f"{seconds:.0f} s", seconds <= LIMIT_S),
    ]  # fmt: skip


def _interval(ci95: list[float]) -> str:
    return f"{ci95[0]:+.3f} to {ci95[1]:+.3f}"


def _with_interval(value: float, ci95: list[float]) -> str:
    return f"{value:.3f} ({ci95[0]:.3f} to {ci95[1]:.3f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pipeline", default="pipelines/demo.toml")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="settings")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    columns, devices = {}, set[str]()
    for seed in options.seeds:
        run = "demo" if seed == 1 and not options.settings else f"demo-bar-{seed}"
        settings = [*options.settings, f"finetune.seed={seed}", f"augment.seed={seed}", f"synth.seed={seed}"]
        command = [sys.executable, "scripts/run.py", "--pipeline", options.pipeline, "--run", run]
        subprocess.run(command + [part for s in settings for part in ("--set", s)], check=True)
        devices.add(files.read_json(Path("runs") / run / "finetune" / "stage.json")["device"])
        columns[seed] = bar(files.read_json(Path("runs") / run / "report.json"))
    lines = [
        "# The demo against its bar",
        "",
        f"`python benchmarks/demo_bar.py`, {os.cpu_count()} cores, {'; '.join(sorted(devices))}. Rates are "
        "fractions; in brackets, 95 % intervals. The base's rate differs by a point or two between processors, as bf16 "
        "products do.",
        "",
        "| | " + " | ".join(f"seed {seed}" for seed in columns) + " |",
        "| :-- |" + " :-- |" * len(columns),
    ]
    for number, (asked, _, _) in enumerate(columns[options.seeds[0]]):
        cells = [f"{rows[number][1]} {'✓' if rows[number][2] else '✗'}" for rows in columns.values()]
        lines.append(f"| {asked} | " + " | ".join(cells) + " |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(options.out) as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0 if all(holds for rows in columns.values() for _, _, holds in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
