"""Fail unless the demo's verdict is `better` with general speech inside its budget.

python scripts/check_demo.py runs/demo/report.json
"""

import json
import sys
from pathlib import Path


def main() -> int:
    verdict = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["verdict"]
    print(verdict["sentence"])
    if (verdict["outcome"], verdict["general"]) != ("better", "within_budget"):
        print(f"the demo must be better within its budget, and is {verdict['outcome']}, {verdict['general']}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
