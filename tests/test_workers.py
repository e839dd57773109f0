"""Worker processes and what they and their parents hold."""

import subprocess
import sys
from pathlib import Path

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


MEMORY = """
import subprocess, sys
import numpy as np
from speechft import provenance
held = np.ones(40_000_000)  # 320 MB
child = [sys.executable, "-c", "from speechft import provenance; print(provenance.peak_memory_mb())"]
print(subprocess.run(child, capture_output=True, text=True, check=True).stdout.strip())
print(provenance.peak_memory_mb())
del held
provenance.forget_peak_memory()
print(provenance.peak_memory_mb())
"""


def test_peak_memory_is_this_processs_own() -> None:
    """Neither what its parent held, nor what was held before a stage began."""
    # In a process of its own: here, the allocator may keep what earlier tests held.
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    child, holding, after = map(float, done.stdout.split())
    assert 0 < child < 150
    assert holding > 320
    if sys.platform == "linux":
        assert after < holding - 200
