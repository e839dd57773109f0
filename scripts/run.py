"""All stages of a pipeline.

python scripts/run.py --pipeline pipelines/demo.toml [--plan]
"""

import sys

from speechft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["run", *sys.argv[1:]]))
