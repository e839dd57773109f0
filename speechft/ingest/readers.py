"""Which rows of which manifests belong to which data role, with ids unique across the run."""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from speechft import manifest
from speechft.manifest import Reject, Utterance

log = logging.getLogger(__name__)

NAMED_ROLES = ("train", "dev", "test", "general")  # what a pipeline's [data] may name
GENERAL_ROLES = ("general_train", "general_dev", "general_test")
ROLES = ("train", "dev", "test", *GENERAL_ROLES)  # what ingest writes, one file each
SPLIT_ALIASES = {"training": "train", "validation": "dev", "valid": "dev", "val": "dev", "testing": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An utterance on its way through ingest: where it stands, and what its audio turned out to be.

    `text_key` is the text as texts are compared, "" for silence; `audio_sha256` is of the decoded samples, ""
    when all are zero; both are filled in by the checks. `warnings` are (kind, sentence) pairs.
    """

    utterance: Utterance
    where: str
    text_key: str = ""
    audio_sha256: str = ""
    warnings: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(kw_only=True)
class Loaded:
    """Rows by role ("general" holds those still to be split), and what was not taken."""

    rows: dict[str, list[Row]]
    rejects: list[Reject]
    other_split: int  # rows of a manifest shared by several roles whose split is none of them
    notes: list[str]


def load(roles: Mapping[str, Sequence[Path]]) -> Loaded:
    """Read every manifest once and give each row its role.

    - A manifest named for one of train, dev and test gives all its rows to it, whatever their `split` says.
    - A manifest named for several roles is shared out by the `split` column: train, dev (validation, valid,
      val), test, general_train, general_dev, general_test. Rows of any other split are left out and counted;
      rows without one are rejected.
    - A manifest named for general alone is split later, unless rows carry one of those values: then they are
      obeyed (train means general_train, and so on) and rows without one are rejected.

    Ids that occur in several manifests are made unique with the manifest's name in front, the earlier
    manifest (in the order train, dev, test, general) keeping its ids; `parent` follows within a manifest and
    the first id is kept under `source_id`.

    Raises:
        InputError: a manifest is missing or unreadable.
    """
    named: dict[Path, list[str]] = {}
    for role in NAMED_ROLES:
        for path in roles.get(role, ()):
            holders = named.setdefault(Path(path).absolute(), [])
            if role not in holders:
                holders.append(role)
    loaded = Loaded(rows={}, rejects=[], other_split=0, notes=[])
    taken: set[str] = set()
    for path, holders in named.items():
        numbered, rejects = manifest.scan_numbered(path)
        loaded.rejects.extend(rejects)
        labelled = any(_split_label(utterance) in ROLES for _, utterance in numbered)
        foreign = 0
        assigned: list[tuple[str, int, Utterance]] = []
        for number, utterance in numbered:
            taker = _role(utterance, holders, labelled=labelled)
            if taker == "":
                where = f"{path}:{number}"
                detail = f"{where}: the manifest is shared out by split, but this row's split is not set"
                loaded.rejects.append(Reject(utterance.row(), "missing split", detail, where))
            elif taker is None:
                loaded.other_split += 1
            else:
                assigned.append((taker, number, utterance))
                label = _split_label(utterance)
                foreign += len(holders) == 1 and label in ROLES and label not in (taker, f"general_{taker}")
        if foreign and holders != ["general"]:
            loaded.notes.append(f"{path}: {foreign:,} rows named for {holders[0]} say another split")
            log.warning("%s; they were taken for %s all the same", loaded.notes[-1], holders[0])
        for role, number, utterance in _unique_ids(assigned, path, taken):
            loaded.rows.setdefault(role, []).append(Row(utterance=utterance, where=f"{path}:{number}"))
    return loaded


def _split_label(utterance: Utterance) -> str | None:
    if utterance.split is None:
        return None
    label = utterance.split.strip().lower()
    return SPLIT_ALIASES.get(label, label)


def _role(utterance: Utterance, holders: list[str], *, labelled: bool) -> str | None:
    """The row's role; "" when it should say but does not, None when it belongs to a role not asked for."""
    label = _split_label(utterance)
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


def _unique_ids(
    assigned: list[tuple[str, int, Utterance]], path: Path, taken: set[str]
) -> list[tuple[str, int, Utterance]]:
    own = {utterance.id for _, _, utterance in assigned}
    renamed: dict[str, str] = {}
    for identity in sorted(own & taken):
        new = f"{path.stem}:{identity}"
        if new in taken or new in own:
            new = f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}:{identity}"
        renamed[identity] = new
    taken |= {renamed.get(identity, identity) for identity in own}
    if not renamed:
        return assigned
    return [(role, number, _rename(utterance, renamed)) for role, number, utterance in assigned]


def _rename(utterance: Utterance, renamed: dict[str, str]) -> Utterance:
    changes: dict[str, object] = {}
    if utterance.id in renamed:
        changes["id"] = renamed[utterance.id]
        changes["extra"] = {"source_id": utterance.id, **utterance.extra}
    if utterance.parent in renamed:
        changes["parent"] = renamed[utterance.parent]
    return dataclasses.replace(utterance, **changes) if changes else utterance  # type: ignore[arg-type]
