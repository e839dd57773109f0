"""The loss of a pass: cross-entropy of the labels and, on replayed windows, the divergence from the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from speechft.adapt import vocabulary
from speechft.whisper import tokens
from speechft.whisper.load import Device


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What windows that go through the decoder together are asked, and what each answer counts for.

    Attributes:
        inputs: decoder inputs, int64, shape (windows, tokens).
        places: where something is learned, as numbers among all inputs, those of replayed windows first; (labels,).
        labels: what follows there, (labels,).
        shares: what each counts for, float32, (labels,); 0 for what only fills up.
        taught: what the divergence from the base counts for, at the first labels, (labels of replayed windows,).
        replayed: how many of the windows, which come first, are of general speech.
    """

    inputs: torch.Tensor
    places: torch.Tensor
    labels: torch.Tensor
    shares: torch.Tensor
    taught: torch.Tensor
    replayed: int

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of it that differs between passes of one shape."""
        return self.inputs, self.places, self.labels, self.shares, self.taught

    def holding(self, tensors: Sequence[torch.Tensor]) -> Pass:
        """The same pass with its tensors elsewhere."""
        inputs, places, labels, shares, taught = tensors
        return replace(self, inputs=inputs, places=places, labels=labels, shares=shares, taught=taught)


def count_labels(examples: Sequence[tokens.Example], replayed: Sequence[bool]) -> tuple[int, int]:
    """How many labels a step has, and how many of them in replayed windows; 1 at least."""
    labels = [sum(label != tokens.IGNORED for label in example.labels) for example in examples]
    return max(1, sum(labels)), max(1, sum(n for n, general in zip(labels, replayed, strict=True) if general))


def make_pass(
    examples: Sequence[tokens.Example], *, replayed: int, end: int, divisors: tuple[int, int], distil: float,
    most_tokens: int | None = None,
) -> Pass:  # fmt: skip
    """Lay out a pass.

    Args:
        examples: one a window, those of general speech first.
        replayed: how many those are.
        end: the token that inputs are filled up with.
        divisors: labels of the whole step, and those of its replayed windows.
        distil: weight of the divergence from the base; 0 for none.
        most_tokens: fill up to one of few sizes, of at most so many tokens a window, so that many passes are alike.
    """
    length = max(len(example.labels) for example in examples)
    if most_tokens is not None:
        length = max(length, min(most_tokens, few_sizes(length)))
    inputs, labels = tokens.collate(examples, end=end, length=length)
    places = (labels.flatten() != tokens.IGNORED).nonzero()[:, 0]
    split = int((places < replayed * inputs.shape[1]).sum()) if distil else 0
    parts = []
    for some, taught in ((places[:split], distil), (places[split:], 0.0)):
        filled = few_sizes(len(some)) if most_tokens is not None else len(some)
        shares = torch.zeros(2, filled)
        shares[0, : len(some)], shares[1, : len(some)] = 1 / divisors[0], taught / divisors[1]
        parts.append((torch.nn.functional.pad(some, (0, filled - len(some))), shares))
    places = torch.cat([part for part, _ in parts])
    return Pass(
        inputs=inputs, places=places, labels=labels.flatten()[places].clamp(min=0),
        shares=torch.cat([shares[0] for _, shares in parts]), taught=parts[0][1][1], replayed=replayed if split else 0,
    )  # fmt: skip


def few_sizes(count: int) -> int:
    """The next of four sizes an octave, all multiples of 64; 0 for none."""
    step = max(64, 1 << max(0, (count - 1).bit_length() - 3))
    return -(-count // step) * step


def loss(
    core: Any, base: Any, features: torch.Tensor, given: Pass, *, from_states: bool, device: Device
) -> torch.Tensor:
    """This pass's share of the step's mean over labels; the vocabulary is computed at labelled positions only.

    Nothing in it depends on what tensors on the device hold, so that a GPU is never waited for.

    Args:
        core: the Whisper that trains.
        base: what it started from, to stay near to on replayed windows; None without distillation.
        features: kept states (windows, 1500, d_model), or log-mels (windows, mels, 3000) if not `from_states`.
        given: what is asked, on the device.
    """
    teacher = None
    with device.autocast():
        states = features.to(device.precision) if from_states else core.model.encoder(features).last_hidden_state
        hidden = core.model.decoder(input_ids=given.inputs, encoder_hidden_states=states, use_cache=False)
        hidden = hidden.last_hidden_state.flatten(0, 1)[given.places].to(device.precision)
        if base is not None and given.replayed:
            general = slice(given.replayed)
            with torch.no_grad():
                known = states[general] if base.encoder is None else base.encoder(features[general]).last_hidden_state
                old = base.decoder(input_ids=given.inputs[general], encoder_hidden_states=known, use_cache=False)
                old = old.last_hidden_state.flatten(0, 1)[given.places[: len(given.taught)]]
            teacher = vocabulary.Teacher(hidden=old, shares=given.taught, weight=base.decoder.embed_tokens.weight)
    return vocabulary.loss(hidden, core.proj_out.weight, given.labels, shares=given.shares, teacher=teacher)
