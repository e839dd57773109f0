"""The whole score: two sets of hypotheses in, counts, intervals, terms, slices and a verdict out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from speechft import text as text_rules
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.score import nist, wer
from speechft.score.rows import Rows, groups_of, join, language_of, minutes_of
from speechft.score.slices import gaps, slices
from speechft.score.stats import MIN_GROUPS, Paired, mapsswe, paired_bootstrap, values
from speechft.score.survival import Row, survival
from speechft.score.term_rates import term_report
from speechft.score.terms import Matcher, mine
from speechft.score.verdict import decide
from speechft.text import Normaliser, Term

LISTED_ROWS = 20  # worst and best rows shown


@dataclass(frozen=True, kw_only=True)
class Units:
    """What errors are counted in: words as a normaliser leaves them, or its characters."""

    normaliser: Normaliser
    by_character: bool
    language: str

    def split(self, text: str) -> list[str]:
        """A text's units."""
        return wer.characters(self.normaliser(text), spaces=False) if self.by_character else self.normaliser.words(text)


def units(
    rows: Sequence[Utterance], *, normaliser: str = text_rules.DEFAULT, terms: Sequence[Term] | None = None,
    language: str | None = None,
) -> Units:  # fmt: skip
    """What the rows' errors are counted in: by their languages, else by `language`, else by their script."""
    spoken = language_of(rows, language)
    stated = [
        row.lang or (language if language and text_rules.language_code(language) != "en" else None) for row in rows
    ]
    unspaced = text_rules.without_spaces(stated, [row.text or "" for row in rows])
    return Units(
        normaliser=text_rules.get(normaliser, terms, language=spoken), by_character=unspaced, language=spoken
    )  # fmt: skip


def score_run(
    before: list[Utterance],
    after: list[Utterance] | None = None,
    *,
    general_before: list[Utterance] | None = None,
    general_after: list[Utterance] | None = None,
    normaliser: str = text_rules.DEFAULT,
    terms: list[Term] | None = None,
    train_texts: list[str] | None = None,
    language: str | None = None,
    smallest_gain: float | None = None,
    forgetting_budget: float | None = None,
    resamples: int = 10_000,
    seed: int = 1,
) -> dict[str, Any]:
    """Score one system, or two on the same rows.

    Args:
        before: rows with `text` (the reference) and `hypothesis`; rows without a condition, or with "clean",
            are the test set that the rates describe, the others appear in slices only.
        after: the same rows with the second system's hypotheses; joined by id.
        general_before: general speech of the first system, to see what was forgotten.
        general_after: the same of the second.
        normaliser: of the main numbers; raw, Whisper-normalised and jargon-safe ones are always given too.
        terms: the term list. Without one, terms are mined from the training texts when there is general text.
        train_texts: what the second system was trained on, to tell seen from unseen terms.
        language: of rows that do not name theirs; English unless said.
        smallest_gain: the smallest difference that matters; by default 10 % of the rate before.
        forgetting_budget: by default the larger of 0.005 and 10 % of the general rate before.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        The fields of report.json that text can fill; rates are fractions. With one system, each rate is
        `{value, ci95, words}` and there is no verdict.

    Raises:
        InputError: rows are missing, doubled, or without a text or hypothesis.
    """
    everything = join(before, after, "the test set")
    clean = everything.clean()
    if not clean.utterances:
        raise InputError("every test row has a condition; give the clean rows too (no condition, or `clean`)")
    if general_before and after is not None and not general_after:
        raise InputError("general speech was transcribed before, but not after; transcribe it with both models")
    general = None
    if general_before:
        general = join(general_before, general_after if after is not None else None, "general speech")
    counted = units(clean.utterances, normaliser=normaliser, terms=terms, language=language)
    chosen, by_character, language = counted.normaliser, counted.by_character, counted.language
    bootstrap = _Bootstrap(resamples=resamples, seed=seed)
    beside = {
        "raw_wer": text_rules.get("raw"),
        "whisper_wer": text_rules.get(
            "whisper-english" if text_rules.language_code(language) == "en" else "whisper-basic"
        ),
    }
    if chosen.name != "jargon-safe":
        beside["jargon_safe_wer"] = text_rules.get("jargon-safe", terms, language=language)
    normalised = _Once(chosen, spaces=not by_character)

    whole = _align(everything, normalised.words)
    test = whole.only(clean)
    general_test = _align(general, normalised.words) if general else None
    rates: dict[str, tuple[_Errors, Rows]] = {
        "wer": (test.errors(), clean),
        "cer": (_count(clean, normalised.characters), clean),
    }
    rates |= {name: (_count(clean, _Once(other, spaces=True).words), clean) for name, other in beside.items()}
    if by_character:  # words say nothing there: the same normalisers by character
        rates |= {
            name.replace("_wer", "_cer"): (_count(clean, _Once(other, spaces=False).characters), clean)
            for name, other in beside.items()
        }
    if general and general_test:
        rates["general_wer"] = (general_test.errors(), general)
        if by_character:
            rates["general_cer"] = (_count(general, normalised.characters), general)
        for name, other in beside.items():
            once = _Once(other, spaces=not by_character)
            split, unit = (once.characters, "cer") if by_character else (once.words, "wer")
            rates[f"general_{name.removesuffix('wer')}{unit}"] = (_count(general, split), general)
    paired = {name: bootstrap(errors, rows) for name, (errors, rows) in rates.items()}
    result: dict[str, Any] = {"normaliser": chosen.identity(), "rate": "cer" if by_character else "wer"}
    result["normalisers"] = {name: other.identity() for name, other in ({"wer": chosen} | beside).items()}
    result |= {name: _rate(paired[name], errors) for name, (errors, _) in rates.items()}
    result.setdefault("general_wer", None)
    result["cer"]["characters"] = result["cer"]["words"]
    result["cer"]["words"] = result["wer"]["words"]
    keys, kind = groups_of(clean.utterances)
    number = len(set(keys))
    drew_rows = rated.drew_rows if (rated := paired["wer"]) else number < MIN_GROUPS
    result["groups"] = {"count": number, "what": kind, "drawn": "rows" if drew_rows else kind}
    minutes = minutes_of(clean.utterances)
    result["minutes"] = minutes
    judged = _align(clean, normalised.characters) if by_character else test
    result["counts"] = judged.counts()
    if after is not None:
        verdict = decide(
            paired["cer" if by_character else "wer"],
            paired.get("general_cer" if by_character else "general_wer"),
            smallest_gain=smallest_gain,
            forgetting_budget=forgetting_budget,
            minutes=minutes,
            size=f"{result['cer']['characters']:,} characters" if by_character else f"{result['wer']['words']:,} words",
            general_size=_general_size(result, by_character=by_character),
            rate_name="character error rate" if by_character else "word error rate",
            groups_name=kind,
        )
        result["verdict"] = verdict.row()
        result |= _compare(judged, clean)
    result["survival"] = _survival(judged, clean, bootstrap)
    errors = _count(everything, normalised.characters) if by_character else whole.errors()
    result |= _slices(everything, errors, bootstrap)
    term_words = text_rules.get("jargon-safe", terms, language=language)
    if by_character:
        term_words = text_rules.by_character(term_words)
    if by_character or term_words.hash != chosen.hash:  # terms are always counted in jargon-safe words
        test = _align(clean, term_words.words)
        general_test = _align(general, term_words.words) if general else None
    mined = not terms and bool(train_texts) and general is not None and not by_character
    if mined and train_texts and general:
        terms = mine(train_texts, general.references.values(), term_words)
    result["terms"] = _terms(clean, test, general_test, term_words, terms, train_texts, bootstrap)
    if result["terms"] is not None:
        result["terms"]["mined"] = mined
    return result


