"""The stage `augment` (and those before it that are out of date).

python scripts/augment.py --pipeline pipelines/demo.toml
"""

import sys

from speechft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["augment", *sys.argv[1:]]))
