"""Which rows of which manifests belong to which data role, with ids unique across the run."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechft import manifest
from speechft.manifest import Reject, Utterance

log = logging.getLogger(__name__)

NAMED_ROLES = ("train", "dev", "test", "general")  # what a pipeline's [data] may name
GENERAL_ROLES = ("general_train", "general_dev", "general_test")
ROLES = ("train", "dev", "test", *GENERAL_ROLES)  # what ingest writes, one file each
SPLIT_ALIASES = {"training": "train", "validation": "dev", "valid": "dev", "val": "dev", "testing": "test"}


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


class Manifests:
    """Every row of the user's manifests with its role, or why it is rejected, one by one.

    - A manifest named for one of train, dev and test gives all its rows to it, whatever their `split` says.
    - A manifest named for several roles is shared out by the `split` column: train, dev (validation, valid,
      val), test, general_train, general_dev, general_test. Rows of any other split are left out and counted;
      rows without one are rejected.
    - A manifest named for general alone is split later, unless rows carry one of those values: then they are
      obeyed (train means general_train, and so on) and rows without one are rejected.

    Ids that occur in several manifests are made unique with the manifest's name in front, the earlier
    manifest (in the order train, dev, test, general) keeping its ids; `parent` follows within a manifest and
    the first id is kept under `source_id`.

    A manifest is read twice, so that of its rows no more than 8 bytes are held: which ids come twice, and whether
    rows say their split, is known after the first time. `total` are all lines with a row, and while rows are asked
    for `done` of them were read, `other_split` belong to a split that no role is named for, and `notes` says what is
    odd.
    """

    def __init__(self, roles: Mapping[str, Sequence[Path]]) -> None:
        """Read the manifests for the first time.

        Raises:
            InputError: a manifest is missing or unreadable.
        """
        named: dict[Path, list[str]] = {}
        for role in NAMED_ROLES:
            for path in roles.get(role, ()):
                holders = named.setdefault(Path(path).absolute(), [])
                if role not in holders:
                    holders.append(role)
        self._surveys = [_survey(path, holders) for path, holders in named.items()]
        self.total = sum(survey.lines for survey in self._surveys)
        self.done = 0
        self.other_split = 0
        self.notes: list[str] = []

    def has(self, identity: str) -> bool:
        """Whether a row of any manifest has this id."""
        return _holds([survey.ids for survey in self._surveys], identity)

    def __iter__(self) -> Iterator[Row | Reject]:
        self.done, self.other_split, self.notes = 0, 0, []
        taken: list[np.ndarray] = []
        for survey in self._surveys:
            mine = array("Q")
            foreign = 0
            for number, found in _without_same_ids(survey):
                self.done += 1
                if isinstance(found, Reject):
                    yield found
                    continue
                label = _split_label(found)
                role = _role(label, survey.holders, labelled=survey.labelled)
                where = f"{survey.path}:{number}"
                if role == "":
                    detail = f"{where}: the manifest is shared out by split, but this row's split is not set"
                    yield Reject(found.row(), "missing split", detail, where)
                elif role is None:
                    self.other_split += 1
                else:
                    foreign += len(survey.holders) == 1 and label in ROLES and label not in (role, f"general_{role}")
                    found = _renamed(found, survey, taken)
                    mine.append(short_hash(found.id))
                    yield Row(utterance=found, where=where, role=role)
            taken.append(_sorted(mine))
            if foreign and survey.holders != ["general"]:
                self.notes.append(f"{survey.path}: {foreign:,} rows named for {survey.holders[0]} say another split")
                log.warning("%s; they were taken for %s all the same", self.notes[-1], survey.holders[0])


@dataclasses.dataclass(kw_only=True)
class _Survey:
    """What is known of a manifest once it was read: `ids`, sorted, and those that come `twice`, by their hashes."""

    path: Path
    holders: list[str]
    lines: int
    ids: np.ndarray
    twice: set[int]
    labelled: bool


def _survey(path: Path, holders: list[str]) -> _Survey:
    lines, labelled, hashes = 0, False, array("Q")
    for _, found in manifest.numbered(path):
        lines += 1
        if isinstance(found, Utterance):
            labelled = labelled or _split_label(found) in ROLES
            hashes.append(short_hash(found.id))
    ids = _sorted(hashes)
    twice = set(ids[1:][ids[1:] == ids[:-1]].tolist())
    return _Survey(path=path, holders=holders, lines=lines, ids=ids, twice=twice, labelled=labelled)


def _without_same_ids(survey: _Survey) -> Iterator[tuple[int, Utterance | Reject]]:
    lines_of: dict[str, int] = {}
    for number, found in manifest.numbered(survey.path):
        if isinstance(found, Utterance) and short_hash(found.id) in survey.twice:
            first = lines_of.setdefault(found.id, number)
            if first != number:
                found = manifest.same_id(survey.path, number, found, first=first)
        yield number, found


def short_hash(value: str | None) -> int:
    """64 bits that tell values apart, 0 for none: of ten million, two agree by chance once in 400,000 times."""
    if not value:
        return 0
    return int.from_bytes(hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def _sorted(hashes: array[int]) -> np.ndarray:
    """The same memory, to be looked up in."""
    held: np.ndarray = np.frombuffer(hashes, dtype=np.uint64)
    held.sort()
    return held


def _holds(sets: Sequence[np.ndarray], value: str) -> bool:
    """Whether one of several sets, sorted hashes, has the value's."""
    hashed = np.uint64(short_hash(value))
    places = ((hashes, np.searchsorted(hashes, hashed)) for hashes in sets)
    return any(place < len(hashes) and hashes[place] == hashed for hashes, place in places)


def _split_label(utterance: Utterance) -> str | None:
    if utterance.split is None:
        return None
    label = utterance.split.strip().lower()
    return SPLIT_ALIASES.get(label, label)


def _role(label: str | None, holders: list[str], *, labelled: bool) -> str | None:
    """The row's role; "" when it should say but does not, None when it belongs to a role not asked for."""
    if holders == ["general"]:
        if label in GENERAL_ROLES:
            return label
        if label in ("train", "dev", "test"):
            return f"general_{label}"
        return "" if labelled else "general"
    if len(holders) == 1:
        return holders[0]
    if label is None:
        return ""
    if label in GENERAL_ROLES:
        return label if "general" in holders else None
    return label if label in holders and label != "general" else None


def _renamed(utterance: Utterance, survey: _Survey, taken: Sequence[np.ndarray]) -> Utterance:
    """The utterance with an id that no earlier manifest has, and its parent's as that is called."""
    changes: dict[str, Any] = {}
    if _holds(taken, utterance.id):
        changes["id"] = _own_name(utterance.id, survey, taken)
        changes["extra"] = {"source_id": utterance.id, **utterance.extra}
    if utterance.parent and _holds([survey.ids], utterance.parent) and _holds(taken, utterance.parent):
        changes["parent"] = _own_name(utterance.parent, survey, taken)
    return dataclasses.replace(utterance, **changes) if changes else utterance


def _own_name(identity: str, survey: _Survey, taken: Sequence[np.ndarray]) -> str:
    new = f"{survey.path.stem}:{identity}"
    if _holds([survey.ids, *taken], new):
        return f"{survey.path.stem}-{hashlib.sha256(str(survey.path).encode()).hexdigest()[:8]}:{identity}"
    return new
