"""Worker processes and what they and their parents hold."""

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speechft import workers
from speechft.errors import InputError

SCRIPT = """
import math
from speechft import workers
print("the script runs")
print(*workers.each(math.factorial, range(5), processes=2, preload="math"))
"""


def test_a_script_of_three_lines_needs_no_guard(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the script runs\n1 1 2 6 24\n"


def test_more_is_asked_for_only_as_results_are_taken() -> None:
    asked: list[int] = []
    numbers = (asked.append(number) or number for number in itertools.count())
    results = workers.each(math.sqrt, numbers, processes=1, preload="math", chunk=2)
    assert [next(results) for _ in range(3)] == [0.0, 1.0, math.sqrt(2)]
    assert len(asked) < 20
    results.close()


def test_what_a_worker_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="math domain error"):
        list(workers.each(math.sqrt, [4, -1], processes=1, preload="math"))


def test_a_killed_worker_ends_the_work_with_a_sentence() -> None:
    pids = workers.each(_own_pid, range(1000), processes=2, preload=__name__, chunk=1)
    os.kill(next(pids), signal.SIGKILL)
    with pytest.raises(InputError, match="a worker process was killed"):
        list(pids)


def _own_pid(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


ORPHANS = """
import os, time
from speechft import workers
for pid in workers.each(eval, ["__import__('os').getpid()"] * 1000, processes=2, preload="os", chunk=1):
    print(pid, flush=True)
    time.sleep(0.1)
"""


def test_workers_leave_with_whoever_started_them() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = {int(parent.stdout.readline()) for _ in range(6)}
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while alive := [pid for pid in pids if _lives(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a process that has ended stays in the table until its parent looks
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


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
