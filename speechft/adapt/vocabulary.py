"""Cross entropy and distillation over a large vocabulary, a few labels at a time, gradients on the way.

For 700 labels and Whisper's 51,865 tokens, logits, their logarithms and both gradients are 145 MB each in float32, and
on CPU moving them takes as long as the products. Here logits live for a few rows only, and what is kept for the
backward pass is the gradient by logits in the precision of the products (as Hsu et al. 2024, "Liger Kernel", section
3.2, do in one GPU kernel).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

CELLS_AT_ONCE = {"cpu": 4_000_000, "cuda": 64_000_000}  # logits held: 16 MB fit a cache


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A base model's view of the first of the labels.

    Attributes:
        hidden: the base's at those labels, shape (taught, d_model).
        shares: what the divergence at each counts for, shape (taught,).
        weight: the base's token matrix, shape (vocabulary, d_model).
    """

    hidden: torch.Tensor
    shares: torch.Tensor
    weight: torch.Tensor


def loss(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, shares: torch.Tensor,
    teacher: Teacher | None = None,
) -> torch.Tensor:  # fmt: skip
    """Sum of cross entropy and, where a teacher says something, of KL(teacher || model), each by its share.

    Args:
        hidden: the decoder's last, in the precision that products run in, shape (labels, d_model).
        weight: the token matrix, float32, shape (vocabulary, d_model).
        labels: token ids, shape (labels,).
        shares: what the cross entropy of each counts for, shape (labels,).
    """
    value: torch.Tensor = _Loss.apply(hidden, weight, labels, shares, teacher)  # type: ignore[no-untyped-call]
    return value


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        shares: torch.Tensor,
        teacher: Teacher | None,
    ) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            matrix = weight.to(hidden.dtype)
            base_matrix = None if teacher is None else teacher.weight.to(hidden.dtype)
            gradients = hidden.new_empty(len(labels), len(weight))
            total = torch.zeros((), device=hidden.device)
            # By shares of the largest: as they are, fp16 would round the gradients of a thousand labels to nothing.
            largest = shares.amax() if teacher is None else torch.maximum(shares.amax(), teacher.shares.amax())
            at_once = max(1, CELLS_AT_ONCE.get(hidden.device.type, CELLS_AT_ONCE["cpu"]) // len(weight))
            for start in range(0, len(labels), at_once):
                chunk = slice(start, start + at_once)
                logs = torch.log_softmax(hidden[chunk] @ matrix.T, -1, dtype=torch.float32)
                ids, counted = labels[chunk, None], shares[chunk, None]
                total -= (counted * logs.gather(1, ids)).sum()
                pull = None
                if teacher is not None and base_matrix is not None and start < len(teacher.shares):
                    base = teacher.hidden[chunk].to(hidden.dtype)
                    base_logs = torch.log_softmax(base @ base_matrix.T, -1, dtype=torch.float32)
                    expected, own, taught = base_logs.exp(), logs[: len(base)], teacher.shares[chunk, None]
                    total += (taught * base_logs.sub_(own).mul_(expected).sum(-1, keepdim=True)).sum()
                    pull = own.exp().sub_(expected).mul_(taught / largest)
                gradient = logs.exp_().mul_(counted / largest)  # in place: every copy of the logits counts
                gradient.scatter_add_(1, ids, -counted / largest)
                if pull is not None:
                    gradient[: len(pull)] += pull
                gradients[chunk] = gradient
        ctx.save_for_backward(hidden, matrix, gradients, largest)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        hidden, matrix, gradients, largest = ctx.saved_tensors
        scale = upstream[0].to(torch.float32) * largest  # a kernel first: cuBLAS warns in a thread that ran none
        by_hidden = by_weight = None
        with torch.autocast(hidden.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                by_hidden = ((gradients @ matrix).float() * scale).to(hidden.dtype)
            if ctx.needs_input_grad[1]:
                by_weight = (gradients.T @ hidden).float().mul_(scale)
        return by_hidden, by_weight, None, None, None
