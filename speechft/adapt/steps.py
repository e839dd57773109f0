"""What each training step holds: windows, decoder inputs and labels, rate; drawn from seed, epoch and step.

So a resumed run repeats an uninterrupted one, and every process of several draws the same and takes its share.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from speechft.whisper import tokens

EVALUATIONS = 8  # at least, where there are as many epochs
WARMUP_SHARE = 0.1
FINAL_RATE_SHARE = 0.1
MAX_PREVIOUS = 64  # tokens of earlier text in the share of windows that get any


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One window to learn from: its number in the store (or among the features), what was said, and its part.

    A clip may be of several segments; without `clips`, each is one.
    """

    number: int
    segments: tuple[tokens.Segment, ...]
    view: int
    replay: bool
    clips: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "clips", self.clips or len(self.segments))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; see `config.Finetune` for what each setting means."""

    strategy: str
    epochs: int
    learning_rate: float
    batch_clips: int
    replay_share: float
    distil: float
    l2sp: float
    patience: int
    timestamp_share: float
    previous_share: float
    upper_layers: int
    encoder_layers: int
    lora_rank: int
    seed: int
    lora_encoder: bool = False
    thaw: str = "epoch"  # `progressive`: "epoch", or "stall" for when dev WER stops falling
    time_masks: int = 0  # SpecAugment, see `masks.hide`
    time_mask_s: float = 0.0
    channel_masks: int = 0
    channel_mask_share: float = 0.0


def epoch_steps(items: Sequence[Item], recipe: Recipe, *, epoch: int) -> list[list[Item]]:
    """The windows of each step of an epoch.

    An epoch passes once over the domain rows, in the view whose turn it is; each step is filled up with replayed
    general windows to `replay_share` of its clips.
    """
    rng = random.Random(f"{recipe.seed}:epoch:{epoch}")
    views = sorted({item.view for item in items if not item.replay})
    view = views[epoch % len(views)]
    domain = [item for item in items if not item.replay and item.view == view]
    replayed = [item for item in items if item.replay]
    rng.shuffle(domain)
    rng.shuffle(replayed)
    replay_clips = round(recipe.batch_clips * recipe.replay_share) if replayed else 0
    steps: list[list[Item]] = []
    next_replay = _cycle(replayed, rng)
    for chunk in _chunks(domain, recipe.batch_clips - replay_clips):
        clips = 0
        while clips < replay_clips:
            chunk.append(next(next_replay))
            clips += chunk[-1].clips
        steps.append(chunk)
    return steps


def evaluated_every(epochs: int, thaw: str) -> int:
    """Epochs between two evaluations; every one counts where they decide what thaws."""
    return 1 if thaw == "stall" else max(1, epochs // EVALUATIONS)


def _chunks(items: list[Item], clips: int) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    count = 0
    for item in items:
        chunk.append(item)
        count += item.clips
        if count >= clips:
            yield chunk
            chunk, count = [], 0
    if chunk:
        yield chunk


def _cycle(items: list[Item], rng: random.Random) -> Iterator[Item]:
    while True:
        yield from items
        rng.shuffle(items)


def make_examples(
    ids: tokens.Layout, items: Sequence[Item], recipe: Recipe, *, step: int, pool: Sequence[tuple[int, ...]]
) -> list[tokens.Example]:
    """Decoder inputs and labels; a share of windows gets timestamps, a share gets (unrelated) previous text.

    Unrelated previous text teaches the decoder to listen rather than to follow it, and keeps the ability alive.
    """
    rng = random.Random(f"{recipe.seed}:step:{step}")
    examples = []
    for item in items:
        previous = rng.choice(pool)[-MAX_PREVIOUS:] if pool and rng.random() < recipe.previous_share else ()
        stamped = rng.random() < recipe.timestamp_share
        examples.append(tokens.example(ids, item.segments, timestamps=stamped, previous=previous))
    return examples


def rate_at(step: int, total: int, peak: float) -> float:
    """Linear warm-up over the first tenth, then a half cosine down to a tenth of the peak."""
    warmup = max(1, round(total * WARMUP_SHARE))
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return peak * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
