"""The processes that train together, started by `accelerate launch`; a process alone is a team of one.

Each process draws the same steps, takes every n-th window, and adds up gradients of a loss that is divided by the
whole step's tokens: the sum is that of one process, whatever the number.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

WAIT = datetime.timedelta(hours=12)  # others wait while the first evaluates, or runs the stages before
VALUES_AT_ONCE = 16_000_000  # gradients added up in one message: 64 MB


class Team:
    """This process among those that train together; torch is imported only when there are several."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._accelerator = _accelerator() if self.size > 1 else None  # chooses this process's device: before any use

    @property
    def first(self) -> bool:
        """Whether this process evaluates, writes and speaks for all."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of a step."""
        return list(items[self.rank :: self.size])

    def told(self, value: T) -> T:
        """What the first process says, in every process."""
        if self._accelerator is None:
            return value
        from accelerate.utils import broadcast_object_list

        said = [value]
        broadcast_object_list(said)
        return said[0]

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes."""
        if self._accelerator is None:
            return list(values)
        import torch

        mine = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        summed: list[float] = self._accelerator.reduce(mine, reduction="sum").tolist()
        return summed

    def add_gradients(self, parameters: Iterable[Any]) -> None:
        """Replace every parameter's gradient by the sum over the processes; one that has none counts as zero."""
        if self._accelerator is None:
            return
        import torch

        group: list[Any] = []
        for parameter in [*parameters, None]:
            held = sum(p.numel() for p in group)
            if group and (parameter is None or held + parameter.numel() > VALUES_AT_ONCE):
                for p in group:
                    p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                flat = self._accelerator.reduce(torch.cat([p.grad.flatten() for p in group]), reduction="sum")
                for p, part in zip(group, flat.split([p.numel() for p in group]), strict=True):
                    p.grad.copy_(part.view_as(p))
                group = []
            if parameter is not None:
                group.append(parameter)


def _accelerator() -> Any:
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs

    return Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT)])
