"""Recordings: stretches of sound files, found in folders and manifests, told apart, and read within bounded memory."""

import dataclasses
import functools
import math
import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from speechft import audio, files, manifest
from speechft.errors import InputError
from speechft.manifest import Reject, Utterance

SOUND_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au"}
MANIFEST_SUFFIXES = {".jsonl", ".json", ".csv", ".tsv"}
MUSAN_FOLDERS = {"music", "noise", "speech"}  # the corpus's top level; its speech serves as babble, not as noise
LONGEST_TALK_S = 30.0  # babble takes no more of one utterance: a row may be a whole lecture
LONGEST_KEPT_S = 60.0  # noise recordings up to this are kept whole, where all of them fit
CACHE_BYTES = 64 * 2**20  # of decoded talkers and noise in each process, 17 minutes


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A stretch of a sound file: seconds from its start, and who speaks in it where that is known."""

    path: Path
    offset_s: float = 0.0
    duration_s: float | None = None
    id: str = ""
    speaker: str | None = None

    @property
    def end_s(self) -> float:
        """Where it ends in its file; infinity where that is not known."""
        return math.inf if self.duration_s is None else self.offset_s + self.duration_s

    @property
    def place(self) -> str:
        """File and start, for messages."""
        return f"{self.path}" + (f" at {self.offset_s:g} s" if self.offset_s else "")


def of_row(row: Utterance) -> Recording:
    """A row's sound.

    Raises:
        InputError: the row has none.
    """
    if row.audio_filepath is None:
        raise InputError(f"{row.id}: has no audio_filepath")
    return Recording(
        path=row.audio_filepath, offset_s=row.offset, duration_s=row.duration, id=row.id, speaker=row.speaker,
    )  # fmt: skip


class Held:
    """Recordings to compare others with: the same stretch of the same file, or of a file that is a copy of it."""

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self._by_path: dict[Path, list[Recording]] = {}
        for recording in recordings:
            self._by_path.setdefault(recording.path.resolve(), []).append(recording)

    @functools.cached_property
    def _by_size(self) -> dict[int, list[Path]]:
        found: dict[int, list[Path]] = {}
        for path in self._by_path:
            if path.exists():
                found.setdefault(path.stat().st_size, []).append(path)
        return found

    @functools.cache  # noqa: B019 - as long as this object, which lasts while materials are collected
    def _by_content(self, size: int) -> dict[str, list[Recording]]:
        found: dict[str, list[Recording]] = {}
        for path in self._by_size[size]:
            found.setdefault(files.sha256(path), []).extend(self._by_path[path])
        return found

    def holders(self, recording: Recording) -> list[Recording]:
        """Those of them that hold some of this recording's sound."""
        path = recording.path.resolve()
        held = self._by_path.get(path, [])
        if not held and self._by_path and path.exists() and (size := path.stat().st_size) in self._by_size:
            held = self._by_content(size).get(files.sha256(path), [])
        return [h for h in held if h.offset_s < recording.end_s and recording.offset_s < h.end_s]


def find(source: Path) -> tuple[list[Recording], list[Recording], list[Reject]]:
    """The sound files of a folder (searched whole), or the rows of a manifest, as far as they can be read.

    In MUSAN's layout (`music`, `noise` and `speech` side by side) speech is told apart from the rest.

    Args:
        source: a folder, a manifest, or one sound file.

    Returns:
        Recordings, MUSAN's speech, and what cannot be used.

    Raises:
        InputError: there is no such source.
    """
    listed, rejects = listing(source)
    recordings: list[Recording] = []
    speech: list[Recording] = []
    for recording, is_speech in listed:
        try:
            info = audio.probe(recording.path)
        except audio.AudioError as error:
            where = str(recording.path)
            rejects.append(Reject({"audio_filepath": where}, error.reason, str(error), where))
            continue
        whole = dataclasses.replace(
            recording, duration_s=recording.duration_s or max(0.0, info.duration_s - recording.offset_s)
        )
        (speech if is_speech else recordings).append(whole)
    return recordings, speech, rejects


