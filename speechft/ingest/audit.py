"""The leak gate: nothing that is reported may have been trained on or chosen by, unless the user names it."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechft.errors import InputError
from speechft.ingest import overlap
from speechft.ingest.ledger import Ledger, Places, short_hash
from speechft.ingest.overlap import KINDS

CONTENT = ("text", "near_text", "audio", "segment")
SOUND = ("audio", "segment")
EXAMPLES = 20  # rows listed per kind of warning; leaks are listed in full, to be taken out

# (what is learned or chosen from, what is held out): which kinds of overlap stop the run. Replay speech may
# share its voices with dev and test, never its sentences. What is only chosen by may share texts with what is
# reported, but not recordings.
GATES: dict[tuple[str, str], tuple[str, ...]] = {
    ("train", "dev"): KINDS,
    ("train", "test"): KINDS,
    ("train", "general_test"): KINDS,
    ("general_train", "general_test"): KINDS,
    ("train", "general_dev"): CONTENT,
    ("general_train", "dev"): CONTENT,
    ("general_train", "test"): CONTENT,
    ("general_train", "general_dev"): CONTENT,
    ("dev", "test"): SOUND,
    ("dev", "general_test"): SOUND,
    ("general_dev", "test"): SOUND,
    ("general_dev", "general_test"): SOUND,
}


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One kind of overlap between a role that is learned from and one that is held out.

    `rows` counts held-out rows; `pairs` are (learned-from id, held-out id), one for each. `excuse` says why
    an overlap that is not allowed by name does not stop the run, "" for none.
    """

    kind: str
    learned: str
    held_out: str
    rows: int
    held_out_rows: int
    pairs: tuple[tuple[str, str], ...]
    excuse: str = ""


def audit(
    ledger: Ledger,
    rows: Mapping[str, Places],
    *,
    allow_leaks: Collection[str] = (),
    excused: Mapping[tuple[str, str, str], str] | None = None,
    dev_of_train: bool = False,
) -> tuple[dict[str, Any], list[Leak]]:
    """Compare the roles with each other.

    Args:
        ledger: checked rows.
        rows: where those of each role stand in it.
        allow_leaks: the kinds the user allows by name.
        excused: (kind, learned, held out) -> why this overlap cannot be avoided, such as the voice shared by
            two sides of a one-speaker manifest that was split by text.
        dev_of_train: whether dev was cut from train: then it is held apart from what is reported as train is, so that
            a leak is found wherever its row came to be.

    Returns:
        What goes to audit.json, and every leak found, allowed or not.

    Raises:
        InputError: `allow_leaks` names no kind of leak.
    """
    unknown = sorted(set(allow_leaks) - set(KINDS))
    if unknown:
        raise InputError(f"data.allow_leaks must name kinds of leak ({', '.join(KINDS)}), got {unknown[0]!r}")
    gates = dict(GATES)
    if dev_of_train:
        gates |= {("dev", held_out): GATES["train", held_out] for held_out in ("test", "general_test")}
    near = _near_texts(ledger, rows, gates)
    leaks: list[Leak] = []
    for (learned, held_out), kinds in gates.items():
        if learned not in rows or held_out not in rows:
            continue
        found = _shared(ledger, rows[learned], rows[held_out], kinds, near)
        for kind in kinds:
            if pairs := found[kind]:
                leaks.append(
                    Leak(
                        kind=kind,
                        learned=learned,
                        held_out=held_out,
                        rows=len(pairs),
                        held_out_rows=len(rows[held_out]),
                        pairs=tuple((first, second) for second, first in pairs.items()),
                        excuse=(excused or {}).get((kind, learned, held_out), ""),
                    )
                )
    facts = {
        "roles": {role: _describe(ledger, held) for role, held in rows.items()},
        "leaks": [
            {
                "kind": leak.kind,
                "learned": leak.learned,
                "held_out": leak.held_out,
                "rows": leak.rows,
                "allowed": leak.kind in allow_leaks or bool(leak.excuse),
                "excuse": leak.excuse or None,
                "pairs": [list(pair) for pair in leak.pairs],
            }
            for leak in leaks
        ],
        "allow_leaks": sorted(allow_leaks),
        "warnings": _warnings(ledger, rows),
    }
    return facts, leaks


