"""SpecAugment: stretches of time and some channels hidden in training, on log-mels or on kept encoder states.

On log-mels it is that of Park et al. (2019): neighbouring mel bands and stretches of time. Kept states have no order
among their channels, so any of them are hidden (as channel dropout does); time masks are the same. What is hidden
holds the window's mean of each channel, which says nothing about the words.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

WINDOW_S = 30.0


def hide(
    features: torch.Tensor, *, time_axis: int, ends_s: Sequence[float], seeds: Sequence[str], time_masks: int,
    time_mask_s: float, channel_masks: int, channel_mask_share: float,
) -> torch.Tensor:  # fmt: skip
    """Hide parts of each window's features, the same parts for the same seed.

    Args:
        features: log-mels (windows, mels, 3000) or states (windows, 1500, d_model); left as they are.
        time_axis: 2 for log-mels, 1 for states.
        ends_s: where the last speech of each window ends: nothing is hidden behind it, where no word is.
        seeds: a label for each window, from which its masks are drawn.
        time_masks: stretches of time to hide in each window.
        time_mask_s: longest stretch, seconds; each is drawn from 0 to this.
        channel_masks: groups of channels to hide: neighbours on log-mels, any on states.
        channel_mask_share: largest group, as a share of the channels; each is drawn from 0 to this.

    Returns:
        features of the same shape and type.
    """
    if not time_masks and not channel_masks:
        return features
    masked = features.clone()
    frames, channels = features.shape[time_axis], features.shape[3 - time_axis]
    ordered = time_axis == 2
    for number, (seed, end_s) in enumerate(zip(seeds, ends_s, strict=True)):
        rng = random.Random(f"{seed}:mask")
        spoken = max(1, min(frames, round(end_s / WINDOW_S * frames)))
        window = masked[number].movedim(time_axis - 1, 0)  # a view, (frames, channels)
        mean = window[:spoken].float().mean(dim=0).to(window.dtype)
        for _ in range(time_masks):
            width = min(spoken, round(rng.uniform(0, time_mask_s) / WINDOW_S * frames))
            start = rng.randint(0, spoken - width)
            window[start : start + width] = mean
        for _ in range(channel_masks):
            width = round(rng.uniform(0, channel_mask_share) * channels)
            start = rng.randint(0, channels - width)
            hidden = list(range(start, start + width)) if ordered else rng.sample(range(channels), width)
            window[:, hidden] = mean[hidden]
    return masked
