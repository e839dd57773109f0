"""The stage `report` (and those before it that are out of date).

python scripts/report.py --pipeline pipelines/demo.toml
"""

import sys

from speechft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["report", *sys.argv[1:]]))
