"""Atomic files and the record each stage leaves, so that a killed run goes on where it stopped."""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from speechft import provenance
from speechft.errors import InputError

log = logging.getLogger(__name__)

STAGE_FILE = "stage.json"  # written last: its existence means the stage finished
STARTED_FILE = "started.json"  # written first: whose partial work the folder holds
TEMP_SUFFIX = ".speechft-tmp"


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its name only when the block ends without an error.

    Text is UTF-8 with LF line ends. Missing parent folders are made.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = Path(path)
    temp = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMP_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened by name, not through tempfile, so that the file gets the user's usual permissions.
        file = temp.open(mode) if "b" in mode else temp.open(mode, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose a folder you can write to") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut where the file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as indented JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(obj, file, ensure_ascii=False, indent=2, default=_plain)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """Read one JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, atomically, and return how many were written."""
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=_plain) + "\n")
            count += 1
    return count


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file; blank lines are skipped.

    Raises:
        InputError: the file is missing, or a line is not a JSON object.
    """
    return list(each_jsonl(path))


def each_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """As `read_jsonl`, a row at a time."""
    with _reading(Path(path)) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _object(line, f"{path}:{number}", first=number == 1)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


class JsonLines:
    """The rows of a JSON Lines file that a stage wrote, read when asked for: only where each begins is held.

    Raises:
        InputError: the file is missing; and, when a row is asked for, that it is not a JSON object.
    """

    def __init__(self, path: str | Path) -> None:
        self._path, self._begins = Path(path), array("Q", [0])
        with _reading(self._path) as file:
            for line in file:
                self._begins.append(self._begins[-1] + len(line))

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        number = range(len(self))[number]
        with _reading(self._path) as file:
            file.seek(self._begins[number])
            return _object(file.readline(), f"{self._path}:{number + 1}", first=number == 0)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return each_jsonl(self._path)


def _object(line: bytes, where: str, *, first: bool) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig" if first else "utf-8"))
    except ValueError as error:
        raise InputError(f"{where}: is not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: must be a JSON object, got {type(row).__name__}")
    return row


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: str | Path) -> dict[str, Any]:
    """What tells whether a file changed: `{path, size, mtime_ns, sha256}`, the path absolute."""
    path = Path(path).absolute()
    stat = path.stat()
    return {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256(path)}


