"""Our counts and segment test beside those of NIST's sclite and sc_stats (Debian: apt install sctk).

python benchmarks/score_nist.py --rows 2500 --runs runs/an4-decoder runs/an4-full
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from score_pairs import SC_STATS, SCLITE, random_pairs, sc_stats, sclite_counts

from speechft import manifest, text
from speechft.score import nist, wer
from speechft.score.stats import mapsswe


def second_of(first: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """A second system: right where the first is in every third row, elsewhere it says half of it."""
    return {
        row_id: (text if index % 3 == 0 else " ".join(text.split()[::2] + other[row_id].split()[:1]))
        for index, (row_id, text) in enumerate(first.items())
    }


def made_up(rows: int) -> Iterator[tuple[str, dict[str, str], dict[str, str], dict[str, str]]]:
    """A name, references and two systems' hypotheses, of random words."""
    for words in (1000, 20):
        for error_rate in (0.1, 0.3, 0.6, 0.9):
            references, first = random_pairs(rows, seed=1, words=words, error_rate=error_rate)
            _, other = random_pairs(rows, seed=2, words=words, error_rate=error_rate)
            yield f"random, of {words} words", references, first, second_of(first, other)


def of_run(run: Path) -> tuple[str, dict[str, str], dict[str, str], dict[str, str]]:
    """The same of a run, whose first system here is the adapted one; normalised as the score does."""
    normalise = text.get("jargon-safe")
    folder = run / "transcribe"
    after, before = (
        [row for role in ("", "general_") for row in manifest.read(folder / f"{role}{side}.jsonl", need_audio=False)]
        for side in ("after", "before")
    )
    # Plain numbers for ids: sclite ends an id at some signs that ours may hold.
    references = {f"r{number:05d}": " ".join(normalise.words(row.text or "")) for number, row in enumerate(after)}
    first, second = (
        {f"r{number:05d}": " ".join(normalise.words(row.hypothesis or "")) for number, row in enumerate(rows)}
        for rows in (after, before)
    )
    return f"{run.name}, adapted", references, first, second


def compare(name: str, references: dict[str, str], first: dict[str, str], second: dict[str, str]) -> tuple[str, bool]:
    """A line of the table, and whether a count differs from sclite's or z from that of sc_stats."""
    with tempfile.TemporaryDirectory() as folder:
        theirs = sclite_counts(Path(folder), references, first)
        their_segments, their_z = sc_stats(Path(folder), references, first, second)
    rows = list(nist.align(references, first, str.split))
    ours = mapsswe(rows, list(nist.align(references, second, str.split)))
    different = 0
    for row in rows:
        counts = [row.errors.hits, row.errors.substitutions, row.errors.deletions, row.errors.insertions]
        different += theirs[nist.trn_id(row.id, "s1")] != counts
    total = wer.total(row.errors for row in rows)
    fewest = wer.total(row.errors for row in wer.align(references, first, str.split))
    sclite_total = sum(sum(counts[1:]) for counts in theirs.values())
    line = (
        f"| {name} | {total.words:,} | {100 * (total.rate or 0):.1f} % | {fewest.errors} | {sclite_total} "
        f"| {total.errors} | {different} | {ours.segments}, {ours.statistic:.3f} | {their_segments}, {their_z:.3f} |"
    )
    failed = different > 0 or their_segments != ours.segments or abs(their_z - ours.statistic) > 6e-4
    return line, failed


def main() -> int:
    """Print a Markdown table; fail when sclite's counts or sc_stats' Z are not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="finished runs, whose hypotheses are compared")
    arguments = parser.parse_args()
    if SCLITE is None or SC_STATS is None:
        print("sclite and sc_stats are not installed (Debian: apt install sctk)", file=sys.stderr)
        return 2
    print(
        "| pairs | words | WER | errors, jiwer | errors, sclite | errors, 4/3/3 | rows with other counts "
        "| segments, z | sc_stats |"
    )
    print("| :-- | --: | --: | --: | --: | --: | --: | --: | --: |")
    failed = False
    for pairs in (*map(of_run, arguments.runs), *made_up(arguments.rows)):
        line, wrong = compare(*pairs)
        print(line, flush=True)
        failed |= wrong
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
