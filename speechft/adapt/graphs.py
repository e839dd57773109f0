"""Passes forward and backward as CUDA graphs: a GPU that waits for the processor to launch a thousand kernels a step
is given them at once.

A decoder's pass over a handful of windows is short: its kernels take a third of the time that it takes Python and
PyTorch to launch them (docs/adapting.md). A graph holds the kernels of a pass for tensors of given shapes and places
(NVIDIA, CUDA C++ Programming Guide, "CUDA Graphs"), so passes are filled up to few shapes, and one is recorded when its
shape comes a second time: what comes once costs nothing.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from speechft.whisper.load import Device

logger = logging.getLogger(__name__)

MOST = 64  # graphs kept, the last used: some MB each, as what they compute in is shared
STATES_GRID = 250  # windows are heard to a multiple of so many states, so that many passes are alike


def are_possible(device: Device, config: Any, *, from_states: bool) -> bool:
    """Whether passes can be recorded: on CUDA, over kept states (an encoder's pass is long enough), and with nothing
    drawn or scaled in them by the step."""
    drawn = ("dropout", "attention_dropout", "activation_dropout", "decoder_layerdrop")
    plain = device.precision != torch.float16 and not any(getattr(config, name, 0) for name in drawn)
    return device.name == "cuda" and from_states and plain


@dataclass(frozen=True, kw_only=True)
class _Graph:
    graph: Any
    tensors: tuple[torch.Tensor, ...]
    value: torch.Tensor


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a card, without waiting for what that computes: from pinned memory, which PyTorch keeps until it is
    there. A copy from any other waits, and the next pass would be launched only then."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Graphs:
    """Runs a call that adds gradients to `.grad` of parameters and returns a value; recorded where that pays.

    A parameter's gradient has one place while graphs are held: zero it, never drop it.

    Attributes:
        record: whether to; without, every call runs as it is.
        held: graphs by what they are for, the last used last.
    """

    def __init__(self, *, record: bool) -> None:
        self.record = record
        self.held = OrderedDict[Any, _Graph]()
        self._seen = set[Any]()
        self._pool: Any = None
        self._stream: Any = None
        self._features = torch.empty(0)

    def clear(self) -> None:
        """Forget all: another call, other parameters that train, or a full card."""
        self._drop()
        self._seen.clear()
        self._features = torch.empty(0)

    def _drop(self) -> None:
        self.held.clear()
        self._pool = None  # one that no graph uses any more is not to be recorded into

    def run(
        self, call: Callable[..., torch.Tensor], features: torch.Tensor, tensors: Sequence[torch.Tensor], *,
        kind: object, parameters: Iterable[Any],
    ) -> torch.Tensor:  # fmt: skip
        """The call's value, and its gradients added.

        Args:
            call: of features and tensors; whatever else it depends on must be told by `kind`.
            features: on the card; all that is large.
            tensors: small, anywhere.
            parameters: those that train.
        """
        key = (kind, features.shape, *(tensor.shape for tensor in tensors))
        if not self.record or not (key in self.held or key in self._seen):
            if self.record:
                self._seen.add(key)
            return call(features, *(sent(tensor, features.device) for tensor in tensors))
        if features.numel() > self._features.numel() or features.dtype != self._features.dtype:
            self._drop()  # they read the old place
            self._features = torch.empty(features.numel() * 5 // 4, dtype=features.dtype, device=features.device)
        there = self._features[: features.numel()].view(features.shape)
        there.copy_(features)
        if key not in self.held:
            try:
                self.held[key] = self._recorded(call, there, tensors, parameters)
            except RuntimeError as error:  # a card, driver or adapter that does not take part, or no room for it
                logger.info("finetune: passes are launched kernel by kernel (%s)", str(error).partition("\n")[0])
                self.record = False
            if not self.record:  # out here, where the error no longer holds what was made
                self.clear()
                return call(features, *(sent(tensor, features.device) for tensor in tensors))
            if len(self.held) > MOST:
                self.held.popitem(last=False)
        self.held.move_to_end(key)
        held = self.held[key]
        for place, tensor in zip(held.tensors, tensors, strict=True):
            place.copy_(sent(tensor, there.device))
        held.graph.replay()
        return held.value.clone()

    def _recorded(
        self, call: Callable[..., torch.Tensor], features: torch.Tensor, tensors: Sequence[torch.Tensor],
        parameters: Iterable[Any],
    ) -> _Graph:  # fmt: skip
        """A graph of the call; nothing is computed yet."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        places = tuple(tensor.to(features.device, copy=True) for tensor in tensors)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        self._stream = self._stream or torch.cuda.Stream()  # one, as memory is used again by the stream that had it
        graph, stream = torch.cuda.CUDAGraph(), self._stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # `torch.cuda.graph` would collect garbage and empty caches each time
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")  # another thread reads ahead
            try:
                value = call(features, *places)
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        return _Graph(graph=graph, tensors=places, value=value)
