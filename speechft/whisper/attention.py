"""Which attention runs: in bf16 on CPU PyTorch's own kernel is slow (benchmarks/attention.py).

Without AMX that kernel spends its time in softmax, not in the matrix unit. Scores of 250 queries at a time fit the
cache, their two products run in bf16, and softmax reads and writes bf16 and counts in fp32, so states are as close to
fp32's as before. With AMX the kernel is the faster one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

NAME = "speechft_blocks"
BLOCK = 250  # queries: with 1500 keys and 6 heads 4.5 MB of bf16 scores


def attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, *,
    scaling: float | None = None, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Softmax(query key' x scaling) value, every position seeing every other, as an attention function of transformers.

    Args:
        query: (batch, heads, positions, head size), already scaled where `scaling` is None; key and value alike.

    Returns:
        (batch, positions, heads, head size), and no weights.
    """
    batch, heads, length, size = query.shape
    query = query if scaling is None else query * scaling
    keys = key.transpose(2, 3)
    attended = query.new_empty(batch, length, heads, size)
    with torch.autocast(query.device.type, enabled=False):  # else softmax has its input copied to fp32
        for row in range(batch):
            for start in range(0, length, BLOCK):
                scores = torch.matmul(query[row, :, start : start + BLOCK], keys[row])
                weights = torch.softmax(scores, -1)
                attended[row, start : start + BLOCK] = torch.matmul(weights, value[row]).transpose(0, 1)
    return attended, None


@contextmanager
def implemented(model: Any, name: str | None) -> Iterator[None]:
    """While inside, the model attends by this implementation of transformers; None leaves it as it is."""
    before = model.config._attn_implementation
    if name is not None:
        model.set_attn_implementation(name)
    try:
        yield
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)


@contextmanager
def of_many_shapes() -> Iterator[None]:
    """While inside, no attention that a GPU compiles for each shape.

    On Hopper PyTorch prefers cuDNN's, which takes 50 to 100 ms for a new shape, and the labels of each step and each
    token that is decoded have another. Encoding, where all windows are alike, keeps it.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@contextmanager
def in_blocks(encoder: Any, *, wanted: bool) -> Iterator[None]:
    """While inside, the encoder attends in blocks, whichever thread runs it; without gradients only."""
    if not wanted:
        yield
        return
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    before = encoder.config._attn_implementation
    encoder.config._attn_implementation = NAME
    try:
        yield
    finally:
        encoder.config._attn_implementation = before
