"""A million words: how long normalising, aligning and resampling take, and how much memory.

    python benchmarks/score_scale.py --words 1000000

The text is made up from a word-frequency curve, with numbers, units, codes and contractions in it; about one
word in five of the hypothesis is wrong. Exit status 1 where a million words take longer than is asked for.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from speechft import text
from speechft.manifest import Utterance
from speechft.score import wer
from speechft.score.score import score_run
from speechft.score.stats import paired_bootstrap
from speechft.text import Term

ODD_WORDS = """
5 mg, 120/80 B12 don't it's twenty-one C++ Dr. colour 3.5 mL/min (left) COVID-19 five percent
""".split()
TERMS = [Term(term=f"word{index}xyz") for index in range(200)]


def total_length(normaliser: Callable[[str], Any], texts: list[str]) -> int:
    """Normalise every line."""
    return sum(len(normaliser(line)) for line in texts)


def make_text(words: int, *, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return references and hypotheses, id to text, of about so many words in rows of 5 to 25."""
    choose = random.Random(seed)
    vocabulary = ["".join(choose.choices("abcdefghijklmnoprstuvw", k=choose.randint(2, 9))) for _ in range(20_000)]
    vocabulary += [term.term for term in TERMS]
    references: dict[str, str] = {}
    hypotheses: dict[str, str] = {}
    written = 0
    while written < words:
        reference = []
        for _ in range(choose.randint(5, 25)):
            if choose.random() < 0.1:
                reference.append(choose.choice(ODD_WORDS))
            else:
                reference.append(vocabulary[int(len(vocabulary) * choose.random() ** 4)])
        hypothesis = []
        for word in reference:
            kind = choose.random()
            if kind > 0.05:
                hypothesis.append(choose.choice(vocabulary) if kind < 0.15 else word)
            if kind > 0.95:
                hypothesis.append(choose.choice(vocabulary))
        row_id = f"u{len(references):06d}"
        references[row_id] = " ".join(reference).capitalize() + "."
        hypotheses[row_id] = " ".join(hypothesis)
        written += len(reference)
    return references, hypotheses


ALIGNED_WITHIN_S = 30.0  # a million words, with the resamples
NORMALISED_WITHIN_S = 150.0  # both sides, every normaliser


def peak_mb() -> float:
    """The most memory that this process has held so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(what: str, do: Callable[[], Any], spent: list[float], held_mb: float | None = None) -> Any:
    """Run it and print seconds, those of the processor, and the peak memory so far; the seconds join `spent`.

    `held_mb` is what was held before, the text itself: the peak above it is printed too.
    """
    started, processor_started = time.perf_counter(), time.process_time()
    result = do()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor_started
    spent.append(seconds)
    above = "-" if held_mb is None else f"{peak_mb() - held_mb:.0f}"
    print(f"| {what} | {seconds:.1f} | {processor:.1f} | {peak_mb():.0f} | {above} |", flush=True)
    return result


def main() -> int:
    """Print a Markdown table of seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=10_000)
    arguments = parser.parse_args()
    print("| step | seconds | of the processor | peak memory, MB | above the text |")
    print("| :-- | --: | --: | --: | --: |")
    references, hypotheses = timed("make the text", lambda: make_text(arguments.words, seed=1), [])
    held_mb = peak_mb()
    normalised: list[float] = []
    aligned: list[float] = []
    texts = [*references.values(), *hypotheses.values()]
    for name in text.NAMES:
        normaliser = text.get(name, TERMS)
        timed(f"normalise both sides: {name}", partial(total_length, normaliser, texts), normalised, held_mb)
    rows = timed(
        "align", lambda: [row.errors for row in wer.align(references, hypotheses, str.split)], aligned, held_mb
    )
    errors, words = wer.counts(rows)
    for what, groups in (("rows", list(references)), ("100 speakers", [i % 100 for i in range(len(rows))])):
        timed(
            f"{arguments.resamples} resamples of {what}",
            partial(paired_bootstrap, errors, errors, words, groups, resamples=arguments.resamples, seed=1),
            aligned,
            held_mb,
        )
    known: dict[str, Any] = {"audio_filepath": None, "duration": 5.0}
    before = [
        Utterance(id=row_id, text=reference, hypothesis=hypotheses[row_id], speaker=f"s{index % 100}", **known)
        for index, (row_id, reference) in enumerate(references.items())
    ]
    after = [Utterance(id=row.id, text=row.text, hypothesis=row.text, speaker=row.speaker, **known) for row in before]
    timed("the whole score of two systems", lambda: score_run(before, after, terms=TERMS), [], held_mb)
    share = arguments.words / 1_000_000
    met = True
    for what, spent, limit in (
        ("align and resample", aligned, ALIGNED_WITHIN_S),
        ("every normaliser", normalised, NORMALISED_WITHIN_S),
    ):
        within = sum(spent) <= limit * share
        met &= within
        print(f"{what}: {sum(spent):.1f} s of {limit * share:.0f} s asked: {'met' if within else 'missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