class Stage:
    """One stage's folder in a run, with the records that tell finished work from half-done work.

    Call `up_to_date` first; if it is false, `begin`, do the work in `dir`, then `finish`. Input and output
    paths may be folders: every file below them is recorded.
    """

    def __init__(
        self,
        run_dir: str | Path,
        name: str,
        *,
        settings: Mapping[str, Any],
        inputs: Iterable[str | Path],
        format: int,
        seed: int | None = None,
    ) -> None:
        """Describe the stage; nothing is read or written yet.

        Args:
            run_dir: the run's folder; the stage owns `run_dir/name`.
            name: the stage's verb, such as "ingest".
            settings: every setting that can change the result, as JSON values.
            inputs: files or folders the result depends on.
            format: the stage's hand-kept FORMAT number, raised when what it writes changes meaning.
            seed: recorded, and part of what must be the same.
        """
        self.dir = Path(run_dir) / name
        self.name = name
        self.settings = json.loads(_canonical(dict(settings)))
        self.inputs = [Path(path) for path in inputs]
        self.format = format
        self.seed = seed
        self._begun: dict[str, Any] | None = None
        self._clock_s = 0.0

    def up_to_date(self) -> bool:
        """Whether a finished result of exactly these settings and inputs is already there."""
        record = _read_record(self.dir / STAGE_FILE)
        return record is not None and self._same(record) and _still_there(record.get("outputs", []))

    def outputs(self) -> list[Path]:
        """The files in the stage's folder, its own records left out."""
        records = (STAGE_FILE, STARTED_FILE)
        return [path for path in sorted(self.dir.iterdir()) if path.is_file() and path.name not in records]

    def begin(self) -> None:
        """Make the folder ready: partial work of the same settings and inputs stays, any other is cleared.

        Raises:
            InputError: the folder cannot be written, an input is missing, or the folder holds files that no
                stage record describes (they may be the user's, so they are not deleted).
        """
        self._clock_s = time.monotonic()
        provenance.forget_peak_memory()
        try:
            self.dir.mkdir(parents=True, exist_ok=True)
            held = {path.name for path in self.dir.iterdir() if not path.name.endswith(TEMP_SUFFIX)}
        except OSError as error:
            raise InputError(
                f"{self.dir}: cannot be written ({error.strerror}); choose another run directory"
            ) from error
        started = _read_record(self.dir / STARTED_FILE)
        record = started if started is not None else _read_record(self.dir / STAGE_FILE)
        if held and not held & {STAGE_FILE, STARTED_FILE}:
            raise InputError(
                f"{self.dir}: holds files that no run of {self.name} has recorded, so they are left alone; "
                "move them away, or choose another run directory"
            )
        inputs = self._fingerprints(self.inputs)  # before anything is cleared: one may be missing
        resuming = record is not None and self._same(record)
        earlier_s = _seconds_spent(self.dir, started) if resuming and started is not None else 0.0
        try:
            self._clear(everything=not resuming)
            now = {"settings": self.settings, "seed": self.seed, "format": self.format, "inputs": inputs}
            if resuming and record is not None:
                self._drop_damaged(record.get("outputs", []))
            elif why := provenance.what_changed(record or {}, now):
                log.info("%s: begins anew, as %s", self.name, why)
            self._begun = {**now, "started_at": time.time(), "seconds_before": earlier_s}
            write_json(self.dir / STARTED_FILE, self._begun)
            (self.dir / STAGE_FILE).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.dir}: cannot be written ({error.strerror}); choose another run directory"
            ) from error

    def finish(self, counts: Mapping[str, Any], outputs: Iterable[str | Path], **facts: Any) -> dict[str, Any]:
        """Write `stage.json`, after everything else is on disk, and log the counts in one line.

        Args:
            counts: `{"in": n, "out": n, "rejected": {reason: n}}`; other keys are kept.
            outputs: the files or folders the stage wrote.
            facts: anything else worth recording, such as the device.
        """
        if self._begun is None:
            raise RuntimeError(f"stage {self.name} was not begun")
        seconds = self._begun["seconds_before"] + time.monotonic() - self._clock_s
        record = {
            "stage": self.name,
            "format": self.format,
            "settings": self.settings,
            "seed": self.seed,
            "inputs": self._begun["inputs"],
            "outputs": self._fingerprints(outputs),
            "counts": dict(counts),
            "versions": provenance.versions(),
            "git_commit": provenance.git_commit(),
            "seconds": round(seconds, 3),
            "peak_memory_mb": round(provenance.peak_memory_mb(), 1),
            **facts,
        }
        write_json(self.dir / STAGE_FILE, record)
        (self.dir / STARTED_FILE).unlink(missing_ok=True)
        log.info("%s: %s, %.1f s", self.name, describe(counts), seconds)
        return record

    def _same(self, record: Mapping[str, Any]) -> bool:
        return (
            record.get("format") == self.format
            and record.get("seed") == self.seed
            and _canonical(record.get("settings")) == _canonical(self.settings)
            and _unchanged(record.get("inputs", []), _expand(self.inputs))
        )

    def _fingerprints(self, paths: Iterable[str | Path]) -> list[dict[str, Any]]:
        try:
            return [fingerprint(path) for path in _expand(paths)]
        except OSError as error:
            raise InputError(f"{error.filename}: needed by {self.name}, cannot be read ({error.strerror})") from error

    def _drop_damaged(self, outputs: Iterable[Mapping[str, Any]]) -> None:
        """Remove what the stage once finished and is not as it was, so that it is made again; in its own folder only,
        as the record of a run that was copied names the other's files."""
        for entry in outputs:
            path = Path(entry.get("path", ""))
            if path.parent == self.dir.absolute() and not _still_there([entry]):
                path.unlink(missing_ok=True)

    def _clear(self, *, everything: bool) -> None:
        """Remove unfinished temporary files, and with `everything` all but the records.

        The records go last, by being overwritten: a kill during clearing then still finds an old record, sees
        that it differs, and clears again.
        """
        for path in list(self.dir.rglob(f"*{TEMP_SUFFIX}")):
            path.unlink(missing_ok=True)
        for path in list(self.dir.iterdir()) if everything else []:
            if path.name in (STAGE_FILE, STARTED_FILE):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def describe(counts: Mapping[str, Any]) -> str:
    """Counts in words: "320 in, 318 out, 2 rejected (missing file 1, empty audio 1)"."""
    rejected = dict(counts.get("rejected") or {})
    text = f"{counts.get('in', 0):,} in, {counts.get('out', 0):,} out, {sum(rejected.values()):,} rejected"
    if rejected:
        ordered = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
        text += " (" + ", ".join(f"{reason} {number:,}" for reason, number in ordered) + ")"
    return text


def _plain(value: Any) -> Any:
    """JSON for paths and NumPy scalars."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=_plain)


def _read_record(path: Path) -> dict[str, Any] | None:
    """A stage record, or None when it is absent or unreadable (then the work counts as not done)."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    listed = isinstance(record, dict) and all(isinstance(record.get(key, []), list) for key in ("inputs", "outputs"))
    return record if listed else None


def _expand(paths: Iterable[str | Path]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        files.extend(sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])
    return files


def _unchanged(recorded: list[dict[str, Any]], paths: list[Path]) -> bool:
    if [entry.get("path") for entry in recorded] != [str(path.absolute()) for path in paths]:
        return False
    for entry, path in zip(recorded, paths, strict=True):
        try:
            stat = path.stat()
            if stat.st_size != entry.get("size"):
                return False
            if stat.st_mtime_ns != entry.get("mtime_ns") and sha256(path) != entry.get("sha256"):
                return False
        except OSError:
            return False
    return True


def _still_there(outputs: Iterable[Mapping[str, Any]]) -> bool:
    for entry in outputs:
        try:
            if os.stat(entry["path"]).st_size != entry["size"]:
                return False
        except (OSError, KeyError):
            return False
    return True


def _seconds_spent(folder: Path, started: Mapping[str, Any]) -> float:
    """Seconds that killed attempts worked: up to the newest file, the last sign of life they left."""
    newest = max((path.stat().st_mtime for path in folder.rglob("*")), default=0.0)
    return float(started.get("seconds_before", 0.0)) + max(0.0, newest - float(started.get("started_at", newest)))
