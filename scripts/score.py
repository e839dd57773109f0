"""The stage `score` (and those before it that are out of date).

python scripts/score.py --pipeline pipelines/demo.toml
"""

import sys

from speechft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["score", *sys.argv[1:]]))
