"""Does speed cost accuracy? Kept states and packed windows against transformers' own recipe, equal clips and epochs.

    python benchmarks/no_loss.py                      # demo and an4 (data/an4 linked), three seeds, one on each core
    python benchmarks/no_loss.py --arms tenth alone   # with other shares of clips alone, besides
    python benchmarks/no_loss.py --table              # only write the page from what is there

`nano` is adapted with the same rows, epochs, clips a step, learning rate and its schedule, without augmentation or
retention. Plain is what public recipes do: Seq2SeqTrainer with the encoder frozen but run every time, every clip alone
in its window padded to 30 s, no timestamps. Packed is ours: by default, half of the clips alone; with a tenth alone, as
in the table of speed; and with all alone, where states are kept but nothing is packed. All keep the weights that
were best on dev and are scored on single clips, on packed windows (clips of other speakers side by side), on those
while writing timestamps, on the clips of a speaker joined to recordings of up to two minutes, and on single clips
whose log-mels are filled up with zeros, as faster-whisper and the reference's `transcribe` fill them. Resumable: runs
lie under runs/no-loss/. Writes docs/benchmarks/no_loss.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechft import audio, config, files, manifest
from speechft.adapt import steps, strategies
from speechft.manifest import Utterance
from speechft.report.pipeline_text import to_toml
from speechft.run import Run
from speechft.score.score import score_run

ROOT = Path("runs/no-loss")
OUT = Path("docs/benchmarks/no_loss.md")
EPOCHS = {"demo": 10, "an4": 12}
PLAIN, BEFORE = "plain", "before"
DEFAULT_SHARE = config.Encode().single_share
ARMS = {"packed": DEFAULT_SHARE, "tenth": 0.1, "alone": 1.0}  # ours: the share of clips with a window of their own
MEASURED_TIMES = 8  # on dev, as our loop does
KINDS = (
    "single clips", "packed windows", "packed, with timestamps", "joined to two minutes", "single clips, zeros behind",
)  # fmt: skip
JOINED_S = 120.0
GAP_S = (0.1, 0.8)


def pipeline_of(corpus: str, seed: int, arm: str) -> dict[str, Any]:
    """The corpus's pipeline without augmentation, replay, distillation or blending."""
    tree = tomllib.loads(Path(f"pipelines/{corpus}.toml").read_text(encoding="utf-8"))
    for table in ("conditions", "synth"):
        tree.pop(table, None)
    tree["encode"] = {"single_share": ARMS[arm]}
    tree["data"].pop("general")
    tree["augment"] = {"views": 0, "seed": seed}
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
    }
    return tree


def adapt_packed(corpus: str, seed: int, arm: str) -> Path:
    """Run the stages up to the adapted model; the folder of the run."""
    folder, name = ROOT / corpus, f"{arm}-{seed}"
    path = folder / f"{name}.toml"
    text = to_toml(pipeline_of(corpus, seed, arm))
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with files.atomic_write(path) as file:
            file.write(text)
    command = [sys.executable, "scripts/finetune.py", "--pipeline", str(path), "--run", name, "--runs", str(folder)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)}: failed\n{done.stderr[-2000:]}"
        )  # SystemExit would end a worker unheard
    return folder / name


