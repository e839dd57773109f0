"""Where training stands: what a checkpoint carries beside weights and optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

RECENT = 20  # steps whose mean loss tells divergence
DIVERGED = 2.0  # nats above the lowest such mean


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
