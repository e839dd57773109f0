"""What each normaliser leaves of jargon: the strings of tests/test_text.py as a table.

python benchmarks/score_normalisers.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from test_text import JARGON

from speechft import text

SHOWN = ("jargon-safe", "letters", "whisper-english", "whisper-basic")  # `raw` leaves what is written


def main() -> None:
    """Print a Markdown table."""
    normalisers = [text.get(name) for name in SHOWN]
    print("| written | " + " | ".join(SHOWN) + " |")
    print("| :-- |" + " :-- |" * len(SHOWN))
    for written, _ in JARGON:
        cells = [" ".join(normalise.words(written)) for normalise in normalisers]
        print("| " + " | ".join(f"`{cell}`" if cell else "(nothing)" for cell in [written, *cells]) + " |")


if __name__ == "__main__":
    main()
