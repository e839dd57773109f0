"""Worker processes and what they and their parents hold."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from speechft import provenance

SCRIPT = """
import math
from speechft import workers
print("the script runs")
with workers.pool(2, preload="math") as pool:
    print(pool.map(math.factorial, range(5)))
"""


def test_a_script_of_three_lines_needs_no_guard(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the script runs\n[1, 1, 2, 6, 24]\n"


def test_peak_memory_is_this_processs_own() -> None:
    """Neither what its parent held, nor what was held before a stage began."""
    held = np.ones(40_000_000)  # 320 MB
    code = "from speechft import provenance; print(provenance.peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 150
    assert provenance.peak_memory_mb() > held.nbytes / 1e6
    del held
    before = provenance.peak_memory_mb()
    provenance.forget_peak_memory()
    if sys.platform == "linux":
        assert provenance.peak_memory_mb() < before - 200
