"""Memory and speed from 1,000 to 100,000 rows: every stage up to training, each as its own command.

    python benchmarks/scale.py
    python benchmarks/scale.py --rows 1000 10000

Rows are clips of half a second of generated sound in files of a thousand, with an offset, so that the disk holds few
files and the manifest is long. The model is a Whisper of one layer with random weights, so that what is around it
shows; it is adapted for one epoch on each of two views. Seconds and peak memory are those that the stages record.
Resumable: a size that is done is kept in runs/scale/results.json. Writes docs/benchmarks/scale.md, which also holds the
estimate for 10,000 hours, from counted operations and a stated rate, and from what speed.json measured on a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np

from speechft import files
from speechft.whisper import operations

ROOT = Path("runs/scale")
OUT = Path("docs/benchmarks/scale.md")
SPEED = Path("docs/benchmarks/speed.json")
FLAT = 1.1  # memory is called flat, and speed level, up to this ratio from one size to the next, ten times as large
SAMPLE_RATE = 16000
CLIP_S = 0.5
CLIPS_A_FILE = 1000
STAGES = ("ingest", "augment", "encode", "finetune")
WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa".split()
WINDOWS_AN_HOUR = 120 / 0.85  # of clips much shorter than a window, with gaps
CHECKED = 32  # rows of dev and of test: a batch, as a model that knows nothing writes to the last position


def write_rows(count: int, folder: Path) -> Path:
    """Make the sound and the pipeline of one size."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    rows = []
    for first in range(0, count + 2 * CHECKED, CLIPS_A_FILE):
        name = f"{first:07d}.wav"
        number = min(CLIPS_A_FILE, count + 2 * CHECKED - first)
        times = np.arange(round(CLIP_S * SAMPLE_RATE)) / SAMPLE_RATE
        tones = np.sin(2 * np.pi * rng.uniform(100, 900, (number, 1)) * times) * np.hanning(len(times))
        sound = 0.2 * tones + 0.01 * rng.standard_normal(tones.shape)
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes((sound.ravel() * 32767).astype("<i2").tobytes())
        for index in range(number):
            row = first + index
            role = "train" if row < count else "dev" if row < count + CHECKED else "test"
            text = " ".join([*rng.choice(WORDS, 2), str(row)])  # no text twice
            rows.append(
                {"audio_filepath": name, "offset": index * CLIP_S, "duration": CLIP_S, "text": text, "split": role,
                 "speaker": f"{role}-{row % 50}", "id": f"row-{row:07d}"}
            )  # fmt: skip
    for role in ("train", "dev", "test"):
        files.write_jsonl(folder / f"{role}.jsonl", (row for row in rows if row["split"] == role))
    named = "\n".join(f'{role} = "{folder / role}.jsonl"' for role in ("train", "dev", "test"))
    path = folder / "scale.toml"
    path.write_text(
        f"[model]\nbase = '{ROOT / 'base'}'\n"
        f"[data]\n{named}\nallow_leaks = ['near_text']\n[augment]\nviews = 1\n[augment.noise]\np = 1.0\n"
        "kinds = ['pink']\n[encode]\nsingle_share = 0.1\n"
        "[finetune]\nepochs = 2\npatience = 9\nalphas = [1.0]\nprevious_share = 0.0\n"
    )
    return path


