"""Where it helps and where it hurts: rates by condition, accent, speaker, duration, noise and domain."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from speechft.manifest import Utterance
from speechft.score.stats import holm, paired_bootstrap
from speechft.score.wer import Errors, counts

CLEAN = "clean"
DURATIONS_S = (2.0, 5.0, 10.0, 20.0)
SNRS_DB = (0.0, 5.0, 10.0, 20.0)
MIN_WORDS = 50  # a slice with fewer is shown, but not called the worst or the best
SIGNIFICANT = 0.05


def condition_of(row: Utterance) -> str:
    """Return the row's condition; rows without one are clean."""
    return row.condition or CLEAN


def slices(
    rows: Sequence[Utterance],
    before: Sequence[Errors],
    after: Sequence[Errors] | None,
    groups: Sequence[Hashable],
    *,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return a row for each slice: `{by, value, words, rows, before, after, delta, delta_ci95, ...}`.

    Condition and noise level divide all rows; accent, speaker, duration and domain divide the clean ones,
    since copies of a row in noise are no new speaker (an accent that only copies have gets them). A division
    with one part only is left out, but for condition. `p_holm` is corrected over all slices, and
    `significant` says whether it is below 0.05.

    Args:
        rows: the test rows with all their conditions.
        before: errors of each row.
        after: errors of each row of the second system, or None.
        groups: what each row belongs to.
        resamples: bootstrap draws.
        seed: of the draws.
    """
    clean_accents = {row.accent for row in rows if condition_of(row) == CLEAN}
    found: list[dict[str, Any]] = []
    p_values: list[float | None] = []
    for by, value_of in _DIVISIONS.items():
        members: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            value = value_of(row)
            clean = condition_of(row) == CLEAN
            copies_count = by in ("condition", "snr") or (by == "accent" and value not in clean_accents)
            if value is not None and (clean or copies_count):
                members.setdefault(value, []).append(index)
        if len(members) < 2 and by != "condition":
            continue
        for value in sorted(members, key=_order(by)):
            entry, p_value = _slice(by, value, members[value], before, after, groups, resamples=resamples, seed=seed)
            if entry is not None:
                found.append(entry)
                p_values.append(p_value)
    known = [index for index, p_value in enumerate(p_values) if p_value is not None]
    corrected = holm([p for p in p_values if p is not None])
    for index, p_value in zip(known, corrected, strict=True):
        found[index]["p_holm"] = p_value
        found[index]["significant"] = p_value < SIGNIFICANT
    return found


def gaps(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each division its worst and best slice and the gap between them, before and after.

    Slices of fewer than `MIN_WORDS` words are left out, as a rate over a few words is mostly chance.
    """
    result = []
    for by in dict.fromkeys(entry["by"] for entry in found):
        parts = [entry for entry in found if entry["by"] == by and entry["words"] >= MIN_WORDS]
        if len(parts) < 2:
            continue
        entry: dict[str, Any] = {"by": by}
        for label in ("before", "after") if "after" in parts[0] else ("rate",):
            worst = max(parts, key=lambda part: part[label])
            best = min(parts, key=lambda part: part[label])
            suffix = "" if label == "rate" else f"_{label}"
            entry[f"worst{suffix}"] = {"value": worst["value"], "rate": worst[label], "words": worst["words"]}
            entry[f"best{suffix}"] = {"value": best["value"], "rate": best[label], "words": best["words"]}
            entry[f"gap{suffix}"] = worst[label] - best[label]
        result.append(entry)
    return result


def _slice(
    by: str,
    value: str,
    members: list[int],
    before: Sequence[Errors],
    after: Sequence[Errors] | None,
    groups: Sequence[Hashable],
    *,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Any] | None, float | None]:
    errors_before, words = counts([before[index] for index in members])
    errors_after = errors_before if after is None else counts([after[index] for index in members])[0]
    paired = paired_bootstrap(
        errors_before,
        errors_after,
        words,
        [groups[index] for index in members],
        resamples=resamples,
        seed=seed,
    )
    if paired is None:
        return None, None
    entry: dict[str, Any] = {"by": by, "value": value, "words": int(np.sum(words)), "rows": len(members)}
    entry["groups"] = len({groups[index] for index in members})
    entry["drew_rows"] = paired.drew_rows
    if after is None:
        entry |= {"rate": paired.before.value, "ci95": paired.before.ci95}
        return entry, None
    entry |= {
        "before": paired.before.value,
        "before_ci95": paired.before.ci95,
        "after": paired.after.value,
        "after_ci95": paired.after.ci95,
        "delta": paired.delta.value,
        "delta_ci95": paired.delta.ci95,
        "p_value": paired.delta.p_value,
        "p_holm": None,
        "significant": False,
    }
    return entry, paired.delta.p_value


def _bin(value: float | None, edges: Sequence[float], unit: str) -> str | None:
    if value is None:
        return None
    if value < edges[0]:
        return f"below {edges[0]:g} {unit}"
    for low, high in itertools.pairwise(edges):
        if value < high:
            return f"{low:g} to {high:g} {unit}"
    return f"{edges[-1]:g} {unit} and more"


def snr_of(row: Utterance) -> float | None:
    """Return the row's signal-to-noise ratio in dB, from its own key or from what was done to it."""
    for key in ("snr_db", "snr"):
        value = row.extra.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if isinstance(value, str) and re.fullmatch(r"-?\d+(?:\.\d+)?", value.strip()):
            return float(value)
    for step in row.transform or ():
        value = step.get("snr_db")
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


_DIVISIONS: dict[str, Callable[[Utterance], str | None]] = {
    "condition": condition_of,
    "accent": lambda row: row.accent,
    "speaker": lambda row: row.speaker,
    "duration": lambda row: _bin(row.duration, DURATIONS_S, "s"),
    "snr": lambda row: _bin(snr_of(row), SNRS_DB, "dB"),
    "domain": lambda row: row.domain,
}


def _order(by: str) -> Callable[[str], Any]:
    """Clean comes first, durations and noise levels go by size, the rest by name."""
    if by == "condition":
        return lambda value: (value != CLEAN, value)
    if by in ("duration", "snr"):
        return _by_size
    return lambda value: value


def _by_size(value: str) -> tuple[bool, float]:
    return not value.startswith("below"), float(value.removeprefix("below ").split()[0])
