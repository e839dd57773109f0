"""Terms: how often the words that matter are written, written wrongly, or written where nobody said them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from speechft.errors import InputError
from speechft.score.wer import Aligned
from speechft.text import Normaliser, Term

RARE_UP_TO = 4  # occurrences in the training text; more often is frequent
CONFUSIONS_KEPT = 20
NOTHING = "(nothing)"

__all__ = ["Matcher", "Spotted", "Term", "confusions", "mine", "read_terms", "spot", "term_word_errors"]


def read_terms(path: str | Path) -> list[Term]:
    """Read a term list: JSON Lines or CSV with `term`, `variants`, `kind`, `spoken`, or plain text with a term a line.

    In CSV, variants are separated by `|`. Blank lines and lines that start with `# ` are skipped in plain
    text. Keys this project does not know are ignored. A spelling claimed twice is an error.

    Raises:
        InputError: the file cannot be read, or a line is wrong; the message names the line.
    """
    path = Path(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: the term list cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the term list is not valid UTF-8; save it as UTF-8") from error
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        entries = _csv_entries(path, content, "\t" if suffix == ".tsv" else ",")
    elif suffix in (".jsonl", ".json", ".ndjson"):
        entries = _json_entries(path, content)
    else:
        entries = _plain_entries(content)
    terms: list[Term] = []
    seen: dict[str, int] = {}
    for number, row in entries:
        term = _entry(f"{path}:{number}", row)
        if term.term.lower() in seen:
            raise InputError(f"{path}:{number}: the term {term.term!r} was given in line {seen[term.term.lower()]}")
        for variant in term.variants:
            if (line := seen.get(variant.lower(), number)) != number:
                raise InputError(f"{path}:{number}: {variant!r} is a spelling of the term in line {line} already")
        seen |= dict.fromkeys((term.term.lower(), *(variant.lower() for variant in term.variants)), number)
        terms.append(term)
    if not terms:
        raise InputError(f"{path}: the term list holds no terms; give one a line")
    return terms


def _plain_entries(content: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip() and not line.startswith("# "):
            yield number, {"term": line}


def _json_entries(path: Path, content: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: the line is not valid JSON ({error})") from error
        if isinstance(row, str):
            row = {"term": row}
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: the line must be a JSON object, got {type(row).__name__}")
        yield number, row


def _csv_entries(path: Path, content: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
    if "term" not in (reader.fieldnames or []):
        raise InputError(f"{path}:1: the heading has no `term`, only {', '.join(reader.fieldnames or []) or 'nothing'}")
    for row in reader:
        if any(isinstance(cell, str) and cell.strip() for cell in row.values()):
            variants = [variant for variant in (row.get("variants") or "").split("|") if variant.strip()]
            yield reader.line_num, {**row, "variants": variants}


def _entry(where: str, row: Mapping[str, Any]) -> Term:
    term, variants, kind = row.get("term"), row.get("variants") or [], row.get("kind") or None
    if not isinstance(term, str) or not term.strip():
        raise InputError(f"{where}: `term` must be text, got {term!r}")
    if not isinstance(variants, list) or not all(isinstance(variant, str) for variant in variants):
        raise InputError(f"{where}: `variants` must be a list of texts, got {variants!r}")
    if kind is not None and not isinstance(kind, str):
        raise InputError(f"{where}: `kind` must be text, got {kind!r}")
    spoken = row.get("spoken") or None
    if spoken is not None and not isinstance(spoken, str):
        raise InputError(f"{where}: `spoken` must be text, got {spoken!r}")
    stripped = tuple(variant.strip() for variant in variants if variant.strip())
    return Term(term=term.strip(), variants=stripped, kind=kind, spoken=spoken)


class Matcher:
    """Finds listed terms in normalised words, the longest first and none inside another.

    `names` and `kinds` are of the terms that can be found; `uncounted` are those of which the normaliser leaves
    nothing, or what it leaves of another.
    """

    def __init__(self, terms: Iterable[Term], normaliser: Normaliser) -> None:
        self.names: list[str] = []
        self.kinds: list[str | None] = []
        self.uncounted: list[str] = []
        self._forms: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        taken: set[tuple[str, ...]] = set()
        for term in terms:
            form = tuple(normaliser.words(term.term))
            if not form or form in taken:  # normalises to nothing, or to what another term is already
                self.uncounted.append(term.term)
                continue
            taken.add(form)
            self._forms.setdefault(form[0], []).append((form, len(self.names)))
            self.names.append(term.term)
            self.kinds.append(term.kind)
        for forms in self._forms.values():
            forms.sort(key=lambda entry: -len(entry[0]))
        self.words = frozenset(word for form in taken for word in form)

    def find(self, words: Sequence[str]) -> list[tuple[int, int, int]]:
        """Return (term number, first word, last word + 1) of each term found, from left to right."""
        found = []
        index = 0
        while index < len(words):
            for form, number in self._forms.get(words[index], ()):
                if tuple(words[index : index + len(form)]) == form:
                    found.append((number, index, index + len(form)))
                    index += len(form)
                    break
            else:
                index += 1
        return found

    def count(self, texts: Iterable[str], normaliser: Normaliser) -> Counter[str]:
        """Count each term in texts."""
        found: Counter[str] = Counter()
        for text in texts:
            found.update(self.names[number] for number, _, _ in self.find(normaliser.words(text)))
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Spotted:
    """One row's terms by number: said (in the reference), written (in the hypothesis) and hits (both)."""

    said: Counter[int] = field(default_factory=Counter)
    written: Counter[int] = field(default_factory=Counter)
    hits: Counter[int] = field(default_factory=Counter)


