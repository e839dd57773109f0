"""What `synth` says: sentences the user wrote, and sentences that carry the terms of a list."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechft import files
from speechft.errors import InputError
from speechft.text import Term

SHIPPED = Path(__file__).parent / "sentences.txt"
SLOT = "{term}"
ROLES = {"train": 0.7, "dev": 0.12, "test": 0.18}  # shares of the carrier sentences, when all three are spoken
CHECKED_TERMS = {
    "dev": 60,
    "test": 120,
}  # sentences of the synthetic check sets, at most; a short list repeats its terms
PER_TERM, FEWEST_LINES = 12, 480  # by trial (docs/log.md, 2026-11-26): with 96 lines eight terms are hardly learned
FEWEST_CARRIERS = 6  # for three roles that share none


@dataclass(frozen=True, kw_only=True)
class Line:
    """One sentence: how it is written, how it is said, and the term it carries."""

    id: str
    text: str
    spoken: str
    term: str | None = None


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """A sentence with a slot, for terms of one kind or of any."""

    text: str
    kind: str | None


def write(
    terms: Sequence[Term], carriers: Sequence[Carrier], sentences: Sequence[Line], *, per_term: int,
    roles: Sequence[str], seed: int,
) -> dict[str, list[Line]]:  # fmt: skip
    """The lines of each role; roles share no carrier sentence, and the user's sentences are for training.

    Args:
        terms: the list; every term is in training, `per_term` times, each time in another sentence while they last.
        carriers: sentences with a slot.
        sentences: what else to say in training.
        per_term: training lines of each term.
        roles: "train", and "dev" and "test" where nothing recorded is there to choose and to report by.
        seed: which sentences carry which term.

    Raises:
        InputError: there are too few carrier sentences.
    """
    lines: dict[str, list[Line]] = {role: [] for role in roles}
    lines["train"] += sentences
    if not terms:
        return lines
    if len(roles) > 1 and sum(carrier.kind is None for carrier in carriers) < FEWEST_CARRIERS:
        raise InputError(
            f"synth.templates: {FEWEST_CARRIERS} sentences for terms of any kind are needed to speak training and "
            f"test rows that share none; add some, or name recordings in data.dev and data.test"
        )
    shared = _share_out(carriers, roles, seed)
    for role in roles:
        wanted = list(terms)
        if role != "train":
            order = random.Random(f"{seed}:{role}:terms")
            wanted = order.sample(wanted, min(len(wanted), CHECKED_TERMS[role]))
        for term in wanted:
            fitting = [c for c in shared[role] if c.kind is None or c.kind == term.kind]
            random.Random(f"{seed}:{role}:{term.term}").shuffle(fitting)
            checks = 0 if role == "train" else min(len(fitting), CHECKED_TERMS[role] // len(wanted))
            for number in range(per_term if role == "train" else max(1, checks)):
                carrier = fitting[number % len(fitting)]
                identity = hashlib.sha256(term.term.encode()).hexdigest()[:8]
                lines[role].append(
                    Line(
                        id=f"synth-{role}-{identity}-{number:02d}",
                        text=carrier.text.replace(SLOT, term.term),
                        spoken=carrier.text.replace(SLOT, term.spoken or term.term),
                        term=term.term,
                    )
                )
    return lines


def default_per_term(terms: int) -> int:
    """Training sentences of each term of a list: twelve, and more where the whole list would have fewer than 480."""
    return max(PER_TERM, math.ceil(FEWEST_LINES / max(1, terms)))


def _share_out(carriers: Sequence[Carrier], roles: Sequence[str], seed: int) -> dict[str, list[Carrier]]:
    """Carriers by role; each role has some that fit any term."""
    order = sorted(carriers, key=lambda c: hashlib.sha256(f"{seed}:{c.text}".encode()).hexdigest())
    shared: dict[str, list[Carrier]] = {role: [] for role in roles}
    for any_kind in (True, False):
        group = [carrier for carrier in order if (carrier.kind is None) == any_kind]
        for role in roles[1:]:
            count = max(1 if any_kind else 0, round(ROLES[role] * len(group)))
            shared[role] += group[:count]
            group = group[count:]
        shared["train"] += group
    return shared


def read_carriers(path: Path | None, terms: Sequence[Term]) -> list[Carrier]:
    """Carrier sentences of a text file, or the shipped ones; a leading `kind:` of the list's kinds is cut off.

    Raises:
        InputError: the file cannot be read, or a line has no slot.
    """
    path = path or SHIPPED
    kinds = {term.kind for term in terms if term.kind}
    if path == SHIPPED:
        kinds |= {"drug", "finding", "procedure"}
    found = []
    for number, line in _lines(path):
        if SLOT not in line:
            raise InputError(f"{path}:{number}: a template needs {SLOT}, where the term goes; got {line!r}")
        kind, colon, rest = line.partition(":")
        found.append(
            Carrier(text=rest.strip(), kind=kind) if colon and kind in kinds else Carrier(text=line, kind=None)
        )
    if not any(carrier.kind is None for carrier in found):
        raise InputError(f"{path}: holds no template for terms of any kind; add lines without a leading `kind:`")
    return found


def read_sentences(path: Path) -> list[Line]:
    """Sentences to say: JSON Lines with `text`, and `id` and `spoken` where wanted, or plain text with one a line.

    Raises:
        InputError: the file cannot be read, or a row has no text.
    """
    rows: list[tuple[int, Mapping[str, object]]]
    if path.suffix.lower() in (".jsonl", ".json"):
        rows = list(enumerate(files.read_jsonl(path), start=1))
    else:
        rows = [(number, {"text": line}) for number, line in _lines(path)]
    found = []
    for number, row in rows:
        text, spoken = row.get("text"), row.get("spoken")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{path}:{number}: `text` must be the sentence to say, got {text!r}")
        if spoken is not None and not isinstance(spoken, str):
            raise InputError(f"{path}:{number}: `spoken` must be text, got {spoken!r}")
        identity = str(row.get("id") or f"{path.stem}-{number:05d}")
        found.append(Line(id=f"synth-{identity}", text=text.strip(), spoken=spoken or text.strip()))
    if not found:
        raise InputError(f"{path}: holds no sentences; give one a line")
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not valid UTF-8; save it as UTF-8") from error
    numbered = enumerate(content.splitlines(), start=1)
    return [(number, line.strip()) for number, line in numbered if line.strip() and not line.startswith("# ")]
