"""A run and parts of its training rows: would more speech help?

python scripts/learning_curve.py --pipeline pipelines/demo.toml --shares 0.25 0.5
"""

import sys

from speechft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["learning-curve", *sys.argv[1:]]))
