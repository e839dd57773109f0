"""Long recordings with segment times: cut at segment ends into rows that fit a window.

A row may hold `segments`, a list of `{"start", "end", "text"}` in seconds from the row's own start, as Whisper and many
annotation tools write them. Neighbours stay together up to 30 s, so that the decoder learns what follows what, and
keep their times, from which timestamps are learned.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

from speechft import audio
from speechft.ingest import overlap
from speechft.ingest.ledger import Row
from speechft.manifest import Reject, Utterance

LONGEST_S = overlap.LONGEST_S


def cut_all(rows: Iterable[Row | Reject]) -> Iterator[Row | Reject]:
    """Rows with `segments` as rows of at most 30 s, all others and rejects as they are; what cannot be cut is rejected
    by name."""
    for row in rows:
        told = None if isinstance(row, Reject) else row.utterance.extra.get("segments")
        if isinstance(row, Reject) or told is None:
            yield row
            continue
        try:
            segments = _read(told)
        except ValueError as error:
            yield Reject(row.utterance.row(), "bad segments", f"{row.where}: {error}", row.where)
            continue
        length = math.inf if row.utterance.duration is None else row.utterance.duration
        for group in _groups(segments):
            cut = _cut(row, group, alone=len(group) == len(segments))
            where, reason = f"{row.where}: the segment at {group[0]['start']:.2f} s", ""
            if group[-1]["end"] - group[0]["start"] > LONGEST_S:
                reason, detail = "too long", f"{where} lasts over {LONGEST_S:.0f} s"
            elif group[-1]["end"] > length + audio.END_TOLERANCE_S:
                reason, detail = "bad segments", f"{where} ends at {group[-1]['end']:.2f} s, the row at {length:.2f} s"
            if reason:
                yield Reject({**row.utterance.row(), "segments": group}, reason, detail, row.where)
            else:
                yield cut


def count(utterance: Utterance) -> int:
    """How many rows and rejects it is cut into."""
    told = utterance.extra.get("segments")
    try:
        return 1 if told is None else sum(1 for _ in _groups(_read(told)))
    except ValueError:
        return 1


def _read(told: Any) -> list[dict[str, Any]]:
    """Segments in order of time.

    Raises:
        ValueError: what is wrong, as a sentence.
    """
    if not isinstance(told, list) or not told:
        raise ValueError('segments must be a list of {"start", "end", "text"}')
    segments: list[dict[str, Any]] = []
    for number, entry in enumerate(told, 1):
        try:
            start, end, text = float(entry["start"]), float(entry["end"]), entry["text"]
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ValueError(f"segment {number} has no start, end and text") from error
        if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end and isinstance(text, str)):
            raise ValueError(f"segment {number} must start at 0 s or later, and before it ends; text in quotes")
        if segments and start < segments[-1]["end"] - 0.02:
            raise ValueError(f"segment {number} starts before the one ahead of it ends")
        segments.append({"start": start, "end": end, "text": text.strip()})
    return segments


def _groups(segments: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Neighbours, as many as fit."""
    group: list[dict[str, Any]] = []
    for segment in segments:
        if group and segment["end"] - group[0]["start"] > LONGEST_S:
            yield group
            group = []
        group.append(segment)
    yield group


def _cut(row: Row, group: list[dict[str, Any]], *, alone: bool) -> Row:
    utterance, first = row.utterance, group[0]["start"]
    relative = [
        {"start": round(s["start"] - first, 3), "end": round(s["end"] - first, 3), "text": s["text"]} for s in group
    ]
    made = dataclasses.replace(
        utterance,
        id=utterance.id if alone else f"{utterance.id}@{first:.2f}",
        offset=round(utterance.offset + first, 3),
        duration=relative[-1]["end"],
        text=" ".join(s["text"] for s in relative if s["text"]),
        recording=utterance.recording or utterance.id,
        extra={**utterance.extra, "segments": relative},
    )
    return dataclasses.replace(row, utterance=made)
