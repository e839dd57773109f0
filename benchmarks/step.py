"""What else might make a training step faster? Variants of the loop's step, taking turns on the same windows.

    python benchmarks/step.py                     # nano, tiny and base, bf16 and fp32; on CUDA nano, small and turbo

Seconds are medians. In the loop are AdamW fused, the loss over the vocabulary in pieces (for its memory), on CPU in
bf16 plain attention, windows of like label lengths in a pass, and of the silence behind the last word a part. A tenth
of the clips are alone in their window, as in the table of speed; nano's are as its own pipelines pack them, half of
them alone. Writes docs/benchmarks/step.md, or step_cuda.md.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import speed
import torch
from torch import nn

from speechft import files
from speechft.adapt import graphs, passes, vocabulary
from speechft.adapt.steps import Item, Recipe
from speechft.adapt.team import Team
from speechft.adapt.train import Loop
from speechft.whisper import attention, load, tokens
from speechft.whisper.load import Device, Whisper

OUT = {"cpu": Path("docs/benchmarks/step.md"), "cuda": Path("docs/benchmarks/step_cuda.md")}
ASKED = {"cpu": ("nano", "tiny", "base"), "cuda": ("nano", "small", "turbo")}

SIZES = {"nano": [1] * 16 + [8, 8]}  # clips of each window of a step, 32 in all
TENTH_ALONE = [1, 1, 1, 5, 5, 5, 5, 5, 4]


def chunk_of(sizes: list[int], seed: int) -> list[Item]:
    """A step of 32 clips, as packing makes it."""
    items, first = [], 32 * seed
    for number, size in enumerate(sizes):
        segments = tuple(
            tokens.Segment(tokens=text_of(first + i), start_s=3.6 * i, end_s=3.6 * i + 3) for i in range(size)
        )
        items.append(Item(number=number, segments=segments, view=0, replay=False))
        first += size
    return items


def text_of(number: int) -> tuple[int, ...]:
    """20 random tokens that nano's vocabulary has too."""
    return tuple(1000 + token % 1400 for token in speed.text_of(number))


def whisper_of(size: str, device: str) -> Whisper:
    """A released size with random weights, or nano."""
    if size == "nano":
        return load.load(size)
    ids = tokens.Layout(
        prompt=(50258, 50259, 50359), end=50257, previous=50361, no_timestamps=50363, first_timestamp=50364
    )
    return Whisper(
        model=speed.model_of(size, device), tokenizer=None, ids=ids, name="", revision=None, source=None, language="en",
        task="transcribe",
    )  # fmt: skip


def plain_loss(hidden: Any, weight: Any, labels: Any, *, shares: Any, teacher: Any = None) -> Any:
    """The whole vocabulary at once, as PyTorch does it."""
    logits = hidden @ weight.to(hidden.dtype).T
    return (shares * nn.functional.cross_entropy(logits.float(), labels, reduction="none")).sum()


def zero_in_place(optimizer: Any, set_to_none: bool = False) -> None:
    """Zero gradients where they are on CUDA, whatever is asked."""
    torch.optim.Optimizer.zero_grad(optimizer, set_to_none=set_to_none and not torch.cuda.is_available())


NAMES = (
    "as it is", "all silence heard", "AdamW not fused", "vocabulary at once", "PyTorch's attention", "plain attention",
    "one pass", "passes of four whole windows", "gradient checkpointing", "compiled decoder", "cuDNN's attention",
    "kernel by kernel",
)  # fmt: skip
ON_CUDA = ("cuDNN's attention", "kernel by kernel")


def loop_of(size: str, precision: str, on: str, out: Path) -> tuple[Loop, torch.Tensor]:
    """The loop before its first step, and states for one."""
    device = Device(name=on, precision=getattr(torch, precision), reason="as asked")
    settings = Recipe(
        strategy="decoder", epochs=1, learning_rate=1e-6, batch_clips=32, replay_share=0.0, distil=0.0, l2sp=0.0,
        patience=9, timestamp_share=0.15, previous_share=0.1, upper_layers=2, encoder_layers=0, lora_rank=16, seed=1,
    )  # fmt: skip
    whisper, windows = whisper_of(size, on), len(SIZES.get(size, TENTH_ALONE))
    width = whisper.model.config.d_model
    states = torch.randn(windows, 1500, width, generator=torch.Generator().manual_seed(1)).half()
    loop = Loop(
        whisper, settings, device=device, inputs=lambda numbers: states, from_states=True, out=out, team=Team()
    )  # fmt: skip
    loop.thaw()
    loop.model.train()
    return loop, states


