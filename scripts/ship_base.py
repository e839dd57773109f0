"""Write a checkpoint of `scripts/train_base.py` as the shipped `nano`, in fp16, and measure it.

    python scripts/ship_base.py --checkpoint runs/base/checkpoint.pt --out speechft/models/nano
    python scripts/ship_base.py --measure speechft/models/nano

Measured are 300 everyday sentences that no template of the generator made, by training voices and by voices never
heard in training, and the generator's own held-out sentences; `measured.json` beside them keeps the figures. The clips
come from `scripts/make_base_data.py`, which needs Debian's `flite` beside the `voices` extra.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from speechft import audio, files, manifest
from speechft.score import wer
from speechft.whisper import decode, load

ROLES = ("grammar", "everyday", "unseen")


def ship(checkpoint: Path, init: Path, out: Path) -> None:
    whisper = load.load(str(init))
    whisper.model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["model"])
    out.parent.mkdir(parents=True, exist_ok=True)
    load.save(whisper, out, half=True)
    size = sum(p.stat().st_size for p in out.iterdir()) / 1e6
    print(f"{out}: {size:.1f} MB")


def measure(model: Path, data: Path, *, rows: int | None) -> dict[str, dict[str, float]]:
    whisper, device = load.load(str(model)), load.choose_device()
    print(device.label)
    results = {}
    for role in ROLES:
        held = manifest.read(data / f"{role}.jsonl")[:rows]
        held = sorted(held, key=lambda row: row.duration or 0.0)
        clips = [audio.read(r.audio_filepath or "", offset_s=r.offset, duration_s=r.duration) for r in held]
        texts = decode.from_audio(whisper, clips, device=device, batch=16)
        references = {r.id: r.text or "" for r in held}
        errors = wer.total(
            a.errors for a in wer.align(references, {r.id: t for r, t in zip(held, texts, strict=True)}, str.split)
        )
        results[role] = {"wer": round(errors.rate or 0.0, 4), "words": errors.words, "clips": len(held)}
        print(role, json.dumps(results[role]), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--init", type=Path, default=Path("runs/base-init"))
    parser.add_argument("--out", type=Path, default=Path("speechft/models/nano"))
    parser.add_argument("--measure", type=Path, metavar="MODEL")
    parser.add_argument("--data", type=Path, default=Path("runs/base-data"))
    parser.add_argument("--rows", type=int, help="measure on the first rows of each role only")
    options = parser.parse_args()
    if options.checkpoint:
        ship(options.checkpoint, options.init, options.out)
    if options.measure:
        files.write_json(options.data / "measured.json", measure(options.measure, options.data, rows=options.rows))


if __name__ == "__main__":
    main()