def listing(source: Path) -> tuple[list[tuple[Recording, bool]], list[Reject]]:
    """As `find`, but no sound is opened: recordings, whether each is MUSAN's speech, and what cannot be listed."""
    if source.is_dir():
        paths, rejects = files_in(source, SOUND_SUFFIXES)
        return [_in_folder(source, path) for path in paths], rejects
    if source.suffix.lower() in MANIFEST_SUFFIXES:
        rows, rejects = manifest.scan(source)
        return [(of_row(row), False) for row in rows], rejects
    if source.is_file():
        return [(Recording(path=source, id=source.name), False)], []
    raise InputError(f"{source}: there is no such folder, manifest or sound file to take noise from")


def _in_folder(folder: Path, path: Path) -> tuple[Recording, bool]:
    place = path.relative_to(folder)
    parents = [folder / parent for parent in place.parents]  # the corpus may lie deeper
    is_speech = any(p.name == "speech" and p != folder and _is_musan(p.parent) for p in parents)
    return Recording(path=path, id=place.as_posix()), is_speech


def files_in(folder: Path, suffixes: Collection[str]) -> tuple[list[Path], list[Reject]]:
    """Files of a folder by their suffixes in lower case, and those that no manifest could name; the folder is searched
    whole, and what links lead to."""
    found, rejects = list[Path](), list[Reject]()
    for path in sorted(path for path in _below(folder) if path.suffix.lower() in suffixes and path.is_file()):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            where = ascii(str(path))
            told = f"{where}: its name, or a folder's, is not UTF-8; rename it"
            rejects.append(Reject({"audio_filepath": where}, "name", told, where))
        else:
            found.append(path)
    return found, rejects


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder; one that links lead to twice is searched once."""
    seen = set[str]()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()  # which of two ways is the first must not be up to the disk
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
        else:
            seen.add(real)
            yield from (Path(place, name) for name in names)


@functools.cache
def _is_musan(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in MUSAN_FOLDERS)


def shared(ours: Iterable[Path], theirs: Iterable[Path]) -> list[Path]:
    """Those of `theirs` that are among `ours`; one inside the other counts."""
    held, asked = ({path.resolve() for path in paths} for paths in (ours, theirs))
    return sorted(path for path in asked if any(path == o or path in o.parents or o in path.parents for o in held))


_talk_cache: OrderedDict[tuple[Recording, float], np.ndarray] = OrderedDict()
_talk_cache_bytes = 0


def read_talk(recording: Recording, *, longest_s: float = LONGEST_TALK_S) -> np.ndarray:
    """The start of a recording, at most 30 s, shape (samples,); recently used ones are kept, within 64 MB.

    Raises:
        audio.AudioError: it cannot be decoded.
    """
    global _talk_cache_bytes
    key = (recording, longest_s)
    if key in _talk_cache:
        _talk_cache.move_to_end(key)
        return _talk_cache[key]
    length_s = None if recording.duration_s is None else min(recording.duration_s, longest_s)
    samples = audio.read(recording.path, offset_s=recording.offset_s, duration_s=length_s)
    _talk_cache[key] = samples
    _talk_cache_bytes += samples.nbytes
    while _talk_cache_bytes > CACHE_BYTES:
        _talk_cache_bytes -= _talk_cache.popitem(last=False)[1].nbytes
    return samples


def read_stretch(
    recording: Recording, samples_count: int, rng: np.random.Generator, *, keep: bool = True
) -> tuple[np.ndarray, float]:
    """Up to `samples_count` samples of a recording from a random place.

    Short recordings are read whole and kept for the next rows if `keep`; else no more is read than is used.

    Returns:
        Samples, shape (samples,), and the second they start at.

    Raises:
        audio.AudioError: it cannot be decoded.
    """
    assert recording.duration_s is not None
    length_s = samples_count / audio.SAMPLE_RATE
    slack_s = max(0.0, recording.duration_s - length_s)
    start_s = round(recording.offset_s + slack_s * float(rng.random()), 3)
    if keep and recording.duration_s <= LONGEST_KEPT_S:
        start = round((start_s - recording.offset_s) * audio.SAMPLE_RATE)
        stretch = read_talk(recording, longest_s=LONGEST_KEPT_S)[start:]
    else:
        stretch = audio.read(recording.path, offset_s=start_s, duration_s=min(length_s, recording.duration_s))
    return stretch[:samples_count], start_s
