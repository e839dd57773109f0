"""The leak gate: nothing that is reported may have been trained on or chosen by, unless the user names it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft.errors import InputError
from speechft.ingest import overlap
from speechft.ingest.overlap import KINDS
from speechft.ingest.readers import Row

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
    rows: Mapping[str, Sequence[Row]],
    *,
    allow_leaks: Collection[str] = (),
    excused: Mapping[tuple[str, str, str], str] | None = None,
) -> tuple[dict[str, Any], list[Leak]]:
    """Compare the roles with each other.

    Args:
        rows: checked rows by role.
        allow_leaks: the kinds the user allows by name.
        excused: (kind, learned, held out) -> why this overlap cannot be avoided, such as the voice shared by
            two sides of a one-speaker manifest that was split by text.

    Returns:
        What goes to audit.json, and every leak found, allowed or not.

    Raises:
        InputError: `allow_leaks` names no kind of leak.
    """
    unknown = sorted(set(allow_leaks) - set(KINDS))
    if unknown:
        raise InputError(f"data.allow_leaks must name kinds of leak ({', '.join(KINDS)}), got {unknown[0]!r}")
    near = _near_texts(rows)
    leaks: list[Leak] = []
    for (learned, held_out), kinds in GATES.items():
        found = _shared(rows.get(learned, ()), rows.get(held_out, ()), kinds, near)
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
        "roles": {role: _describe(held) for role, held in rows.items()},
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
        "warnings": _warnings(rows),
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
    kinds = ", ".join(f'"{kind}"' for kind in KINDS if kind in {leak.kind for leak in stopping})
    raise InputError(
        f"{found}; take those rows out of one side (all are in {audit_path}), or allow it with "
        f"data.allow_leaks = [{kinds}]"
    )


_SHARE = {
    "speaker": "have a speaker of",
    "text": "have a text of",
    "near_text": "have nearly a text of",
    "audio": "have the same sound as rows of",
    "segment": "overlap in one file with rows of",
}


_VALUES: dict[str, Callable[[Row], str | None]] = {
    "speaker": lambda row: row.utterance.speaker,
    "text": lambda row: row.text_key,
    "audio": lambda row: row.audio_sha256,
}


def _shared(
    learned: Sequence[Row], held_out: Sequence[Row], kinds: Collection[str], near: Mapping[str, list[str]]
) -> dict[str, dict[str, str]]:
    """For each kind: held-out id -> the id of one learned-from row with which it shares something."""
    found: dict[str, dict[str, str]] = {}
    for kind in kinds:
        pairs = found.setdefault(kind, {})
        if kind == "segment":
            for row, other in overlap.segment_pairs(learned, held_out):
                pairs.setdefault(other.utterance.id, row.utterance.id)
            continue
        value = _VALUES["text" if kind == "near_text" else kind]
        owners: dict[str, str] = {}
        for row in learned:
            owners.setdefault(value(row) or "", row.utterance.id)
        for row in held_out:
            own = value(row)
            candidates = near.get(own or "", []) if kind == "near_text" else [own]
            owner = next((owners[candidate] for candidate in candidates if candidate in owners), None)
            if own and owner is not None:
                pairs[row.utterance.id] = owner
    return found


def _near_texts(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    """Held-out text -> the nearly equal texts that are learned from, over all roles at once."""

    def keys_of(place: int) -> list[str]:
        roles = {gate[place] for gate, kinds in GATES.items() if "near_text" in kinds}
        return [row.text_key for role in rows if role in roles for row in rows[role]]

    near: dict[str, list[str]] = defaultdict(list)
    for learned, held_out in overlap.near_pairs(keys_of(0), keys_of(1)):
        near[held_out].append(learned)
    return near


def _describe(rows: Sequence[Row]) -> dict[str, Any]:
    """Size of a role, and how many of its rows repeat an earlier row's text or sound."""
    keys = Counter(row.text_key for row in rows if row.text_key)
    sounds = Counter(row.audio_sha256 for row in rows if row.audio_sha256)
    return {
        "rows": len(rows),
        "minutes": round(sum(row.utterance.duration or 0.0 for row in rows) / 60, 3),
        "speakers": len({row.utterance.speaker for row in rows} - {None}),
        "words": sum(len((row.utterance.text or "").split()) for row in rows),
        "silent_rows": sum(not row.utterance.text for row in rows),
        "duplicate_texts": keys.total() - len(keys),
        "duplicate_audio": sounds.total() - len(sounds),
    }


def _warnings(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """Odd rows by kind: how many, and the first of them."""
    found: dict[str, dict[str, Any]] = {}
    for held in rows.values():
        for row in held:
            for kind, sentence in row.warnings:
                entry = found.setdefault(kind, {"rows": 0, "examples": []})
                entry["rows"] += 1
                if len(entry["examples"]) < EXAMPLES:
                    entry["examples"].append({"id": row.utterance.id, "where": row.where, "detail": sentence})
    return found
