"""The install, killed again and again: what is left is taken up, never taken for done.

    python benchmarks/install.py                       # --kill-after 2 20 60 120

A clean clone under an empty home directory. `make .venv/.ready` is killed (SIGKILL, with all it has started) after
each of the given seconds, then left to finish, then run once more. Exit status 1 where a killed install counts as done,
or what is installed in the end does not start. Writes docs/benchmarks/install.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from speechft import files

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/benchmarks/install.md"


def install(clone: Path, home: Path, kill_after: float | None) -> tuple[str, float]:
    """How `make .venv/.ready` ended, and after how many seconds."""
    environment = {"HOME": str(home)} | {
        name: value for name, value in os.environ.items() if name not in ("HOME", "PYTHONPATH", "VIRTUAL_ENV")
    }
    started = time.monotonic()
    made = subprocess.Popen(
        ["make", ".venv/.ready"], cwd=clone, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        status = made.wait(kill_after)
        how = "installed" if status == 0 else f"failed ({status})"
    except subprocess.TimeoutExpired:
        os.killpg(made.pid, signal.SIGKILL)
        made.wait()
        how = "killed"
    return how, time.monotonic() - started


def main() -> int:
    """Kill, go on, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill-after", nargs="*", type=float, default=[2, 20, 60, 120], metavar="SECONDS")
    options = parser.parse_args()
    lines: list[str] = []
    good = True
    with tempfile.TemporaryDirectory() as folder:
        clone, home = Path(folder, "speechft"), Path(folder, "home")
        home.mkdir()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        for kill_after in [*options.kill_after, None, None]:
            how, seconds = install(clone, home, kill_after)
            ready = (clone / ".venv/.ready").exists()
            good &= ready == (how == "installed") and not how.startswith("failed")
            lines.append(f"| {len(lines) + 1} | {how} | {seconds:.0f} | {'yes' if ready else 'no'} |")
            print(lines[-1], flush=True)
        told = subprocess.run(
            [str(clone / ".venv/bin/speechft"), "--version"], capture_output=True, text=True, cwd=clone, check=False
        )
        good &= told.returncode == 0
    text = [
        "# The install, killed again and again",
        "",
        "    python benchmarks/install.py",
        "",
        "`make .venv/.ready` in a clean clone under an empty home directory, killed with all it has started; the last "
        "two are left alone.",
        "",
        "| attempt | | seconds | counts as done |",
        "| --: | :-- | --: | :-- |",
        *lines,
        "",
        f"Afterwards `speechft --version` says `{told.stdout.strip()}`.",
    ]
    with files.atomic_write(OUT) as file:
        file.write("\n".join(text) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
