"""Fail unless the demo's verdict is `better` with general speech inside its budget.

python scripts/check_demo.py runs/demo/report.json
"""

import argparse
import json
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    verdict = json.loads(parser.parse_args().report.read_text(encoding="utf-8"))["verdict"]
    print(verdict["sentence"])
    if (verdict["outcome"], verdict["general"]) != ("better", "within_budget"):
        print(f"the demo must be better within its budget, and is {verdict['outcome']}, {verdict['general']}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
