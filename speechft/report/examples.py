"""Rows for the error browser: what was said, what was written before and after, and where the errors are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from speechft import text as text_rules
from speechft.manifest import Utterance
from speechft.score import terms as term_lists
from speechft.score import wer
from speechft.score.rows import Rows, join, language_of
from speechft.score.slices import condition_of
from speechft.text import Term

SHOWN = 300  # rows on the page: those that changed most, then those with most errors
GENERAL = "general speech"
LONGEST_GROUP = 5  # words as written that may be one word as counted, such as "120 over 80"

Split = Callable[[str], list[str]]
Piece = tuple[str, str, str]
"""What happened (equal, substitute, insert, delete), the words written, the words said."""


def gather(
    run_dir: Path, held: Mapping[str, list[Utterance]], score: Mapping[str, Any], *, terms: str | None,
    language: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Return what the page shows of single rows and terms: `{rows, total, confusions}`.

    `rows` are worst first, out of `total`; `confusions` tell for each missed term what was written in its place.

    Each row has `id, set, reference, before, after, errors_before, errors_after, change, words, terms, audio,
    start_s, end_s`; reference is a list of (text, is a term), before and after are lists of pieces.

    Args:
        run_dir: audio paths are given relative to it.
        held: hypotheses by name: before, after, and perhaps general_before, general_after.
        score: for the name of the normaliser and the kind of rate.
        terms: the term list's path, or None.
        language: of rows that do not name theirs.
    """
    listed = term_lists.read_terms(terms) if terms else None
    language = language_of([row for row in held["before"] if condition_of(row) == "clean"], language)
    normaliser = text_rules.get(score["normaliser"]["name"], listed, language=language)
    by_character = score.get("rate") == "cer"

    @cache
    def words(text: str) -> tuple[str, ...]:
        return tuple(wer.characters(normaliser(text), spaces=False) if by_character else normaliser.words(text))

    matcher = term_lists.Matcher(listed, normaliser) if listed and not by_character else None
    candidates = []
    sides = [(None, "before", "after"), (GENERAL, "general_before", "general_after")]
    for name, first, second in sides:
        if first in held and second in held:
            rows = join(held[first], held[second], name or "the test set")
            candidates += _aligned(rows, name, lambda text: list(words(text)))
    chosen = _choose(candidates)
    return {
        "rows": [_row(run_dir, row, words, matcher, by_character=by_character) for row in chosen],
        "total": len(candidates),
        "confusions": _confusions(held, score, listed, language),
    }


def _confusions(
    held: Mapping[str, list[Utterance]], score: Mapping[str, Any], listed: list[Term] | None, language: str
) -> dict[str, dict[str, list[str]]]:
    """For each missed term what was written in its place, before and after, commonest first.

    The score keeps the commonest confusions only; the page has room for all. Terms are found in jargon-safe words,
    as the score finds them.
    """
    report = score.get("terms") or {}
    terms = listed or [Term(term=entry["term"]) for entry in report.get("per_term") or []]
    if not terms:
        return {}
    normaliser = text_rules.get("jargon-safe", listed, language=language)
    matcher = term_lists.Matcher(terms, normaliser)
    rows = join(held["before"], held["after"], "the test set").clean()
    found: dict[str, dict[str, Counter[str]]] = {}
    for side, texts in (("before", rows.before), ("after", rows.after or {})):
        for aligned in wer.align(rows.references, texts, normaliser.words):
            for entry in term_lists.confusions([aligned], matcher):
                counts = found.setdefault(entry["term"], {}).setdefault(side, Counter())
                counts[entry["written"]] += entry["count"]
    return {
        term: {side: [_times(*pair) for pair in counts.most_common()] for side, counts in sides.items()}
        for term, sides in found.items()
    }


def _times(written: str, count: int) -> str:
    return written if count == 1 else f"{written} ({count})"


def _aligned(rows: Rows, name: str | None, split: Split) -> list[dict[str, Any]]:
    assert rows.after is not None
    first = wer.align(rows.references, rows.before, split)
    second = wer.align(rows.references, rows.after, split)
    found = []
    for utterance, before, after in zip(rows.utterances, first, second, strict=True):
        errors = [aligned.errors.errors + aligned.errors.invented for aligned in (before, after)]
        found.append(
            {
                "utterance": utterance,
                "set": name or condition_of(utterance),
                "texts": (rows.before[utterance.id], rows.after[utterance.id]),
                "aligned": (before, after),
                "errors": errors,
                "change": errors[1] - errors[0],
            }
        )
    return found


