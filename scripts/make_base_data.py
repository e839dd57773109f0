"""Speak the text `nano` learns from: synthetic clips in long WAV files, one manifest row a clip.

    python scripts/make_base_data.py --out runs/base-data --clips 40000

Resumable: a finished shard (its rows are written last) is not spoken again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
from pathlib import Path

import everyday_grammar
import numpy as np
import scipy.signal
import soundfile

from speechft import files, manifest
from speechft.audio import SAMPLE_RATE
from speechft.augment import synth

SHARD_CLIPS = 500
ACCENTS = {  # eSpeak voice -> share of its clips
    "en-us": 0.42, "en": 0.16, "en-gb-x-rp": 0.1, "en-gb-scotland": 0.08, "en-us-nyc": 0.07, "en-gb-x-gbcwmd": 0.06,
    "en-gb-x-gbclan": 0.05, "en-029": 0.06,
}  # fmt: skip
VARIANTS = """Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Lee Marco Mario Michael Mike Nguyen Reed
adam anika antonio aunty belinda benjamin boris caleb david ed edward edward2 f1 f2 f3 f4 grandma grandpa gustave ian
iven iven2 john kaukovalta klatt klatt2 klatt3 klatt4 linda m1 m2 m3 m4 m5 m7 m8 marcelo max michel miguel mike2 norbert
pablo paul pedro quincy rob robert sandro shelby steph steph2 travis victor zac""".split()
FLITE = {"slt": 0.5, "awb": 0.35, "kal": 0.15}
UNSEEN_VARIANTS = ["f5", "m6", "Jacky"]  # never in training: the model card lists them apart
UNSEEN_FLITE = ["rms"]
FLITE_SHARE = 0.35
REAL_VIEWS = 8  # how often each real clip is offered, at different speeds


def draw_voice(rng: random.Random, *, unseen: bool = False) -> synth.Voice:
    """A speaker of the training voices, or of those kept for measuring."""
    if rng.random() < (0.25 if unseen else FLITE_SHARE):
        name = rng.choice(UNSEEN_FLITE) if unseen else rng.choices(list(FLITE), list(FLITE.values()))[0]
        return synth.Voice(engine="flite", name=name, rate=rng.uniform(0.85, 1.25))
    return synth.Voice(
        name=rng.choices(list(ACCENTS), list(ACCENTS.values()))[0],
        variant=rng.choice(UNSEEN_VARIANTS if unseen else VARIANTS),
        rate=rng.uniform(0.75, 1.2),
        pitch=rng.randint(30, 70),
        pitch_range=rng.randint(30, 75),
        word_gap=rng.choice([0, 0, 0, 1, 3]),
    )


def resize_vocal_tract(samples: np.ndarray, percent: int) -> np.ndarray:
    """Resample by `percent`: pitch, formants and tempo move together, so one flite voice sounds like many."""
    return scipy.signal.resample_poly(samples, 100, percent).astype(np.float32)


def speak_row(index: int, text: str, *, seed: int, unseen: bool = False) -> tuple[np.ndarray, dict]:
    rng = random.Random(f"{seed}:{index}")
    voice = draw_voice(rng, unseen=unseen)
    samples = synth.speak(text, voice)
    percent = 100
    if voice.engine == "flite" and not unseen:
        percent = rng.choice([84, 88, 92, 96, 100, 104, 108, 112, 116])
        samples = resize_vocal_tract(samples, percent)
    samples = samples / max(0.02, float(np.abs(samples).max())) * rng.uniform(0.25, 0.9)
    lead, tail = (np.zeros(rng.randint(800, 4800), np.float32) for _ in range(2))
    row = {
        "text": text, "speaker": voice.speaker, "accent": voice.name, "lang": "en", "synthetic": True,
        "resampled_percent": percent,
    }  # fmt: skip
    return np.concatenate([lead, samples, tail]), row


def make_shard(job: tuple[Path, str, int, list[str], int, bool]) -> int:
    """Speak one shard and write its WAV, then its rows."""
    out, name, first, texts, seed, unseen = job
    rows_path = out / f"{name}.jsonl"
    if rows_path.exists():
        return 0
    pieces, rows, position = [], [], 0
    for index, text in enumerate(texts, start=first):
        samples, row = speak_row(index, text, seed=seed, unseen=unseen)
        row |= {"id": f"{name.rsplit('-', 1)[0]}-{index:06d}", "audio_filepath": f"{name}.wav"}
        row |= {"offset": position / SAMPLE_RATE, "duration": len(samples) / SAMPLE_RATE}
        row["phonemes"] = " ".join("_".join(word) for word in synth.phonemes(text))
        rows.append(row)
        pieces.append(samples)
        position += len(samples)
    soundfile.write(out / f"{name}.wav", np.concatenate(pieces), SAMPLE_RATE, subtype="PCM_16")
    files.write_jsonl(rows_path, rows)
    return len(rows)


def demo_terms(path: Path) -> frozenset[str]:
    """Every form of the demo's terms, so that the base never reads them."""
    forms: set[str] = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        forms |= {form.lower() for form in [row["term"], row.get("spoken") or "", *row.get("variants", [])] if form}
    return frozenset(forms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/base-data"))
    parser.add_argument("--clips", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--terms", type=Path, default=Path("manifests/clinical/terms.jsonl"))
    parser.add_argument("--everyday", type=Path, default=Path("manifests/base/everyday.jsonl"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    avoid = demo_terms(options.terms)
    train = everyday_grammar.sentences(options.clips, seed=options.seed, avoid=avoid)
    words = everyday_grammar.sentences(options.clips // 2, seed=options.seed + 2, avoid=avoid, words_share=1.0)
    taken = set(train)
    held_out = [s for s in everyday_grammar.sentences(400, seed=options.seed + 1, avoid=avoid) if s not in taken][:300]
    everyday = [json.loads(line)["text"] for line in options.everyday.read_text(encoding="utf-8").splitlines()]
    roles = {
        "dev": (held_out[:150], 2, False), "grammar": (held_out[150:], 3, False),
        "everyday": (everyday, 4, False), "unseen": (everyday, 5, True), "train": (train, options.seed, False),
        "train-words": (words, options.seed + 10, False),
    }  # fmt: skip
    jobs = [
        (options.out, f"{role}-{start // SHARD_CLIPS:03d}", start, texts[start : start + SHARD_CLIPS], seed, unseen)
        for role, (texts, seed, unseen) in roles.items()
        for start in range(0, len(texts), SHARD_CLIPS)
    ]
    with multiprocessing.Pool(options.processes) as pool:
        for done, job in zip(pool.imap(make_shard, jobs), jobs, strict=True):
            print(f"{job[1]}: {done} clips spoken", flush=True)
    for role in roles:
        shards = sorted(options.out.glob(f"{role}-[0-9][0-9][0-9].jsonl"))
        rows = [row | {"domain": role} for path in shards for row in files.read_jsonl(path)]
        digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:12]
        files.write_jsonl(options.out / f"{role}.jsonl", rows)
        print(f"{role}: {len(rows)} clips, {sum(r['duration'] for r in rows) / 3600:.2f} h, {digest}")
    manifest.read(options.out / "dev.jsonl")  # what we wrote can be read


if __name__ == "__main__":
    main()
