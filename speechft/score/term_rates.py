"""The term report: recall, precision and false alarms with intervals, before and after, in all and for each term."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechft.score.stats import paired_bootstrap, values
from speechft.score.terms import RARE_UP_TO, Matcher, Spotted, confusions, spot, term_word_errors
from speechft.score.wer import Aligned
from speechft.text import Normaliser

Counted = tuple[NDArray[np.float64], NDArray[np.float64]]  # what is above and below the line, each of shape (rows,)
PARTS = (("seen", 1, math.inf), ("unseen", 0, 0), ("rare", 1, RARE_UP_TO), ("frequent", RARE_UP_TO + 1, math.inf))
WORD_ERRORS = ("term_wer", "other_wer")


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One system's terms on the test rows, and what it wrote on general speech."""

    rows: Sequence[Aligned]
    spotted: list[Spotted]
    said: Counter[int]
    written: Counter[int]
    hits: Counter[int]
    false_alarms: int | None
    general_words: int


def term_report(
    before: Sequence[Aligned],
    after: Sequence[Aligned] | None,
    matcher: Matcher,
    normaliser: Normaliser,
    groups: Sequence[Hashable],
    *,
    general_before: Sequence[Aligned] | None,
    general_after: Sequence[Aligned] | None,
    train_texts: Iterable[str] | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Report terms on the test rows (recall, precision), and on general speech (false alarms).

    Args:
        before: the test rows, aligned under `normaliser`.
        after: the same rows of the second system, in the same order, or None.
        matcher: finds the terms in words that `normaliser` made.
        normaliser: counts the terms in the training texts.
        groups: what each test row belongs to.
        general_before: general rows of the first system, aligned under `normaliser`; None when not tested.
        general_after: those of the second.
        train_texts: what the model was trained on; None when unknown, and then nothing is called seen.
        resamples: bootstrap draws.
        seed: of the draws.
    """
    trained = None if train_texts is None else matcher.count(train_texts, normaliser)
    first = _side(before, general_before, matcher)
    sides = {"value": first} if after is None else {"before": first, "after": _side(after, general_after, matcher)}
    report: dict[str, Any] = {
        "listed": len(matcher.names),
        "uncounted": matcher.uncounted,
        "said": first.said.total(),
        "said_terms": len(first.said),
        "trained_terms": None if trained is None else len(trained),
    }
    counted = {label: _counted(side, matcher, trained) for label, side in sides.items()}
    report |= {label: _rates(side, counted[label]) for label, side in sides.items()}
    by_side = list(counted.values())  # of one system, the first is the last
    for name, (above, below) in by_side[0].items():
        paired = paired_bootstrap(
            above,
            by_side[-1][name][0],
            below,
            groups,
            after_denominators=by_side[-1][name][1],
            resamples=resamples,
            seed=seed,
        )
        rate = values(paired, compared=after is not None, most=math.inf if name in WORD_ERRORS else 1.0)
        report |= {f"{name}_{key}": ends for key, ends in rate.items() if key.endswith("ci95")}
    report["per_term"] = _per_term(matcher, trained, sides)
    report["confusions"] = {label: confusions(side.rows, matcher) for label, side in sides.items()}
    return report


def _side(rows: Sequence[Aligned], general: Sequence[Aligned] | None, matcher: Matcher) -> _Side:
    spotted = [spot(row, matcher) for row in rows]
    said: Counter[int] = Counter()
    written: Counter[int] = Counter()
    hits: Counter[int] = Counter()
    for row in spotted:
        said.update(row.said)
        written.update(row.written)
        hits.update(row.hits)
    false_alarms = None
    general_words = 0
    if general is not None:
        found = [spot(row, matcher) for row in general]
        false_alarms = sum((row.written - row.said).total() for row in found)
        general_words = sum(len(row.reference) for row in general)
    return _Side(
        rows=rows,
        spotted=spotted,
        said=said,
        written=written,
        hits=hits,
        false_alarms=false_alarms,
        general_words=general_words,
    )


def _counted(side: _Side, matcher: Matcher, trained: Counter[str] | None) -> dict[str, Counted]:
    """What each rate divides by what, row by row."""
    said, written, hits = (_by_row(side, what) for what in ("said", "written", "hits"))
    counted = {"recall": (hits, said), "precision": (hits, written), "f1": (2 * hits, said + written)}
    for name, low, high in PARTS if trained is not None else ():
        chosen = {
            number for number in side.said if trained is not None and low <= trained[matcher.names[number]] <= high
        }
        counted[f"{name}_recall"] = (_by_row(side, "hits", chosen), _by_row(side, "said", chosen))
    errors = np.array([term_word_errors(row, matcher) for row in side.rows], dtype=np.float64).reshape(-1, 4)
    counted |= {"term_wer": (errors[:, 0], errors[:, 1]), "other_wer": (errors[:, 2], errors[:, 3])}
    return counted


def _by_row(side: _Side, what: str, chosen: Container[int] | None = None) -> NDArray[np.float64]:
    """How many terms, of those chosen, each row has said, written or right."""
    return np.array(
        [
            sum(times for number, times in getattr(row, what).items() if chosen is None or number in chosen)
            for row in side.spotted
        ],
        dtype=np.float64,
    )


def _rates(side: _Side, counted: Mapping[str, Counted]) -> dict[str, Any]:
    sums = {name: (float(above.sum()), int(below.sum())) for name, (above, below) in counted.items()}
    rates: dict[str, Any] = {name: _ratio(*sums[name]) for name in sums}
    rates |= {
        "hits": side.hits.total(),
        "said": side.said.total(),
        "written": side.written.total(),
        "false_alarms": side.false_alarms,
        "false_alarms_per_1000_words": (
            None if side.false_alarms is None else _ratio(1000 * side.false_alarms, side.general_words)
        ),
    }
    for name, *_ in PARTS:
        rates.setdefault(f"{name}_recall", None)
        rates[f"{name}_said"] = sums[f"{name}_recall"][1] if f"{name}_recall" in sums else None
    for name in WORD_ERRORS:
        rates[f"{name.removesuffix('wer')}words"] = sums[name][1]
    return rates


def _per_term(matcher: Matcher, trained: Counter[str] | None, sides: dict[str, _Side]) -> list[dict[str, Any]]:
    """Return a row for each term that was said or written, the most said first."""
    found: set[int] = set()
    for side in sides.values():
        found |= set(side.said) | set(side.written)
    said = next(iter(sides.values())).said
    rows = []
    for number in sorted(found, key=lambda number: (-said[number], matcher.names[number])):
        name = matcher.names[number]
        row: dict[str, Any] = {
            "term": name,
            "kind": matcher.kinds[number],
            "said": said[number],
            "trained": None if trained is None else trained[name],
        }
        for label, side in sides.items():
            hits, written = side.hits[number], side.written[number]
            row[label] = {
                "hits": hits,
                "written": written,
                "recall": _ratio(hits, side.said[number]),
                "precision": _ratio(hits, written),
                "f1": _ratio(2 * hits, side.said[number] + written),
            }
        rows.append(row)
    return rows


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