def take(loop: Loop, states: torch.Tensor, chunk: list[Item]) -> None:
    """One optimiser step, the states at hand."""
    coming: Future[torch.Tensor] = Future()
    coming.set_result(loop.upload.moved(states))
    loop.state.recent = []
    loop.step(chunk, coming, rate=1e-6, pool=[segment.tokens for item in chunk for segment in item.segments])


def measure(size: str, precision: str, times: int, on: str) -> dict[str, float]:
    """Median seconds of a step, by variant."""
    sizes = SIZES.get(size, TENTH_ALONE)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as out:
        loop, states = loop_of(size, precision, on, Path(out))
        fused, loss, many_shapes = loop.optimizer, vocabulary.loss, attention.of_many_shapes
        attending, passing, extra = loop.attending, loop.pass_windows, passes.PASS_POSITIONS[on]
        silence_s = passes.SILENCE_S
        unfused = torch.optim.AdamW(loop.trained, lr=1e-6)
        for optimizer in (fused, unfused):  # variants share gradients, which graphs know by their place
            optimizer.zero_grad = functools.partial(zero_in_place, optimizer)  # type: ignore[method-assign]
        decoder_forward = loop.core.model.decoder.forward
        compiled = torch.compile(decoder_forward, dynamic=True)
        recorded = {name: graphs.Graphs(record=loop.graphs.record and name != "kernel by kernel") for name in NAMES}

        def variant(name: str) -> None:
            loop.graphs = recorded[name]
            loop.optimizer = unfused if name == "AdamW not fused" else fused
            vocabulary.loss = plain_loss if name == "vocabulary at once" else loss  # type: ignore[assignment]
            loop.attending = {"PyTorch's attention": "sdpa", "plain attention": "eager"}.get(name, attending)
            loop.pass_windows = {"passes of four whole windows": 4, "one pass": len(sizes)}.get(name, passing)
            passes.PASS_POSITIONS[on] = 10**9 if name in ("passes of four whole windows", "one pass") else extra
            passes.SILENCE_S = (30.0, 30.0) if name == "all silence heard" else silence_s
            loop.core.model.decoder.forward = compiled if name == "compiled decoder" else decoder_forward
            attention.of_many_shapes = contextlib.nullcontext if "cuDNN" in name else many_shapes  # type: ignore[assignment]
            loop.core.gradient_checkpointing_disable()
            if name == "gradient checkpointing":
                loop.core.gradient_checkpointing_enable({"use_reentrant": False})

        names = [name for name in NAMES if on == "cuda" or name not in ON_CUDA]
        for turn in range(times + 1):
            for name in list(names):
                variant(name)
                chunk = chunk_of(sizes, turn)
                started = speed.now(on)
                try:
                    take(loop, states, chunk)
                except Exception as error:  # no compiler on this machine, say: the row says so
                    names.remove(name)
                    print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
                    continue
                if turn:  # the first is warm-up, and compiles
                    seconds.setdefault(name, []).append(speed.now(on) - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def command() -> str:
    """What was asked for, as code in Markdown."""
    return f"    python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".rstrip()


def write_page(lines: list[str], path: Path) -> None:
    """Show a page and keep it."""
    text = "\n".join(lines) + "\n"
    print(text)
    with files.atomic_write(path) as file:
        file.write(text)


def main() -> int:
    """Measure each size and precision asked for; write one column each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=("nano", "tiny", "base", "small", "turbo"))
    parser.add_argument("--precision", action="append", choices=("bfloat16", "float32"))
    parser.add_argument("--times", type=int, default=8)
    options = parser.parse_args()
    on = "cuda" if torch.cuda.is_available() else "cpu"
    kinds = [(s, p) for s in options.size or ASKED[on] for p in options.precision or ("bfloat16", "float32")]
    columns = {f"{size}, {precision}": measure(size, precision, options.times, on) for size, precision in kinds}
    lines = [
        "# Variants of a training step",
        "",
        command(),
        "",
        f"{speed.where_of(on)}: a step of 32 clips in 9 windows (nano: 18), medians of {options.times} turns. The "
        "first row is in seconds, the others are their time over it, so that above 1 is slower. In bf16 on CPU the "
        "loop attends by plain products as it is: that row shows what chance does.",
        "",
        "| step | " + " | ".join(columns) + " |",
        "| :-- |" + " --: |" * len(columns),
    ]
    for name in (name for name in NAMES if any(name in held for held in columns.values())):
        cells = [f"{held[name] / held[NAMES[0]]:.2f}" if name in held else "fails" for held in columns.values()]
        if name == NAMES[0]:
            cells = [f"{held[name]:.3f} s" for held in columns.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    write_page(lines, OUT[on])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
