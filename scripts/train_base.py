"""Train a base from random weights on synthetic clips; how `nano` was made, from its text to its file:

    python scripts/make_base_data.py --out runs/base-data      # speaks the text: 60,000 clips, 48 h
    python scripts/make_base_model.py --out runs/base-init     # random weights and a byte-level BPE
    python scripts/train_base.py --out runs/base               # nano: 387,000 clips, under three hours on two cores
    python scripts/ship_base.py --checkpoint runs/base/checkpoint.pt

Resumable: SIGTERM and Ctrl-C save after the step in hand, and the same command goes on. `curve.jsonl` tells the losses.
The rows that it is measured on are sentences that the training text does not hold: the generator's own (grammar), and
300 that no template of it made, by training voices (everyday) and by voices never heard (unseen). To train a Whisper
from random weights on rows of your own there is the strategy `scratch`; this loop needs each row's phonemes.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from speechft import manifest
from speechft.errors import InputError, Stopped
from speechft.pretrain import loop
from speechft.progress import Progress

DATA = Path("runs/base-data")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", type=Path, default=Path("runs/base-init"), help="a model with random weights")
    rows = [DATA / "train.jsonl", DATA / "train-words.jsonl"]
    parser.add_argument("--rows", type=Path, nargs="+", default=rows, help="clips with text and phonemes")
    parser.add_argument("--out", type=Path, default=Path("runs/base"))
    parser.add_argument("--epochs", type=int, default=10, help="passes over the clips (default 10)")
    parser.add_argument(
        "--rate", type=float, default=loop.PEAK_RATE, help="highest learning rate (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="one a core (default)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with Progress("features") as tell:
            loop.train(
                str(options.init), [row for path in options.rows for row in manifest.read(path)], out=options.out,
                epochs=options.epochs, seed=options.seed, peak_rate=options.rate, processes=options.processes,
                progress=tell,
            )  # fmt: skip
    except (InputError, Stopped) as error:
        print(error, file=sys.stderr)
        return error.status if isinstance(error, Stopped) else 2
    print(options.out / "checkpoint.pt")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
