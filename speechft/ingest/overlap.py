"""What two sets of rows share: speakers, texts, nearly equal texts, recordings, stretches of one file."""

import itertools
import re
import zlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from datasketch import MinHash, MinHashLSH
from rapidfuzz.distance import Levenshtein
from whisper_normalizer.basic import BasicTextNormalizer

from speechft import text as texts
from speechft.ingest.ledger import Ledger, Places

KINDS = ("speaker", "text", "near_text", "audio", "segment")
NEAR_MIN_WORDS = 5  # shorter sentences differ by their only words that matter
NEAR_MIN_CHARACTERS = 20  # of languages without spaces, some five words too
NEAR_DIFFERENCE = 0.1  # at most this share of the letters in words that differ
SHINGLE = 4  # letters
PERMUTATIONS = 64
CANDIDATE_JACCARD = 0.5  # a tenth of the letters in two places costs a third of the shingles or less
LONGEST_S = 30.0  # Whisper's window; the checks reject longer rows
OVERLAP_S = 0.1  # as much as segment ends are rounded by

# Whisper's own would take the marks off their letters, and with them the vowels of Hindi and Thai.
_normalise = BasicTextNormalizer(preserve_marks=True)
_SIGNS = re.compile(r"(?<=[^\W_])[+#]+")  # of `c++` and `c#`


def text_key(text: str) -> str:
    """What two transcripts must share to count as the same text; "" for silence, which never does.

    Of a language without spaces every character is a word.
    """
    named = _SIGNS.sub(lambda signs: signs.group().replace("+", "plus").replace("#", "sharp"), text)
    words = _normalise(named).split()
    return " ".join("".join(words) if _is_unspaced("".join(words)) else words)


def _is_unspaced(key: str) -> bool:
    return not key.isascii() and texts.without_spaces([], [key])


def near_pairs(queries: Iterable[str], pool: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(query, pool text) pairs of unequal text keys that say nearly the same.

    MinHash over letter shingles proposes candidates, so the cost does not grow with all pairs; an alignment
    of the words confirms: the words that differ hold at most a tenth of the letters, so that a sentence
    with "a" for "the" is near and one with another drug's name is not. The pool is held; queries are read one
    by one, and one that comes twice is answered twice.
    """
    index = MinHashLSH(threshold=CANDIDATE_JACCARD, num_perm=PERMUTATIONS)
    vocabulary: dict[str, frozenset[str]] = {}
    for key, signature in _signed(dict.fromkeys(pool)):
        index.insert(key, signature, check_duplication=False)
        vocabulary[key] = frozenset(key.split())
    if not vocabulary:
        return
    for key, signature in _signed(queries):
        own = frozenset(key.split())
        # Words that the other text lacks differ in any alignment: sentences of one template, of which there
        # may be millions of pairs, are told apart by this alone.
        most = NEAR_DIFFERENCE * _letters(key.split()) / (1 - NEAR_DIFFERENCE)  # the other may be longer
        close = [other for other in index.query(signature) if _letters(own - vocabulary[other]) <= most]
        for candidate in sorted(close):
            if candidate != key and is_near(key, candidate):
                yield key, candidate


def is_near(one: str, other: str) -> bool:
    """Whether the words in which two texts differ hold at most a tenth of the longer one's letters."""
    left, right = one.split(), other.split()
    letters = max(_letters(left), _letters(right))
    differing = 0
    for step in Levenshtein.opcodes(left, right):
        if step.tag != "equal":
            gone = _letters(left[step.src_start : step.src_end])
            come = _letters(right[step.dest_start : step.dest_end])
            differing += max(gone, come)
    return differing <= NEAR_DIFFERENCE * letters


def _letters(words: Iterable[str]) -> int:
    return sum(map(len, words))


def segment_pairs(ledger: Ledger, left: Places, right: Places) -> Iterator[tuple[int, int]]:
    """Where in `left` and in `right` rows stand that take overlapping, not identical, stretches of one file."""
    files, other_files = ledger.column("file", left), ledger.column("file", right)
    if not np.isin(files, other_files).any():
        return
    start_s, sounds = ledger.column("start_s", right), ledger.column("sound", right)
    end_s = start_s + ledger.column("duration_s", right)
    by_file: dict[int, list[int]] = defaultdict(list)
    for at in np.flatnonzero(np.isin(other_files, files)):
        by_file[int(other_files[at])].append(int(at))
    starts: dict[int, list[float]] = {}
    for file, members in by_file.items():
        members.sort(key=start_s.__getitem__)
        starts[file] = start_s[members].tolist()
    own_start_s, own_sounds = ledger.column("start_s", left), ledger.column("sound", left)
    own_end_s = own_start_s + ledger.column("duration_s", left)
    for at in np.flatnonzero(np.isin(files, other_files)):
        file = int(files[at])
        # Rows last 30 s at most, so only those that start near this one need a look.
        first = bisect_left(starts[file], own_start_s[at] - LONGEST_S)
        last = bisect_left(starts[file], own_end_s[at])
        for other in by_file[file][first:last]:
            shared_s = min(own_end_s[at], end_s[other]) - max(own_start_s[at], start_s[other])
            if shared_s > OVERLAP_S and own_sounds[at] != sounds[other]:
                yield int(at), other


def _signed(keys: Iterable[str]) -> Iterator[tuple[str, MinHash]]:
    """Keys of enough words, with their signatures."""
    enough = (
        key for key in keys if key.count(" ") + 1 >= (NEAR_MIN_CHARACTERS if _is_unspaced(key) else NEAR_MIN_WORDS)
    )
    long, to_sign = itertools.tee(enough)
    letters = (key.replace(" ", "") if _is_unspaced(key) else key for key in to_sign)
    shingles = ([key[i : i + SHINGLE].encode() for i in range(len(key) - SHINGLE + 1)] for key in letters)
    return zip(long, MinHash.generator(shingles, num_perm=PERMUTATIONS, seed=1, hashfunc=zlib.crc32), strict=True)
