"""Our counts and segment test beside those of NIST's sclite and sc_stats (Debian: apt install sctk).

python benchmarks/score_nist.py --rows 2500
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from score_pairs import SC_STATS, SCLITE, random_pairs, sc_stats, sclite_counts

from speechft.score import nist, wer
from speechft.score.stats import mapsswe


def main() -> int:
    """Print a Markdown table; fail when sclite's counts or sc_stats' Z are not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2500)
    arguments = parser.parse_args()
    if SCLITE is None or SC_STATS is None:
        print("sclite and sc_stats are not installed (Debian: apt install sctk)", file=sys.stderr)
        return 2
    print(
        "| different words | WER | errors, jiwer | errors, sclite | errors, 4/3/3 | rows with other counts "
        "| segments, z | sc_stats |"
    )
    print("| --: | --: | --: | --: | --: | --: | --: | --: |")
    failed = False
    for words in (1000, 20):
        for error_rate in (0.1, 0.3, 0.6, 0.9):
            references, first = random_pairs(arguments.rows, seed=1, words=words, error_rate=error_rate)
            _, other = random_pairs(arguments.rows, seed=2, words=words, error_rate=error_rate)
            # The second system is right where the first is in every third row, elsewhere it says half of it.
            second = {
                row_id: (text if index % 3 == 0 else " ".join(text.split()[::2] + other[row_id].split()[:1]))
                for index, (row_id, text) in enumerate(first.items())
            }
            with tempfile.TemporaryDirectory() as name:
                theirs = sclite_counts(Path(name), references, first)
                their_segments, their_z = sc_stats(Path(name), references, first, second)
            rows = list(nist.align(references, first, str.split))
            ours = mapsswe(rows, list(nist.align(references, second, str.split)))
            different = sum(
                theirs[nist.trn_id(row.id, "s1")]
                != [
                    row.errors.hits,
                    row.errors.substitutions,
                    row.errors.deletions,
                    row.errors.insertions,
                ]
                for row in rows
            )
            total = wer.total(row.errors for row in rows)
            fewest = wer.total(row.errors for row in wer.align(references, first, str.split))
            sclite_total = sum(sum(counts[1:]) for counts in theirs.values())
            print(
                f"| {words} | {100 * (total.rate or 0):.1f} % | {fewest.errors} | {sclite_total} "
                f"| {total.errors} | {different} | {ours.segments}, {ours.statistic:.3f} "
                f"| {their_segments}, {their_z:.3f} |"
            )
            failed |= different > 0 or their_segments != ours.segments
            failed |= abs(their_z - ours.statistic) > 6e-4
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