def refuse(leaks: Sequence[Leak], *, allow_leaks: Collection[str], audit_path: Path) -> None:
    """Stop the run on leaks that nobody allowed.

    Raises:
        InputError: names each kind, how many rows, two example ids and the setting that allows it.
    """
    stopping = [leak for leak in leaks if leak.kind not in allow_leaks and not leak.excuse]
    if not stopping:
        return
    found = "; ".join(
        f"{leak.kind} leak: {leak.rows:,} of {leak.held_out_rows:,} {leak.held_out} rows {_SHARE[leak.kind]} "
        f'{leak.learned} (such as "{leak.pairs[0][0]}" and "{leak.pairs[0][1]}")'
        for leak in stopping
    )
    kinds = ",".join(f'"{kind}"' for kind in KINDS if kind in {leak.kind for leak in stopping})
    raise InputError(
        f"{found}; take those rows out of one side (all are in {audit_path}), or allow it with "
        f"data.allow_leaks=[{kinds}]"
    )


_SHARE = {
    "speaker": "have a speaker of",
    "text": "have a text of",
    "near_text": "have nearly a text of",
    "audio": "have the same sound as rows of",
    "segment": "overlap in one file with rows of",
}


_COLUMNS = {"speaker": "speaker", "text": "text", "near_text": "text", "audio": "sound"}


def _shared(
    ledger: Ledger, learned: Places, held_out: Places, kinds: Collection[str], near: Mapping[int, list[int]]
) -> dict[str, dict[str, str]]:
    """For each kind: held-out id -> the id of one learned-from row with which it shares something."""
    found: dict[str, dict[str, str]] = {}
    for kind in kinds:
        pairs: dict[int, int] = {}  # where they stand in `held_out` and `learned`
        if kind == "segment":
            for own, other in overlap.segment_pairs(ledger, learned, held_out):
                pairs.setdefault(other, own)
        else:
            told = ledger.column(_COLUMNS[kind], held_out)
            like = near if kind == "near_text" else {value: [value] for value in told.tolist() if value}
            values = ledger.column(_COLUMNS[kind], learned)
            asked = np.array([other for others in like.values() for other in others], dtype=np.uint64)
            having = np.flatnonzero(np.isin(values, asked))
            values, first = np.unique(values[having], return_index=True)
            owners = dict(zip(values.tolist(), having[first].tolist(), strict=True))
            for at, value in enumerate(told.tolist()):
                owner = next((owners[other] for other in like.get(value, ()) if other in owners), None)
                if owner is not None:
                    pairs[at] = owner
        found[kind] = {
            ledger[held_out[at]].utterance.id: ledger[learned[owner]].utterance.id for at, owner in pairs.items()
        }
    return found


def _near_texts(
    ledger: Ledger, rows: Mapping[str, Places], gates: Mapping[tuple[str, str], Collection[str]]
) -> dict[int, list[int]]:
    """Held-out text -> the nearly equal texts that are learned from, over all roles at once; all by their hashes."""

    def keys_of(place: int) -> Iterator[str]:
        roles = {gate[place] for gate, kinds in gates.items() if "near_text" in kinds}
        places = np.concatenate([np.empty(0, dtype=np.int64), *(held for role, held in rows.items() if role in roles)])
        _, first = np.unique(ledger.column("text", places), return_index=True)
        return (row.text_key for row in ledger.each(places[np.sort(first)]))

    near: dict[int, list[int]] = defaultdict(list)
    for learned, held_out in overlap.near_pairs(keys_of(0), keys_of(1)):
        near[short_hash(held_out)].append(short_hash(learned))
    return near


def _describe(ledger: Ledger, places: Places) -> dict[str, Any]:
    """Size of a role, and how many of its rows repeat an earlier row's text or sound."""
    words = ledger.column("words", places)
    texts, different_texts = ledger.distinct("text", places)
    sounds, different_sounds = ledger.distinct("sound", places)
    return {
        "rows": len(places),
        "minutes": round(float(ledger.column("duration_s", places).sum()) / 60, 3),
        "speakers": ledger.distinct("speaker", places)[1],
        "words": int(words.sum(dtype=np.int64)),
        "silent_rows": int(np.count_nonzero(words == 0)),
        "duplicate_texts": texts - different_texts,
        "duplicate_audio": sounds - different_sounds,
    }


def _warnings(ledger: Ledger, rows: Mapping[str, Places]) -> dict[str, dict[str, Any]]:
    """Odd rows by kind: how many, and the first of them."""
    found: dict[str, dict[str, Any]] = {}
    for places in rows.values():
        for row in ledger.each(places[np.isin(places, ledger.odd)]):
            for kind, sentence in row.warnings:
                entry = found.setdefault(kind, {"rows": 0, "examples": []})
                entry["rows"] += 1
                if len(entry["examples"]) < EXAMPLES:
                    entry["examples"].append({"id": row.utterance.id, "where": row.where, "detail": sentence})
    return found
