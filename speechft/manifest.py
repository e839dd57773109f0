"""Rows: reading manifests (JSON Lines or CSV) into utterances, naming every line that cannot be used."""

import dataclasses
import functools
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from speechft import files, lines
from speechft.errors import InputError

LABELS = ("speaker", "accent", "lang", "domain", "split", "recording", "condition")
MOST_SECONDS = 1e8  # three years: what is longer was not meant as seconds


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One row of a manifest: a stretch of audio and what was said in it.

    `offset` and `duration` are seconds; no duration means to the end of the file. `text` "" means silence,
    None that nobody transcribed it. `parent`, `view` and `transform` are set on augmented rows only. `extra`
    holds the keys this project does not know; they survive every stage.
    """

    id: str
    audio_filepath: Path | None
    text: str | None
    offset: float = 0.0
    duration: float | None = None
    speaker: str | None = None
    accent: str | None = None
    lang: str | None = None
    domain: str | None = None
    split: str | None = None
    recording: str | None = None
    condition: str | None = None
    parent: str | None = None
    view: int = 0
    transform: list[dict[str, Any]] | None = None
    hypothesis: str | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The row as JSON values, only the keys that are set."""
        row: dict[str, Any] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            if value is None or (name == "offset" and not value):
                continue
            if name == "view" and not value and self.parent is None:
                continue
            row[name] = str(value) if isinstance(value, Path) else value
        return {**self.extra, **row} if self.extra else row


SOUND = "audio_sha256"  # in `extra` of rows that were checked: the start of the hash of their samples
_FIELDS = tuple(field.name for field in dataclasses.fields(Utterance) if field.name != "extra")


@dataclasses.dataclass
class Reject:
    """A row that cannot be used: `reason` is a short fixed category, `detail` one readable sentence."""

    row: dict[str, Any]
    reason: str
    detail: str
    where: str


class _BadRow(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def scan(path: str | Path, *, need_audio: bool = True) -> tuple[list[Utterance], list[Reject]]:
    """Read a manifest; rows that cannot be used are returned as rejects, never dropped in silence.

    CSV and TSV are told by their suffix, anything else is JSON Lines. Text is UTF-8 with or without a
    byte-order mark, with LF or CRLF line ends; blank lines are skipped. Relative audio paths are joined to
    the manifest's folder, symbolic links left as they are. In CSV an empty cell counts as absent, so an
    empty `text` cell is a missing transcript, not silence (an empty `hypothesis` cell is an empty output).

    Args:
        path: the manifest.
        need_audio: whether a row without `audio_filepath` is rejected; scoring needs none.

    Raises:
        InputError: the file is missing or unreadable, or a CSV heading lacks `audio_filepath`.
    """
    utterances: list[Utterance] = []
    rejects: list[Reject] = []
    lines_of: dict[str, int] = {}
    for number, found in numbered(path, need_audio=need_audio):
        if isinstance(found, Utterance):
            if lines_of.setdefault(found.id, number) == number:
                utterances.append(found)
                continue
            where = f"{path}:{number}"
            detail = f'{where}: id "{found.id}" was used in line {lines_of[found.id]}'
            found = Reject(found.row(), "duplicate id", detail, where)
        rejects.append(found)
    return utterances, rejects


def numbered(path: str | Path, *, need_audio: bool = True) -> Iterator[tuple[int, Utterance | Reject]]:
    """As `scan`, a row at a time and with its line's number; whether an id came before is for the caller to see."""
    path = Path(path)
    folder = path.absolute().parent
    for number, row, fault in lines.read(path, need_audio=need_audio):
        try:
            if fault:
                raise _BadRow("broken line", fault)
            yield number, _utterance(row, folder, need_audio=need_audio)
        except _BadRow as error:
            where = f"{path}:{number}"
            yield number, Reject(row, error.reason, f"{where}: {error}", where)


def read(path: str | Path, *, need_audio: bool = True) -> list[Utterance]:
    """Read a manifest that must be without fault.

    Raises:
        InputError: as for `scan`, and on the first row that cannot be used.
    """
    utterances, rejects = scan(path, need_audio=need_audio)
    if rejects:
        raise InputError(rejects[0].detail)
    return utterances


def each(path: str | Path) -> Iterator[Utterance]:
    """As `read`, a row at a time, for manifests that a stage wrote: that ids are unique is not looked at again."""
    for _, found in numbered(path):
        if isinstance(found, Reject):
            raise InputError(found.detail)
        yield found


class Rows(Sequence[Utterance]):
    """As `each`, but any row by its number, read when it is asked for."""

    def __init__(self, path: str | Path) -> None:
        self._path, self._lines = Path(path), files.JsonLines(path)

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Utterance]:
        return each(self._path)

    def __getitem__(self, number: int) -> Utterance:  # type: ignore[override]
        return _utterance(self._lines[number], self._path.absolute().parent, need_audio=True)


