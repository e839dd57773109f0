"""Exact decoder inputs and labels: what the reference implementation feeds for the same text.

A sequence is `[<|startofprev|> previous] <|startoftranscript|> [language task] <|notimestamps|> text <|endoftext|>`, or
with `<|0.00|> text <|1.20|>` pairs in place of `<|notimestamps|>` (Radford et al. 2022, figure 1). English-only
checkpoints have no language and no task token. Padding and end of text share an id, so labels are masked by length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from speechft.errors import InputError
from speechft.whisper.windows import TIMESTAMP_STEP_S

IGNORED = -100  # the label that cross entropy skips
MAX_TARGET_POSITIONS = 448  # decoder positions of every released Whisper
LABEL_LIMIT = MAX_TARGET_POSITIONS - 8  # of a window: room for the prompt, two timestamps and the end
MAX_PREVIOUS_TOKENS = MAX_TARGET_POSITIONS // 2 - 1  # 223, as the reference decoder cuts it
REFERENCE_SAMPLE_LEN = MAX_TARGET_POSITIONS // 2  # 224: the reference decoder stops here


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Ids of the tokens with a role, read from a checkpoint's tokenizer.

    Attributes:
        prompt: start of transcript, then language and task for multilingual checkpoints.
    """

    prompt: tuple[int, ...]
    end: int
    previous: int
    no_timestamps: int
    first_timestamp: int

    def timestamp(self, seconds: float) -> int:
        """The token of a time in a window, 0.02 s a step."""
        return self.first_timestamp + round(seconds / TIMESTAMP_STEP_S)


@dataclass(frozen=True, kw_only=True, slots=True)  # there is one for every clip
class Segment:
    """One clip's label tokens and where it lies in its window (seconds)."""

    tokens: tuple[int, ...]
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Example:
    """Teacher forcing: `labels[i]` is what follows `decoder_input_ids[i]`; IGNORED where nothing is to be learned."""

    decoder_input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def layout(tokenizer: Any, *, multilingual: bool, language: str | None, task: str | None) -> Layout:
    """Read the ids of a tokenizer's special tokens.

    Raises:
        InputError: the tokenizer lacks one of them (not a Whisper tokenizer, or an unknown language).
    """
    prompt = ["<|startoftranscript|>"]
    if multilingual:
        prompt += [f"<|{language or 'en'}|>", f"<|{task or 'transcribe'}|>"]
    return Layout(
        prompt=tuple(_id(tokenizer, token) for token in prompt),
        end=_id(tokenizer, "<|endoftext|>"),
        previous=_id(tokenizer, "<|startofprev|>"),
        no_timestamps=_id(tokenizer, "<|notimestamps|>"),
        first_timestamp=_id(tokenizer, "<|notimestamps|>") + 1,
    )


def _id(tokenizer: Any, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None or tokenizer.convert_ids_to_tokens(found) != token:
        raise InputError(f"the model's tokenizer has no token {token}: check model.language, model.task and the model")
    return int(found)


def encode_text(tokenizer: Any, text: str) -> tuple[int, ...]:
    """A transcript's tokens, with the leading space the reference writes; "" gives none.

    Special tokens spelled out in a transcript are read as plain characters.
    """
    text = text.strip()
    if not text:
        return ()
    return tuple(tokenizer.encode(" " + text, add_special_tokens=False, split_special_tokens=True))


def example(ids: Layout, segments: Iterable[Segment], *, timestamps: bool, previous: tuple[int, ...] = ()) -> Example:
    """Decoder input and labels of one window.

    The prompt (previous text, start, language, task, no-timestamps) is given when deployed, so it is not learned:
    a model tuned on one language keeps its language identification. Previous text is cut, at its start, to what the
    label leaves room for.
    """
    segments = list(segments)
    body: list[int] = []
    for segment in segments:
        if timestamps and segment.tokens:
            body += [ids.timestamp(segment.start_s), *segment.tokens, ids.timestamp(segment.end_s)]
        elif not timestamps:
            body += segment.tokens
    start = (*ids.prompt, *(() if timestamps else (ids.no_timestamps,)))
    room = min(MAX_PREVIOUS_TOKENS, MAX_TARGET_POSITIONS - len(start) - len(body) - 2)
    before = (ids.previous, *previous[-room:]) if previous and room > 0 else ()
    prompt = (*before, *start)
    sequence = (*prompt, *body, ids.end)
    if len(sequence) > MAX_TARGET_POSITIONS:
        raise InputError(
            f"a label has {len(sequence)} tokens, over Whisper's {MAX_TARGET_POSITIONS}: split the recording"
        )
    labels = [IGNORED] * (len(prompt) - 1) + list(sequence[len(prompt) :])
    return Example(decoder_input_ids=sequence[:-1], labels=tuple(labels))


def collate(
    examples: Sequence[Example], *, end: int, length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Pad a batch at the right: inputs with the end token, labels with IGNORED.

    Args:
        length: to pad to; the longest example's by default.

    Returns:
        int64 `decoder_input_ids` and `labels`, both of shape (batch, length).
    """
    length = length or max(len(e.labels) for e in examples)
    inputs = [[*e.decoder_input_ids, *[end] * (length - len(e.labels))] for e in examples]
    labels = [[*e.labels, *[IGNORED] * (length - len(e.labels))] for e in examples]
    return torch.tensor(inputs), torch.tensor(labels)
