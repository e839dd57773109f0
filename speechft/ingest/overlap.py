"""What two sets of rows share: speakers, texts, nearly equal texts, recordings, stretches of one file."""

import os
import zlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from datasketch import MinHash, MinHashLSH
from rapidfuzz.distance import Levenshtein

from speechft import text as texts
from speechft.ingest.readers import Row

KINDS = ("speaker", "text", "near_text", "audio", "segment")
NEAR_MIN_WORDS = 5  # shorter sentences differ by their only words that matter
NEAR_DIFFERENCE = 0.1  # at most this share of the letters in words that differ
SHINGLE = 4  # letters
PERMUTATIONS = 64
CANDIDATE_JACCARD = 0.5  # a tenth of the letters in two places costs a third of the shingles or less
LONGEST_S = 30.0  # Whisper's window; the checks reject longer rows
OVERLAP_S = 0.1  # as much as segment ends are rounded by

_normalise = texts.get("whisper-basic")


def text_key(text: str) -> str:
    """What two transcripts must share to count as the same text; "" for silence, which never does."""
    return " ".join(_normalise(text).split())


def near_pairs(queries: Iterable[str], pool: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(query, pool text) pairs of unequal text keys that say nearly the same.

    MinHash over letter shingles proposes candidates, so the cost does not grow with all pairs; an alignment
    of the words confirms: the words that differ hold at most a tenth of the letters, so that a sentence
    with "a" for "the" is near and one with another drug's name is not.
    """
    index = MinHashLSH(threshold=CANDIDATE_JACCARD, num_perm=PERMUTATIONS)
    held = [key for key in dict.fromkeys(pool) if key.count(" ") + 1 >= NEAR_MIN_WORDS]
    for key, signature in zip(held, _signatures(held), strict=True):
        index.insert(key, signature, check_duplication=False)
    asked = [key for key in dict.fromkeys(queries) if key.count(" ") + 1 >= NEAR_MIN_WORDS]
    if not held:
        return
    vocabulary = {key: frozenset(key.split()) for key in held}
    for key, signature in zip(asked, _signatures(asked), strict=True):
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


def segment_pairs(left: Sequence[Row], right: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """(left, right) pairs of rows that take overlapping, not identical, stretches of one file."""
    by_file: dict[str, list[Row]] = defaultdict(list)
    for row in right:
        by_file[_file(row)].append(row)
    starts: dict[str, list[float]] = {}
    for file, rows in by_file.items():
        rows.sort(key=_start_s)
        starts[file] = [_start_s(row) for row in rows]
    for row in left:
        file = _file(row)
        if file not in by_file:
            continue
        # Rows last 30 s at most, so only those that start near this one need a look.
        first = bisect_left(starts[file], _start_s(row) - LONGEST_S)
        last = bisect_left(starts[file], _end_s(row))
        for other in by_file[file][first:last]:
            shared_s = min(_end_s(row), _end_s(other)) - max(_start_s(row), _start_s(other))
            if shared_s > OVERLAP_S and row.audio_sha256 != other.audio_sha256:
                yield row, other


def _start_s(row: Row) -> float:
    return row.utterance.offset


def _end_s(row: Row) -> float:
    return row.utterance.offset + (row.utterance.duration or 0.0)


def _file(row: Row) -> str:
    return os.path.realpath(row.utterance.audio_filepath or "")


def _signatures(keys: Sequence[str]) -> Iterator[MinHash]:
    shingles = ([key[i : i + SHINGLE].encode() for i in range(len(key) - SHINGLE + 1)] for key in keys)
    yield from MinHash.generator(shingles, num_perm=PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
