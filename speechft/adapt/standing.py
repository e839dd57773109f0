"""Where training stands: what a checkpoint carries beside weights and optimiser."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from speechft import files
from speechft.errors import InputError
from speechft.whisper import memory

RECENT = 20  # steps whose mean loss tells divergence
DIVERGED = 2.0  # nats above the lowest such mean


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write` wrote, in the processor's memory: a card may be full.

    Raises:
        InputError: the file is damaged.
    """
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved["model"]
    except Exception as error:  # of whatever kind damaged bytes lead to
        if isinstance(error, OSError) or memory.is_out_of_memory(error):
            raise
        raise InputError(
            f"{path}: is damaged ({type(error).__name__}); remove {path.parent}, and the same command trains anew"
        ) from error
    return saved


@dataclass(kw_only=True)
class Standing:
    """After `done` steps of an epoch, `step` in all."""

    epoch: int = 0
    done: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)  # sum and number in this epoch
    recent: list[float] = field(default_factory=list)
    lowest: float = math.inf
    thawed: int = 0  # stalls of dev WER that `progressive` has answered
    best_wer: float = math.inf
    best_epoch: int = -1
    bad_evaluations: int = 0
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    restored: dict[str, Any] | None = None  # the evaluation of the weights that training ends with

    def diverges(self, loss: float) -> bool:
        """Take in a step's loss; say whether the mean of the last steps has grown far above its lowest."""
        self.recent = [*self.recent[1 - RECENT :], loss]
        if len(self.recent) < RECENT:
            return False
        mean = sum(self.recent) / RECENT
        self.lowest = min(self.lowest, mean)
        return mean > self.lowest + DIVERGED


def write(path: Path, saved: Mapping[str, Any]) -> None:
    """Save tensors, whole or not at all.

    Raises:
        InputError: there is no room, or the place cannot be written.
    """
    try:
        with files.atomic_write(path, "wb") as file:
            torch.save(saved, file)
    except (OSError, RuntimeError) as error:  # PyTorch says "unexpected pos" where the disk is full
        raise InputError(
            f"{path}: cannot be written ({error}); free some disk: the same command goes on from the last checkpoint"
        ) from error


def line(row: dict[str, Any], epochs: int) -> str:
    """An evaluation, as a line of the log."""
    general = f", general WER {row['general_wer']:.3f}" if row.get("general_wer") is not None else ""
    return f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.3f}, dev WER {row['dev_wer']:.3f}{general}"


def board(out: Path) -> Any:
    """A TensorBoard writer beside `curve.jsonl` when the package is installed."""
    with contextlib.suppress(ImportError):
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(out / "tensorboard"))
    return None


def show(board: Any, values: Mapping[str, float | None], step: int) -> None:
    """Give TensorBoard, where there is one, the values that are known."""
    for name, value in values.items():
        if board and value is not None:
            board.add_scalar(name, value, step)
