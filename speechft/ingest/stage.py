"""The ingest stage: manifests in; checked rows for each role, named rejects and a leak audit out."""

import dataclasses
import logging
import math
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechft import files, manifest
from speechft.errors import InputError
from speechft.ingest import audit, checks, readers, segments, split
from speechft.ingest.ledger import Ledger, Places, Row
from speechft.ingest.readers import GENERAL_ROLES, NAMED_ROLES, ROLES
from speechft.manifest import Reject, Utterance
from speechft.progress import Progress
from speechft.text import language_code

log = logging.getLogger(__name__)

SOUND_DIGITS = 32  # of a hash, which rows are told apart by
DEV_SHARE = 0.1  # of train, when no dev manifest is named


def ingest(
    roles: Mapping[str, Sequence[Path]],
    *,
    out: Path,
    allow_leaks: Collection[str],
    max_rejected_share: float,
    general_dev_share: float,
    split_by: str | None,
    seed: int,
    train_share: float,
) -> dict[str, Any]:
    """Read, check, split and audit the user's manifests.

    Writes train, dev, test, general_train, general_dev and general_test .jsonl (those that have rows),
    rejects.jsonl (reason, detail, where, row) and audit.json into `out`. Without a dev manifest a tenth of
    train becomes dev. A general manifest without split values gives `general_dev_share` each to general_dev
    and general_test, the rest to general_train. How a manifest named for several roles is shared out is told
    in `readers.Manifests`.

    Args:
        roles: train, dev, test, general -> their manifests.
        out: the stage's folder.
        allow_leaks: kinds of leak that do not stop the run.
        max_rejected_share: of the rows read, how many may be rejected.
        general_dev_share: of the general rows, how many go to general_dev, and as many to general_test; above 0, at
            most 0.5.
        split_by: label to split by; None for speaker, else text.
        seed: which groups a split puts where.
        train_share: of the training rows that are left then, how many to learn from; the others are counted and let go.

    Returns:
        Counts: `in`, `out`, `rejected` by reason, `other_split` (rows of a shared manifest that no named role
        wanted), `not_learned` (training rows beyond `train_share`), `languages` of the rows that name theirs, and
        `roles`: for each role its rows, minutes, speakers and words.

    Raises:
        InputError: no manifest is named, one is unreadable, a named role has no usable rows, too many rows
            were rejected, or there is a leak that is not allowed.
    """
    _check_roles(roles)
    _clear(out)
    manifests = readers.Manifests(roles)
    with Ledger(out) as ledger:
        rows, rejects = _check(manifests, ledger)
        _write_rejects(out / "rejects.jsonl", rejects)
        total = sum(map(len, rows.values())) + len(rejects)
        _require_rows(roles, rows, rejects, total=total, max_rejected_share=max_rejected_share, out=out)
        splits, excused, dropped = _split(
            ledger,
            rows,
            shares={role: sides_of(role, general_dev_share, has_dev=bool(roles.get("dev"))) for role in rows},
            seed=seed,
            split_by=split_by,
            apart=[kind for kind in ("text", "near_text") if kind not in allow_leaks],
        )
        rejects += dropped
        _write_rejects(out / "rejects.jsonl", rejects)
        not_learned = 0
        if len(rows.get("train", ())):
            part = _part(ledger, rows["train"], train_share)
            not_learned, rows["train"] = len(rows["train"]) - len(part), part
        if not_learned:
            log.info("ingest: %s training rows are left out by data.train_share = %g", f"{not_learned:,}", train_share)

        ordered = {role: rows[role] for role in ROLES if len(rows.get(role, ()))}
        if "test" in ordered and all(
            row.utterance.condition not in (None, "clean") for row in ledger.each(ordered["test"])
        ):
            raise InputError(
                "data.test: every row has a `condition`, so none is clean; leave the key out of those that are"
            )
        facts, leaks = audit.audit(
            ledger, ordered, allow_leaks=allow_leaks, excused=excused, dev_of_train=not roles.get("dev")
        )
        facts["split"] = splits
        facts["notes"] = manifests.notes
        files.write_json(out / "audit.json", facts)
        _tell(facts)
        audit.refuse(leaks, allow_leaks=allow_leaks, audit_path=out / "audit.json")
        languages: Counter[str] = Counter()
        for role, places in ordered.items():
            manifest.write(out / f"{role}.jsonl", (_checked(row, role, languages) for row in ledger.each(places)))
    return {
        "in": total,
        "out": sum(map(len, ordered.values())),
        "rejected": dict(Counter(reject.reason for reject in rejects).most_common()),
        "other_split": manifests.other_split,
        "not_learned": not_learned,
        "languages": dict(languages.most_common()),
        "roles": {
            role: {key: facts["roles"][role][key] for key in ("rows", "minutes", "speakers", "words")}
            for role in ordered
        },
    }


