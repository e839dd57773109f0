"""How a step's windows go through the decoder: with which attention, how many at once, and when memory runs out."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from concurrent.futures import Future

import torch

from speechft.whisper import memory
from speechft.whisper.load import Device

# What a pass costs beside its positions (weights are cast, gradients added up), in positions. On CPU, by trial: 200 and
# 400 do alike for nano, and tiny's step of nine windows is faster in one pass than in two that save 315 positions.
# On CUDA an estimate, and a large one, so that passes are few and alike: a graph is recorded for each shape.
PASS_POSITIONS = {"cpu": 400, "cuda": 2000}

# What is heard of the silence behind a window's last word, for all of which keys and values would be computed in vain:
# three quarters of the states of a clip of 5 s alone in its window. Whole windows are transcribed afterwards, so some
# steps hear them whole (docs/benchmarks/no_loss.md compares all of it with the recipe, not this alone).
SILENCE_S = (1.0, 4.0)
WHOLE_SHARE = 0.1
STATE_POSITIONS = 0.1  # a state's keys and values, forward and backward, in decoder positions: 8 d^2 of 84 d^2 a layer
STATES_A_SECOND = 50


def attention_kind(device: Device, *, from_states: bool) -> str | None:
    """The attention to train the decoder with; None for the model's own.

    In bf16 on CPU plain products take half the time of the fused kernel forward and backward (0.41 s a step for
    0.76 s on nano, one core). An encoder that trains would have to keep 1500 x 1500 weights a head: it stays fused.
    """
    return "eager" if from_states and device.name == "cpu" and device.precision == torch.bfloat16 else None


def windows_at_once(device: Device, d_model: int, *, from_states: bool) -> int:
    """The most whole windows that go through the model at once; of shorter ones, as many as have their states.

    On CPU fewer the wider it is: narrow decoders need many to keep the products busy (in fours nano's step takes 1.8 to
    1.9 times as long, tiny's 1.1 to 1.2: docs/benchmarks/step.md), wide ones gain nothing and pay in memory, and in
    float32 twice as much. An encoder that trains keeps 1500 positions of every layer for each window.
    """
    if device.name != "cpu":
        return sys.maxsize
    return max(1, 8192 // (d_model * device.precision.itemsize)) if from_states else 4


class Upload:
    """Puts features on a GPU from the thread that reads ahead, so that it computes while they come.

    By one stream of its own, from pinned memory: 35 MB of states, nine windows of large, take 1.5 ms (a trial), and
    wait for no kernel. Made in the thread that trains, whose card is the one: a new thread's is always the first.
    """

    def __init__(self, device: Device) -> None:
        self._card = torch.cuda.current_device() if device.name == "cuda" else None
        self._stream = torch.cuda.Stream() if device.name == "cuda" else None

    def moved(self, features: torch.Tensor) -> torch.Tensor:
        """The features on the card; as they are on CPU, and where the card is full: the step then makes room."""
        if self._stream is None:
            return features
        try:
            with torch.cuda.device(self._card), torch.cuda.stream(self._stream):
                there = features.pin_memory().cuda(non_blocking=True)
                self._stream.synchronize()
        except RuntimeError as error:
            if not memory.is_out_of_memory(error):
                raise
            return features
        there.record_stream(torch.cuda.default_stream(self._card))  # not given away while a step reads it
        return there


def heard(ends_s: Sequence[float], *, states: int, seed: str, extra: int, grid: int = 1) -> list[int]:
    """How many of its states each window of a step is heard with: past its last word, and alike in what shares a pass.

    Args:
        ends_s: where the last clip of each window ends, seconds; of all processes' windows, that all draw the same.
        states: that an encoder makes of a window.
        seed: of the step.
        extra: what a pass costs beside its positions, in positions.
        grid: states that lengths are multiples of.

    Returns:
        lengths in states, of few kinds: windows are put together where a pass more would cost more than it saves.
    """
    rng = random.Random(f"{seed}:heard")
    silence_s, whole = rng.uniform(*SILENCE_S), rng.random() < WHOLE_SHARE
    cells = (math.ceil(STATES_A_SECOND * (end_s + silence_s) / grid) for end_s in ends_s)
    needed = [states if whole else min(states, grid * count) for count in cells]
    lengths = list(needed)
    for together in by_length(needed, at_most=len(needed), extra=round(extra / STATE_POSITIONS)):
        for index in together:
            lengths[index] = needed[together[-1]]
    return lengths


def together(
    lengths: Sequence[int], labels: Sequence[int], *, at_most: int, states_at_most: int, extra: int
) -> list[list[int]]:
    """Which windows go through the decoder together: equally long ones, of these those of like label lengths.

    Args:
        lengths: states that each window is heard with.
        labels: decoder positions of each.
        at_most: windows in a pass.
        states_at_most: states in a pass of several windows, so that of short ones there are more.
        extra: what a pass costs beside its windows' positions, in positions.

    Returns:
        the windows of each pass, by number.
    """
    found = []
    for length in sorted(set(lengths)):
        alike = [index for index, heard in enumerate(lengths) if heard == length]
        fitting = max(1, min(at_most, states_at_most // length))
        chosen = by_length([labels[index] for index in alike], at_most=fitting, extra=extra)
        found += [[alike[index] for index in some] for some in chosen]
    return found


def by_length(lengths: Sequence[int], *, at_most: int, extra: int) -> list[list[int]]:
    """Which windows share a pass: those of like lengths, as a pass is padded to its longest.

    Of all ways to cut the windows, sorted by length, into passes, the one with the fewest positions to compute.

    Args:
        lengths: decoder positions of each window.
        at_most: windows in a pass.
        extra: what a pass costs beside its windows' positions, in positions.

    Returns:
        the windows of each pass, by number, the shortest first.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    best: list[tuple[int, int]] = [(0, 0)]  # positions that the first n windows take, and where their last pass begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        best.append(
            min(
                (best[start][0] + extra + (end - start) * longest, start) for start in range(max(0, end - at_most), end)
            )
        )
    chosen, end = list[list[int]](), len(order)
    while end:
        start = best[end][1]
        chosen.append(order[start:end])
        end = start
    return chosen[::-1]


def arrived(features: Future[torch.Tensor]) -> torch.Tensor:
    """A step's features, once they are read.

    Raises:
        InputError: there is no memory for them; fewer windows in a pass would not help.
    """
    with memory.needed("finetune: what a step learns from does not fit into memory; lower finetune.batch_clips"):
        return features.result()