@dataclass(frozen=True, kw_only=True)
class _Errors:
    """Errors of each row, for one system or two."""

    before: list[wer.Errors]
    after: list[wer.Errors] | None


@dataclass(frozen=True, kw_only=True)
class _Alignments:
    """Alignments of each row, for one system or two."""

    before: list[wer.Aligned]
    after: list[wer.Aligned] | None

    def errors(self) -> _Errors:
        return _Errors(
            before=[row.errors for row in self.before],
            after=None if self.after is None else [row.errors for row in self.after],
        )

    def only(self, rows: Rows) -> _Alignments:
        """Return the alignments of these rows alone."""
        kept = rows.references.keys()
        return _Alignments(
            before=[row for row in self.before if row.id in kept],
            after=None if self.after is None else [row for row in self.after if row.id in kept],
        )

    def counts(self) -> dict[str, Any]:
        """Return the totals behind the rate; `invented` are words on rows whose reference is empty."""
        sides = {"value": self.before} if self.after is None else {"before": self.before, "after": self.after}
        silent = sum(not row.reference for row in self.before)
        totals: dict[str, Any] = {"rows": len(self.before), "silent_rows": silent}
        return totals | {label: asdict(wer.total(row.errors for row in rows)) for label, rows in sides.items()}


@dataclass(frozen=True, kw_only=True)
class _Bootstrap:
    resamples: int
    seed: int

    def __call__(self, errors: _Errors, rows: Rows) -> Paired | None:
        before, words = wer.counts(errors.before)
        after = before if errors.after is None else wer.counts(errors.after)[0]
        groups = groups_of(rows.utterances)[0]
        return paired_bootstrap(before, after, words, groups, resamples=self.resamples, seed=self.seed)