def _choose(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A third each: got worse, got better, most errors left; in the end worst change first."""

    def worst_first(row: dict[str, Any]) -> tuple[int, int, str]:
        return -row["change"], -row["errors"][1], row["utterance"].id

    ordered = sorted(candidates, key=worst_first)
    if len(ordered) > SHOWN:
        third = SHOWN // 3
        kept = ordered[:third] + ordered[-third:]
        rest = sorted(ordered[third:-third], key=lambda row: (-row["errors"][1], row["utterance"].id))
        ordered = sorted(kept + rest[: SHOWN - len(kept)], key=worst_first)
    return ordered


def _row(
    run_dir: Path,
    row: Mapping[str, Any],
    words: Callable[[str], Sequence[str]],
    matcher: term_lists.Matcher | None,
    *,
    by_character: bool,
) -> dict[str, Any]:
    utterance: Utterance = row["utterance"]
    glue = "" if by_character else " "
    reference = as_written(utterance.text or "", words, by_character=by_character)
    found = matcher.find(row["aligned"][0].reference) if matcher else []
    pieces = [
        _pieces(aligned, reference, as_written(text, words, by_character=by_character), glue)
        for aligned, text in zip(row["aligned"], row["texts"], strict=True)
    ]
    end_s = utterance.offset + utterance.duration if utterance.duration else None
    start_s = utterance.offset if utterance.offset or utterance.duration else None
    return {
        "id": utterance.id,
        "set": row["set"],
        "reference": _marked(reference, found, glue),
        "before": pieces[0],
        "after": pieces[1],
        "errors_before": row["errors"][0],
        "errors_after": row["errors"][1],
        "change": row["change"],
        "words": len(reference),
        "terms": [matcher.names[number] for number, _, _ in found] if matcher else [],
        "about": [value for value in (utterance.speaker, utterance.accent) if value],
        "audio": _audio_link(utterance, run_dir, start_s, end_s),
    }


def as_written(text: str, words: Callable[[str], Sequence[str]], *, by_character: bool = False) -> list[str]:
    """Return for each counted word of a text how it was written, so that the page keeps capitals and commas.

    Counted words that come from several written ones ("120 over 80") take them all; written words that count
    for nothing are kept with the word before. Where the two cannot be matched the counted words stand.
    """
    counted = list(words(text))
    if by_character:
        return counted
    tokens = text.split()
    found: list[str] = []
    index = 0
    while index < len(tokens):
        for size in range(1, LONGEST_GROUP + 1):
            group = " ".join(tokens[index : index + size])
            made = list(words(group))
            if made and counted[len(found) : len(found) + len(made)] == made:
                found += [group] if len(made) == 1 else made
                index += size
                break
        else:
            if words(tokens[index]) or not found:
                return counted
            found[-1] += " " + tokens[index]
            index += 1
    return found if len(found) == len(counted) else counted


def _pieces(aligned: wer.Aligned, reference: list[str], hypothesis: list[str], glue: str) -> list[Piece]:
    return [
        (kind, glue.join(hypothesis[h_from:h_to]), glue.join(reference[r_from:r_to]))
        for kind, r_from, r_to, h_from, h_to in aligned.steps
    ]


def _marked(words: list[str], found: list[tuple[int, int, int]], glue: str) -> list[tuple[str, bool]]:
    """The reference in runs of words, each a listed term or not."""
    runs: list[tuple[str, bool]] = []
    at = 0
    for _, start, end in found:
        if start > at:
            runs.append((glue.join(words[at:start]), False))
        runs.append((glue.join(words[start:end]), True))
        at = end
    if at < len(words):
        runs.append((glue.join(words[at:]), False))
    return runs


def _audio_link(row: Utterance, run_dir: Path, start_s: float | None, end_s: float | None) -> str | None:
    """The audio file relative to the run, with the segment as a media fragment; None for rows without audio."""
    if row.audio_filepath is None:
        return None
    try:
        path = quote(Path(os.path.relpath(row.audio_filepath, run_dir.absolute())).as_posix())
    except ValueError:  # another drive
        path = row.audio_filepath.absolute().as_uri()
    if start_s is None:
        return path
    return f"{path}#t={start_s:.3f}" + (f",{end_s:.3f}" if end_s is not None else "")
