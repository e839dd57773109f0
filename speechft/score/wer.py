"""Word and character errors: counted per row from jiwer's alignments, divided once for the whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from numpy.typing import NDArray

from speechft.errors import InputError

CHUNK_ROWS = 2000  # rows given to jiwer at once: bounds its memory, whatever the corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """Error counts of one row or of many added up; `invented` are words written where the reference is empty.

    `insertions` are those of rows with a reference; words invented on silence are counted apart, because a
    rate per reference word has no meaning where there is no reference word.
    """

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    invented: int = 0

    @property
    def words(self) -> int:
        """Reference words."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Substitutions, insertions and deletions against the reference words."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors per reference word; None without reference words."""
        return self.errors / self.words if self.words else None


Step = tuple[str, int, int, int, int]
"""equal, substitute, insert or delete; reference words from, to (exclusive); hypothesis words from, to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Aligned:
    """One row: its words on both sides, the steps from one to the other, and their counts."""

    id: str
    reference: list[str]
    hypothesis: list[str]
    steps: tuple[Step, ...]
    errors: Errors


def align(
    references: Mapping[str, str], hypotheses: Mapping[str, str], split: Callable[[str], list[str]]
) -> Iterator[Aligned]:
    """Align each reference with the hypothesis of the same id, in the references' order.

    Args:
        references: id to text.
        hypotheses: id to text; must hold exactly the ids of the references.
        split: a text's units: `Normaliser.words`, or `characters` of the normalised text.

    Raises:
        InputError: an id is on one side only.
    """
    check_ids(references, hypotheses)
    ids = list(references)
    seen: dict[Step, Step] = {}  # the same few thousand steps return: one copy of each is kept
    for start in range(0, len(ids), CHUNK_ROWS):
        chunk = ids[start : start + CHUNK_ROWS]
        reference_words = [_interned(split(references[row_id])) for row_id in chunk]
        hypothesis_words = [_interned(split(hypotheses[row_id])) for row_id in chunk]
        output = jiwer.process_words(
            ["" for _ in chunk],
            ["" for _ in chunk],
            reference_transform=_Given(reference_words),
            hypothesis_transform=_Given(hypothesis_words),
        )
        for row_id, reference, hypothesis, chunks in zip(
            chunk, reference_words, hypothesis_words, output.alignments, strict=True
        ):
            steps = tuple(seen.setdefault(step, step) for step in map(_step, chunks))
            yield Aligned(
                id=row_id,
                reference=reference,
                hypothesis=hypothesis,
                steps=steps,
                errors=count(steps, len(reference)),
            )


def count(steps: Iterable[Step], reference_words: int) -> Errors:
    """Add up an alignment's steps; everything against an empty reference is invented."""
    hits = substitutions = insertions = deletions = 0
    for kind, reference_start, reference_end, hypothesis_start, hypothesis_end in steps:
        if kind == "equal":
            hits += reference_end - reference_start
        elif kind == "substitute":
            substitutions += reference_end - reference_start
        elif kind == "insert":
            insertions += hypothesis_end - hypothesis_start
        else:
            deletions += reference_end - reference_start
    if not reference_words:
        return Errors(invented=insertions)
    return Errors(hits=hits, substitutions=substitutions, insertions=insertions, deletions=deletions)


def total(rows: Iterable[Errors]) -> Errors:
    """Add up rows; the corpus rate is this sum's rate, never a mean of rates."""
    counts = np.zeros(5, dtype=np.int64)
    for row in rows:
        counts += (row.hits, row.substitutions, row.insertions, row.deletions, row.invented)
    hits, substitutions, insertions, deletions, invented = map(int, counts)
    return Errors(hits=hits, substitutions=substitutions, insertions=insertions, deletions=deletions, invented=invented)


def counts(rows: Sequence[Errors]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return errors and reference words per row, each of shape (rows,)."""
    return (
        np.array([row.errors for row in rows], dtype=np.float64),
        np.array([row.words for row in rows], dtype=np.float64),
    )


def characters(text: str, *, spaces: bool = True) -> list[str]:
    """Return the characters of a normalised text, its single spaces included, as jiwer counts them.

    `spaces` is False for languages that write none: the ones in a normalised text are where punctuation was.
    """
    return list(text.strip()) if spaces else list("".join(text.split()))


def check_ids(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> None:
    """Refuse rows that are on one side only.

    Raises:
        InputError: naming the first three such ids.
    """
    missing = [row_id for row_id in references if row_id not in hypotheses]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(references)} references have no hypothesis (ids {_some(missing)}); "
            "transcribe them, or take them out of the references"
        )
    extra = [row_id for row_id in hypotheses if row_id not in references]
    if extra:
        raise InputError(
            f"{len(extra)} of {len(hypotheses)} hypotheses have no reference (ids {_some(extra)}); "
            "add their references, or take them out of the hypotheses"
        )


def _step(chunk: jiwer.AlignmentChunk) -> Step:
    return chunk.type, chunk.ref_start_idx, chunk.ref_end_idx, chunk.hyp_start_idx, chunk.hyp_end_idx


def _interned(words: list[str]) -> list[str]:
    return [sys.intern(word) for word in words]  # one copy of each word, not one per occurrence


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


class _Given(jiwer.AbstractTransform):  # type: ignore[misc]
    """A jiwer transform that hands over words that were split before."""

    def __init__(self, words: list[list[str]]) -> None:
        self._words = words

    def __call__(self, sentences: str | list[str]) -> list[list[str]]:
        return self._words
