"""What pretraining hears: clips' log-mels in shards, laid out in windows, and distorted."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import torch

from speechft import audio, files, workers
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.whisper import tokens, windows

WINDOW_FRAMES = windows.N_FRAMES
WINDOW_LENGTHS = (600, 1000, 2000, WINDOW_FRAMES)
DYNAMIC_RANGE = 2.0  # 8 decades in Whisper's scaled log-mel: (x + 4) / 4
GAP_FRAMES = (10, 80)  # silence between clips of a packed window: 0.1 to 0.8 s
SHARD_CLIPS = 1000


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One training clip: where its log-mel lies, its label tokens and its phonemes (1 and up; 0 is the CTC blank)."""

    shard: int
    first: int
    frames: int
    tokens: tuple[int, ...]
    phonemes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Clips over memory-mapped float16 arrays of shape (frames, mels), which processes share through the page cache."""

    shards: tuple[np.ndarray, ...]
    clips: tuple[Clip, ...]
    symbols: int

    @property
    def n_mels(self) -> int:
        """Mel bins of the features."""
        return int(self.shards[0].shape[1])

    def mel(self, clip: Clip) -> np.ndarray:
        """float32 log-mel, shape (mels, frames)."""
        return np.asarray(self.shards[clip.shard][clip.first : clip.first + clip.frames].T, dtype=np.float32)


def make_shards(
    rows: Sequence[Utterance], folder: Path, *, n_mels: int, progress: Callable[[int, int], None]
) -> list[Path]:
    """Log-mels of clips as .npy files of `SHARD_CLIPS` clips each; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (rows[first : first + SHARD_CLIPS], folder / f"{first // SHARD_CLIPS:05d}.npy", n_mels)
        for first in range(0, len(rows), SHARD_CLIPS)
    ]
    made = workers.each(_make_shard, jobs, processes=workers.cores(), preload=__name__, chunk=1)
    for done, _ in enumerate(made, start=1):
        progress(done, len(jobs))
    return [path for _, path, _ in jobs]


def _make_shard(job: tuple[Sequence[Utterance], Path, int]) -> None:
    rows, path, n_mels = job
    if path.exists():
        return
    pieces = []
    for row in rows:
        clip = audio.read(row.audio_filepath or "", offset_s=row.offset, duration_s=row.duration)
        pieces.append(windows.log_mel(clip, n_mels=n_mels)[:, : clip_frames(row)].T.numpy().astype(np.float16))
    with files.atomic_write(path, "wb") as file:
        np.save(file, np.concatenate(pieces))


def clip_frames(row: Utterance) -> int:
    """Log-mel frames of a row (10 ms each), which its duration gives."""
    return round((row.duration or 0.0) * audio.SAMPLE_RATE) // windows.HOP_LENGTH


def read_corpus(rows: Sequence[Utterance], shards: Sequence[Path], tokenizer: Any) -> Corpus:
    """Clips of rows and their shards; clips under 0.4 s or over 30 s are left out.

    Raises:
        InputError: a row has no `phonemes` (words apart by spaces, phonemes within a word by `_`).
    """
    spelled = [str(row.extra.get("phonemes", "")).replace("_", " ").split() for row in rows]
    for row, phonemes in zip(rows, spelled, strict=True):
        if row.text and not phonemes:
            raise InputError(f"row {row.id} has no phonemes, which pretraining needs for its CTC head")
    symbol = {name: number for number, name in enumerate(sorted({p for row in spelled for p in row}), start=1)}
    clips, first = [], 0
    for number, (row, phonemes) in enumerate(zip(rows, spelled, strict=True)):
        shard, place = divmod(number, SHARD_CLIPS)
        first = 0 if place == 0 else first
        frames = clip_frames(row)
        if 40 <= frames <= WINDOW_FRAMES:
            clips.append(
                Clip(
                    shard=shard, first=first, frames=frames, tokens=tokens.encode_text(tokenizer, row.text or ""),
                    phonemes=tuple(symbol[p] for p in phonemes),
                )
            )  # fmt: skip
        first += frames
    held = tuple(np.load(path, mmap_mode="r") for path in shards)
    return Corpus(shards=held, clips=tuple(clips), symbols=len(symbol))


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


def fill_window(clips: Iterator[Clip], *, frames: int, single: bool, rng: random.Random) -> list[Clip]:
    """Take clips for one window; a single window holds one, the others are half full to full."""
    group = [next(clip for clip in clips if clip.frames <= frames)]
    limit = 0 if single else rng.uniform(0.6, 1.0) * frames
    used = group[0].frames
    while used < limit:
        clip = next(clips)
        if used + GAP_FRAMES[1] + clip.frames > frames:
            break
        used += GAP_FRAMES[1] + clip.frames
        group.append(clip)
    return group


def draw_frames(*, longest: int, cut_share: float, rng: random.Random) -> int:
    """How long the windows of a step are; 0 means clips cut to their length."""
    if rng.random() < cut_share:
        return 0
    return rng.choice([f for f in WINDOW_LENGTHS if f <= longest])


def lay_out(
    corpus: Corpus, groups: list[list[Clip]], *, frames: int, rng: random.Random, strength: float
) -> tuple[torch.Tensor, list[list[tokens.Segment]], list[tuple[int, ...]]]:
    """Lay groups of clips into log-mel windows with gaps; loudness drawn per clip.

    Returns:
        float32 log-mels (groups, mels, frames), the segments of each window, and its phonemes.
    """
    n_mels = corpus.n_mels
    batch = np.full((len(groups), n_mels, frames), -10.0, dtype=np.float32)
    segments: list[list[tokens.Segment]] = []
    phonemes: list[tuple[int, ...]] = []
    for row, group in enumerate(groups):
        position, placed = 0, []
        for clip in group:
            end = position + clip.frames
            batch[row, :, position:end] = corpus.mel(clip) + rng.uniform(-0.25, 0.1)
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
    n_mels = corpus.n_mels
    draws = np.random.default_rng(rng.getrandbits(63))
    if rng.random() < 0.4:
        noise = np.zeros((n_mels, frames))
        for _ in range(rng.choice([1, 3, 5, 7])):
            other = 10.0 ** (4.0 * corpus.mel(rng.choice(corpus.clips)) - 4.0)
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
