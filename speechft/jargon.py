"""The jargon-safe normaliser: terms and codes stay as written, the rest is made alike on both sides."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from speechft import codes, english

VERSION = "3"

# A listed term travels through the rules as OPEN, its number, CLOSE: private-use characters no text has.
OPEN, CLOSE = "\ue000", "\ue001"

CHUNKS_KEPT = 50_000  # odd words whose splitting is remembered: bounds the memory of a long run

# Non-speech marks of recognisers and annotators; a bracket with anything else in it is speech.
TAGS = """
music laughter laughs laughing applause noise silence inaudible unintelligible crosstalk blank_audio foreign
coughs? coughing sighs? unk beep static breathing
""".split()

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FOLDED = str.maketrans({"œ": "oe", "ø": "o", "æ": "ae", "ß": "ss", "đ": "d", "ð": "d", "þ": "th", "ł": "l"})

_ONE_SIGN = str.maketrans(
    dict.fromkeys("’‘`´ʼ", "'")
    | dict.fromkeys("‐‑‒–−", "-")
    | dict.fromkeys("\u200b\ufeff\u00ad", "")
    | {"×": "x", "⁄": "/", "∕": "/", "µ": "μ", "º": "°", "—": " ", OPEN: " ", CLOSE: " "}
)
_PAUSE = re.compile(r"\.{2,}|-{2,}")  # an ellipsis or a dash as typewriters write it: never part of a word
_TAG = re.compile(rf"[\[(<*]\s*(?:{'|'.join(TAGS)})\s*[\])>*]")
_DOTTED = re.compile(r"(?<![\w.])(?:[a-z]\.){2,}(?!\w)|(?<![\w.])(?:[a-z]\.)+[a-z](?![\w.])")
_SPELLED = re.compile(r"(?<![\w-])(?:[a-z]-){2,}[a-z](?![\w-])")
_ACCENTS = re.compile(r"(?<=[a-z])[\u0300-\u036f]+")
_TERM_JOINT = re.compile(r"\s*-\s*|\s+")

# What may stand around a listed term.
_START = r"(?<![\w°#@])(?<!\w[/.&@_:])"
_AFTER_NO_NUMBER = r"(?<!\.)(?<!\d[,-])"
_JOINT = r"(?:\s*-\s*|\s+)"
_POSSESSIVE = r"(?:'s(?!\w))?"
_END = r"(?!\w)(?![/&@_]\w)(?![.:,]\d)(?!\.[a-z])"
_END_NO_SIGN = r"(?![+#])"

_Tree = dict[str, "_Tree"]


class JargonSafe:
    """The jargon-safe normaliser for one list of terms.

    Listed terms and their declared variants become the canonical spelling, whatever the case, and whether
    their parts are joined by a space or a hyphen. Codes (see `codes`) stay as written, in lower case. English
    outside them is made alike (see `english`).

    Args:
        terms: (canonical spelling, variants) of each term.
        in_english: whether the English rules apply.
        letters: keep spelled letters and digits as words of their own, and number words as words.
    """

    def __init__(
        self,
        terms: Sequence[tuple[str, Sequence[str]]] = (),
        *,
        in_english: bool = True,
        letters: bool = False,
    ) -> None:
        self._english = in_english
        self._letters = letters
        self._chunks: dict[str, tuple[tuple[str, bool], ...]] = {}
        self._canonical: list[list[str]] = []
        self._term_pattern: re.Pattern[str] | None = None
        self._term_numbers: dict[str, int] = {}
        self._other_forms: dict[str, list[tuple[tuple[str, ...], list[str]]]] = {}
        self._learn(terms)

    def __call__(self, text: str) -> str:
        """Return the text with terms and codes as written, in lower case, and the rest made alike."""
        prepared = self._prepare(text)
        if self._term_pattern is not None:
            prepared = self._term_pattern.sub(self._placeholder, prepared)
        return " ".join(self._merge_terms(self._even_out(self._tokens(prepared))))

    def _prepare(self, text: str) -> str:
        """Lower case, one form of each sign, no accents on English text, `U.S.` and `C-M-U` as one word."""
        text = unicodedata.normalize("NFKC", text.translate(_ONE_SIGN)).translate(_ONE_SIGN).lower()
        if self._english and not text.isascii():
            text = unicodedata.normalize("NFD", text.translate(FOLDED))
            text = unicodedata.normalize("NFC", _ACCENTS.sub("", text))
        if ".." in text or "--" in text:
            text = _PAUSE.sub(" ", text)
        if "." in text:
            text = _DOTTED.sub(self._join_letters, text)
        if "-" in text:
            text = _SPELLED.sub(self._join_letters, text)
        return text

    def _join_letters(self, match: re.Match[str]) -> str:
        separator = " " if self._letters else ""
        return separator.join(character for character in match.group() if character.isalpha())

    def _learn(self, terms: Sequence[tuple[str, Sequence[str]]]) -> None:
        if not terms:
            return
        plain = JargonSafe(in_english=self._english, letters=self._letters)
        spellings: list[str] = []
        for term, variants in terms:
            canonical = self._prepare(term).split()
            if not canonical:
                continue
            self._canonical.append(canonical)
            for form in (term, *variants):
                for spelled in self._spellings(form):
                    key = _term_key(spelled)
                    if key not in self._term_numbers:  # the first entry that claims a spelling keeps it
                        self._term_numbers[key] = len(self._canonical) - 1
                        spellings.append(spelled)
                words = tuple(plain(form).split())
                if words and list(words) != canonical:
                    self._other_forms.setdefault(words[0], []).append((words, canonical))
        for forms in self._other_forms.values():
            forms.sort(key=lambda form: -len(form[0]))
        if spellings:
            self._term_pattern = _terms_pattern(sorted(spellings))

    def _spellings(self, form: str) -> set[str]:
        """Return a term's spelling as given, and with American spelling, which needs no declaring."""
        words = self._prepare(form).split()
        table = english.spelling_table() if self._english else {}
        spelled = {" ".join(words), " ".join(table.get(word, word) for word in words)}
        return {form for form in spelled if _term_key(form)}  # of a dash alone nothing is left to look for

    def _placeholder(self, match: re.Match[str]) -> str:
        key = _term_key(match.group())
        number = self._term_numbers.get(key)
        if number is None:  # the pattern also takes a possessive
            number = self._term_numbers[key.removesuffix("'s")]
        return f" {OPEN}{number}{CLOSE} "

    def _tokens(self, text: str) -> list[tuple[str, bool]]:
        """Return the text's words, each with whether it is protected."""
        if any(mark in text for mark in "[(<*"):
            text = _TAG.sub(" ", text)
        if self._english:
            text = english.phrases(text)
        tokens: list[tuple[str, bool]] = []
        after_term = False
        for chunk in codes.space_out(text).split():
            was_term, after_term = after_term, chunk[0] == OPEN
            if chunk.isalpha():
                tokens.append((chunk, False))
            elif after_term:
                tokens.extend((word, True) for word in self._canonical[int(chunk[1:-1])])
            elif was_term and self._english and chunk in english.AFTER_TERMS:
                tokens.append((english.AFTER_TERMS[chunk], False))
            else:
                known = self._chunks.get(chunk)
                if known is None:
                    if len(self._chunks) >= CHUNKS_KEPT:
                        self._chunks.clear()
                    known = self._chunks[chunk] = tuple(codes.split_chunk(chunk))
                tokens.extend(known)
        return tokens

    def _even_out(self, tokens: list[tuple[str, bool]]) -> list[str]:
        """Make English alike between the protected words."""
        words: list[str] = []
        run: list[str] = []
        for token, protected in tokens:
            if protected:
                words.extend(self._numbers(run))
                words.append(token)
                run = []
            elif self._english:
                run.extend(english.words(token))
            else:
                run.append(token.replace("'", ""))
        words.extend(self._numbers(run))
        return [word for word in words if word]

    def _numbers(self, run: list[str]) -> list[str]:
        if self._letters:
            return [name for word in run for name in _digit_names(word)]
        return english.units(english.numbers(run)) if self._english else run

    def _merge_terms(self, words: list[str]) -> list[str]:
        """Write a term's canonical spelling where the rules have arrived at another form of it.

        So `type two diabetes`, by now `type 2 diabetes`, meets the listed `Type 2 diabetes`.
        """
        if self._other_forms.keys().isdisjoint(words):
            return words
        result: list[str] = []
        index = 0
        while index < len(words):
            for form, canonical in self._other_forms.get(words[index], ()):
                if tuple(words[index : index + len(form)]) == form:
                    result.extend(canonical)
                    index += len(form)
                    break
            else:
                result.append(words[index])
                index += 1
        return result


