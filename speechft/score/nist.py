"""NIST's alignment and transcript files, so that every number can be checked with `sclite` and `sc_stats`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from speechft import files
from speechft.errors import InputError
from speechft.score.wer import Aligned, Step, check_ids, count

# sclite's costs: a substitution is cheaper than an insertion and a deletion, dearer than either.
SUBSTITUTION, INSERTION, DELETION = 4, 3, 3

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
        reference, hypothesis = split(text), split(hypotheses[row_id])
        steps = tuple(_steps(reference, hypothesis))
        yield Aligned(
            id=row_id,
            reference=reference,
            hypothesis=hypothesis,
            steps=steps,
            errors=count(steps, len(reference)),
        )


def realign(rows: Iterable[Aligned]) -> Iterator[Aligned]:
    """Yield the rows with sclite's alignments; rows without errors need none."""
    for row in rows:
        if not row.errors.errors:
            yield row
            continue
        steps = tuple(_steps(row.reference, row.hypothesis))
        yield dataclasses.replace(row, steps=steps, errors=count(steps, len(row.reference)))


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
    kinds: list[str] = []
    left, right = len(reference), width
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

    Score with `sclite -r ref.trn trn -h hyp.trn trn -i rm -e utf-8`. Braces, which mark alternatives there, a
    lone `@`, which is nothing, and lone `%` words are written so that sclite takes them for words.

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
