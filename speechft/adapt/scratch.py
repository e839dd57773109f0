"""Train a small Whisper from nothing: the strategy `scratch`, which makes `nano`.

An encoder-decoder learns to listen only once its attention lines up, which takes hours on a CPU. Two things shorten it:
a CTC head over phonemes on the encoder (Graves et al. 2006; joint training as in Watanabe et al. 2017), used in
training only and not shipped, and clips cut to their length in place of 30-s padding. The last part of training sees
whole 30-s windows, packed and alone, with timestamps in a share of them, because that is how a Whisper is deployed.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import torch
from torch import nn

from speechft import files
from speechft.whisper import tokens, windows

logger = logging.getLogger(__name__)

WINDOW_FRAMES = windows.N_FRAMES
DYNAMIC_RANGE = 2.0  # 8 decades in Whisper's scaled log-mel: (x + 4) / 4
GAP_FRAMES = (10, 80)  # silence between clips of a packed window: 0.1 to 0.8 s
PLATEAU = 0.35  # share of the decaying phase before the rate starts to fall
CHECKPOINT_EVERY_S = 240.0


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One training clip: its log-mel in a shared array, its label tokens and its phonemes."""

    first: int
    frames: int
    tokens: tuple[int, ...]
    phonemes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Clips over one float16 array of shape (frames, mels)."""

    mels: np.ndarray
    clips: tuple[Clip, ...]

    def mel(self, clip: Clip) -> np.ndarray:
        return self.mels[clip.first : clip.first + clip.frames].T


class CtcHead(nn.Module):
    """Phonemes from encoder states; symbol 0 is the blank."""

    def __init__(self, d_model: int, symbols: int) -> None:
        super().__init__()
        self.output = nn.Linear(d_model, symbols + 1)

    def loss(self, states: torch.Tensor, lengths: torch.Tensor, targets: list[tuple[int, ...]]) -> torch.Tensor:
        log_probs = self.output(states).float().log_softmax(-1).transpose(0, 1)
        flat = torch.tensor([symbol for target in targets for symbol in target])
        counts = torch.tensor([len(target) for target in targets])
        return nn.functional.ctc_loss(log_probs, flat, lengths, counts, zero_infinity=True)


def encode_frames(encoder: Any, mel: torch.Tensor) -> torch.Tensor:
    """The encoder over any even number of frames; `WhisperEncoder.forward` insists on 3,000.

    Args:
        mel: shape (batch, mels, frames).

    Returns:
        states of shape (batch, frames / 2, d_model).
    """
    hidden = nn.functional.gelu(encoder.conv1(mel))
    hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
    return encoder.layer_norm(hidden)


def cut_batches(corpus: Corpus, *, frames_per_batch: int, rng: random.Random) -> list[list[Clip]]:
    """Clips of like length together, at most `frames_per_batch` frames a batch, in drawn order."""
    order = sorted(corpus.clips, key=lambda c: c.frames + rng.uniform(0, 30))
    batches: list[list[Clip]] = []
    current: list[Clip] = []
    for clip in order:
        longest = max([clip.frames, *(c.frames for c in current)])
        if current and longest * (len(current) + 1) > frames_per_batch:
            batches.append(current)
            current = []
        current.append(clip)
    batches.append(current)
    rng.shuffle(batches)
    return batches


def fill_window(clips: list[Clip], *, frames: int, single_share: float, rng: random.Random) -> list[Clip]:
    """Take clips off the end of a list for one window; a share of the windows holds one clip."""
    group = [clips.pop()]
    if rng.random() >= single_share:
        limit = rng.uniform(0.5, 1.0) * frames  # half-empty and full windows alike: people record anything between
        used = group[0].frames
        while clips and used + clips[-1].frames + GAP_FRAMES[1] <= limit:
            used += clips[-1].frames + GAP_FRAMES[1]
            group.append(clips.pop())
    return group


def window_frames(share: float, rng: random.Random) -> int:
    """How long windows are at a point of the phase: attention trained on seconds is led to 30 s step by step.

    Going from clips straight to 30 s threw the loss from 1.1 to 5.3, from which it came back at a tenth of the speed.
    """
    longest = 600 if share < 0.15 else 1000 if share < 0.35 else 1800 if share < 0.55 else WINDOW_FRAMES
    return rng.choice([longest, longest, longest // 2]) if longest < WINDOW_FRAMES else rng.choice([1000, 3000, 3000])


def lay_out(
    corpus: Corpus, groups: list[list[Clip]], *, frames: int, rng: random.Random, strength: float
) -> tuple[torch.Tensor, list[list[tokens.Segment]], list[tuple[int, ...]]]:
    """Lay groups of clips into log-mel windows with gaps; loudness drawn per clip.

    Returns:
        float32 log-mels (groups, mels, frames), the segments of each window, and its phonemes.
    """
    n_mels = corpus.mels.shape[1]
    batch = np.full((len(groups), n_mels, frames), -10.0, dtype=np.float32)
    segments: list[list[tokens.Segment]] = []
    phonemes: list[tuple[int, ...]] = []
    for row, group in enumerate(groups):
        position, placed = 0, []
        for clip in group:
            end = position + clip.frames
            batch[row, :, position:end] = corpus.mel(clip).astype(np.float32) + rng.uniform(-0.25, 0.1)
            start_s, end_s = (min(30.0, round(t / 2) * 0.02) for t in (position, end))
            placed.append(tokens.Segment(tokens=clip.tokens, start_s=start_s, end_s=end_s))
            position = end + rng.randint(*GAP_FRAMES)
        np.maximum(batch[row], -1.5, out=batch[row])  # (log10(1e-10) + 4) / 4, digital silence
        extent = min(frames, position)
        batch[row, :, :extent] = distort(batch[row, :, :extent], corpus, rng=rng, strength=strength)
        np.maximum(batch[row], batch[row].max() - DYNAMIC_RANGE, out=batch[row])
        segments.append(placed)
        phonemes.append(tuple(symbol for clip in group for symbol in clip.phonemes))
    return torch.from_numpy(batch), segments, phonemes


def distort(mel: np.ndarray, corpus: Corpus, *, rng: random.Random, strength: float) -> np.ndarray:
    """Room, band, tone and noise drawn for one window, computed on its mel powers; `strength` scales how often.

    Adding powers leaves out the cross terms of a mix of waveforms, which average to zero over a mel band; in exchange
    every pass over the data hears another noise at no cost to speak of.
    """
    power = 10.0 ** (4.0 * mel - 4.0)
    n_mels, frames = power.shape
    if rng.random() < 0.3 * strength:  # late reverberation: each band decays by 60 dB in rt60 seconds
        decay = 10.0 ** (-6.0 / (rng.uniform(0.15, 0.8) * 100.0))
        power = power + rng.uniform(0.02, 0.2) * scipy.signal.lfilter([0.0, 1.0], [1.0, -decay], power, axis=1)
    bands = np.linspace(-1.0, 1.0, n_mels)[:, None]
    tone_db = rng.uniform(-6, 6) * bands + rng.uniform(-4, 4) * (bands**2 - 0.3)
    if rng.random() < 0.15 * strength:  # telephone: 300-3400 Hz are mel bands 8 to 63 of 80
        tone_db = tone_db - 50.0 * ((bands < -0.8) | (bands > 0.6))
    power = power * 10.0 ** (tone_db / 10.0)
    if rng.random() < 0.55 * strength:
        level = power.sum(axis=0)
        speech = level[level > level.max() * 1e-4].mean()
        noise = draw_noise(frames, corpus, rng=rng)
        snr = 10.0 ** (rng.uniform(2.0, 25.0) / 10.0)
        power = power + noise * (speech / (snr * noise.sum(axis=0).mean() + 1e-12))
    return ((np.log10(np.maximum(power, 1e-10)) + 4.0) / 4.0).astype(np.float32)


def draw_noise(frames: int, corpus: Corpus, *, rng: random.Random) -> np.ndarray:
    """Mel powers of a steady coloured noise, or of a babble of other clips, shape (mels, frames)."""
    n_mels = corpus.mels.shape[1]
    draws = np.random.default_rng(rng.getrandbits(63))
    if rng.random() < 0.4:
        noise = np.zeros((n_mels, frames))
        for _ in range(rng.choice([1, 3, 5, 7])):
            other = 10.0 ** (4.0 * corpus.mel(rng.choice(corpus.clips)).astype(np.float32) - 4.0)
            start = rng.randrange(other.shape[1])
            noise += np.resize(np.roll(other, start, axis=1).T, (frames, n_mels)).T * 10 ** rng.uniform(-1, 0)
        return noise
    bands = np.linspace(-1.0, 1.0, n_mels)[:, None]
    shape_db = rng.uniform(-15, 15) * bands + rng.uniform(-8, 8) * np.cos(rng.uniform(1, 6) * bands + rng.uniform(0, 6))
    return 10.0 ** (shape_db / 10.0) * draws.gamma(4.0, 0.25, size=(n_mels, frames))


def mask_spectrum(
    mel: torch.Tensor, *, rng: random.Random, share: float, time_share: float = 0.06, mel_share: float = 0.15
) -> None:
    """SpecAugment (Park et al. 2019) in place on a share of the windows: two frequency and some time masks."""
    batch, n_mels, frames = mel.shape
    for row in range(batch):
        if rng.random() >= share:
            continue
        fill = float(mel[row].mean())
        for _ in range(2):
            width = rng.randint(0, int(n_mels * mel_share))
            start = rng.randint(0, n_mels - width)
            mel[row, start : start + width] = fill
        for _ in range(max(1, frames // 250)):
            width = rng.randint(0, int(min(frames, 400) * time_share))
            start = rng.randint(0, frames - width)
            mel[row, :, start : start + width] = fill


class Trainer:
    """Holds what a checkpoint holds: model, CTC head, optimiser and the number of steps done."""

    def __init__(
        self, model: Any, ids: tokens.Layout, *, symbols: int, peak_rate: float, seed: int, ctc_weight: float
    ) -> None:
        self.model, self.ids, self.seed, self.peak_rate = model, ids, seed, peak_rate
        self.ctc_weight = ctc_weight
        torch.manual_seed(seed)
        self.head = CtcHead(model.config.d_model, symbols)
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
             *, rate: float, timestamps: list[bool], speech_frames: list[int]) -> tuple[float, float]:  # fmt: skip
        """One optimiser step; returns the decoder's and the CTC loss."""
        self.model.train()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        examples = [
            tokens.example(self.ids, placed, timestamps=stamped)
            for placed, stamped in zip(segments, timestamps, strict=True)
        ]
        inputs, labels = tokens.collate(examples, end=self.ids.end)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = encode_frames(self.model.model.encoder, mel)
            decoded = self.model.model.decoder(input_ids=inputs, encoder_hidden_states=states, use_cache=False)
            logits = self.model.proj_out(decoded.last_hidden_state)
        decoder_loss = nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=tokens.IGNORED
        )
        loss = decoder_loss
        ctc = torch.zeros(())
        if self.ctc_weight > 0:
            lengths = torch.tensor([min(states.shape[1], (n + 1) // 2) for n in speech_frames])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                ctc = self.head.loss(states, lengths, phonemes)
            loss = decoder_loss + self.ctc_weight * ctc
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return float(decoder_loss.detach()), float(ctc.detach())

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(), "head": self.head.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps": self.steps, "clips_seen": self.clips_seen,
        }  # fmt: skip
        with files.atomic_write(path, "wb") as file:
            torch.save(state, file)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        self.steps, self.clips_seen = state["steps"], state["clips_seen"]


def speech_extent(placed: list[tokens.Segment]) -> int:
    """Frames up to the end of the last clip."""
    return max(2, round(max(s.end_s for s in placed) * 100))


def _batches(
    corpus: Corpus,
    *,
    phase: str,
    frames_per_batch: int,
    single_share: float,
    rng: random.Random,
    share: Callable[[], float],
) -> Iterator[tuple[list[list[Clip]], int]]:
    """An epoch's batches: groups of clips and the number of frames of their windows."""
    if phase == "cut":
        for batch in cut_batches(corpus, frames_per_batch=frames_per_batch, rng=rng):
            longest = max(c.frames for c in batch)
            yield [[clip] for clip in batch], longest + longest % 2
    else:
        clips = list(corpus.clips)
        rng.shuffle(clips)
        while len(clips) > 100:
            frames = window_frames(share(), rng)
            groups = [
                fill_window(clips, frames=frames, single_share=single_share, rng=rng)
                for _ in range(max(1, frames_per_batch // frames))
            ]
            fitting = [group for group in groups if sum(c.frames for c in group) <= frames]
            yield fitting, frames


def train(
    trainer: Trainer,
    corpus: Corpus,
    *,
    out: Path,
    phase: str,
    minutes: float,
    decay: bool,
    frames_per_batch: int,
    strength: float,
    single_share: float = 0.25,
    timestamp_share: float = 0.15,
    warmup_steps: int = 300,
) -> None:
    """Train for a number of minutes on one core group, checkpointing every ten.

    The rate warms up, stays, and in a phase with `decay` falls to a fiftieth along a half cosine, so
    that a usable model can be branched from the plateau at any time (Hu et al. 2024, warm-up-stable-decay).
    """
    started = last_saved = last_logged = time.monotonic()
    seconds = minutes * 60
    sums = [0.0, 0.0, 0]
    curve = out / "curve.jsonl"
    while True:
        epoch_rng = random.Random(f"{trainer.seed}:{phase}:{trainer.steps}")
        for groups, frames in _batches(
            corpus,
            phase=phase,
            frames_per_batch=frames_per_batch,
            single_share=single_share,
            rng=epoch_rng,
            share=lambda: min(1.0, (time.monotonic() - started) / seconds),
        ):
            elapsed = time.monotonic() - started
            share = min(1.0, elapsed / seconds)
            rate = trainer.peak_rate * min(1.0, (trainer.steps + 1) / warmup_steps)
            if decay:
                rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * max(0.0, share - PLATEAU) / (1 - PLATEAU)))
            rng = random.Random(f"{trainer.seed}:step:{trainer.steps}")
            mel, segments, phonemes = lay_out(corpus, groups, frames=frames, rng=rng, strength=strength)
            mask_spectrum(mel, rng=rng, share=strength)
            losses = trainer.step(
                mel, segments, phonemes, rate=rate,
                timestamps=[rng.random() < timestamp_share for _ in groups],
                speech_frames=[speech_extent(placed) for placed in segments],
            )  # fmt: skip
            trainer.clips_seen += sum(len(g) for g in groups)
            sums = [sums[0] + losses[0], sums[1] + losses[1], sums[2] + 1]
            now = time.monotonic()
            if now - last_logged > 30:
                row = {
                    "step": trainer.steps, "clips": trainer.clips_seen, "phase": phase, "seconds": round(now - started),
                    "loss": round(sums[0] / sums[2], 4), "ctc": round(sums[1] / sums[2], 4), "rate": round(rate, 6),
                }  # fmt: skip
                logger.info("%s", row)
                with curve.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                last_logged, sums = now, [0.0, 0.0, 0]
            if now - last_saved > CHECKPOINT_EVERY_S or elapsed > seconds:
                trainer.save(out / "checkpoint.pt")
                last_saved = now
            if elapsed > seconds:
                return
