"""Training speed beside transformers' own recipe: same model, clips, precision and clips a step, in one run.

    python benchmarks/speed.py                        # tiny, base and small on CPU; on CUDA: small, large and turbo
    python benchmarks/speed.py --size tiny --precision bfloat16
    python benchmarks/speed.py --table                # only write the page from what is there

The recipe is Seq2SeqTrainer with the encoder frozen, log-mels padded to 30 s and computed beforehand, so that only
training is timed. Ours is encoding (log-mel included) once a view, and the loop over kept states. Weights are random,
clips are 5 s of noise with 20 random tokens, a tenth of them alone in their window; in bf16 also the share that is the
default. The recipe runs before and after ours, each in a process of its own, warm-up steps of both left out; its
seconds a clip times the clips of all epochs are its time, as it repeats the same work every epoch. Resumable: finished
parts lie in runs/speed/. Writes docs/benchmarks/speed.json and speed.md, and keeps rows of other sizes and devices.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed_table import BY_DEFAULT, CLIP_S, EPOCHS, ROUNDS, SHARES, TOKENS, VIEWS, write_tables

from speechft import files

ROOT = Path("runs/speed")
OUT = Path("docs/benchmarks/speed.json")
SIZES = {"cpu": ("tiny", "base", "small"), "cuda": ("small", "large", "turbo")}
CLIPS = {  # an epoch
    "cpu": {"tiny": 160, "base": 96, "small": 64, "turbo": 64},
    "cuda": {"small": 1280, "large": 640, "turbo": 1280},
}
OTHER_CLIPS = 640
RECIPE_STEPS = {"tiny": 5, "base": 3, "small": 2, "turbo": 2}  # the first is warm-up
CUDA_RECIPE_STEPS = 12
RECIPE_WORKERS = 4  # that collate ahead of a GPU, so that it waits for none
BATCH = 32  # clips an optimiser step


def model_of(size: str, device: str = "cpu") -> Any:
    """A Whisper of published dimensions with random weights."""
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    from speechft.whisper.operations import PUBLISHED

    shape = PUBLISHED[size]
    heads, width = shape.d_model // 64, 4 * shape.d_model
    torch.manual_seed(1)
    settings = WhisperConfig(
        d_model=shape.d_model, encoder_layers=shape.encoder_layers, decoder_layers=shape.decoder_layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=width, decoder_ffn_dim=width,
        vocab_size=shape.vocabulary, num_mel_bins=shape.n_mels,
    )  # fmt: skip
    with torch.device(device):  # drawn where it is used: a processor takes long for 1.5 billion weights
        model = WhisperForConditionalGeneration(settings)
    model.generation_config = GenerationConfig(decoder_start_token_id=50258, eos_token_id=50257, pad_token_id=50257)
    return model


def clip(number: int, view: int = 0) -> Any:
    """5 s of noise, float32 at 16 kHz."""
    import numpy as np

    return np.random.default_rng([number, view]).normal(0, 0.1, round(CLIP_S * 16000)).astype(np.float32)


def text_of(number: int) -> tuple[int, ...]:
    """20 random tokens of plain text."""
    import random

    rng = random.Random(number)
    return tuple(rng.randrange(1000, 50000) for _ in range(TOKENS))


def peak_gb(device: str) -> float:
    """Most memory this process has used: the card's own on CUDA, else resident."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def recipe(size: str, precision: str, device: str) -> dict[str, Any]:
    """Seconds a clip of transformers' recipe."""
    import torch
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

    from speechft.whisper import windows

    steps = RECIPE_STEPS.get(size, 3) if device == "cpu" else CUDA_RECIPE_STEPS
    model = model_of(size, device)
    model.freeze_encoder()
    model.config.use_cache = False
    n_mels = model.config.num_mel_bins
    rows = [
        {
            "input_features": windows.log_mel(windows.pad_window(clip(number)), n_mels=n_mels),
            "labels": torch.tensor([50258, 50259, 50359, 50363, *text_of(number), 50257]),
        }
        for number in range(BATCH * (2 if device == "cpu" else 4))
    ]

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        labels = torch.nn.utils.rnn.pad_sequence([r["labels"][1:] for r in batch], batch_first=True, padding_value=-100)
        return {"input_features": torch.stack([row["input_features"] for row in batch]), "labels": labels}

    ended: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            ended.append(time.perf_counter())

    at_once = 16 if device == "cpu" else BATCH
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder, per_device_train_batch_size=at_once, gradient_accumulation_steps=BATCH // at_once,
            max_steps=steps, learning_rate=1e-5, dataloader_num_workers=0 if device == "cpu" else RECIPE_WORKERS,
            bf16=precision == "bfloat16", use_cpu=device == "cpu", save_strategy="no",
            logging_strategy="no", report_to=[], disable_tqdm=True, dataloader_pin_memory=device == "cuda",
        )  # fmt: skip
        Seq2SeqTrainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Clock()]
        ).train()  # type: ignore[arg-type]
    measured = ended[-1] - ended[0]
    return {
        "s_per_clip": measured / (BATCH * (len(ended) - 1)), "steps": len(ended) - 1, "peak_gb": peak_gb(device),
        "where": where_of(device),
    }  # fmt: skip


