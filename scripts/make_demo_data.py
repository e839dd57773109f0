"""Speak the clinical demo: every row of its sentence files in a voice of its split, as small Ogg Opus files.

    python scripts/make_demo_data.py

The speech is synthetic (eSpeak NG and flite). Speakers differ between all splits; the accented copies of the test
sentences use accents and voices that occur nowhere else. Needs the `voices` extra and Debian's flite.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import soundfile

from speechft import files
from speechft.audio import SAMPLE_RATE
from speechft.augment import synth

FOLDER = Path("manifests/clinical")
COMPRESSION = 0.96  # libsndfile's scale from 0 (256 kbit/s) to 1 (6 kbit/s): about 19 kbit/s
ESPEAK = {
    "train": ["en-us+m1", "en-us+f1", "en+m3", "en+f2", "en-us+Annie", "en-us+Denis", "en-gb-x-rp+Gene", "en-us+Lee",
              "en+Alicia", "en-us+paul", "en-us+linda", "en-us+max", "en+ed", "en-us+belinda", "en-us+ian"],
    "dev": ["en-us+m4", "en-us+f3", "en+steph", "en-us+Marco"],
    "test": ["en-us+f5", "en-us+m6", "en-us+Andy", "en-us+Mike", "en+anika", "en-us+quincy", "en-us+steph2", "en+rob", "en-us+Alex"],
    "general_train": ["en-us+m2", "en-us+f4", "en+m5", "en-us+Andrea", "en-us+Diogo", "en+victor", "en-us+Nguyen",
                      "en-us+zac", "en+grandma", "en-us+robert"],
    "general_dev": ["en-us+m7", "en-us+aunty", "en+david", "en-us+Michael", "en-us+caleb", "en+shelby"],
    "general_test": ["en-us+m8", "en-us+adam", "en+antonio", "en-us+benjamin", "en-us+edward", "en+travis", "en-us+miguel",
                     "en-us+Mario", "en+john", "en-us+boris"],
    "accent": ["en-gb-scotland+Henrique", "en-gb-scotland+steph3", "en-029+pedro", "en-029+grandpa", "en-gb-x-gbclan+kaukovalta"],
    "babble": ["en-us+marcelo", "en-us+norbert", "en+pablo", "en-us+sandro", "en-us+klatt2", "en-us+iven", "en-us+edward2", "en-us+Hugo"],
}  # fmt: skip
FLITE = {"train": ["slt"], "general_train": ["kal"], "test": ["rms"], "accent": ["awb"]}
ACCENT_NAMES = {
    "en-us": "US", "en": "GB", "en-gb-x-rp": "GB", "en-gb-scotland": "Scottish", "en-029": "Caribbean",
    "en-gb-x-gbclan": "Lancastrian", "slt": "US", "kal": "US", "rms": "US", "awb": "Scottish",
}  # fmt: skip


def voices(split: str) -> list[synth.Voice]:
    made = []
    for name in ESPEAK[split]:
        language, _, variant = name.partition("+")
        made.append(synth.Voice(name=language, variant=variant))
    return made + [synth.Voice(engine="flite", name=name) for name in FLITE.get(split, [])]


def held(voice: synth.Voice, rng: random.Random) -> synth.Voice:
    """The same speaker, at this sentence's rate and pitch."""
    rate = rng.uniform(0.85, 1.1)
    if voice.engine == "flite":
        return synth.Voice(engine="flite", name=voice.name, rate=rate)
    return synth.Voice(
        name=voice.name,
        variant=voice.variant,
        rate=rate,
        pitch=rng.randint(42, 58),
        pitch_range=rng.randint(40, 65),
    )


def speak(text: str, voice: synth.Voice, rng: random.Random) -> np.ndarray:
    samples = synth.speak(text, held(voice, rng))
    samples = samples / max(0.02, float(np.abs(samples).max())) * rng.uniform(0.3, 0.8)
    lead, tail = (np.zeros(int(rng.uniform(0.1, 0.3) * SAMPLE_RATE), np.float32) for _ in range(2))
    return np.concatenate([lead, samples, tail])


def write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(path, "wb") as file:
        soundfile.write(file, samples, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION)


def make_role(role: str, sentences: list[dict], *, prefix: str = "", extra: dict | None = None) -> list[dict]:
    """Speak a role's sentences; sentence i goes to speaker i modulo their number."""
    rows, speakers = [], voices(role)
    for index, sentence in enumerate(sentences):
        voice = speakers[index % len(speakers)]
        rng = random.Random(f"clinical:{role}:{sentence['id']}")
        samples = speak(sentence.get("spoken") or sentence["text"], voice, rng)
        identity = prefix + sentence["id"]
        path = FOLDER / "audio" / role / f"{identity}.ogg"
        write(path, samples)
        rows.append({
            "id": identity, "audio_filepath": str(path.relative_to(FOLDER)), "duration": round(len(samples) / SAMPLE_RATE, 3),
            "text": sentence["text"], "speaker": voice.speaker, "accent": ACCENT_NAMES[voice.name], "lang": "en",
            **(extra or {}), **({"spoken": sentence["spoken"]} if sentence.get("spoken") else {}), "synthetic": True,
        })  # fmt: skip
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sentences = files.read_jsonl(FOLDER / "sentences.jsonl")
    general = files.read_jsonl(FOLDER / "general.jsonl")
    for split in ("train", "dev", "test"):
        rows = make_role(split, [s for s in sentences if s["split"] == split], extra={"domain": "clinical"})
        if split == "test":
            again = [s for s in sentences if s["split"] == "test"]
            rows += make_role("accent", again, prefix="accent-", extra={"domain": "clinical", "condition": "accent"})
        files.write_jsonl(FOLDER / f"{split}.jsonl", rows)
    rows = []
    for split in ("general_train", "general_dev", "general_test"):
        rows += make_role(
            split, [s for s in general if s["split"] == split], extra={"domain": "general", "split": split}
        )
    files.write_jsonl(FOLDER / "general_speech.jsonl", rows)
    for index, voice in enumerate(
        voices("babble")
    ):  # people talking elsewhere in the room: only for the noisy test copies
        rng = random.Random(f"clinical:babble:{index}")
        lines = [s["text"] for s in general if s["split"] == "general_train"]
        talk = np.concatenate([speak(rng.choice(lines), voice, rng) for _ in range(6)])
        write(FOLDER / "audio" / "babble" / f"babble-{index}.ogg", talk)
    size = sum(p.stat().st_size for p in FOLDER.rglob("*.ogg")) / 1e6
    minutes = (
        sum(
            row["duration"]
            for path in FOLDER.glob("*.jsonl")
            for row in files.read_jsonl(path)
            if "audio_filepath" in row
        )
        / 60
    )
    print(f"{FOLDER}: {minutes:.1f} minutes of synthetic speech, {size:.1f} MB")


if __name__ == "__main__":
    main()
