"""Which rows of which manifests belong to which data role, with ids unique across the run."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import logging
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechft import manifest
from speechft.errors import InputError
from speechft.ingest.ledger import Row, short_hash
from speechft.manifest import LABELS, Reject, Utterance

log = logging.getLogger(__name__)

NAMED_ROLES = ("train", "dev", "test", "general")  # what a pipeline's [data] may name
GENERAL_ROLES = ("general_train", "general_dev", "general_test")
ALIKE = 0.75  # of two keys, by difflib: `speakr` and `speaker_id` are like `speaker`
ROLES = ("train", "dev", "test", *GENERAL_ROLES)  # what ingest writes, one file each
SPLIT_ALIASES = {"training": "train", "validation": "dev", "valid": "dev", "val": "dev", "testing": "test"}


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

    A manifest is read twice, so that no more of its rows is held than the hashes of their ids: whether an id is free
    and whether rows say their split is known after the first time. That an id comes twice in a manifest is for the
    caller to see. `total` is how many rows there are, segments cut, of which `other_split` are left out while rows are
    asked for (`left_out` by split); `notes` says what is odd.
    """

    def __init__(self, roles: Mapping[str, Sequence[Path]]) -> None:
        """Read the manifests for the first time.

        Raises:
            InputError: a manifest is missing, unreadable or a pipe.
        """
        named: dict[Path, tuple[Path, list[str]]] = {}  # by where links lead: a manifest is one, whatever it is called
        for role in NAMED_ROLES:
            for path in roles.get(role, ()):
                _, holders = named.setdefault(Path(path).resolve(), (Path(path).absolute(), []))
                if role not in holders:
                    holders.append(role)
        self._surveys = [_survey(path, holders) for path, holders in named.values()]
        self.total = sum(survey.rows for survey in self._surveys)
        self.left_out: Counter[str] = Counter()
        self.notes: list[str] = []

    @property
    def other_split(self) -> int:
        """Rows left out so far."""
        return self.left_out.total()

    def __iter__(self) -> Iterator[Row | Reject]:
        """Read them again.

        Raises:
            InputError: a manifest has changed meanwhile.
        """
        self.left_out, self.notes = Counter(), []
        taken: np.ndarray = np.empty(0, dtype=np.uint64)
        for survey in self._surveys:
            mine = array("Q")
            lines = foreign = 0
            for number, found in manifest.numbered(survey.path):
                lines += 1
                if isinstance(found, Reject):
                    yield found
                    continue
                if lines == 1 and (hint := _misspelt(found)):
                    self._note(f"{survey.path}: {hint}")
                label = _split_label(found)
                role = _role(label, survey.holders, labelled=survey.labelled)
                where = f"{survey.path}:{number}"
                if role == "":
                    detail = f"{where}: the manifest is shared out by split, but this row's split is not set"
                    yield Reject(found.row(), "missing split", detail, where)
                elif role is None:
                    self.left_out[str(label)] += 1
                else:
                    foreign += len(survey.holders) == 1 and label in ROLES and label not in (role, f"general_{role}")
                    found = _renamed(found, survey, taken)
                    mine.append(short_hash(found.id))
                    yield Row(utterance=found, where=where, role=role)
            if lines != survey.lines:
                raise InputError(f"{survey.path}: was changed while it was read; start again")
            taken = np.sort(np.concatenate([taken, np.frombuffer(mine, dtype=np.uint64)]))
            if foreign and survey.holders != ["general"]:
                role = survey.holders[0]
                self._note(f"{survey.path}: {foreign:,} rows named for {role} say another split; they are taken for it")
        for label, count in self.left_out.items():
            named = f"data.{label} is not named" if label in NAMED_ROLES else "no setting of [data] takes it"
            self._note(f"{count:,} rows say split {label!r}, and {named}: they are left out")

    def _note(self, text: str) -> None:
        self.notes.append(text)
        log.warning("%s", text)


@dataclasses.dataclass(kw_only=True)
class _Survey:
    """What is known of a manifest once it was read: `ids` are sorted hashes; of its `lines` segments make `rows`."""

    path: Path
    holders: list[str]
    lines: int = 0
    rows: int = 0
    ids: np.ndarray
    labelled: bool = False


def _survey(path: Path, holders: list[str]) -> _Survey:
    from speechft.ingest import segments  # with soundfile

    if path.is_fifo():
        raise InputError(f"{path}: is a pipe, and a manifest is read twice; save it to a file")
    hashes = array("Q")
    survey = _Survey(path=path, holders=holders, ids=np.empty(0, dtype=np.uint64))
    for _, found in manifest.numbered(path):
        survey.lines += 1
        survey.rows += 1 if isinstance(found, Reject) else segments.count(found)
        if isinstance(found, Utterance):
            survey.labelled = survey.labelled or _split_label(found) in ROLES
            hashes.append(short_hash(found.id))
    survey.ids = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    return survey


def _holds(hashes: np.ndarray, value: str) -> bool:
    """Whether the value's hash is among sorted ones."""
    hashed = np.uint64(short_hash(value))
    place = np.searchsorted(hashes, hashed)
    return bool(place < len(hashes) and hashes[place] == hashed)


def _misspelt(utterance: Utterance) -> str | None:
    """Which keys may be meant for ones that the row lacks."""
    lacking = [name for name in LABELS if getattr(utterance, name) is None]
    close = ((key, difflib.get_close_matches(key.lower(), lacking, n=1, cutoff=ALIKE)) for key in utterance.extra)
    found = [f"{key!r} is not known, is {names[0]!r} meant?" for key, names in close if names]
    return " ".join(found) or None


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


def _renamed(utterance: Utterance, survey: _Survey, taken: np.ndarray) -> Utterance:
    """The utterance with an id that no earlier manifest has, and its parent's as that is called."""
    changes: dict[str, Any] = {}
    if _holds(taken, utterance.id):
        changes["id"] = _own_name(utterance.id, survey, taken)
        changes["extra"] = {"source_id": utterance.id, **utterance.extra}
    if utterance.parent and _holds(survey.ids, utterance.parent) and _holds(taken, utterance.parent):
        changes["parent"] = _own_name(utterance.parent, survey, taken)
    return dataclasses.replace(utterance, **changes) if changes else utterance


def _own_name(identity: str, survey: _Survey, taken: np.ndarray) -> str:
    new = f"{survey.path.stem}:{identity}"
    if _holds(taken, new) or _holds(survey.ids, new):
        return f"{survey.path.stem}-{hashlib.sha256(str(survey.path).encode()).hexdigest()[:8]}:{identity}"
    return new