def _tell(facts: Mapping[str, Any]) -> None:
    """What became of the rows, in a line, and whose speakers cannot be compared."""
    held = (
        f"{role} {found['rows']:,} rows, {found['minutes']:.1f} min, {found['speakers']:,} speakers"
        for role, found in facts["roles"].items()
    )
    log.info("ingest: %s", "; ".join(held))
    if unknown := [role for role, found in facts["roles"].items() if not found["speakers"]]:
        log.warning(
            "ingest: no row of %s names its speaker, so whether a speaker was trained on is not checked; add `speaker`",
            " and ".join(unknown),
        )


def _check(manifests: readers.Manifests, ledger: Ledger) -> tuple[dict[str, Places], list[Reject]]:
    """Hear every row once: the good ones in the ledger, their places by role, and the others."""
    places: dict[str, array[int]] = {}
    rejects: list[Reject] = []
    with Progress("checking audio") as tell:
        for done, found in enumerate(checks.check_all(segments.cut_all(manifests)), start=1):
            if isinstance(found, Reject):
                rejects.append(found)
            else:
                places.setdefault(found.role, array("q")).append(ledger.append(found))
            tell(done + manifests.other_split, manifests.total)
    again = _same_ids(ledger)
    rejects += again.values()
    return {role: np.array(held)[~np.isin(held, [*again])] for role, held in places.items()}, rejects


def _same_ids(ledger: Ledger) -> dict[int, Reject]:
    """Rows whose id an earlier row has, by their places."""
    everywhere = np.arange(len(ledger))
    if len({*ledger.distinct("id", everywhere)}) == 1:
        return {}
    ids = ledger.column("id", everywhere)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    again = np.flatnonzero(ids[1:] == ids[:-1]) + 1
    first = order[np.searchsorted(ids, ids[again])]
    rejects: dict[int, Reject] = {}
    for place, earlier in sorted(zip(order[again].tolist(), first.tolist(), strict=True)):
        row = ledger[place]
        detail = f'{row.where}: id "{row.utterance.id}" was used in {ledger[earlier].where}'
        rejects[place] = Reject(row.utterance.row(), "duplicate id", detail, row.where)
    return rejects


def sides_of(role: str, general_dev_share: float, *, has_dev: bool) -> dict[str, float]:
    """Which roles the rows of a role become, and their shares."""
    if role == "general":
        learned, chosen, reported = GENERAL_ROLES
        return {reported: general_dev_share, chosen: general_dev_share, learned: 1.0 - 2.0 * general_dev_share}
    if role == "train" and not has_dev:
        return {"dev": DEV_SHARE, "train": 1.0 - DEV_SHARE}
    return {role: 1.0}


def _part(ledger: Ledger, places: Places, share: float) -> Places:
    """A share of rows, drawn by their ids, in their order: a smaller share is a part of a larger one."""
    drawn = np.argsort(ledger.column("id", places), kind="stable")
    return places[np.sort(drawn[: math.ceil(share * len(places))])]


