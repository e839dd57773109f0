"""Where the time of a training step goes: a profile of the loop's step, by PyTorch's own profiler.

    python benchmarks/step_profile.py                          # tiny and small in bf16; on CUDA small and turbo
    python benchmarks/step_profile.py --size turbo --steps 3

The steps are those of step.py: 32 clips in nine windows, a tenth of them alone. Seconds are by the clock and without
the profiler; shares are of what it saw, on CUDA of the card's work. Writes docs/benchmarks/step_profile.md, or
step_profile_cuda.md, whose launches a step and seconds of the card's work say what a step waits for.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import speed
import step
import torch
from torch.profiler import ProfilerActivity, profile

OUT = {"cpu": Path("docs/benchmarks/step_profile.md"), "cuda": Path("docs/benchmarks/step_profile_cuda.md")}
ASKED = {"cpu": ("tiny", "small"), "cuda": ("small", "turbo")}
WARM_UP = 4  # steps: on CUDA a pass is recorded when its shape comes a second time
ROWS = 8


def measure(size: str, precision: str, steps: int, on: str) -> dict[str, Any]:
    """Seconds a step by the clock and of computing, launches, and the operations that take most."""
    sizes = step.SIZES.get(size, step.TENTH_ALONE)
    with tempfile.TemporaryDirectory() as out:
        loop, states = step.loop_of(size, precision, on, Path(out))
        for number in range(WARM_UP):
            step.take(loop, states, step.chunk_of(sizes, number))
        clocked = []
        for number in range(steps):
            started = speed.now(on)
            step.take(loop, states, step.chunk_of(sizes, number))
            clocked.append(speed.now(on) - started)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on == "cuda" else [])]
        with profile(activities=activities, acc_events=True) as seen:
            for number in range(steps):
                step.take(loop, states, step.chunk_of(sizes, number))
            speed.now(on)
    own = "self_device_time_total" if on == "cuda" else "self_cpu_time_total"
    found = sorted(seen.key_averages(), key=lambda event: getattr(event, own), reverse=True)
    total_us = sum(getattr(event, own) for event in found)
    launched = sum(event.count for event in found if "Launch" in event.key)
    return {
        "seconds": statistics.median(clocked), "computing": total_us / 1e6 / steps,
        "launches": launched / steps, "operations": sum(event.count for event in found) / steps,
        "rows": [(event.key, event.count / steps, getattr(event, own) / total_us) for event in found[:ROWS]],
    }  # fmt: skip


def main() -> int:
    """Profile each size asked for; write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=("tiny", "base", "small", "turbo"))
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    on = "cuda" if torch.cuda.is_available() else "cpu"
    lines = ["# Where a training step's time goes", "", step.command(), ""]
    lines.append(f"{speed.where_of(on)}, {options.precision}, {options.steps} steps of 32 clips in nine windows.")
    for size in options.size or ASKED[on]:
        held = measure(size, options.precision, options.steps, on)
        told = f"{size}: {held['seconds']:.3f} s a step by the clock, {held['operations']:,.0f} operations"
        if on == "cuda":
            told += f", {held['launches']:,.0f} launches, {held['computing']:.3f} s of the card's work"
        lines += ["", f"{told}.", "", "| operation | a step | share |", "| :-- | --: | --: |"]
        for name, count, share in held["rows"]:
            lines.append(f"| `{name[:60]}` | {count:,.0f} | {100 * share:.0f} % |")
    step.write_page(lines, OUT[on])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