def _digit_names(word: str) -> list[str]:
    if word.isascii() and word.isdigit():
        return [DIGIT_NAMES[int(digit)] for digit in word]
    return [word]


def _term_key(text: str) -> str:
    return " ".join(part for part in _TERM_JOINT.split(text) if part)


def _terms_pattern(terms: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for the terms as wholes: not `c` in `c++`, nor `5 mg` in `2.5 mg` or `5 mg/dl`.

    Terms that begin alike share that part of the pattern, so that a list of thousands costs no more per word
    than a short one; a longer term is tried before one that it begins with.
    """
    tree: _Tree = {}
    for term in terms:
        parts = [part for part in _TERM_JOINT.split(term) if part]
        atoms = [_AFTER_NO_NUMBER] if term[0].isdigit() else []
        for part in parts:
            atoms.extend(map(re.escape, part))
            atoms.append(_JOINT)
        # Of `IT`, `it's` is no possessive, but `it is`.
        atoms[-1] = "" if term.endswith("'s") or parts[-1] in english.TAKES_IS else _POSSESSIVE
        atoms.append(_END if term[-1] in "+#" else _END + _END_NO_SIGN)
        branch = tree
        for atom in atoms:
            branch = branch.setdefault(atom, {})
    return re.compile(_START + _write_tree(tree))


def _write_tree(tree: _Tree) -> str:
    """Return the tree as a pattern; what ends a term comes after what goes on."""
    chain = ""
    while len(tree) == 1:
        atom, tree = next(iter(tree.items()))
        chain += atom
    if not tree:
        return chain
    ordered = sorted(tree, key=lambda atom: atom in ("", _POSSESSIVE))
    return f"{chain}(?:{'|'.join(atom + _write_tree(tree[atom]) for atom in ordered)})"