def adapt_plain(corpus: str, seed: int, twin: Path) -> Path:
    """Transformers' recipe on the rows of the packed run of that seed; the folder with the model."""
    out = ROOT / corpus / f"plain-{seed}"
    if (out / "finetune" / "model").is_dir():
        return out
    import torch
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

    from speechft.adaptation import Chooser
    from speechft.whisper import load, tokens, windows

    settings = files.read_json(twin / "finetune" / "stage.json")["recipe"]
    whisper, device = load.load("nano"), load.choose_device()
    chooser = Chooser(Run(config.load(str(twin.with_suffix(".toml"))), twin), whisper, device)
    model, ids = whisper.model, whisper.ids
    strategies.freeze(model, "decoder", upper_layers=0)
    model.config.use_cache = False

    def sound(row: Utterance) -> np.ndarray:
        return audio.read(row.audio_filepath or "", offset_s=row.offset, duration_s=row.duration)

    def labels(row: Utterance) -> torch.Tensor:
        text = tokens.encode_text(whisper.tokenizer, row.text or "")
        return torch.tensor([*ids.prompt[1:], ids.no_timestamps, *text, ids.end])

    train = [
        {"input_features": windows.log_mel(windows.pad_window(sound(row)), n_mels=model.config.num_mel_bins),
         "labels": labels(row)}
        for row in manifest.read(twin / "ingest" / "train.jsonl")
    ]  # fmt: skip
    best: list[Any] = [float("inf"), None]

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        padded = torch.nn.utils.rnn.pad_sequence([row["labels"] for row in batch], batch_first=True, padding_value=-100)
        return {"input_features": torch.stack([row["input_features"] for row in batch]), "labels": padded}

    class KeepBest(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            epoch = round(state.epoch)
            if epoch % max(1, settings["epochs"] // MEASURED_TIMES) and epoch != settings["epochs"]:
                return
            model.eval()
            rate = chooser.measure()["dev_wer"]
            if rate < best[0]:
                best[:] = [rate, {name: value.clone() for name, value in model.state_dict().items()}]
            print(f"{corpus} plain {seed}: epoch {epoch}, dev WER {rate:.3f}", flush=True)

    arguments = Seq2SeqTrainingArguments(
        output_dir=str(out), per_device_train_batch_size=settings["batch_clips"] // 2, gradient_accumulation_steps=2,
        num_train_epochs=settings["epochs"], learning_rate=settings["learning_rate"], warmup_steps=steps.WARMUP_SHARE,
        lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": steps.FINAL_RATE_SHARE},
        bf16=device.precision == torch.bfloat16, use_cpu=device.name == "cpu", save_strategy="no", seed=seed,
        logging_strategy="no", report_to=[], disable_tqdm=True, dataloader_pin_memory=device.name == "cuda",
    )  # fmt: skip
    Seq2SeqTrainer(
        model=model, args=arguments, train_dataset=train, data_collator=collate, callbacks=[KeepBest()]
    ).train()  # type: ignore[arg-type]
    model.load_state_dict(best[1])
    whisper.trained = True
    load.save(whisper, out / "finetune" / "model")
    return out


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


def transcribe(model: str, test: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """Test rows of each kind with a model's hypotheses."""
    import torch

    from speechft.whisper import decode, load, states, windows

    whisper, device = load.load(model), load.choose_device()
    heard = {row.id: audio.read(row.audio_filepath or "", offset_s=row.offset, duration_s=row.duration) for row in test}

    def told(identity: str, group: Sequence[Utterance], hypothesis: str) -> Utterance:
        text = " ".join(row.text or "" for row in group)
        return Utterance(id=identity, audio_filepath=None, text=text, speaker=identity, hypothesis=hypothesis)

    single = decode.from_audio(whisper, [heard[row.id] for row in test], device=device)
    found = {KINDS[0]: [dataclasses.replace(row, hypothesis=h) for row, h in zip(test, single, strict=True)]}

    def read_with_zeros(clips: Sequence[np.ndarray]) -> list[str]:
        features = torch.stack([windows.log_mel(windows.pad_window(clip), n_mels=whisper.n_mels) for clip in clips])
        features = windows.fill(features, [len(clip) // windows.HOP_LENGTH for clip in clips])
        return decode.decode(whisper, states.encode(whisper.model.model.encoder, features, device), device=device)

    clips = list(heard.values())
    zeros = [text for start in range(0, len(clips), 8) for text in read_with_zeros(clips[start : start + 8])]
    found[KINDS[4]] = [dataclasses.replace(row, hypothesis=h) for row, h in zip(test, zeros, strict=True)]
    placed = [windows.Clip(id=r.id, number=n, duration_s=r.duration or 0.0, tokens=20) for n, r in enumerate(test)]
    packed = windows.pack(placed, name="test", view=0, seed=1, gap_s=GAP_S, single_share=0.0, max_tokens=200)
    assembled = [windows.assemble([heard[p.clip.id] for p in w.placed], [p.start_s for p in w.placed]) for w in packed]
    for kind, stamped in ((KINDS[1], False), (KINDS[2], True)):
        texts = decode.from_audio(whisper, assembled, device=device, timestamps=stamped)
        found[kind] = [
            told(w.id, [test[p.clip.number] for p in w.placed], text) for w, text in zip(packed, texts, strict=True)
        ]
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
    """Adapt (or, for the arm `before`, take the base), transcribe and keep the hypotheses."""
    if all(hypotheses_of(corpus, arm, seed, number).exists() for number in range(len(KINDS))):
        return
    started, transcribed = time.monotonic(), hypotheses_of(corpus, arm, seed, 0).exists()
    packed = adapt_packed(corpus, seed, arm if arm in ARMS else "packed")
    if arm == BEFORE:
        model = "nano"
    else:
        model = str((packed if arm in ARMS else adapt_plain(corpus, seed, packed)) / "finetune" / "model")
    test = manifest.read(packed / "ingest" / "test.jsonl")
    found = transcribe(model, test)
    for number, kind in enumerate(KINDS):
        manifest.write(hypotheses_of(corpus, arm, seed, number), found[kind])
    seconds = round(time.monotonic() - started, 1)
    if transcribed:  # before another kind of test was added: the time is that of the whole run
        return
    device = files.read_json(packed / "finetune" / "stage.json")["device"]
    files.write_json(ROOT / corpus / "timing" / f"{arm}-{seed}.json", {"seconds": seconds, "device": device})
    print(f"{corpus} {arm} {seed}: {seconds:.0f} s", flush=True)


def measure_all(corpus: str, seed: int, arms: Sequence[str]) -> None:
    """Arms of a corpus and seed; packed first, whose rows the plain recipe takes."""
    for arm in dict.fromkeys(("packed", *arms, PLAIN, *([BEFORE] if seed == 1 else []))):
        measure(corpus, arm, seed)


def page(seeds: Sequence[int]) -> str:
    """The table in Markdown, seeds pooled."""
    lines = [
        "# Does speed cost accuracy?",
        "",
        "    python benchmarks/no_loss.py",
        "    python benchmarks/no_loss.py --arms tenth alone",
        "",
        "Word error rate of `nano` after adapting, in per cent: by `Seq2SeqTrainer` from clips padded to 30 s, as "
        "public recipes train, and by our loop from kept states of packed windows, the share of clips named alone in "
        f"theirs ({DEFAULT_SHARE:g} is the default, {ARMS['tenth']:g} the table of speed's); same rows, epochs, clips "
        "a step, learning rate and schedule, all with the encoder frozen and the weights that were best on dev. "
        "95 % intervals in brackets, of the difference in points (paired bootstrap over speakers, over windows where "
        "they hold several; seeds pooled). Asked: the rates' intervals overlap, or ours is better. The interval of "
        "the difference is the sharper test: where it lies above zero (bold), packing costs accuracy. The demo's "
        "single clips are its clean ones; with zeros behind, their log-mels are filled up as faster-whisper and the "
        "reference's `transcribe` fill them; windows and joined recordings hold their accented copies too, so twice "
        "the words.",
        "",
        "| corpus | test | alone | seeds | before | plain | packed | asked | difference | words |",
        "| :-- | :-- | --: | --: | --: | --: | --: | :-- | :-- | --: |",
    ]
    lines += [
        row_of(corpus, number, arm, seeds)
        for corpus in EPOCHS
        for number in range(len(KINDS))
        for arm in ARMS
        if known(corpus, number, arm, seeds)
    ]
    spent: dict[str, list[float]] = defaultdict(list)
    notes = []
    for path in sorted(ROOT.glob("*/timing/*.json")):
        notes.append(files.read_json(path))
        spent[f"{path.parts[-3]} {path.stem.rpartition('-')[0]}"].append(notes[-1]["seconds"])
    if notes:
        told = ", ".join(f"{name} {sum(held) / len(held):,.0f}" for name, held in spent.items() if BEFORE not in name)
        lines += [
            "",
            f"Mean seconds of a run, encoding, evaluations and transcribing included: {told}.",
        ]
        where = " / ".join(sorted({note["device"] for note in notes}))
        minutes = sum(note["seconds"] for note in notes) / 60
        lines += [
            "",
            f"{minutes:.0f} minutes for {len(notes)} runs, several at a time, with their transcribing: {where}.",
        ]
    return "\n".join(lines) + "\n"


def hypotheses_of(corpus: str, arm: str, seed: int, number: int) -> Path:
    """Where the hypotheses of a kind of test lie."""
    return ROOT / corpus / "hypotheses" / f"{arm}-{seed}-{number}.jsonl"


def known(corpus: str, number: int, arm: str, seeds: Sequence[int]) -> list[int]:
    """The seeds that both sides have."""
    return [s for s in seeds if all(hypotheses_of(corpus, a, s, number).exists() for a in (PLAIN, arm))]


def row_of(corpus: str, number: int, arm: str, seeds: Sequence[int]) -> str:
    """A row of the table: a kind of test, plain against an arm."""
    seeds = known(corpus, number, arm, seeds)
    sides: list[list[Utterance]] = []
    for side in (PLAIN, arm):
        rows = [(s, r) for s in seeds for r in manifest.read(hypotheses_of(corpus, side, s, number), need_audio=False)]
        sides.append([dataclasses.replace(row, id=f"{row.id}@{s}") for s, row in rows])
    tree = tomllib.loads(Path(f"pipelines/{corpus}.toml").read_text(encoding="utf-8"))
    chosen = tree.get("score", {}).get("normaliser") or "jargon-safe"
    wer = score_run(*sides, normaliser=chosen)["wer"]
    before, base_path = "-", hypotheses_of(corpus, BEFORE, 1, number)
    if base_path.exists():
        alone = score_run(manifest.read(base_path, need_audio=False), normaliser=chosen, resamples=100)
        before = f"{100 * alone['wer']['value']:.1f}"
    low, high = wer["delta_ci95"]
    told = f"{100 * wer['delta']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    met = wer["after_ci95"][0] <= wer["before_ci95"][1]
    return (
        f"| {corpus} | {KINDS[number]} | {ARMS[arm]:g} | {len(seeds)} | {before} "
        f"| {rate(wer['before'], wer['before_ci95'])} | {rate(wer['after'], wer['after_ci95'])} "
        f"| {'yes' if met else 'no'} | {f'**{told}**' if low > 0 else told} | {wer['words']:,} |"
    )


def rate(value: float, ci95: Sequence[float]) -> str:
    """A rate in per cent with its interval."""
    return f"{100 * value:.1f} ({100 * ci95[0]:.1f} to {100 * ci95[1]:.1f})"


def main() -> int:
    """Run what is not done yet, seed by seed; the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=EPOCHS, action="append")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["packed"], help="which of ours")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time, one core each")
    parser.add_argument("--table", action="store_true", help="only write the page")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    if not options.table:
        os.environ["OMP_NUM_THREADS"] = "1"
        with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
            todo = [(corpus, seed) for seed in seeds for corpus in options.corpus or EPOCHS]
            for one in [pool.apply_async(measure_all, (*each, options.arms)) for each in todo]:
                one.get()
                with files.atomic_write(OUT) as file:
                    file.write(page(seeds))
    with files.atomic_write(OUT) as file:
        file.write(page(seeds))
    print(OUT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
