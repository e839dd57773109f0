"""What is a code: the words that stay as written, such as `c++`, `il-6`, `mg/dl`, `120/80` and `v2.1.3`.

Every rule looks at one lower-case word on its own, so that texts that differ in case only are treated alike,
and an error beside a code cannot change it.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator

# Signs that mean something in a code or at its edge; every other punctuation mark or symbol is a space.
CODE_SIGNS = "./#+&@_=:%°'-<>≤≥±~$£€¥¢^"

# Units that are often glued to their number: `5mg` and `5 mg` are the same two words.
# Not `s` and `k`, for `1990s` and `4k` are words of their own.
UNITS = frozenset(
    """
mg mcg μg ug ng kg g lb lbs oz ml cl dl l μl ul mm cm km nm μm um m ft mmhg kpa mpa pa psi bar mmol
mol μmol umol nmol pmol meq iu bpm hz khz mhz ghz thz v mv kv ma μa w mw kw kwh wh mah ohm kohm pf
nf μf uf kj cal kcal nmi db dba rpm mph kph kmh kb mb gb tb pb kib mib gib tib bps kbps mbps gbps ms
μs us ns sec min h hr hrs am pm px pt dpi fps ppm ppb °c °f °
""".split()
)

# `mid-1990s` and `type-2` are English, `il-6` is a code; each is letters, a hyphen and digits.
PLAIN_PREFIXES = frozenset(
    """
mid pre post pro non age aged early late circa top past since until from under over twenty thirty forty fifty
sixty eighty ninety type grade phase level step page stage day week month year size class group part room line
zone tier
""".split()
)

# A slash between words is a pause (`nausea/vomiting`), between short ones mostly a code (`i/o`), but for these.
WORD_LETTERS = 4
SHORT_PAIRED = frozenset("and or he she him his her yes no on off in out up down men man day boy".split())

_UNIT = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_GLUED_UNIT = re.compile(rf"(?<![a-z0-9_.])(?<![a-z]-)(\d+(?:[./,]\d+)*)({_UNIT})(?=(?:/[a-zμ°0-9]+)*(?![\w+#-]))")
_SPACED_SIGN = re.compile(r"(?<=\w)\s+/\s+(?=\w)")
_SPACED_PERCENT = re.compile(r"(?<=\d)\s+%")
_SPACED_OPERATOR = re.compile(r"([<>≤≥=±~]=?)\s+(?=[\d.])")
_SIGN_BEHIND = re.compile(r"(?<![\w.,$£€¥¢])(\d+(?:\.\d+)?)(?:([$£€¥¢])(?!\w)|\s([$£€¥¢])(?!\s*\w*\d|\w))")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NO_ZERO = re.compile(r"(?<![\w.])\.(?=\d)")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|s)")
_NUMBER = re.compile(r"[-+$£€¢]?\d+(?:\.\d+)?%?")
_PIECES = re.compile(r"\.{2,}|:(?!\d)|(?<!\d):")
_SIGNED_NUMBER = re.compile(r"=?[-+$£€]?\d")


class _Separators(dict[int, str]):
    """A str.translate table that turns punctuation and symbols outside CODE_SIGNS into spaces."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        joiner = code in (0x200C, 0x200D)  # between letters of Persian and Indic words
        keep = joiner or character in CODE_SIGNS or unicodedata.category(character)[0] not in "PSZC"
        # Private-use characters stand for listed terms (see jargon.py) and pass.
        self[code] = character if keep or unicodedata.category(character) == "Co" else " "
        return self[code]


_SEPARATORS = _Separators()


def space_out(text: str) -> str:
    """Put spaces where words end and take them out of codes: `5mg, 120 / 80, 5 €` becomes `5 mg 120/80 €5`."""
    if "." in text or "," in text:
        text = _NO_ZERO.sub("0.", _THOUSANDS.sub("", text))
    text = text.replace("(s)", "s").translate(_SEPARATORS).replace(" & ", " and ")
    if any(sign in text for sign in "/%<>≤≥=±~"):
        text = _SPACED_SIGN.sub("/", text)
        text = _SPACED_OPERATOR.sub(r"\1", _SPACED_PERCENT.sub("%", text))
    if any(sign in text for sign in "$£€¥¢"):
        text = _SIGN_BEHIND.sub(r"\2\3\1", text)
    return _GLUED_UNIT.sub(r"\1 \2", text)


def split_chunk(chunk: str) -> Iterator[tuple[str, bool]]:
    """Split a piece of text without spaces into words, each with whether it is a code."""
    chunk = _strip_edges(chunk)
    if not any(character.isalnum() or character == "°" for character in chunk):
        return
    for piece in _PIECES.split(chunk):
        yield from _split_piece(_strip_edges(piece))


def is_code(word: str) -> bool:
    """Say whether a word is to stay exactly as written: letters, digits and signs mixed in a telling way.

    Plain words, numbers, percentages, amounts, ordinals and decades are not: English rules may change them.
    """
    letters = word.replace("'", "").isalpha()
    return not (letters or _ORDINAL.fullmatch(word) or _NUMBER.fullmatch(word))


def _strip_edges(chunk: str) -> str:
    """Take punctuation off the edges, but not the signs of `c++`, `c#`, `#12`, `.net`, `-5`, `>90`, `5%`."""
    chunk = chunk.rstrip(".:'&_=/<>≤≥±~$£€¥¢^@-")
    start = 0
    while start < len(chunk) and not chunk[start].isalnum():
        sign, following = chunk[start], chunk[start + 1 : start + 2]
        if sign == "°" or (sign in "#@_" and following.isalnum()) or (sign == "." and following.isalpha()):
            break
        if sign in "+-<>≤≥=±~$£€¥¢" and _SIGNED_NUMBER.match(chunk, start + 1):
            break
        start += 1
    return chunk[start:]


def _split_piece(piece: str) -> Iterator[tuple[str, bool]]:
    if not piece:
        return
    if "-" in piece[1:] and not any(sign in piece for sign in "/@&_=."):
        for joined in _join_code_parts([part for part in piece.split("-") if part]):
            yield joined, is_code(joined)
    elif "/" in piece and _are_words(parts := piece.split("/")):
        for part in parts:
            yield from _split_piece(part)
    elif "%" in piece[:-1]:
        for part in re.findall(r"[^%]+%?", piece):
            yield from _split_piece(_strip_edges(part))
    else:
        yield piece, is_code(piece)


def _are_words(parts: list[str]) -> bool:
    """Whether what slashes divide is words of a language, not units or the parts of a code."""
    if not all(part.replace("-", "").replace("'", "").isalpha() for part in parts) or not UNITS.isdisjoint(parts):
        return False
    return any(len(part) >= WORD_LETTERS for part in parts) or SHORT_PAIRED.issuperset(parts)


def _join_code_parts(parts: list[str]) -> list[str]:
    """Undo the split at hyphens inside codes: `il-6`, `555-1234`, `3-d`; not `10-minute` or `well-known`."""
    joined = parts[:1]
    for left, right in itertools.pairwise(parts):
        left_digit = any(character.isdigit() for character in left)
        right_digit = any(character.isdigit() for character in right)
        if left_digit and right_digit:
            together = True
        elif left_digit:
            together = len(right) <= 2
        elif right_digit:
            together = right[0].isdigit() and len(left) <= 6 and left not in PLAIN_PREFIXES
        else:
            together = False
        if together:
            joined[-1] += "-" + right
        else:
            joined.append(right)
    return joined
