"""Text normalisers by name, version and hash: what is made alike on both sides before words are counted."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from speechft import english, jargon
from speechft.errors import InputError

NAMES = ("raw", "whisper-english", "whisper-basic", "jargon-safe", "letters")
DEFAULT = "jargon-safe"

# Raised by hand whenever a normaliser's output changes for any text: old and new numbers are never mixed.
VERSIONS = {
    "raw": "1",
    "whisper-english": "1",
    "whisper-basic": "1",
    "jargon-safe": jargon.VERSION,
    "letters": jargon.VERSION,
}

# Written without spaces between words, so that a word error rate says nothing: the rate of these is the CER.
LANGUAGES_WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my", "bo"})
# Three-letter codes of the languages that are treated apart; English by name too, which most rows are in.
_LANGUAGE_CODES = {
    "english": "en", "eng": "en", "zho": "zh", "chi": "zh", "cmn": "zh", "jpn": "ja", "tha": "th", "lao": "lo",
    "khm": "km", "mya": "my", "bur": "my", "bod": "bo", "tib": "bo", "nb": "no", "nob": "no",
}  # fmt: skip

# whisper-normalizer 0.1.15 adds these to OpenAI's table ("the cause of death" would become "the because of
# death"); they are taken out again, so that the number is the one the reference package gives.
_ADDED_BY_THE_PACKAGE = (r"\bkinda\b", r"\bsorta\b", r"\bdunno\b", r"\bcause\b")


@dataclass(frozen=True, kw_only=True)
class Term:
    """One entry of a term list: its canonical spelling, other accepted spellings, and what kind it is."""

    term: str
    variants: tuple[str, ...] = ()
    kind: str | None = None
    spoken: str | None = None  # how a synthetic voice should say it


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """A named text normaliser: call it on a text, or ask for the text's words.

    `hash` covers the name, the version, the language, the spelling table and the terms: two results can be
    compared when their hashes are equal.
    """

    name: str
    version: str
    hash: str
    function: Callable[[str], str] = field(repr=False, compare=False)

    def __call__(self, text: str) -> str:
        """Return the normalised text."""
        return self.function(text)

    def words(self, text: str) -> list[str]:
        """Return the normalised text's words."""
        return self.function(text).split()

    def identity(self) -> dict[str, str]:
        """Return what a result must say about the normaliser it used."""
        return {"name": self.name, "version": self.version, "hash": self.hash}


def get(name: str = DEFAULT, terms: Iterable[Term] | None = None, *, language: str = "en") -> Normaliser:
    """Return the normaliser of that name.

    Args:
        name: one of `NAMES`.
            `raw` leaves the text as it is; `whisper-english` and `whisper-basic` give what OpenAI's package
            gives; `jargon-safe` keeps units, codes, part numbers and the listed terms whole and evens out the
            rest; `letters` is jargon-safe with spelled letters and digits each a word of its own.
        terms: the listed terms; only `jargon-safe` and `letters` use them.
        language: "en" also evens out English contractions, spellings and number words in `jargon-safe` and
            `letters`; other languages keep theirs. The other normalisers do not ask.

    Raises:
        InputError: no normaliser has that name.
    """
    if name not in NAMES:
        raise InputError(f"there is no normaliser {name!r}; choose one of {', '.join(NAMES)}")
    return _make(name, tuple(terms or ()), language)


def by_character(normaliser: Normaliser) -> Normaliser:
    """Return the normaliser with every character a word of its own, for languages without spaces."""
    return Normaliser(
        name=normaliser.name,
        version=normaliser.version,
        hash=normaliser.hash,
        function=lambda text: " ".join("".join(normaliser(text).split())),
    )


def without_spaces(languages: Iterable[str | None], texts: Sequence[str]) -> bool:
    """Say whether the texts are in a language that puts no spaces between words.

    The rows' languages decide when they are given; otherwise more than half of the letters must be Chinese,
    Japanese, Thai, Lao, Khmer, Burmese or Tibetan.
    """
    known = [language_code(language) for language in languages if language]
    if known:
        return sum(language in LANGUAGES_WITHOUT_SPACES for language in known) * 2 > len(known)
    letters = [character for text in texts[:200] for character in text[:200] if character.isalpha()]
    return sum(map(_is_unspaced, letters)) * 2 > len(letters)


def language_code(language: str) -> str:
    """A language's code without its region: `en` for `en-GB`, `en_US`, `eng` and `English`, `de` for `German`."""
    code = re.split(r"[-_]", language.strip().lower())[0]
    if code in _LANGUAGE_CODES or len(code) <= 3:
        return _LANGUAGE_CODES.get(code, code)
    return _codes_by_name().get(code, code)


@cache
def _codes_by_name() -> dict[str, str]:
    """Whisper's own English names of its languages."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE  # takes seconds

    return dict(TO_LANGUAGE_CODE)


def _is_unspaced(character: str) -> bool:
    code = ord(character)
    return (
        0x0E00 <= code <= 0x0FFF  # Thai, Lao, Tibetan
        or 0x1000 <= code <= 0x109F  # Burmese
        or 0x1780 <= code <= 0x17FF  # Khmer
        or 0x3040 <= code <= 0x30FF  # kana
        or 0x3400 <= code <= 0x9FFF  # Chinese characters
        or 0x20000 <= code <= 0x3FFFF
    )


@cache
def _make(name: str, terms: tuple[Term, ...], language: str) -> Normaliser:
    used_terms: tuple[Term, ...] = ()
    used_language = ""
    table = ""
    function: Callable[[str], str]
    if name == "raw":
        function = _collapse_spaces
    elif name == "whisper-english":
        function = _whisper_english()
        table = english.spelling_hash()
    elif name == "whisper-basic":
        function = _whisper_basic()
    else:
        in_english = language_code(language) == "en"
        used_terms, used_language = terms, "en" if in_english else "other"
        table = english.spelling_hash() if in_english else ""
        function = jargon.JargonSafe(
            [(term.term, term.variants) for term in terms], in_english=in_english, letters=name == "letters"
        )
    version = VERSIONS[name]
    listed = [[term.term, *sorted(term.variants)] for term in used_terms]
    facts = json.dumps([name, version, used_language, table, sorted(listed)], ensure_ascii=False)
    digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
    return Normaliser(name=name, version=version, hash=digest, function=function)


def _collapse_spaces(text: str) -> str:
    return " ".join(text.split())


def _whisper_english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    normaliser = EnglishTextNormalizer()
    for pattern in _ADDED_BY_THE_PACKAGE:
        normaliser.replacers.pop(pattern, None)
    return lambda text: str(normaliser(text))


def _whisper_basic() -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    normaliser = BasicTextNormalizer()
    return lambda text: str(normaliser(text))