def where_of(device: str) -> str:
    """What it ran on, for the page."""
    import torch
    import transformers

    from speechft.whisper import load

    name = f"{torch.get_num_threads()} cores{' with AMX' if load.processor_has('amx_bf16') else ''}"
    if device == "cuda":
        name = torch.cuda.get_device_name()
    return f"{name}, PyTorch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"


class Inside:
    """Seconds inside calls: by the clock on CPU, by events on CUDA, where a call returns before its work is done."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds, self.spans = device, 0.0, list[tuple[Any, Any]]()
        self.counting = threading.Lock()

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, counted."""
        import torch

        def on_cpu(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            result = call(*arguments, **options)
            with self.counting:
                self.seconds += time.perf_counter() - started
            return result

        def on_cuda(*arguments: Any, **options: Any) -> Any:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            result = call(*arguments, **options)
            end.record()
            self.spans.append((begin, end))
            return result

        return on_cuda if self.device == "cuda" else on_cpu

    def taken(self) -> float:
        """Seconds since the last time this was asked, once the device is idle."""
        seconds = self.seconds + sum(begin.elapsed_time(end) for begin, end in self.spans) / 1000
        self.seconds, self.spans = 0.0, []
        return seconds


def ours(size: str, precision: str, device: str, *, single_share: float) -> dict[str, Any]:
    """Seconds of encoding each view and of each epoch, and what of them was spent outside the model."""
    import torch

    from speechft.adapt.steps import Item, Recipe, epoch_steps
    from speechft.adapt.team import Team
    from speechft.adapt.train import Loop
    from speechft.whisper import load, states, tokens, windows
    from speechft.whisper.load import Device, Whisper

    number_of_clips = CLIPS[device].get(size, OTHER_CLIPS)
    where = Device(name=device, precision=getattr(torch, precision), reason="as asked")
    model = model_of(size, device)
    load.lay_positions_together(model.model.encoder)
    ids = tokens.Layout(
        prompt=(50258, 50259, 50359), end=50257, previous=50361, no_timestamps=50363, first_timestamp=50364
    )
    whisper = Whisper(
        model=model, tokenizer=None, ids=ids, name=size, revision=None, source=None, language="en", task="transcribe"
    )
    inside = Inside(device)
    clips = [
        windows.Clip(id=f"{number:05d}", number=number, duration_s=CLIP_S, tokens=TOKENS)
        for number in range(number_of_clips)
    ]
    folder = ROOT / "states" / f"{size}-{precision}"
    shutil.rmtree(folder, ignore_errors=True)
    packed: list[Any] = []
    view_s, view_outside_s, stores, items, disk = [], [], [], [], 0.0
    original = states.encode
    states.encode = inside.timed(original)  # type: ignore[assignment]
    encoder = model.model.encoder
    n_mels = model.config.num_mel_bins
    for count in (1,) if device == "cpu" else (8, 8, 1):  # warm-up
        heard = torch.zeros(count, windows.N_SAMPLES)
        original(states.ready(encoder, where), windows.log_mel(heard, n_mels=n_mels, device=device), where)
    for view in range(max(VIEWS)):
        planned = windows.pack(
            clips, name="rows", view=view, seed=1, gap_s=(0.1, 0.8), single_share=single_share, max_tokens=440,
        )  # fmt: skip

        def render(number: int, planned: Any = planned, view: int = view) -> Any:
            placed = planned[number].placed
            return windows.assemble([clip(p.clip.number, view) for p in placed], [p.start_s for p in placed])

        started = now(device)
        stores.append(
            states.keep(
                folder / str(view), count=len(planned), render=render, encoder=encoder, device=where, dtype="float16",
                n_mels=n_mels,
            )
        )  # fmt: skip
        view_s.append(now(device) - started)
        at_once = states.side_by_side(torch.get_num_threads())[0] if device == "cpu" else 1
        view_outside_s.append(view_s[-1] - inside.taken() / at_once)
        for index, window in enumerate(planned):
            segments = tuple(
                tokens.Segment(tokens=text_of(p.clip.number), start_s=p.start_s, end_s=p.end_s) for p in window.placed
            )
            items.append(Item(number=len(packed) + index, segments=segments, view=view, replay=False))
        packed += [(view, index) for index in range(len(planned))]
        disk = sum(path.stat().st_size for path in (folder / "0").iterdir()) / 1e9

    def read(numbers: Any) -> Any:
        chosen = [packed[number] for number in numbers]
        return stores[chosen[0][0]].read([index for _, index in chosen])  # a step is of one view

    settings = Recipe(
        strategy="decoder", epochs=max(EPOCHS), learning_rate=1e-5, batch_clips=BATCH, replay_share=0.0, distil=0.0,
        l2sp=0.0, patience=9, timestamp_share=0.15, previous_share=0.1, upper_layers=2, encoder_layers=0, lora_rank=16,
        seed=1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        loop = Loop(whisper, settings, device=where, inputs=read, from_states=True, out=Path(out), team=Team())
        loop.thaw()
        pool = [segment.tokens for item in items for segment in item.segments]
        steps = [epoch_steps(items, settings, epoch=epoch) for epoch in range(max(EPOCHS))]
        total = sum(map(len, steps)) + 1
        loop.epoch(steps[0][: 1 if device == "cpu" else 4], total=total, pool=pool)  # warm-up
        now(device)
        loop._backward = inside.timed(loop._backward)  # type: ignore[method-assign]
        loop.optimizer.step = inside.timed(loop.optimizer.step)  # type: ignore[method-assign]
        epoch_s, epoch_outside_s = [], []
        for chunks in steps:
            loop.state.done, started = 0, now(device)
            loop.epoch(chunks, total=total, pool=pool)
            epoch_s.append(now(device) - started)
            epoch_outside_s.append(epoch_s[-1] - inside.taken())
    shutil.rmtree(folder, ignore_errors=True)
    longest = [max(len(item.segments) for item in chunk) * TOKENS + 4 for chunk in steps[0]]
    return {
        "clips": number_of_clips, "windows": [sum(v == view for v, _ in packed) for view in range(max(VIEWS))],
        "tokens_computed": sum(len(chunk) * t for chunk, t in zip(steps[0], longest, strict=True)),
        "view_s": view_s, "view_outside_s": view_outside_s, "epoch_s": epoch_s, "epoch_outside_s": epoch_outside_s,
        "disk_gb": disk, "peak_gb": peak_gb(device), "where": where_of(device),
    }  # fmt: skip


def now(device: str) -> float:
    """Seconds, after the card has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> int:
    """Run what is not done yet; write the tables after each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=("tiny", "base", "small", "medium", "large", "turbo"))
    parser.add_argument("--precision", action="append", choices=("float32", "bfloat16"))
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--part", choices=(*ROUNDS, BY_DEFAULT), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.part:
        size, precision = options.size[0], options.precision[0]
        if options.part in SHARES:
            found = ours(size, precision, device, single_share=SHARES[options.part])
        else:
            found = recipe(size, precision, device)
        files.write_json(options.root / f"{size}-{precision}-{device}-{options.part}.json", found)
        return 0
    options.root.mkdir(parents=True, exist_ok=True)
    for size in () if options.table else options.size or SIZES[device]:
        for precision in options.precision or ("bfloat16", "float32"):
            for part in (*ROUNDS, *([BY_DEFAULT] if precision == "bfloat16" else [])):
                if not (options.root / f"{size}-{precision}-{device}-{part}.json").exists():
                    own = ["--part", part, "--size", size, "--precision", precision, "--root", str(options.root)]
                    started = time.monotonic()
                    subprocess.run([sys.executable, __file__, *own], check=True)
                    print(f"{size} {precision} {part}: {time.monotonic() - started:.0f} s", flush=True)
            write_tables(options.root, options.out)
    write_tables(options.root, options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
