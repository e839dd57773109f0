"""Whisper's log-mel spectrogram, and the 30-s windows that several clips share.

A *window* is what the encoder sees: 30 s of audio, filled up as when deployed. transformers puts silence behind the
sound; the reference's `transcribe` and faster-whisper put zeros behind its log-mels, and so does a share of training's
windows, as a decoder that heard only the one reads the other badly (docs/log.md, 2026-11-28, night).

A frozen encoder costs the same for one clip of 5 s as for six, so short clips are packed with gaps between them; a
share stays alone so that the decoder still knows single clips. Self-attention sees the whole window, so members,
order, gaps and how it is filled are drawn once per view and belong to the identity of the kept states.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from speechft.audio import SAMPLE_RATE

N_FFT = 400  # samples: 25 ms
HOP_LENGTH = 160  # samples: 10 ms
WINDOW_S = 30
N_SAMPLES = WINDOW_S * SAMPLE_RATE  # 480,000 samples in a window
N_FRAMES = N_SAMPLES // HOP_LENGTH  # 3,000 log-mel frames in a window
FRAMES_PER_S = SAMPLE_RATE // HOP_LENGTH  # 100
TIMESTAMP_STEP_S = 0.02
FILLED_SHARE = 1 / 3  # of training's windows that end in zeros


@functools.cache
def mel_filters(n_mels: int) -> torch.Tensor:
    """Slaney mel filters, shape (n_mels, 201), as librosa and the reference make them."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=1 + N_FFT // 2,
        num_mel_filters=n_mels,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters.T.astype(np.float32))


def log_mel(samples: np.ndarray | torch.Tensor, *, n_mels: int = 80, device: str = "cpu") -> torch.Tensor:
    """Log-mel spectrogram of a signal, or of each of several (Radford et al. 2022, section 2.2).

    The dynamic range is cut 8 decades (in log10 power) below the loudest bin of the whole signal, then scaled to
    about [-1, 1].

    Args:
        samples: float32 at 16 kHz, shape (..., samples).
        n_mels: 80, or 128 for large-v3 and turbo.

    Returns:
        float32, shape (..., n_mels, samples // 160).
    """
    signal = torch.as_tensor(samples, dtype=torch.float32, device=device)
    stft = torch.stft(signal, N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT, device=device), return_complex=True)
    power = stft[..., :-1].abs() ** 2
    log_power = torch.clamp(mel_filters(n_mels).to(device) @ power, min=1e-10).log10()
    log_power = torch.maximum(log_power, log_power.amax((-2, -1), keepdim=True) - 8.0)
    return (log_power + 4.0) / 4.0


def fill(features: torch.Tensor, ends: Sequence[int]) -> torch.Tensor:
    """Zeros in log-mels from a frame of each window on, in place. They are no silence: zero is -40 dB of power 1.

    Args:
        features: shape (windows, n_mels, 3000).
        ends: of each window, the first frame that becomes zero; 3000 where none does.

    Returns:
        the same features.
    """
    for window, end in zip(features, ends, strict=True):
        window[:, end:] = 0.0
    return features


def pad_window(samples: np.ndarray) -> np.ndarray:
    """Exactly 30 s: zeros at the end, or cut."""
    window = np.zeros(N_SAMPLES, dtype=np.float32)
    window[: min(len(samples), N_SAMPLES)] = samples[:N_SAMPLES]
    return window


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What packing asks of a row: length, tokens of its label (timestamps not counted), its number in its manifest."""

    id: str
    number: int
    duration_s: float  # at most 30
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A clip in a window, and where it lies (seconds, multiples of 0.02 as Whisper's timestamps are)."""

    clip: Clip
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Clips that share 30 s, in order of time."""

    id: str
    placed: tuple[Placed, ...]
    filled: bool  # with zeros behind the log-mels of its sound


def pack(
    clips: Sequence[Clip],
    *,
    name: str,
    view: int,
    seed: int,
    gap_s: tuple[float, float],
    single_share: float,
    max_tokens: int,
) -> list[Window]:
    """Draw which clips share a window, first fit over a shuffled order.

    Every draw depends on seed, view and the set of ids alone.

    Args:
        name: first part of the windows' ids.
        view: which draw; the same view is packed the same way.
        gap_s: silence between neighbours, drawn from this range.
        single_share: share of the clips that get a window of their own.
        max_tokens: most label tokens in a window.
    """
    rng = random.Random(f"{seed}:pack:{view}")
    order = sorted(clips, key=lambda clip: clip.id)
    rng.shuffle(order)
    singles = {clip.id for clip in order[: round(len(order) * single_share)]}
    bins: list[tuple[list[Placed], int]] = []
    open_bins: list[int] = []
    for clip in order:
        tokens = clip.tokens + 3  # room for a space and two timestamps
        if clip.id in singles:
            bins.append(([_place(clip, 0.0)], max_tokens))
            continue
        for index in open_bins:
            members, used = bins[index]
            start = _on_grid(members[-1].end_s + rng.uniform(*gap_s))
            if start + clip.duration_s <= WINDOW_S and used + tokens <= max_tokens:
                members.append(_place(clip, start))
                bins[index] = (members, used + tokens)
                break
        else:
            bins.append(([_place(clip, 0.0)], tokens))
            open_bins = [
                *open_bins[-7:],
                len(bins) - 1,
            ]  # a few open windows keep packing tight and linear in time
    fills = random.Random(f"{seed}:fill:{view}")
    return [
        Window(id=f"{name}-{number:06d}", placed=tuple(members), filled=fills.random() < FILLED_SHARE)
        for number, (members, _) in enumerate(bins)
    ]


def _on_grid(seconds: float) -> float:
    return round(round(seconds / TIMESTAMP_STEP_S) * TIMESTAMP_STEP_S, 2)


def _place(clip: Clip, start: float) -> Placed:
    return Placed(clip=clip, start_s=start, end_s=min(float(WINDOW_S), _on_grid(start + clip.duration_s)))


def assemble(clips: list[np.ndarray], starts_s: list[float]) -> np.ndarray:
    """Lay clips into 30 s of silence, shape (480000,)."""
    window = np.zeros(N_SAMPLES, dtype=np.float32)
    for clip, start_s in zip(clips, starts_s, strict=True):
        first = round(start_s * SAMPLE_RATE)
        room = min(len(clip), N_SAMPLES - first)
        window[first : first + room] += clip[:room]
    return window
