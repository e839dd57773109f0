"""What to do where a GPU's memory is too small for a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

R = TypeVar("R")


def in_halves(call: Callable[[torch.Tensor], R], batch: torch.Tensor) -> list[R]:
    """What a call makes of a batch: at once, or of its halves, and theirs, where there is no room.

    Raises:
        OutOfMemoryError: there is none for one alone.
    """
    try:
        return [call(batch)]
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()  # out here, where the error no longer holds what the attempt had made
    return [made for half in batch.tensor_split(2) for made in in_halves(call, half)]
