"""The loop that made `nano`: a small Whisper from nothing, on clips whose phonemes are known.

An encoder-decoder learns to listen only once its attention lines up, which takes hours on a CPU. Two things shorten it:
a CTC head over phonemes on the encoder (Graves et al. 2006; joint training as in Watanabe et al. 2017), used in
training only and not shipped, and clips cut to their length in place of 30-s padding. The rest of training sees windows
of up to 30 s, packed and alone, with timestamps in a share of them, because that is how a Whisper is deployed; there a
few decoder heads are guided to where the words are (Tachibana et al. 2018, section 4), which the layout knows.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from speechft import files
from speechft.adapt import strategies
from speechft.adapt.stopping import StopSignal
from speechft.errors import InputError, Stopped
from speechft.manifest import Utterance
from speechft.pretrain.aligning import CtcHead, GuidedHeads, token_spans
from speechft.pretrain.corpus import (
    WINDOW_FRAMES,
    Clip,
    Corpus,
    cut_batches,
    draw_frames,
    fill_window,
    lay_out,
    make_shards,
    mask_spectrum,
    read_corpus,
)
from speechft.whisper import load, tokens

logger = logging.getLogger(__name__)

CUT_PART = 0.35  # of training is on clips cut to their length, before windows come in
# Attention trained on seconds is led to 30 s step by step: (share of training, frames from there on). Going there at
# once threw the loss from 1.1 to 5.3, from which it came back at a tenth of the speed.
LONGEST = ((CUT_PART, 600), (0.42, 1000), (0.5, 2000), (0.58, WINDOW_FRAMES))
GUIDE_WEIGHT = 0.2
PLATEAU = 0.65  # of training is done before the rate starts to fall
CHECKPOINT_EVERY_S = 240.0
FRAMES_PER_BATCH = 12_000  # log-mel frames a process takes in a step: two minutes of sound
PEAK_RATE = 1.5e-3
CTC_WEIGHT = 0.5
SINGLE_SHARE = 0.25  # of the windows hold one clip, as when a user transcribes one
TIMESTAMP_SHARE = 0.3
WARMUP_STEPS = 300
PRECISION = torch.bfloat16  # autocast, whether the processor multiplies in it or not; training is on CPU cores
NOT_FINITE = 70  # exit status of a process whose gradient was not


def encode_frames(encoder: Any, mel: torch.Tensor, *, first: int = 0) -> torch.Tensor:
    """The encoder over any even number of frames; `WhisperEncoder.forward` insists on 3,000.

    Args:
        mel: shape (batch, mels, frames).
        first: the position of the first state, as if the clip began that far into a window.

    Returns:
        states of shape (batch, frames / 2, d_model).
    """
    hidden = nn.functional.gelu(encoder.conv1(mel))
    hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[first : first + hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
    return encoder.layer_norm(hidden)


class Trainer:
    """Holds what a checkpoint holds: model, CTC head, optimiser and the number of steps done."""

    def __init__(self, model: Any, ids: tokens.Layout, *, symbols: int, peak_rate: float, seed: int) -> None:
        self.model, self.ids, self.seed, self.peak_rate = model, ids, seed, peak_rate
        torch.manual_seed(seed)
        self.head = CtcHead(model.config.d_model, symbols)
        self.guide = GuidedHeads(model.model.decoder)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        # Muon (Jordan et al. 2024) on the matrices reached AdamW's loss in about a quarter of the steps here.
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=peak_rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(
                [*others, *self.head.parameters()],
                lr=peak_rate,
                betas=(0.9, 0.98),
                weight_decay=0.01,
                fused=True,
            ),
        ]
        self.parameters = [*(p for _, p in named), *self.head.parameters()]
        self.steps = 0
        self.clips_seen = 0

    def step(self, mel: torch.Tensor, segments: list[list[tokens.Segment]], phonemes: list[tuple[int, ...]],
             *, rate: float, timestamps: list[bool], first: int = 0) -> tuple[float, float, float]:  # fmt: skip
        """One optimiser step; returns the decoder's, the CTC and the guidance loss.

        Under `torch.distributed` gradients are averaged over the processes, each with its own batch.

        Raises:
            FloatingPointError: the gradient is not finite; no weight has changed.
        """
        self.model.train()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        examples = [
            tokens.example(self.ids, placed, timestamps=stamped)
            for placed, stamped in zip(segments, timestamps, strict=True)
        ]
        inputs, labels = tokens.collate(examples, end=self.ids.end)
        with torch.autocast("cpu", dtype=PRECISION):
            states = encode_frames(self.model.model.encoder, mel, first=first)
            decoded = self.model.model.decoder(input_ids=inputs, encoder_hidden_states=states, use_cache=False)
            logits = self.model.proj_out(decoded.last_hidden_state)
        decoder_loss = nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=tokens.IGNORED
        )
        spans = np.stack(
            [
                token_spans(item, placed, steps=labels.shape[1], text_ids=self.ids.end)
                for item, placed in zip(examples, segments, strict=True)
            ]
        )
        guidance = self.guide.loss(torch.from_numpy(spans))
        lengths = torch.tensor([min(states.shape[1], (speech_extent(placed) + 1) // 2) for placed in segments])
        with torch.autocast("cpu", dtype=PRECISION):
            ctc = self.head.loss(states, lengths, phonemes)
        (decoder_loss + CTC_WEIGHT * ctc + GUIDE_WEIGHT * guidance).backward()
        average_gradients(self.parameters)
        if not math.isfinite(float(nn.utils.clip_grad_norm_(self.parameters, 1.0))):  # the same in every process
            raise FloatingPointError("the gradient is not finite")
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return float(decoder_loss.detach()), float(ctc.detach()), float(guidance.detach())

    def save(self, path: Path) -> None:
        """Write the checkpoint at once or not at all."""
        state = {
            "model": self.model.state_dict(), "head": self.head.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps": self.steps, "clips_seen": self.clips_seen,
        }  # fmt: skip
        with files.atomic_write(path, "wb") as file:
            torch.save(state, file)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint that `save` wrote."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        self.steps, self.clips_seen = state["steps"], state["clips_seen"]


def speech_extent(placed: list[tokens.Segment]) -> int:
    """Frames up to the end of the last clip."""
    return max(2, round(max(s.end_s for s in placed) * 100))


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Average over the processes of `torch.distributed`, if there are any, in one message."""
    if not torch.distributed.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def endless(items: list[Any], rng: random.Random) -> Iterator[Any]:
    """Pass after pass over the items, each in a new order."""
    while True:
        order = list(items)
        rng.shuffle(order)
        yield from order


