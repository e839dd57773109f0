"""Checked rows kept in a file, so that ingest takes little more memory for a million rows than for a thousand."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from speechft.manifest import Utterance

# What rows are compared by: hashes (0 for none), seconds in its audio, a count.
RECORD = np.dtype(
    [("id", "u8"), ("text", "u8"), ("sound", "u8"), ("speaker", "u8"), ("file", "u8"), ("start_s", "f8"),
     ("duration_s", "f8"), ("words", "u4")]
)  # fmt: skip
RECORDS_AT_ONCE = 8192
Places = np.ndarray[Any, np.dtype[np.int64]]  # of rows in a ledger


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An utterance on its way through ingest: its role, where it stands, and what its audio turned out to be.

    `role` is "general" for rows that are still to be split. `text_key` is the text as texts are compared, "" for
    silence; `audio_sha256` is of the decoded samples, "" when all are zero; both are filled in by the checks.
    `warnings` are (kind, sentence) pairs.
    """

    utterance: Utterance
    where: str
    role: str = ""
    text_key: str = ""
    audio_sha256: str = ""
    warnings: tuple[tuple[str, str], ...] = ()


class Ledger:
    """Rows by their place, in the order in which they came; use it as a context.

    Rows and their `RECORD`s lie in files without a name, which are gone with the process; in memory is where a row
    begins, 8 bytes.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` holds the files."""
        self._files = contextlib.ExitStack()
        self._rows = self._files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        self._records = self._files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        self._real = functools.lru_cache(maxsize=64)(os.path.realpath)  # neighbours are often of one file
        self._begins = array("Q")
        self._end = 0
        self.odd = array("q")  # places of rows with warnings

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def __len__(self) -> int:
        return len(self._begins)

    def append(self, row: Row) -> int:
        """Keep a row and return its place."""
        place, utterance = len(self), row.utterance
        content = pickle.dumps(row)
        self._go_to(self._end)
        self._rows.write(content)
        self._begins.append(self._end)
        self._end += len(content)
        record = (
            short_hash(utterance.id),
            short_hash(row.text_key),
            short_hash(row.audio_sha256),
            short_hash(utterance.speaker),
            short_hash(self._real(str(utterance.audio_filepath or ""))),
            utterance.offset,
            utterance.duration or 0.0,
            len((utterance.text or "").split()),
        )
        self._records.write(np.array(record, dtype=RECORD).tobytes())
        if row.warnings:
            self.odd.append(place)
        return place

    def __getitem__(self, place: int) -> Row:
        self._go_to(self._begins[place])
        row: Row = pickle.load(self._rows)
        return row

    def _go_to(self, position: int) -> None:
        if self._rows.tell() != position:  # seeking would empty the buffer
            self._rows.seek(position)

    def each(self, places: Iterable[int]) -> Iterator[Row]:
        """The rows at these places, one by one."""
        return (self[place] for place in places)

    def column(self, name: str, places: Places) -> np.ndarray:
        """What the rows at these places are compared by."""
        held = np.empty(len(self), dtype=RECORD[name])
        self._records.seek(0)
        for first in range(0, len(self), RECORDS_AT_ONCE):
            read = np.frombuffer(self._records.read(RECORDS_AT_ONCE * RECORD.itemsize), dtype=RECORD)
            held[first : first + len(read)] = read[name]
        self._records.seek(0, os.SEEK_END)
        return held[places]

    def distinct(self, name: str, places: Places) -> tuple[int, int]:
        """How many of the rows have a value in a column, and how many values there are."""
        values = self.column(name, places)
        values.sort()
        values = values[np.searchsorted(values, values.dtype.type(1)) :]
        return len(values), int(np.count_nonzero(values[1:] != values[:-1])) + bool(len(values))


def short_hash(value: str | None) -> int:
    """64 bits that tell values apart, 0 for none: of ten million, two agree by chance once in 400,000 times."""
    if not value:
        return 0
    return int.from_bytes(hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
