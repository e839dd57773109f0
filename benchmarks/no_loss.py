"""Does speed cost accuracy? Kept states and packed windows against plain clips padded to 30 s, equal clips and steps.

    python benchmarks/no_loss.py                 # demo and an4 (data/an4 linked), three seeds
    python benchmarks/no_loss.py --table         # only write the page from what is there

`nano` is adapted with the same rows, epochs, clips a step and learning rate, without augmentation or retention. Plain
is what public recipes do: every clip alone in its window, no timestamps, no previous text. Packed is our default. Both
are scored on single clips, on packed windows (clips of other speakers side by side), on those while writing timestamps,
and on the clips of a speaker joined to recordings of up to two minutes. Resumable: runs lie under runs/no-loss/.
Writes docs/benchmarks/no_loss.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechft import audio, files, manifest
from speechft.manifest import Utterance
from speechft.report.pipeline_text import to_toml
from speechft.score.score import score_run

ROOT = Path("runs/no-loss")
OUT = Path("docs/benchmarks/no_loss.md")
EPOCHS = {"demo": 10, "an4": 20}
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {"encode": {"pack": False}, "finetune": {"timestamp_share": 0.0, "previous_share": 0.0}},
    "packed": {"encode": {}, "finetune": {"previous_share": 0.0}},  # nano knows no previous text
}
KINDS = ("single clips", "packed windows", "packed, with timestamps", "joined to two minutes")
JOINED_S = 120.0
GAP_S = (0.1, 0.8)


def pipeline_of(corpus: str, arm: str, seed: int) -> dict[str, Any]:
    """The corpus's pipeline without augmentation, replay, distillation or blending."""
    tree = tomllib.loads(Path(f"pipelines/{corpus}.toml").read_text(encoding="utf-8"))
    for table in ("conditions", "synth"):
        tree.pop(table, None)
    tree["data"].pop("general")
    tree["augment"] = {"views": 0, "seed": seed}
    tree["encode"] = ARMS[arm]["encode"]
    kept = {
        key: value for key, value in tree["finetune"].items() if key in ("strategy", "batch_clips", "learning_rate")
    }
    epochs = EPOCHS[corpus]
    tree["finetune"] = {
        **kept,
        "epochs": epochs,
        "patience": epochs,
        "alphas": [1.0],
        "seed": seed,
        **ARMS[arm]["finetune"],
    }
    return tree


