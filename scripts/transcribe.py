"""The stage `transcribe` (and those before it that are out of date).

python scripts/transcribe.py --pipeline pipelines/demo.toml
"""

import sys

from speechft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["transcribe", *sys.argv[1:]]))