def rate_at(share: float, step: int, *, peak: float) -> float:
    """Warm-up, a plateau, then a half cosine down to a fiftieth.

    From the plateau a usable model can be branched at any time (Hu et al. 2024, warm-up-stable-decay).
    """
    falling = max(0.0, share - PLATEAU) / (1 - PLATEAU)
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * falling)))


def longest_window(share: float) -> int:
    """Frames that windows may have, `share` of the way through training; 0 while clips are still cut."""
    return max((frames for start, frames in LONGEST if share >= start), default=0)


def train(
    base: str, rows: Sequence[Utterance], *, out: Path, epochs: int, seed: int, peak_rate: float, processes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:  # fmt: skip
    """Train a Whisper from the weights in a directory (random ones, to begin with) for passes over the clips.

    On a CPU each process takes one core and its own clips, and gradients are averaged: the cores' own threads wait for
    each other a hundred times a step and lose half of their time as soon as anything else runs.

    Args:
        base: directory of the untrained model.
        rows: clips with `text` and `phonemes`.
        out: folder for the features, `checkpoint.pt` (resumed from when present; its `model` is the result) and
            `curve.jsonl`.
        epochs: passes over the clips.

    Raises:
        InputError: a row has no phonemes, or the loss is no longer finite.
        Stopped: SIGTERM or SIGINT came; the checkpoint holds the last step.
    """
    whisper = load.load(base)
    shards = make_shards(rows, out / "features", n_mels=whisper.n_mels, progress=progress)
    read_corpus(rows, shards, whisper.tokenizer)  # faults are told here, not from within a process
    with tempfile.TemporaryDirectory() as folder:
        job = (
            processes,
            f"file://{folder}/meeting",
            base,
            rows,
            shards,
            out,
            epochs,
            seed,
            peak_rate,
        )
        stopping = StopSignal()
        try:
            with stopping:
                team = torch.multiprocessing.spawn(_work, args=job, nprocs=processes, join=False)
                told = False
                while not team.join(timeout=0.5):
                    if stopping.asked and not told:
                        for process in team.processes:
                            process.terminate()  # asks: it ends the step and saves
                        told = True
        except torch.multiprocessing.ProcessExitedException as error:
            if error.exit_code == NOT_FINITE:
                raise InputError(
                    "pretrain: the gradient is no longer finite; give a lower --rate. The last good checkpoint is "
                    f"{out / 'checkpoint.pt'}"
                ) from error
            if not stopping.asked:
                raise
    if stopping.asked:
        raise Stopped("pretrain: stopped; the same command goes on from the last checkpoint", stopping.asked)


def _work(
    rank: int, processes: int, meeting: str, base: str, rows: Sequence[Utterance], shards: Sequence[Path], out: Path,
    epochs: int, seed: int, peak_rate: float,
) -> None:  # fmt: skip
    """One training process."""
    asked: list[int] = []  # signals to stop; further ones do not break off the saving
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda heard, _: asked.append(heard))
    logging.basicConfig(level=logging.WARNING if rank else logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    if processes > 1:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    whisper = load.load(base)
    strategies.freeze(whisper.model, "full")
    corpus = read_corpus(rows, shards, whisper.tokenizer)
    trainer = Trainer(whisper.model, whisper.ids, symbols=corpus.symbols, peak_rate=peak_rate, seed=seed)
    if (out / "checkpoint.pt").exists():
        trainer.load(out / "checkpoint.pt")
    try:
        run_steps(trainer, corpus, total=epochs * len(corpus.clips), out=out, rank=rank, asked=asked)
    except FloatingPointError:
        sys.exit(NOT_FINITE)


def run_steps(trainer: Trainer, corpus: Corpus, *, total: int, out: Path, rank: int, asked: Sequence[int] = ()) -> None:
    """Train until `total` clips have been seen or any process is asked to stop; rank 0 alone writes checkpoints."""
    clips = endless(list(corpus.clips), random.Random(f"{trainer.seed}:{rank}:{trainer.steps}"))
    cut = cut_forever(corpus, FRAMES_PER_BATCH, random.Random(f"{trainer.seed}:cut:{rank}:{trainer.steps}"))
    sums: dict[str, list[float]] = {}
    started = last_saved = last_logged = time.monotonic()
    if not rank and not trainer.steps:
        trainer.save(out / "checkpoint.pt")  # a disk that cannot take it is told early
    first_clips = trainer.clips_seen
    stopped = False
    while trainer.clips_seen < total and not stopped:
        share = trainer.clips_seen / total
        longest = longest_window(share)
        # on a CPU eager attention is 1.2x as fast as the fused kernel over 1-5 s of positions, and slower over 30 s
        trainer.model.set_attn_implementation("sdpa" if longest else "eager")
        shared_rng = random.Random(f"{trainer.seed}:kind:{trainer.steps}")  # the same kind of step in every process
        rng = random.Random(f"{trainer.seed}:step:{rank}:{trainer.steps}")
        frames = draw_frames(longest=longest, cut_share=0.35, rng=shared_rng) if longest else 0
        kind, first = str(frames) if frames else "cut", 0
        if frames:
            groups = [
                fill_window(clips, frames=frames, single=rng.random() < SINGLE_SHARE, rng=rng)
                for _ in range(FRAMES_PER_BATCH // frames)
            ]
        else:
            groups, frames = next(cut)
            first = rng.randint(0, (WINDOW_FRAMES - frames) // 2) if longest and rng.random() < 0.5 else 0
        strength = 0.5 if longest else 0.3  # distortion from the start cost a lot: it grows with training
        mel, segments, phonemes = lay_out(corpus, groups, frames=frames, rng=rng, strength=strength)
        mask_spectrum(mel, rng=rng, share=strength)
        rate = rate_at(share, trainer.steps, peak=trainer.peak_rate)
        losses = trainer.step(
            mel, segments, phonemes, rate=rate, first=first,
            timestamps=[not first and rng.random() < TIMESTAMP_SHARE for _ in groups],
        )  # fmt: skip
        clips_taken, signals = agreed_sum(sum(len(g) for g in groups), len(asked))
        trainer.clips_seen, stopped = trainer.clips_seen + clips_taken, signals > 0
        sums[kind] = [held + loss for held, loss in zip(sums.get(kind, [0.0] * 4), (*losses, 1.0), strict=True)]
        if rank:
            continue
        now = time.monotonic()
        done = stopped or trainer.clips_seen >= total
        if now - last_logged > 30 or done:
            row: dict[str, Any] = {
                "step": trainer.steps, "clips": trainer.clips_seen, "of": total, "rate": round(rate, 6),
                "clips_per_s": round((trainer.clips_seen - first_clips) / (now - started), 1),
            } | {kind: [round(x / s[3], 3) for x in s[:3]] for kind, s in sorted(sums.items())}  # fmt: skip
            left_s = (now - started) / max(1, trainer.clips_seen - first_clips) * (total - trainer.clips_seen)
            logger.info("pretrain: about %.0f min left, %s", max(0.0, left_s) / 60, row)
            with (out / "curve.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            last_logged, sums = now, {}
        if now - last_saved > CHECKPOINT_EVERY_S or done:
            trainer.save(out / "checkpoint.pt")
            last_saved = now


def cut_forever(corpus: Corpus, frames_per_batch: int, rng: random.Random) -> Iterator[tuple[list[list[Clip]], int]]:
    """Batches of clips of like length, one clip a group, with the even number of frames that holds the longest."""
    while True:
        for batch in cut_batches(corpus, frames_per_batch=frames_per_batch, rng=rng):
            longest = max(c.frames for c in batch)
            yield [[clip] for clip in batch], longest + longest % 2


def agreed_sum(*counts: int) -> list[int]:
    """Each count's sum over the processes, so that every one of them stops at the same step."""
    total = torch.tensor(counts)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return total.tolist()
