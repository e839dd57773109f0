"""English made alike: contractions, fillers, spellings and number words, but nothing that could be jargon.

The tables are OpenAI's (through the whisper-normalizer package), less the rules that destroy jargon: titles
(`rev`, `gen`, `col`, `lt`, `sr`), deleting what stands in brackets, `mm` as a filler, a lone `o` as zero.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

CONTRACTIONS = {
    "won't": "will not",
    "can't": "can not",
    "cannot": "can not",
    "shan't": "shall not",
    "let's": "let us",
    "ain't": "aint",
    "y'all": "you all",
    "wanna": "want to",
    "gotta": "got to",
    "gonna": "going to",
    "i'ma": "i am going to",
    "imma": "i am going to",
    "woulda": "would have",
    "coulda": "could have",
    "shoulda": "should have",
    "ma'am": "madam",
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
}
SUFFIXES = {"n't": "not", "'re": "are", "'ll": "will", "'ve": "have", "'m": "am", "'d": "would"}
# After these 's is a verb; after any other word it is a possessive (`crohn's` = `crohns`).
TAKES_IS = frozenset("it he she that what there here who where how when why this everything something nothing".split())
# What a contraction leaves behind a listed term, which is taken out first: of `metformin'll`, of `it's` if `IT` is one.
AFTER_TERMS = {suffix: meaning for suffix, meaning in SUFFIXES.items() if suffix[0] == "'"} | {"'s": "is"}
FILLERS = frozenset({"hmm", "mhm", "mmm", "uh", "um"})  # never `mm`, which is a unit

# What a unit is called, by its sign, in the spellings that the table leaves. Not those of which case alone tells a sign
# apart, such as mW and MW.
_UNIT_SIGNS = """
milligram mg microgram μg mcg μg ug μg nanogram ng kilogram kg gram g milliliter ml microliter μl microlitre μl
deciliter dl decilitre dl liter l millimeter mm micrometer μm nanometer nm nanometre nm centimeter cm kilometer km
meter m millimole mmol micromole μmol nanomole nmol kilohertz khz megahertz mhz gigahertz ghz hertz hz volt v
kilovolt kv watt w kilowatt kw hour h hr h minute min second s sec s celsius °c fahrenheit °f
""".split()
_UNITS = {
    name + plural: sign for name, sign in zip(_UNIT_SIGNS[::2], _UNIT_SIGNS[1::2], strict=True) for plural in ("", "s")
}

_FILLER_PAIRS = re.compile(r"(?<![\w-])(?:mm-h+m+|uh-huh)(?![\w-])")
_HALF = re.compile(r"\band a half\b")
_PERCENT = re.compile(r"(?<=\d)\s+per ?cent\b")
_HAS_BEEN = re.compile(r"'s (been|got|gone)\b")
_HAD_BEEN = re.compile(r"'d (been|gone|done)\b")
_INTEGER = re.compile(r"[-+$£€¢]?(?:0|[1-9]\d*)")
_WRITTEN_NUMBER = re.compile(r"[-+$£€¢]?\d")
_NO_ZERO = re.compile(r"^([-+$£€¢]?)\.(?=\d)")
_ZERO_LETTERS = ("o", "oh")


def phrases(text: str) -> str:
    """Write the phrases alike that are more than one word."""
    if "'" in text:
        text = _HAD_BEEN.sub(r" had \1", _HAS_BEEN.sub(r" has \1", text))
    if " half" in text:
        text = _HALF.sub("point five", text)
    if "cent" in text:
        text = _PERCENT.sub("%", text)
    return _FILLER_PAIRS.sub(" ", text) if "m-h" in text or "uh-" in text else text


def words(word: str) -> list[str]:
    """Expand a contraction, drop a filler, write the American spelling; return the words that result."""
    if word in FILLERS:
        return []
    known = CONTRACTIONS.get(word)
    if known is not None:
        return known.split()
    if "'" in word:
        for suffix, meaning in SUFFIXES.items():
            if word.endswith(suffix) and len(word) > len(suffix):
                return [*words(word.removesuffix(suffix)), meaning]
        stem = word.removesuffix("'s")
        if stem != word and stem in TAKES_IS:
            return [stem, "is"]
        word = word.replace("'", "")
    return [sys.intern(spelling_table().get(word, word))]


def numbers(run: list[str]) -> list[str]:
    """Write number words as digits, as OpenAI's package does: `twenty one` is 21, `five percent` is 5%.

    A lone `o` or `oh` is not a zero, `plus` and `point` belong to a number only before one, `007` and `3.50` keep their
    zeros, and a number after a number in digits begins anew.
    """
    standard = _number_standard()
    if standard.words.isdisjoint(run) and not any(_WRITTEN_NUMBER.match(word) for word in run):
        return run
    result: list[str] = []
    pending: list[str] = []
    for index, word in enumerate(run):
        before = run[index - 1] if index else ""
        after = run[index + 1] if index + 1 < len(run) else ""
        written_before = _WRITTEN_NUMBER.match(before) is not None
        if word in _ZERO_LETTERS:  # a digit only beside another one: not in `type o` or `oh no`
            joins = _is_digit_word(before) or _is_digit_word(after)
        elif _WRITTEN_NUMBER.match(word):  # the standard would write 007 as 7 and 3.50 as 3.5
            joins = _INTEGER.fullmatch(word) is not None or before == "point"
            joins = joins or after in standard.multipliers or after in standard.following_prefixers
        elif word == "point" or word in standard.preceding_prefixers:  # not in `c plus plus` or `hiv positive and`
            joins = _begins_number(run[index + 1 :])
        else:
            joins = True
        # `in 2015 five` is two numbers; the standard would write 20155.
        anew = written_before and (word in standard.decimals or word in standard.ones_suffixed)
        if pending and (anew or not joins):
            result.extend(_standard_numbers(pending))
            pending = []
        (pending if joins else result).append(word)
    result.extend(_standard_numbers(pending))
    return result


def units(run: list[str]) -> list[str]:
    """Write a unit after its number by its sign: `5 milligrams` is `5 mg`, `37 degrees celsius` is `37 °c`."""
    result: list[str] = []
    for word in run:
        before = result[-1] if result else ""
        if before == "degrees" and word in ("celsius", "fahrenheit"):
            result.pop()
            before = result[-1] if result else ""
        numbered = before[-1:].isdigit() and _WRITTEN_NUMBER.match(before) is not None
        result.append(_UNITS.get(word, word) if numbered else word)
    return result


@cache
def spelling_table() -> dict[str, str]:
    """Return British to American spellings."""
    from whisper_normalizer.english import EnglishSpellingNormalizer

    return dict(EnglishSpellingNormalizer().mapping)


@cache
def spelling_hash() -> str:
    """Return the hash of the spelling table in use."""
    return hashlib.sha256(json.dumps(spelling_table(), sort_keys=True).encode()).hexdigest()[:16]


@cache
def _number_standard() -> Any:
    from whisper_normalizer.english import EnglishNumberNormalizer

    return EnglishNumberNormalizer()


def _standard_numbers(run: list[str]) -> Iterator[str]:
    if run:
        for word in _number_standard().process_words(run):
            if word is not None:
                yield _NO_ZERO.sub(r"\g<1>0.", str(word))  # `point five` is 0.5, as is `zero point five`


def _begins_number(run: list[str]) -> bool:
    if run and run[0] == "point":
        run = run[1:]
    return bool(run) and (_is_digit_word(run[0]) or _WRITTEN_NUMBER.match(run[0]) is not None)


def _is_digit_word(word: str) -> bool:
    standard = _number_standard()
    return word == "zero" or word in standard.ones or word in standard.tens or _INTEGER.fullmatch(word) is not None
