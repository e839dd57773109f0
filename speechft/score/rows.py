"""The rows a score is made of: joined by id, the clean test set told from its copies, put into groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from speechft.errors import InputError
from speechft.manifest import Utterance, by_id
from speechft.score.slices import CLEAN, condition_of
from speechft.score.wer import check_ids


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Joined rows: what is known about them, and the texts of reference, first and second system by id."""

    utterances: list[Utterance]
    references: dict[str, str]
    before: dict[str, str]
    after: dict[str, str] | None

    def clean(self) -> Rows:
        """Return the rows without a condition."""
        kept = [row for row in self.utterances if condition_of(row) == CLEAN]
        return Rows(
            utterances=kept,
            references={row.id: self.references[row.id] for row in kept},
            before={row.id: self.before[row.id] for row in kept},
            after=None if self.after is None else {row.id: self.after[row.id] for row in kept},
        )


def join(before: Iterable[Utterance], after: Iterable[Utterance] | None, what: str) -> Rows:
    """Join two systems' rows by id.

    Args:
        before: rows with `text` and `hypothesis`.
        after: the same rows of the second system, in any order, or None.
        what: what the rows are, for messages.

    Raises:
        InputError: no rows; a doubled id; a row on one side only; a row without a text or a hypothesis, or
            whose two references differ.
    """
    first = by_id(before)
    if not first:
        raise InputError(f"{what} has no rows; nothing can be scored")
    references = {row_id: _given(row.text, row_id, what, "text (the reference)") for row_id, row in first.items()}
    hypotheses = {row_id: _given(row.hypothesis, row_id, what, "hypothesis") for row_id, row in first.items()}
    if after is None:
        return Rows(utterances=list(first.values()), references=references, before=hypotheses, after=None)
    second = by_id(after)
    after_hypotheses = {row_id: _given(row.hypothesis, row_id, what, "hypothesis") for row_id, row in second.items()}
    check_ids(references, after_hypotheses)
    for row_id, row in second.items():
        if row.text is not None and row.text != references[row_id]:
            raise InputError(f'{what}: row "{row_id}" has another text before than after; score one set of references')
    return Rows(utterances=list(first.values()), references=references, before=hypotheses, after=after_hypotheses)


def groups_of(rows: Sequence[Utterance]) -> tuple[list[Hashable], str]:
    """Return what each row belongs to (its speaker, recording, or itself) and what that is called."""
    keys: list[Hashable] = []
    kinds: Counter[str] = Counter()
    for row in rows:
        if row.speaker is not None:
            kind, name = "speakers", row.speaker
        elif row.recording is not None:
            kind, name = "recordings", row.recording
        else:
            kind, name = "rows", row.id
        kinds[kind] += 1
        keys.append((kind, name))
    return keys, next(iter(kinds)) if len(kinds) == 1 else "speakers, recordings and rows"


def minutes_of(rows: Sequence[Utterance]) -> float | None:
    """Return the minutes of audio, or None unless every row's duration is known."""
    durations = [row.duration for row in rows if row.duration is not None]
    return sum(durations) / 60 if rows and len(durations) == len(rows) else None


def language_of(rows: Sequence[Utterance], otherwise: str | None = None) -> str:
    """Return the commonest language among the rows; else the one given, else English."""
    languages = Counter(row.lang.lower() for row in rows if row.lang)
    return languages.most_common(1)[0][0] if languages else (otherwise or "en")


def _given(value: str | None, row_id: str, what: str, key: str) -> str:
    if value is None:
        raise InputError(f'{what}: row "{row_id}" has no {key}; give one, "" for silence')
    return value
