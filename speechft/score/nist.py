"""NIST's alignment and transcript files, so that every number can be checked with `sclite` and `sc_stats`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechft import files
from speechft.errors import InputError
from speechft.score.wer import Aligned, Step, check_ids, count

# sclite's costs: a substitution is cheaper than an insertion and a deletion, dearer than either.
SUBSTITUTION, INSERTION, DELETION = 4, 3, 3
LONG_CELLS = 20_000  # of a row's table; from here on whole rows at once are faster than cell by cell

_TRN_LINE = re.compile(r"(.*)\(([^()]*)\)\s*")
_ALTERNATIVES = re.compile(r"\{[^{}]* / [^{}]*\}")
_UNSAFE_ID = re.compile(r"[\s();]")


def align(
    references: Mapping[str, str], hypotheses: Mapping[str, str], split: Callable[[str], list[str]]
) -> Iterator[Aligned]:
    """Align as sclite does, by costs of 4, 3 and 3, with sclite's choice among equal alignments.

    jiwer's costs are 1, 1 and 1, which gives the fewest errors; sclite's can give a few more where a row is
    mostly wrong, and pairs words that sound alike in time less oddly. Arguments and errors are those of
    `wer.align`; time grows with the product of a row's lengths.
    """
    check_ids(references, hypotheses)
    for row_id, text in references.items():
        yield _aligned(row_id, split(text), split(hypotheses[row_id]))


def realign(rows: Iterable[Aligned]) -> Iterator[Aligned]:
    """Yield the rows with sclite's alignments; rows without errors need none."""
    for row in rows:
        yield _aligned(row.id, row.reference, row.hypothesis) if row.errors.errors else row


def _aligned(row_id: str, reference: list[str], hypothesis: list[str]) -> Aligned:
    steps = tuple(_steps(reference, hypothesis))
    return Aligned(
        id=row_id, reference=reference, hypothesis=hypothesis, steps=steps, errors=count(steps, len(reference))
    )


