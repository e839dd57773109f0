"""What to do where memory is too small."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from speechft.errors import InputError

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


@contextlib.contextmanager
def needed(sentence: str) -> Iterator[None]:
    """Around what cannot be made smaller: too little memory for it is an error that says this sentence.

    Raises:
        InputError: there is too little.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(sentence) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means too little memory, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "DefaultCPUAllocator" in str(error) or "out of memory" in str(error)