def spot(row: Aligned, matcher: Matcher) -> Spotted:
    """Count one row's terms: written as often as said, anywhere in the row, is a hit each time."""
    said = Counter(number for number, _, _ in matcher.find(row.reference))
    written = Counter(number for number, _, _ in matcher.find(row.hypothesis))
    return Spotted(said=said, written=written, hits=said & written)


def confusions(rows: Iterable[Aligned], matcher: Matcher) -> list[dict[str, Any]]:
    """Return what was written in place of missed terms, the commonest first: `metformin` -> `met for men`."""
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        occurrences = matcher.find(row.reference)
        if not occurrences:
            continue
        written = Counter(number for number, _, _ in matcher.find(row.hypothesis))
        said = Counter(number for number, _, _ in occurrences)
        if not said - written:
            continue
        for number, start, end in occurrences:
            if said[number] > written[number]:
                heard = _heard(row, start, end)
                if heard != " ".join(row.reference[start:end]):
                    found[matcher.names[number], heard] += 1
    commonest = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:CONFUSIONS_KEPT]
    return [{"term": term, "written": written, "count": count} for (term, written), count in commonest]


def _heard(row: Aligned, start: int, end: int) -> str:
    """Return the hypothesis words that stand where the reference words start..end-1 should."""
    reference_start, hypothesis_start = 0, 0
    reference_end, hypothesis_end = len(row.reference), len(row.hypothesis)
    for kind, left, right, hypothesis_left, hypothesis_right in row.steps:
        if kind != "equal":
            continue
        if right <= start:
            reference_start, hypothesis_start = right, hypothesis_right
        elif left < end:  # a word of the term that was written right
            continue
        else:
            reference_end, hypothesis_end = left, hypothesis_left
            break
    heard = row.hypothesis[hypothesis_start:hypothesis_end]
    if (reference_start, reference_end) != (
        start,
        end,
    ):  # neighbours are wrong too: keep what sounds most like it
        heard = _most_alike("".join(row.reference[start:end]), heard)
    return " ".join(heard) or NOTHING


def _most_alike(term: str, words: list[str]) -> list[str]:
    """Return the stretch of words nearest to the term by letters, if any shares half of them."""
    best: list[str] = []
    best_likeness = 0.5
    for start in range(len(words)):
        letters = ""
        for end in range(start + 1, len(words) + 1):
            letters += words[end - 1]
            if len(letters) > 2 * len(term) + 2:
                break
            likeness = Levenshtein.normalized_similarity(term, letters)
            if likeness > best_likeness:
                best, best_likeness = words[start:end], likeness
    return best


def term_word_errors(row: Aligned, matcher: Matcher) -> tuple[int, int, int, int]:
    """Return errors on term words, term words, errors on the rest, other words, of one row.

    An inserted word counts where it belongs: with the terms when it is a word of one, else with the rest
    (biased and unbiased WER of Le et al. 2021, "Contextualized streaming end-to-end speech recognition with
    trie-based deep biasing and shallow fusion").
    """
    is_term = [False] * len(row.reference)
    for _, start, end in matcher.find(row.reference):
        is_term[start:end] = [True] * (end - start)
    term_errors = other_errors = 0
    for kind, left, right, hypothesis_left, hypothesis_right in row.steps:
        if kind == "insert":
            inserted = sum(word in matcher.words for word in row.hypothesis[hypothesis_left:hypothesis_right])
            term_errors += inserted
            other_errors += hypothesis_right - hypothesis_left - inserted
        elif kind != "equal":
            wrong = sum(is_term[left:right])
            term_errors += wrong
            other_errors += right - left - wrong
    if not row.reference:
        return 0, 0, 0, 0  # words on silence are counted apart
    return term_errors, sum(is_term), other_errors, len(row.reference) - sum(is_term)


def mine(
    texts: Iterable[str],
    general_texts: Iterable[str],
    normaliser: Normaliser,
    *,
    min_count: int = 3,
    min_ratio: float = 10.0,
    limit: int = 200,
) -> list[Term]:
    """Propose a term list: words much more frequent in these texts than in general ones.

    The ratio is of add-one smoothed relative frequencies; words of one letter and plain numbers are left out.
    Mine from training text and general text only: a list mined from the test set would describe itself.

    Args:
        texts: domain text, such as the training transcripts.
        general_texts: everyday text.
        normaliser: splits both into words.
        min_count: occurrences a word must have.
        min_ratio: how many times more frequent it must be.
        limit: how many terms at most, the highest ratio times count first.
    """
    here = Counter(word for text in texts for word in normaliser.words(text))
    elsewhere = Counter(word for text in general_texts for word in normaliser.words(text))
    here_size, elsewhere_size = here.total() + len(here) + 1, elsewhere.total() + len(elsewhere) + 1
    scored = []
    for word, count in here.items():
        if count < min_count or len(word) < 2 or word.replace(".", "").isdigit():
            continue
        ratio = (count + 1) / here_size / ((elsewhere[word] + 1) / elsewhere_size)
        if ratio >= min_ratio:
            scored.append((-ratio * count, word))
    return [Term(term=word, kind="mined") for _, word in sorted(scored)[:limit]]