def write(path: str | Path, rows: Iterable[Utterance]) -> int:
    """Write rows as JSON Lines, atomically, and return how many."""
    return files.write_jsonl(path, (utterance.row() for utterance in rows))


def by_id(rows: Iterable[Utterance]) -> dict[str, Utterance]:
    """Rows keyed by id, in their order.

    Raises:
        InputError: two rows share an id.
    """
    found: dict[str, Utterance] = {}
    for utterance in rows:
        if utterance.id in found:
            raise InputError(f'two rows have the id "{utterance.id}"; rows are joined by id, so make it unique')
        found[utterance.id] = utterance
    return found


def compact(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same transform with words shared between rows: of a million rows each would hold its own "snr_db"."""
    return [
        {sys.intern(key): sys.intern(value) if isinstance(value, str) else value for key, value in step.items()}
        for step in steps
    ]


def _utterance(row: dict[str, Any], folder: Path, *, need_audio: bool) -> Utterance:
    audio = row.get("audio_filepath")
    if audio is not None and not isinstance(audio, str):
        raise _BadRow("bad value", f"audio_filepath must be text, got {audio!r}")
    if audio and "\0" in audio:
        raise _BadRow("bad value", f"audio_filepath holds a null character: {audio!r}")
    if not audio and need_audio:
        raise _BadRow("missing key", "the row has no audio_filepath")
    offset = _seconds(row, "offset")
    identity = _label(row, "id")
    if identity is None:
        if not audio:
            raise _BadRow("missing key", "the row has neither id nor audio_filepath")
        digest = hashlib.sha256(f"{audio}@{offset or 0.0:.6f}".encode()).hexdigest()[:8]
        identity = f"{Path(audio).stem}-{digest}"
    labels = {name: _label(row, name) for name in (*LABELS, "parent")}
    if not _is_missing(row.get("spoken")):  # how a voice should say the text
        _text(row, "spoken")
    return Utterance(
        id=identity,
        audio_filepath=_joined(folder, audio) if audio else None,
        text=_text(row, "text"),
        offset=offset or 0.0,
        duration=_seconds(row, "duration"),
        view=_view(row),
        transform=_transform(row),
        hypothesis=_text(row, "hypothesis"),
        extra={key: value for key, value in row.items() if key not in _FIELDS and not _is_missing(value)},
        **labels,
    )


@functools.lru_cache(maxsize=64)  # neighbours are often of one file
def _joined(folder: Path, name: str) -> Path:
    return folder / name


def _text(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise _BadRow("bad value", f"{key} must be text, got {value!r}")
    return value


def _label(row: dict[str, Any], key: str) -> str | None:
    """A name; numbers are taken as names too, as speaker 12 is often written without quotes."""
    value = row.get(key)
    if value is None or value == "" or _is_missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _BadRow("bad value", f"{key} must be text, got {value!r}")
    if isinstance(value, float) and value.is_integer():  # pandas makes 12 a 12.0 where another row has none
        value = int(value)
    return sys.intern(str(value)) if key in LABELS else str(value)


def _is_missing(value: Any) -> bool:
    """Whether it is NaN, as pandas writes what a row lacks."""
    return isinstance(value, float) and math.isnan(value)


def _seconds(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds > MOST_SECONDS:
        raise _BadRow("bad value", f"{key} must be a number of seconds, got {value!r:.40}")
    if seconds < 0 or (key == "duration" and seconds == 0):
        raise _BadRow("bad value", f"{key} must be {'> 0' if key == 'duration' else '>= 0'}, got {seconds}")
    return seconds


def _view(row: dict[str, Any]) -> int:
    value = row.get("view", 0)
    try:
        view = int(value)
    except (TypeError, ValueError, OverflowError):
        view = -1
    if view < 0 or isinstance(value, bool):
        raise _BadRow("bad value", f"view must be a whole number >= 0, got {value!r}")
    return view


def _transform(row: dict[str, Any]) -> list[dict[str, Any]] | None:
    value = row.get("transform")
    if isinstance(value, str):  # a CSV cell
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [value]
    if value is not None and not (isinstance(value, list) and all(isinstance(step, dict) for step in value)):
        raise _BadRow("bad value", f"transform must be a list of objects, got {row['transform']!r}")
    return compact(value) if value else value


def sound_files(paths: Iterable[Path]) -> str:
    """One hash of sound files: where they are, how large and how old. Another once one of them has changed, is gone or
    is there."""
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        try:
            stat = path.stat()
            digest.update(f"{path}\n{stat.st_size} {stat.st_mtime_ns}\n".encode())
        except (OSError, ValueError):  # ValueError: no file can be called so
            digest.update(f"{path}\ngone\n".encode())
    return digest.hexdigest()
