"""Two losses that teach an untrained encoder-decoder to line up, for training only: CTC, and guided attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from speechft.whisper import tokens


class CtcHead(nn.Module):
    """Phonemes from encoder states; symbol 0 is the blank."""

    def __init__(self, d_model: int, symbols: int) -> None:
        super().__init__()
        self.output = nn.Linear(d_model, symbols + 1)

    def loss(self, states: torch.Tensor, lengths: torch.Tensor, targets: list[tuple[int, ...]]) -> torch.Tensor:
        """The mean CTC loss (Graves et al. 2006) per phoneme.

        Args:
            states: encoder states, shape (batch, positions, d_model).
            lengths: positions that hold speech, shape (batch,).
            targets: each clip's phonemes, as numbers from 1.
        """
        log_probs = self.output(states).float().log_softmax(-1).transpose(0, 1)
        flat = torch.tensor([symbol for target in targets for symbol in target])
        counts = torch.tensor([len(target) for target in targets])
        return nn.functional.ctc_loss(log_probs, flat, lengths, counts, zero_infinity=True)


class GuidedHeads:
    """Cross-attention heads taught to look at the word they write: Tachibana et al. 2018, section 4.

    A packed window is laid out from clips whose places are known, so for every text token the stretch of sound that
    holds it is known to within a second. The loss is minus the logarithm of the attention that falls inside it.
    """

    def __init__(self, decoder: Any, *, layers: tuple[int, ...] = (1, 2), heads: int = 2) -> None:
        self.heads = heads
        self.attentions = [decoder.layers[layer].encoder_attn for layer in layers if layer < len(decoder.layers)]
        self.seen: dict[tuple[int, str], torch.Tensor] = {}
        for number, attention in enumerate(self.attentions):
            for name in ("q_proj", "k_proj"):
                getattr(attention, name).register_forward_hook(self._keep(number, name))

    def _keep(self, number: int, name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            self.seen[number, name] = output

        return hook

    def loss(self, spans: torch.Tensor) -> torch.Tensor:
        """Over the tokens with a span, from the decoder's last forward pass.

        Args:
            spans: first and last encoder position of each decoder step, shape (batch, steps, 2); -1 where unknown.
        """
        total = torch.zeros(())
        for number, attention in enumerate(self.attentions):
            size = attention.head_dim
            queries = self.seen.pop((number, "q_proj"))[..., : self.heads * size]
            keys = self.seen.pop((number, "k_proj"))[..., : self.heads * size]
            queries = queries.unflatten(-1, (self.heads, size)).transpose(1, 2)
            keys = keys.unflatten(-1, (self.heads, size)).transpose(1, 2)
            scores = (queries @ keys.transpose(2, 3) * attention.scaling).float()
            positions = torch.arange(scores.shape[-1])
            inside = (positions >= spans[..., :1]) & (positions <= spans[..., 1:])
            held = spans[..., 0] >= 0
            mass = scores.masked_fill(~inside[:, None], -1e4).logsumexp(-1) - scores.logsumexp(-1)
            total = total - (mass * held[:, None]).sum() / (held.sum() * self.heads).clamp(min=1)
        return total / max(1, len(self.attentions))


def token_spans(example: tokens.Example, segments: list[tokens.Segment], *, steps: int, text_ids: int) -> np.ndarray:
    """Where the sound of each label lies, as encoder positions (0.02 s), shape (steps, 2); -1 where unknown.

    A clip's tokens are taken to be spread evenly over it, give or take 0.5 s and a tenth of the clip.
    """
    spans = np.full((steps, 2), -1, dtype=np.int64)
    places = iter(
        (segment, number) for segment in segments for number in range(len(segment.tokens))
    )  # text tokens come in the order of the segments
    for step, label in enumerate(example.labels):
        if 0 <= label < text_ids:
            segment, number = next(places)
            length = segment.end_s - segment.start_s
            middle = segment.start_s + (number + 0.5) / len(segment.tokens) * length
            slack = 0.5 + 0.1 * length
            first, last = max(segment.start_s, middle - slack), min(segment.end_s, middle + slack)
            spans[step] = round(first * 50), round(last * 50)
    return spans