def _split(
    ledger: Ledger,
    rows: dict[str, Places],
    *,
    shares: Mapping[str, Mapping[str, float]],
    seed: int,
    split_by: str | None,
    apart: Sequence[str],
) -> tuple[dict[str, Any], dict[tuple[str, str, str], str], list[Reject]]:
    """Replace roles in `rows` by the sides they are split into; facts for the audit, what they excuse, and rows that
    were left out."""
    facts: dict[str, Any] = {}
    excused: dict[tuple[str, str, str], str] = {}
    dropped: list[Reject] = []
    for role, sides in shares.items():
        if len(sides) == 1:
            continue
        whole = rows.pop(role)
        if role == "train":
            spoken = np.array([_is_spoken_for_training(row) for row in ledger.each(whole)])
            rows["train"], whole = whole[spoken], whole[~spoken]
        division = split.divide(ledger, whole, shares=sides, seed=seed, split_by=split_by, apart=apart)
        for side, places in division.sides.items():
            rows[side] = np.concatenate([rows.get(side, places[:0]), places])
        dropped += [_shared_text(row) for row in ledger.each(division.dropped)]
        facts[role] = {"by": division.by, "sides": {side: len(held) for side, held in division.sides.items()}}
        if division.by != "speaker":
            reason = f"one manifest was split by {division.by}"
            excused.update({("speaker", one, other): reason for one in sides for other in sides})
    return facts, excused, dropped


def _checked(row: Row, role: str, languages: Counter[str]) -> Utterance:
    """The row as later stages read it: with its role, and what tells its sound from any other; its language is
    counted."""
    if row.utterance.lang:
        languages[language_code(row.utterance.lang)] += 1
    extra = {**row.utterance.extra, manifest.SOUND: row.audio_sha256[:SOUND_DIGITS]}
    return dataclasses.replace(row.utterance, split=role, extra=extra)


def _check_roles(roles: Mapping[str, Sequence[Path]]) -> None:
    unknown = sorted(set(roles) - set(NAMED_ROLES))
    if unknown:
        raise InputError(f"data.{unknown[0]}: there is no such role; name {', '.join(NAMED_ROLES)}")
    if not any(roles.values()):
        raise InputError("no manifest is named; set data.train and data.test")


def _require_rows(
    roles: Mapping[str, Sequence[Path]],
    rows: Mapping[str, Places],
    rejects: Sequence[Reject],
    *,
    total: int,
    max_rejected_share: float,
    out: Path,
) -> None:
    reasons = Counter(reject.reason for reject in rejects).most_common(3)
    why = ", ".join(f"{reason} {count:,}" for reason, count in reasons)
    seen = f"{len(rejects):,} of {total:,} rows were rejected ({why}; all in {out / 'rejects.jsonl'})"
    for role in NAMED_ROLES:
        if roles.get(role) and not any(len(rows.get(name, ())) for name in (role, *_parts(role))):
            manifests = ", ".join(map(str, roles[role]))
            empty = all(path.stat().st_size == 0 for path in roles[role])
            after = seen if rejects else "it is empty" if empty else "no row is meant for it"
            raise InputError(f"data.{role}: no usable row is left in {manifests}: {after}")
    if rejects and len(rejects) > max_rejected_share * total:
        raise InputError(f"{seen}, more than data.max_rejected_share = {max_rejected_share:g} allows")


def _clear(out: Path) -> None:
    """Remove an earlier result, so that no role's file outlives its rows."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in (*(f"{role}.jsonl" for role in ROLES), "rejects.jsonl", "audit.json"):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another run directory") from error


def _parts(role: str) -> tuple[str, ...]:
    return GENERAL_ROLES if role == "general" else ()


def _is_spoken_for_training(row: Row) -> bool:
    """Whether `synth` made the row: synthetic jargon never becomes what is chosen by or reported on."""
    return bool(row.utterance.extra.get("synthetic")) and row.utterance.split == "train"


def _shared_text(row: Row) -> Reject:
    detail = f"{row.where}: its text is also on another side of the split, so this row was left out"
    return Reject(row.utterance.row(), "text on two sides", detail, row.where)


def _write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    files.write_jsonl(
        path,
        (
            {"reason": reject.reason, "detail": reject.detail, "where": reject.where, "row": reject.row}
            for reject in rejects
        ),
    )
