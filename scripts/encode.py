"""The stage `encode` (and those before it that are out of date).

python scripts/encode.py --pipeline pipelines/demo.toml
"""

import sys

from speechft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["encode", *sys.argv[1:]]))
