"""How a step's windows go through the decoder: with which attention, how many at once, and when memory runs out."""

from __future__ import annotations

import sys

import torch

from speechft.whisper.load import Device


def attention_kind(device: Device, *, from_states: bool) -> str | None:
    """The attention to train the decoder with; None for the model's own.

    In bf16 on CPU plain products take half the time of the fused kernel forward and backward (0.41 s a step for
    0.76 s on nano, one core). An encoder that trains would have to keep 1500 x 1500 weights a head: it stays fused.
    """
    return "eager" if from_states and device.name == "cpu" and device.precision == torch.bfloat16 else None


def windows_at_once(device: Device, d_model: int) -> int:
    """Windows that go through the decoder at once.

    A step's windows are split on CPU where that saves memory at little cost: sorted by label length, tiny takes 2 %
    more time in bf16 and none in float32 (docs/benchmarks/step.md). Models narrower than any released one need the
    whole step to keep the products busy.
    """
    narrow = device.precision == torch.bfloat16 and d_model < 384
    return 4 if device.name == "cpu" and not narrow else sys.maxsize


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means too little memory, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "DefaultCPUAllocator" in str(error) or "out of memory" in str(error)
