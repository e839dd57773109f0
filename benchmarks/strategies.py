"""Do the defaults work? The demo adapted by each strategy with its default learning rate and clips a step.

    python benchmarks/strategies.py
    python benchmarks/strategies.py --table         # only write the page from what is there

One run under runs/strategies/ is adapted again and again, so that states are kept once. Resumable: a strategy that is
done has a result in runs/strategies/results/. Writes docs/benchmarks/strategies.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from speechft import files
from speechft.report.pipeline_text import to_toml

ROOT = Path("runs/strategies")
OUT = Path("docs/benchmarks/strategies.md")
RECIPE = {"epochs": 4, "replay_share": 0.5}  # the same for all
STRATEGIES = ("decoder", "upper", "head", "lora", "progressive", "prompt", "full")


def adapt(strategy: str) -> dict[str, Any]:
    """Every stage up to the score, as far as it is not done."""
    tree = tomllib.loads(Path("pipelines/demo.toml").read_text(encoding="utf-8"))
    tree["finetune"].pop("learning_rate")
    tree["finetune"].pop("batch_clips")
    tree["finetune"] |= {"strategy": strategy, **RECIPE}
    path = ROOT / "demo.toml"
    with files.atomic_write(path) as file:
        file.write(to_toml(tree))
    command = [sys.executable, "scripts/score.py", "--pipeline", str(path), "--runs", str(ROOT)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: failed\n{done.stderr[-2000:]}")
    run = ROOT / "demo"
    return {
        "finetune": files.read_json(run / "finetune" / "stage.json"),
        "score": files.read_json(run / "score" / "score.json"),
    }


def page() -> str:
    """The table in Markdown."""
    lines = [
        "# Strategies with their defaults",
        "",
        "    python benchmarks/strategies.py",
        "",
        "The demo (`pipelines/demo.toml`, synthetic speech), one seed, its learning rate and clips a step left out so "
        f"that each strategy takes its own; {RECIPE['epochs']} epochs, {RECIPE['replay_share']:g} of every step "
        "general speech (`scratch`, which takes nothing of the base, is left out). Rates in per cent, differences in "
        "points with their 95 % intervals; blends are chosen on dev inside the forgetting budget.",
        "",
        "| strategy | values trained | learning rate | clips a step | blend | dev | test | general speech "
        "| term recall |",
        "| :-- | --: | --: | --: | --: | --: | :-- | :-- | --: |",
    ]
    first = True
    for strategy in STRATEGIES:
        path = ROOT / "results" / f"{strategy}.json"
        if not path.exists():
            continue
        result = files.read_json(path)
        score, tuned = result["score"], result["finetune"]
        wer, general = score["wer"], score["general_wer"]
        if first:
            lines.append(
                f"| none | | | | | {percent(tuned['choice']['dev_wer_before'])} | {percent(wer['before'])} "
                f"| {percent(general['before'])} | {percent(score['terms']['before']['recall'])} |"
            )
            first = False
        recipe = tuned.get("recipe") or {}
        rate = recipe.get("learning_rate")  # none where nothing trains
        low, high = general["delta_ci95"]
        lines.append(
            f"| `{strategy}` | {tuned.get('trainable', 0):,} "
            f"| {format(rate, '.1e') if rate else ''} | {recipe.get('batch_clips') or ''} "
            f"| {tuned['choice'].get('alpha', '')} | {percent(tuned['choice']['dev_wer'])} "
            f"| {percent(wer['after'])} ({percent(wer['delta'])}, {percent(wer['delta_ci95'][0])} to "
            f"{percent(wer['delta_ci95'][1])}) | {percent(general['after'])} ({percent(low)} to {percent(high)}) "
            f"| {percent(score['terms']['after']['recall'])} |"
        )
    if devices := sorted({files.read_json(path)["finetune"]["device"] for path in (ROOT / "results").glob("*.json")}):
        lines += ["", f"On {' / '.join(devices)}."]
    if missing := [f"`{name}`" for name in STRATEGIES if not (ROOT / "results" / f"{name}.json").exists()]:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def percent(rate: float) -> str:
    """A rate with one decimal."""
    return f"{100 * rate:.1f}"


def main() -> int:
    """Adapt by each strategy that has no result yet; the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write the page")
    options = parser.parse_args()
    for strategy in () if options.table else STRATEGIES:
        path = ROOT / "results" / f"{strategy}.json"
        if not path.exists():
            files.write_json(path, adapt(strategy))
            print(f"{strategy}: test WER {files.read_json(path)['score']['wer']['after']:.3f}", flush=True)
            with files.atomic_write(OUT) as file:
                file.write(page())
    with files.atomic_write(OUT) as file:
        file.write(page())
    print(OUT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
