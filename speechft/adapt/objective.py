"""The loss of a pass: cross-entropy of the labels and, on replayed windows, the divergence from the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from speechft.adapt import vocabulary
from speechft.whisper import tokens
from speechft.whisper.load import Device


def loss(
    core: Any, base: Any, features: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, *,
    replayed: Sequence[bool], from_states: bool, device: Device, distil: float, divisors: tuple[int, int],
) -> torch.Tensor:  # fmt: skip
    """This pass's share of the step's mean over labels; the vocabulary is computed at labelled positions only.

    Args:
        core: the Whisper that trains.
        base: what it started from, to stay near to on replayed windows; None without distillation.
        features: kept states (windows, 1500, d_model), or log-mels (windows, mels, 3000) if not `from_states`.
        inputs: decoder inputs, shape (windows, tokens).
        labels: what follows each of them; `tokens.IGNORED` where nothing is learned.
        replayed: which windows are of general speech.
        distil: weight of the divergence.
        divisors: labels of the whole step, and those of its replayed windows.
    """
    kept = labels != tokens.IGNORED
    general = torch.tensor(replayed, device=labels.device)
    teacher = None
    with device.autocast():
        states = features.to(device.precision) if from_states else core.model.encoder(features).last_hidden_state
        hidden = core.model.decoder(
            input_ids=inputs, encoder_hidden_states=states, use_cache=False
        ).last_hidden_state[kept].to(device.precision)  # fmt: skip
        if base is not None and bool(general.any()):
            with torch.no_grad():
                known = states[general] if base.encoder is None else base.encoder(features[general]).last_hidden_state
                old = base.decoder(
                    input_ids=inputs[general], encoder_hidden_states=known, use_cache=False
                ).last_hidden_state[kept[general]]  # fmt: skip
            teacher = vocabulary.Teacher(
                rows=general[:, None].expand_as(kept)[kept], hidden=old, share=distil / divisors[1],
                weight=base.decoder.embed_tokens.weight,
            )  # fmt: skip
    return vocabulary.loss(hidden, core.proj_out.weight, labels[kept], share=1 / divisors[0], teacher=teacher)