def make_base(out: Path) -> None:
    """A Whisper of one encoder and one decoder layer, random weights, the shipped one's tokenizer."""
    if out.exists():
        return
    import torch
    from transformers import WhisperForConditionalGeneration

    from speechft.whisper import load

    whisper = load.load("nano")
    config = whisper.model.config
    config.update(
        {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
    )  # fmt: skip
    torch.manual_seed(1)
    model = WhisperForConditionalGeneration(config)
    model.generation_config = whisper.model.generation_config
    whisper.model = model
    load.save(whisper, out)


def measure(count: int) -> dict[str, Any]:
    """Run the stages one by one; rows a second and peak memory of each."""
    folder = ROOT / str(count)
    shutil.rmtree(ROOT / "runs" / str(count), ignore_errors=True)
    pipeline = write_rows(count, folder)
    for stage in STAGES:
        command = [sys.executable, f"scripts/{stage}.py", "--pipeline", str(pipeline), "--run", str(count)]
        done = subprocess.run([*command, "--runs", str(ROOT / "runs")], check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: failed\n{done.stderr[-2000:]}")
    records = {stage: files.read_json(ROOT / "runs" / str(count) / stage / "stage.json") for stage in STAGES}
    train = files.read_json(ROOT / "runs" / str(count) / "encode" / "train.json")
    result = {
        "rows": count, "windows": train["count"], "states_gb": train["gb"],
        **{stage: {"seconds": r["seconds"], "peak_mb": r["peak_memory_mb"]} for stage, r in records.items()},
    }  # fmt: skip
    shutil.rmtree(ROOT / "runs" / str(count))
    shutil.rmtree(ROOT / "runs" / "states")
    shutil.rmtree(folder)
    return result


def marginal(results: list[dict[str, Any]]) -> str:
    """Rows a second from each size to the next, so without start-up, and what a row more adds to memory; Markdown."""
    lines = ["| rows | " + " | ".join(f"{s}, rows/s | KB a row" for s in STAGES) + " |"]
    lines.append("| :-- |" + " --: | --: |" * len(STAGES))
    rates: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for small, large in itertools.pairwise(results):
        cells = [f"{small['rows']:,} to {large['rows']:,}"]
        for stage in STAGES:
            more = factor(stage) * (large["rows"] - small["rows"])
            rates[stage].append(more / (large[stage]["seconds"] - small[stage]["seconds"]))
            row_kb = 1024 * (large[stage]["peak_mb"] - small[stage]["peak_mb"]) / (large["rows"] - small["rows"])
            cells += [f"{rates[stage][-1]:,.0f}", f"{row_kb:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    if len(results) > 2:
        slower = [s for s in STAGES if rates[s][0] > FLAT * rates[s][-1]]
        grown = [s for s in STAGES if results[-1][s]["peak_mb"] > FLAT * results[-2][s]["peak_mb"]]
        last = f"{results[-2]['rows']:,} to {results[-1]['rows']:,} rows"
        lines += [
            "",
            f"Within a tenth, {last}: speed is level{_but_for(slower)}; memory is flat{_but_for(grown)}.",
        ]
    return "\n".join(lines)


def _but_for(stages: list[str]) -> str:
    return f" but for {', '.join(stages)}" if stages else " in every stage"


def factor(stage: str) -> int:
    """How often a stage goes through each row: of two views, or in two epochs, one a view."""
    return 2 if stage in ("encode", "finetune") else 1


def hours(size: str, *, speech_h: float, epochs: int, views: int, tflops: float) -> tuple[float, float, float]:
    """Encoding and training of packed windows on one GPU, in hours, and the states in TB."""
    shape = operations.PUBLISHED[size]
    windows = speech_h * WINDOWS_AN_HOUR
    encode = views * windows * operations.encoder(shape)
    step = operations.decoder_training(shape, windows=windows, tokens=110 * windows, labels=105 * windows)
    disk_tb = views * windows * operations.POSITIONS * shape.d_model * 2 / 1e12
    return encode / (tflops * 3.6e15), epochs * step / (tflops * 3.6e15), disk_tb


def page(results: list[dict[str, Any]]) -> str:
    """The measured table; the text around it is written by hand and kept."""
    lines = ["| rows | windows | states, GB | " + " | ".join(f"{s}, rows/s | peak, MB" for s in STAGES) + " |"]
    lines.append("| --: | --: | --: |" + " --: | --: |" * len(STAGES))
    for held in results:
        cells = [f"{held['rows']:,}", f"{held['windows']:,}", f"{held['states_gb']:.2f}"]
        for stage in STAGES:
            rate = factor(stage) * held["rows"] / held[stage]["seconds"]
            cells += [f"{rate:,.0f}", f"{held[stage]['peak_mb']:,.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + marginal(results)


def measured_hours(size: str, *, speech_h: float, epochs: int, views: int) -> tuple[float, float] | None:
    """Encoding and training on one GPU, in hours, at the seconds a window that speed.json has from one in bf16."""
    for row in files.read_json(SPEED):
        if (row["size"], row["device"], row["precision"]) == (size, "cuda", "bfloat16"):
            windows = speech_h * WINDOWS_AN_HOUR
            encode = views * windows * row["encode_s_per_view"] / row["windows"]
            return encode / 3600, epochs * windows * row["epoch_s"] / row["windows"] / 3600
    return None


def estimate() -> str:
    """Hours and disk for 10,000 hours of speech, 5 epochs, a view: at 40 % of an H100's or H200's bf16 peak, and by
    what was measured on a card."""
    lines = ["| size | encoding, GPU hours | training, GPU hours | on 8 GPUs, hours | states, TB |"]
    lines.append("| :-- | :-- | :-- | :-- | --: |")
    for size in ("tiny", "small", "medium", "large", "turbo"):
        encode_h, train_h, disk_tb = hours(size, speech_h=10_000, epochs=5, views=1, tflops=0.4 * 989)
        found = measured_hours(size, speech_h=10_000, epochs=5, views=1)
        pairs = [(encode_h, found and found[0]), (train_h, found and found[1])]
        pairs.append(((encode_h + train_h) / 8, found and sum(found) / 8))
        cells = [f"{counted:.1f}" + (f" / {measured:.1f}" if measured else "") for counted, measured in pairs]
        lines.append(f"| {size} | {' | '.join(cells)} | {disk_tb:.1f} |")
    return "\n".join(lines)


def main() -> int:
    """Measure sizes that are not done, smallest first; write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--make-base", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make_base:
        make_base(ROOT / "base")
        return 0
    log = ROOT / "results.json"
    results = files.read_json(log) if log.exists() else []
    # In a process of its own: what this one has ever held would count as its children's peak.
    subprocess.run([sys.executable, __file__, "--make-base"], check=True)
    for count in () if options.table else options.rows:
        if any(held["rows"] == count for held in results):
            continue
        results.append(measure(count))
        files.write_json(log, sorted(results, key=lambda held: held["rows"]))
        print(page(results[-1:]), flush=True)
    text = OUT.read_text(encoding="utf-8") if OUT.exists() else "<!-- measured -->\n<!-- estimate -->\n"
    for name, table in (("measured", page(results)), ("estimate", estimate())):
        mark = f"<!-- {name} -->"
        before, after = text.split(mark)[0], text.split(mark)[-1]
        text = f"{before}{mark}\n{table}\n{mark}{after}"
    with files.atomic_write(OUT) as file:
        file.write(text)
    print(OUT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