def _steps(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterator[Step]:
    """Yield the alignment as steps, runs of one kind joined."""
    kinds = _path(reference, hypothesis)
    left = right = 0
    index = 0
    while index < len(kinds):
        kind = kinds[index]
        length = 1
        while index + length < len(kinds) and kinds[index + length] == kind:
            length += 1
        next_left = left + (0 if kind == "insert" else length)
        next_right = right + (0 if kind == "delete" else length)
        yield kind, left, next_left, right, next_right
        left, right, index = next_left, next_right, index + length


def _path(reference: Sequence[str], hypothesis: Sequence[str]) -> list[str]:
    """Return one kind of step per alignment position; among equals pair before insertion before deletion."""
    choose = _choices_by_row if len(reference) * len(hypothesis) >= LONG_CELLS else _choices
    choices = choose(reference, hypothesis)
    kinds: list[str] = []
    left, right = len(reference), len(hypothesis)
    while left or right:
        choice = choices[left - 1][right] if left else 1
        if choice == 0:
            kinds.append("equal" if reference[left - 1] == hypothesis[right - 1] else "substitute")
            left, right = left - 1, right - 1
        elif choice == 1:
            kinds.append("insert")
            right -= 1
        else:
            kinds.append("delete")
            left -= 1
    kinds.reverse()
    return kinds


def _choices(reference: Sequence[str], hypothesis: Sequence[str]) -> list[bytearray]:
    """For each cell of the table how it is reached: 0 by a pair, 1 by an insertion, 2 by a deletion."""
    width = len(hypothesis)
    choices: list[bytearray] = []
    above = [INSERTION * column for column in range(width + 1)]
    for word in reference:
        cost = above[0] + DELETION
        row = [cost]
        chosen = bytearray(width + 1)
        chosen[0] = 2
        for column in range(width):
            pair = above[column] if hypothesis[column] == word else above[column] + SUBSTITUTION
            insertion = cost + INSERTION
            deletion = above[column + 1] + DELETION
            if pair <= insertion and pair <= deletion:
                cost = pair
            elif deletion < insertion:
                cost = deletion
                chosen[column + 1] = 2
            else:
                cost = insertion
                chosen[column + 1] = 1
            row.append(cost)
        choices.append(chosen)
        above = row
    return choices


def _choices_by_row(reference: Sequence[str], hypothesis: Sequence[str]) -> NDArray[np.uint8]:
    """As `_choices`, a row of the table at once: 9,000 words in 0.6 s (a trial).

    A row's insertions each build on the one before: a cell's cost less what as many insertions cost is the smallest
    so far.
    """
    numbers: dict[str, int] = {}
    heard = np.array([numbers.setdefault(word, len(numbers)) for word in hypothesis], dtype=np.int64)
    insertions = INSERTION * np.arange(len(hypothesis) + 1)
    choices = np.empty((len(reference), len(hypothesis) + 1), dtype=np.uint8)
    above = insertions
    for chosen, word in zip(choices, reference, strict=True):
        pair = above[:-1] + SUBSTITUTION * (heard != numbers.get(word, -1))
        deletion = above + DELETION
        cost = deletion.copy()
        np.minimum(cost[1:], pair, out=cost[1:])
        cost = np.minimum.accumulate(cost - insertions) + insertions
        insertion, deletion = cost[:-1] + INSERTION, deletion[1:]
        chosen[0] = 2
        chosen[1:] = np.where((pair <= insertion) & (pair <= deletion), 0, np.where(deletion < insertion, 2, 1))
        above = cost
    return choices


def trn_id(row_id: str, speaker: str | None) -> str:
    """Return the id a row has in a .trn file: its speaker first, which is how sclite groups rows.

    sclite takes what stands before the last `-` or `_` for the speaker (`-i rm`). An id that says its speaker in that
    way already stays as it is.
    """
    if speaker and row_id[: max(row_id.rfind("-"), row_id.rfind("_"))] == speaker and not _UNSAFE_ID.search(row_id):
        return row_id
    safe = _UNSAFE_ID.sub(".", row_id).replace("-", ".").replace("_", ".")
    name = _UNSAFE_ID.sub(".", speaker or "all").replace("-", ".").replace("_", ".")
    return f"{name}_{safe}"


def write_trn(path: str | Path, texts: Mapping[str, str], speakers: Mapping[str, str | None]) -> int:
    """Write texts in NIST's transcript format, `words (speaker_id)` a line, and return how many.

    Score with `sclite -r ref.trn trn -h hyp.trn trn -i rm -e utf-8 -s`, where `-s` tells upper from lower case. Braces,
    which mark alternatives there, a lone `@`, which is nothing, and lone `%` words are written so that sclite takes
    them for words.

    Args:
        path: the file.
        texts: id to normalised text.
        speakers: id to speaker; rows without one share the speaker `all`.

    Raises:
        InputError: the file cannot be written.
    """
    seen: set[str] = set()
    lines = []
    for row_id, text in texts.items():
        name = trn_id(row_id, speakers.get(row_id))
        while name in seen:  # `a-1` and `a.1` are one id here; files of the same rows agree on the other
            name += "."
        seen.add(name)
        words = " ".join(_trn_word(word) for word in text.split())
        lines.append(f"{words} ({name})\n" if words else f"({name})\n")
    with files.atomic_write(path) as file:
        file.writelines(lines)
    return len(lines)


def read_trn(path: str | Path) -> dict[str, str]:
    """Read a .trn file: id to text, in the file's order.

    Raises:
        InputError: the file cannot be read, a line has no `(id)` at its end or has alternatives (`{ a / b }`), or an id
            comes twice.
    """
    path = Path(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not valid UTF-8; save it as UTF-8") from error
    texts: dict[str, str] = {}
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        match = _TRN_LINE.fullmatch(line)
        if match is None or not match.group(2).strip():
            raise InputError(f"{path}:{number}: the line must end in an id in brackets, `words (id)`")
        name = match.group(2).strip()
        if name in texts:
            raise InputError(f'{path}:{number}: the id "{name}" comes twice; rows are joined by id')
        if found := _ALTERNATIVES.search(match.group(1)):
            raise InputError(f"{path}:{number}: alternatives are not read; give one of {found.group()}")
        texts[name] = match.group(1).strip()
    return texts


def _trn_word(word: str) -> str:
    word = word.replace("{", "(").replace("}", ")")
    return f"{word}." if word in ("@", "%", "/") or word.startswith(";;") else word
