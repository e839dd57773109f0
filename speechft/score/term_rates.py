"""The term report: recall, precision and false alarms, before and after, in all and for each term."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechft.score.stats import Interval, paired_bootstrap
from speechft.score.terms import RARE_UP_TO, Matcher, Spotted, confusions, spot, term_word_errors
from speechft.score.wer import Aligned
from speechft.text import Normaliser


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
    report: dict[str, Any] = {
        "listed": len(matcher.names),
        "said": first.said.total(),
        "said_terms": len(first.said),
        "trained_terms": None if trained is None else len(trained),
    }
    if after is None:
        own = paired_bootstrap(
            _totals(first, "hits"),
            _totals(first, "hits"),
            _totals(first, "said"),
            groups,
            resamples=resamples,
            seed=seed,
        )
        report["value"] = _rates(first, matcher, trained)
        report["recall_ci95"] = _share_ci95(own.before) if own else None
        report["per_term"] = _per_term(matcher, trained, {"value": first})
        report["confusions"] = {"value": confusions(before, matcher)}
        return report
    second = _side(after, general_after, matcher)
    recall = paired_bootstrap(
        _totals(first, "hits"),
        _totals(second, "hits"),
        _totals(first, "said"),
        groups,
        resamples=resamples,
        seed=seed,
    )
    precision = paired_bootstrap(
        _totals(first, "hits"),
        _totals(second, "hits"),
        _totals(first, "written"),
        groups,
        after_denominators=_totals(second, "written"),
        resamples=resamples,
        seed=seed,
    )
    report["before"] = _rates(first, matcher, trained)
    report["after"] = _rates(second, matcher, trained)
    for name, paired in (("recall", recall), ("precision", precision)):
        report[f"{name}_before_ci95"] = _share_ci95(paired.before) if paired else None
        report[f"{name}_after_ci95"] = _share_ci95(paired.after) if paired else None
        report[f"{name}_delta_ci95"] = _share_ci95(paired.delta) if paired else None
    report["per_term"] = _per_term(matcher, trained, {"before": first, "after": second})
    report["confusions"] = {"before": confusions(before, matcher), "after": confusions(after, matcher)}
    return report


def _share_ci95(share: Interval) -> list[float] | None:
    """The interval of a recall, a precision or a difference of two: none is beyond one."""
    return None if share.ci95 is None else [max(-1.0, min(1.0, end)) for end in share.ci95]


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


def _totals(side: _Side, what: str) -> NDArray[np.float64]:
    return np.array([getattr(row, what).total() for row in side.spotted], dtype=np.float64)


def _rates(side: _Side, matcher: Matcher, trained: Counter[str] | None) -> dict[str, Any]:
    recall = _ratio(side.hits.total(), side.said.total())
    precision = _ratio(side.hits.total(), side.written.total())
    rates: dict[str, Any] = {
        "recall": recall,
        "precision": precision,
        "f1": _ratio(2 * side.hits.total(), side.said.total() + side.written.total()),
        "hits": side.hits.total(),
        "said": side.said.total(),
        "written": side.written.total(),
        "false_alarms": side.false_alarms,
        "false_alarms_per_1000_words": (
            None if side.false_alarms is None else _ratio(1000 * side.false_alarms, side.general_words)
        ),
    }
    for name, low, high in (
        ("seen", 1, None),
        ("unseen", 0, 0),
        ("rare", 1, RARE_UP_TO),
        ("frequent", RARE_UP_TO + 1, None),
    ):
        rates[f"{name}_recall"], rates[f"{name}_said"] = None, None
        if trained is not None:
            chosen = {
                number
                for number in side.said
                if trained[matcher.names[number]] >= low and (high is None or trained[matcher.names[number]] <= high)
            }
            said = sum(side.said[number] for number in chosen)
            rates[f"{name}_said"] = said
            rates[f"{name}_recall"] = _ratio(sum(side.hits[number] for number in chosen), said)
    errors = np.array([term_word_errors(row, matcher) for row in side.rows], dtype=np.int64).reshape(-1, 4)
    term_errors, term_words, other_errors, other_words = map(int, errors.sum(axis=0))
    rates["term_wer"], rates["term_words"] = _ratio(term_errors, term_words), term_words
    rates["other_wer"], rates["other_words"] = _ratio(other_errors, other_words), other_words
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
