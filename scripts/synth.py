"""The stage `synth`: rows by synthetic voices, of sentences and of a term list.

python scripts/synth.py --pipeline pipelines/synth.toml --set data.terms=terms.txt
"""

import sys

from speechft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["synth", *sys.argv[1:]]))
