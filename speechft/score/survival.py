"""What else can break: loops, early stops, words on silence, the wrong script, lost punctuation and case."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from speechft.score.stats import paired_bootstrap, values
from speechft.score.wer import Aligned

LOOP_WORDS = 12  # words; phrases up to this long are looked at
LOOP_CHARACTERS = 24  # where a language has no spaces
LOOP_TIMES = 4  # said this often in a row, and at least twice more than in the reference, is a loop
STOP_WORDS, STOP_SHARE = 3, 0.25  # that many reference words, and that share, missing at the end
WRONG_SCRIPT_SHARE = 0.3  # of the letters, in scripts the reference does not use
PUNCTUATION = frozenset(".,?!;:。，？！；：、।؟،")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row as the checks see it: its alignment, and both texts as they were written."""

    aligned: Aligned
    reference: str
    hypothesis: str


def survival(
    before: Sequence[Row],
    after: Sequence[Row] | None,
    groups: Sequence[Hashable],
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Return for each failure the share of rows that show it, before and after.

    Each entry has `rows` (rows in which it could show) and `before`, `after`, `delta` (or `value`), each with its
    interval (`before_ci95` and so on; `ci95`), None without such rows. `loops`: a phrase repeated over and over;
    `early_stops`: the end of the reference is missing; `words_on_silence`: words where the reference is empty (also
    counted, as `words_before` and so on); `wrong_script`: letters of a script the reference does not use;
    `lost_punctuation` and `lost_case`: none at all where the reference, as written, has some.

    Args:
        before: the rows of the first system.
        after: the same rows of the second, in the same order, or None.
        groups: what each row belongs to.
        resamples: bootstrap draws.
        seed: of the draws.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, (applies, shows) in _CHECKS.items():
        chosen = [index for index, row in enumerate(before) if applies(row)]
        sides = (("value", before),) if after is None else (("before", before), ("after", after))
        shown = [np.array([shows(rows[index]) for index in chosen], dtype=np.float64) for _, rows in sides]
        paired = paired_bootstrap(
            shown[0],
            shown[-1],
            np.ones(len(chosen)),
            [groups[index] for index in chosen],
            resamples=resamples,
            seed=seed,
        )
        entry: dict[str, Any] = {"rows": len(chosen)} | values(paired, compared=after is not None, most=1.0)
        if name == "words_on_silence":
            for label, rows in sides:
                key = "words" if label == "value" else f"words_{label}"
                entry[key] = sum(rows[index].aligned.errors.invented for index in chosen)
        result[name] = entry
    return result


def is_loop(reference: Sequence[str], hypothesis: Sequence[str], *, longest: int = LOOP_WORDS) -> bool:
    """Say whether the hypothesis repeats a word or a phrase over and over, more than the reference does."""
    times = _repeats(hypothesis, longest)
    return times >= LOOP_TIMES and times >= _repeats(reference, longest) + 2


def _loops(row: Row) -> bool:
    """Look at words as they were written, since "five five five" is one number once it is normalised; and at the
    units that are scored, which are characters where a language has no spaces."""
    if is_loop(row.reference.lower().split(), row.hypothesis.lower().split()):
        return True
    return is_loop(row.aligned.reference, row.aligned.hypothesis, longest=LOOP_CHARACTERS)


def _repeats(words: Sequence[str], longest: int) -> int:
    """Return how often in a row the most repeated phrase of up to `longest` words is said."""
    best = 1
    for size in range(1, min(longest, len(words) // 2) + 1):
        same = 0
        for index in range(size, len(words)):
            same = same + 1 if words[index] == words[index - size] else 0
            best = max(best, same // size + 1)
    return best


def stops_early(row: Aligned) -> bool:
    """Say whether the reference's end is missing from the hypothesis."""
    left_reference, left_hypothesis = len(row.reference), len(row.hypothesis)
    for kind, _, reference_end, _, hypothesis_end in row.steps:
        if kind == "equal":
            left_reference = len(row.reference) - reference_end
            left_hypothesis = len(row.hypothesis) - hypothesis_end
    missing = left_reference - left_hypothesis
    return missing >= max(STOP_WORDS, STOP_SHARE * len(row.reference))


def wrong_script(reference: str, hypothesis: str) -> bool:
    """Say whether much of the hypothesis is in a script that the reference does not use."""
    expected = _scripts(reference)
    written = _scripts(hypothesis)
    foreign = sum(count for script, count in written.items() if script not in expected)
    return bool(expected) and foreign > WRONG_SCRIPT_SHARE * written.total()


def _scripts(text: str) -> Counter[str]:
    return Counter(_script(character) for character in text if character.isalpha())


@cache
def _script(character: str) -> str:
    name = unicodedata.name(character, "UNKNOWN").split()
    first = name[1] if name[0] in ("FULLWIDTH", "HALFWIDTH") and len(name) > 1 else name[0]
    return "JAPANESE OR CHINESE" if first in ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else first


def _has_case(text: str) -> bool:
    return any(character.isupper() for character in text) and any(character.islower() for character in text)


def _has_punctuation(text: str) -> bool:
    return not PUNCTUATION.isdisjoint(text)


_CHECKS: dict[str, tuple[Callable[[Row], bool], Callable[[Row], bool]]] = {
    "loops": (lambda row: True, _loops),
    "early_stops": (
        lambda row: len(row.aligned.reference) >= STOP_WORDS,
        lambda row: stops_early(row.aligned),
    ),
    "words_on_silence": (
        lambda row: not row.aligned.reference,
        lambda row: bool(row.aligned.hypothesis),
    ),
    "wrong_script": (
        lambda row: any(character.isalpha() for character in row.reference),
        lambda row: wrong_script(row.reference, row.hypothesis),
    ),
    "lost_punctuation": (
        lambda row: _has_punctuation(row.reference),
        lambda row: not _has_punctuation(row.hypothesis),
    ),
    "lost_case": (
        lambda row: _has_case(row.reference),
        lambda row: not any(character.isupper() for character in row.hypothesis),
    ),
}