def adapt(corpus: str, arm: str, seed: int) -> Path:
    """Run the stages up to the adapted model; the folder of the run."""
    folder, name = ROOT / corpus, f"{arm}-{seed}"
    path = folder / f"{name}.toml"
    text = to_toml(pipeline_of(corpus, arm, seed))
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with files.atomic_write(path) as file:
            file.write(text)
    command = [sys.executable, "scripts/finetune.py", "--pipeline", str(path), "--run", name, "--runs", str(folder)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: failed\n{done.stderr[-2000:]}")
    return folder / name


def recordings(rows: Sequence[Utterance]) -> Iterator[list[Utterance]]:
    """Clips of a speaker, up to two minutes together."""
    for speaker in sorted({row.speaker or "" for row in rows}):
        group: list[Utterance] = []
        for row in rows:
            if (row.speaker or "") != speaker:
                continue
            if group and sum((r.duration or 0.0) + GAP_S[1] for r in [*group, row]) > JOINED_S:
                yield group
                group = []
            group.append(row)
        if group:
            yield group


def transcribe(run: Path, corpus: str) -> dict[str, list[Utterance]]:
    """Test rows of each kind with the adapted model's hypotheses."""
    from speechft.whisper import decode, load, windows

    whisper, device = load.load(str(run / "finetune" / "model")), load.choose_device()
    test = manifest.read(run / "ingest" / "test.jsonl")
    heard = {row.id: audio.read(row.audio_filepath, offset_s=row.offset, duration_s=row.duration) for row in test}

    def told(identity: str, group: Sequence[Utterance], hypothesis: str) -> Utterance:
        text = " ".join(row.text or "" for row in group)
        return Utterance(id=identity, audio_filepath=None, text=text, speaker=identity, hypothesis=hypothesis)

    single = decode.from_audio(whisper, [heard[row.id] for row in test], device=device)
    found = {KINDS[0]: [dataclasses.replace(row, hypothesis=h) for row, h in zip(test, single, strict=True)]}
    packed = windows.pack(
        test, view=0, seed=1, gap_s=GAP_S, single_share=0.0, max_tokens=200, token_counts={r.id: 20 for r in test}
    )
    filled = [
        windows.assemble([heard[p.utterance.id] for p in w.placed], [p.start_s for p in w.placed]) for w in packed
    ]
    for kind, stamped in ((KINDS[1], False), (KINDS[2], True)):
        texts = decode.from_audio(whisper, filled, device=device, timestamps=stamped)
        found[kind] = [told(w.id, [p.utterance for p in w.placed], text) for w, text in zip(packed, texts, strict=True)]
    rng, joined = np.random.default_rng(1), []
    for number, group in enumerate(recordings(test)):
        pieces = []
        for row in group:
            pieces += [heard[row.id], np.zeros(round(rng.uniform(*GAP_S) * audio.SAMPLE_RATE), np.float32)]
        cut = list(decode.thirty_second_pieces(np.concatenate(pieces)))
        text = " ".join(t for t in decode.from_audio(whisper, cut, device=device) if t)
        row = told(f"{number:03d}", group, text)
        joined.append(dataclasses.replace(row, speaker=group[0].speaker))
    return found | {KINDS[3]: joined}


def measure(corpus: str, arm: str, seed: int) -> None:
    """Adapt, transcribe and keep the hypotheses."""
    out = ROOT / corpus / "hypotheses"
    if all((out / f"{arm}-{seed}-{number}.jsonl").exists() for number in range(len(KINDS))):
        return
    started = time.monotonic()
    run = adapt(corpus, arm, seed)
    for number, rows in enumerate(transcribe(run, corpus).values()):
        manifest.write(out / f"{arm}-{seed}-{number}.jsonl", rows)
    print(f"{corpus} {arm} {seed}: {time.monotonic() - started:.0f} s", flush=True)


def page(seeds: Sequence[int]) -> str:
    """The table in Markdown, seeds pooled."""
    lines = [
        "# Does speed cost accuracy?",
        "",
        "    python benchmarks/no_loss.py",
        "",
        "Word error rate of `nano` after adapting, in per cent: plain clips padded to 30 s as public recipes train, "
        "and our kept states of packed windows; same rows, epochs, clips a step and learning rate. The difference in "
        "points with its 95 % interval (paired bootstrap over speakers, over windows where they hold several; seeds "
        "pooled).",
        "",
        "| corpus | test | seeds | plain | packed | difference | words |",
        "| :-- | :-- | --: | --: | --: | :-- | --: |",
    ]
    for corpus, epochs in EPOCHS.items():
        for number, kind in enumerate(KINDS):
            sides: list[list[Utterance]] = []
            paths = {s: [ROOT / corpus / "hypotheses" / f"{arm}-{s}-{number}.jsonl" for arm in ARMS] for s in seeds}
            known = {s: both for s, both in paths.items() if all(path.exists() for path in both)}
            if not known:
                continue
            for arm in range(len(ARMS)):
                rows = [(s, row) for s, both in known.items() for row in manifest.read(both[arm], need_audio=False)]
                sides.append([dataclasses.replace(row, id=f"{row.id}@{s}") for s, row in rows])
            normaliser = tomllib.loads(Path(f"pipelines/{corpus}.toml").read_text()).get("score", {}).get("normaliser")
            wer = score_run(*sides, normaliser=normaliser or "jargon-safe")["wer"]
            low, high = wer["delta_ci95"]
            lines.append(
                f"| {corpus}, {epochs} epochs | {kind} | {len(known)} | {100 * wer['before']:.1f} "
                f"| {100 * wer['after']:.1f} | {100 * wer['delta']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) "
                f"| {wer['words']:,} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what is not done yet, seed by seed; the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=EPOCHS, action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only write the page")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    for seed in () if options.table else seeds:
        for corpus in options.corpus or EPOCHS:
            for arm in ARMS:
                measure(corpus, arm, seed)
        with files.atomic_write(OUT) as file:
            file.write(page(seeds))
    with files.atomic_write(OUT) as file:
        file.write(page(seeds))
    print(OUT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
