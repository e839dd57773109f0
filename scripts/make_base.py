"""Train `nano`: features, then clips cut to length, then whole 30-s windows. Resumable; see docs/base.md.

python scripts/make_base.py --data runs/base-data --init runs/base-init --out runs/base --cut-minutes 50 --window-minutes 25
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers

from speechft import files
from speechft.adapt import scratch
from speechft.whisper import tokens, windows


def make_features(job: tuple[Path, Path]) -> str:
    """Log-mels of one shard's clips as float16, shape (frames, mels), with the frames of each clip."""
    rows_path, out = job
    done = out / f"{rows_path.stem}.npy"
    if not done.exists():
        torch.set_num_threads(1)
        samples, _ = soundfile.read(rows_path.with_suffix(".wav"), dtype="float32")
        pieces = []
        for row in files.read_jsonl(rows_path):
            first = round(row["offset"] * 16000)
            clip = samples[first : first + round(row["duration"] * 16000)]
            pieces.append(windows.log_mel(clip).T.numpy().astype(np.float16))
        with files.atomic_write(done, "wb") as file:
            np.save(file, np.concatenate(pieces))
    return done.name


def load_corpus(
    data: Path, features: Path, tokenizer: transformers.WhisperTokenizer, *, role: str
) -> tuple[scratch.Corpus, list[str]]:
    """The shards that have features, and the phoneme inventory."""
    arrays, clips, first = [], [], 0
    shards = [p for p in sorted(data.glob(f"{role}-*.jsonl")) if (features / f"{p.stem}.npy").exists()]
    rows = [(path, files.read_jsonl(path)) for path in shards]
    inventory = sorted(
        {p for _, shard in rows for row in shard for word in row["phonemes"].split() for p in word.split("_")}
    )
    symbol = {name: number for number, name in enumerate(inventory, start=1)}
    for path, shard in rows:
        arrays.append(np.load(features / f"{path.stem}.npy"))
        for row in shard:
            frames = round(row["duration"] * 16000) // windows.HOP_LENGTH
            if frames >= 40:
                phonemes = tuple(symbol[p] for word in row["phonemes"].split() for p in word.split("_"))
                clips.append(
                    scratch.Clip(
                        first=first,
                        frames=frames,
                        tokens=tokens.encode_text(tokenizer, row["text"]),
                        phonemes=phonemes,
                    )
                )
            first += frames
    return scratch.Corpus(mels=np.concatenate(arrays), clips=tuple(clips)), inventory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/base-data"))
    parser.add_argument("--init", type=Path, default=Path("runs/base-init"))
    parser.add_argument("--out", type=Path, default=Path("runs/base"))
    parser.add_argument("--cut-minutes", type=float, default=50.0)
    parser.add_argument("--window-minutes", type=float, default=25.0)
    parser.add_argument("--peak-rate", type=float, default=1.5e-3)
    parser.add_argument("--window-rate", type=float, default=8e-4)
    parser.add_argument("--ctc-weight", type=float, default=0.5)
    parser.add_argument("--cut-strength", type=float, default=0.3, help="how much distortion before the window phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--features-only", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=12000, help="log-mel frames in a batch")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    features = options.out / "features"
    features.mkdir(exist_ok=True)
    jobs = [(p, features) for p in sorted(options.data.glob("train-*.jsonl"))]
    with multiprocessing.Pool(2) as pool:
        for name in pool.imap(make_features, jobs):
            print(name, flush=True)
    if options.features_only:
        return
    torch.set_num_threads(options.threads)
    tokenizer = transformers.WhisperTokenizer.from_pretrained(options.init)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(options.init, dtype=torch.float32)
    corpus, inventory = load_corpus(options.data, features, tokenizer, role="train")
    print(f"{len(corpus.clips)} clips, {len(corpus.mels) / 360000:.1f} h, {len(inventory)} phonemes")
    files.write_json(options.out / "phonemes.json", inventory)
    ids = tokens.layout(tokenizer, multilingual=False, language=None, task=None)
    trainer = scratch.Trainer(
        model,
        ids,
        symbols=len(inventory),
        peak_rate=options.peak_rate,
        seed=options.seed,
        ctc_weight=options.ctc_weight,
    )
    if (options.out / "checkpoint.pt").exists():
        trainer.load(options.out / "checkpoint.pt")
        print(f"resumed at step {trainer.steps}")
    if options.cut_minutes:
        model.set_attn_implementation("eager")  # on a CPU 1.2x as fast as the fused kernel over 1-5 s of positions
        scratch.train(
            trainer,
            corpus,
            out=options.out,
            phase="cut",
            minutes=options.cut_minutes,
            decay=False,
            frames_per_batch=options.frames,
            strength=options.cut_strength,
        )
    if options.window_minutes:
        model.set_attn_implementation("sdpa")
        trainer.peak_rate = options.window_rate
        scratch.train(
            trainer,
            corpus,
            out=options.out,
            phase="windows",
            minutes=options.window_minutes,
            decay=True,
            frames_per_batch=options.frames,
            strength=1.0,
        )
    model.save_pretrained(options.out / "model")


if __name__ == "__main__":
    main()