def _align(rows: Rows, split: Callable[[str], list[str]]) -> _Alignments:
    return _Alignments(
        before=list(wer.align(rows.references, rows.before, split)),
        after=None if rows.after is None else list(wer.align(rows.references, rows.after, split)),
    )


def _count(rows: Rows, split: Callable[[str], list[str]]) -> _Errors:
    """As `_align`, but keep the counts only: for the numbers that are given beside the main one."""
    return _Errors(
        before=[row.errors for row in wer.align(rows.references, rows.before, split)],
        after=(None if rows.after is None else [row.errors for row in wer.align(rows.references, rows.after, split)]),
    )


class _Once:
    """A normaliser that normalises each text once: a reference is needed for every system and every count."""

    def __init__(self, normaliser: Normaliser, *, spaces: bool) -> None:
        self._normaliser = normaliser
        self._spaces = spaces  # are counted among the characters
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = self._normaliser(text)
        return known

    def words(self, text: str) -> list[str]:
        return self(text).split()

    def characters(self, text: str) -> list[str]:
        return wer.characters(self(text), spaces=self._spaces)


def _general_size(result: Mapping[str, Any], *, by_character: bool) -> str | None:
    """How much general speech there is, for the verdict's sentence."""
    rate, unit = ("general_cer", "characters") if by_character else ("general_wer", "words")
    return f"{result[rate]['words']:,} {unit}" if result.get(rate) else None


def _rate(paired: Paired | None, errors: _Errors) -> dict[str, Any]:
    return values(paired, compared=errors.after is not None) | {"words": sum(row.words for row in errors.before)}


def _compare(test: _Alignments, rows: Rows) -> dict[str, Any]:
    """Return wins, losses and ties by row, the segment test, and the rows that changed most."""
    assert test.after is not None
    assert rows.after is not None
    changes = []
    for one, two in zip(test.before, test.after, strict=True):
        errors = [row.errors.errors + row.errors.invented for row in (one, two)]
        changes.append((errors[1] - errors[0], one.id, errors))
    segments = mapsswe(nist.realign(test.before), nist.realign(test.after))

    def listed(sign: int) -> list[dict[str, Any]]:
        chosen = sorted((change for change in changes if sign * change[0] > 0), key=lambda c: (-sign * c[0], c[1]))
        return [
            {
                "id": row_id,
                "reference": rows.references[row_id],
                "before": rows.before[row_id],
                "after": rows.after[row_id] if rows.after else "",
                "errors": {"before": errors[0], "after": errors[1]},
            }
            for _, row_id, errors in chosen[:LISTED_ROWS]
        ]

    return {
        "rows": {
            "wins": sum(change < 0 for change, _, _ in changes),
            "losses": sum(change > 0 for change, _, _ in changes),
            "ties": sum(change == 0 for change, _, _ in changes),
        },
        "mapsswe": {
            "statistic": segments.statistic,
            "p_value": segments.p_value,
            "segments": segments.segments,
        },
        "worst_rows": listed(1),
        "best_rows": listed(-1),
    }


def _survival(test: _Alignments, rows: Rows, bootstrap: _Bootstrap) -> dict[str, Any]:
    def side(aligned: Sequence[wer.Aligned], texts: dict[str, str]) -> list[Row]:
        return [Row(aligned=row, reference=rows.references[row.id], hypothesis=texts[row.id]) for row in aligned]

    second = None
    if test.after is not None and rows.after is not None:
        second = side(test.after, rows.after)
    return survival(
        side(test.before, rows.before),
        second,
        groups_of(rows.utterances)[0],
        resamples=bootstrap.resamples,
        seed=bootstrap.seed,
    )


def _slices(rows: Rows, errors: _Errors, bootstrap: _Bootstrap) -> dict[str, Any]:
    groups: list[Hashable] = groups_of(rows.utterances)[0]
    found = slices(
        rows.utterances,
        errors.before,
        errors.after,
        groups,
        resamples=bootstrap.resamples,
        seed=bootstrap.seed,
    )
    return {"slices": found, "gaps": gaps(found)}


def _terms(
    rows: Rows,
    test: _Alignments,
    general: _Alignments | None,
    normaliser: Normaliser,
    terms: list[Term] | None,
    train_texts: list[str] | None,
    bootstrap: _Bootstrap,
) -> dict[str, Any] | None:
    """Report terms; None when there is no list and nothing to mine one from."""
    if not terms:
        return None
    return term_report(
        test.before,
        test.after,
        Matcher(terms, normaliser),
        normaliser,
        groups_of(rows.utterances)[0],
        general_before=general.before if general else None,
        general_after=general.after if general else None,
        train_texts=train_texts,
        resamples=bootstrap.resamples,
        seed=bootstrap.seed,
    )
