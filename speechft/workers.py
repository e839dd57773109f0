"""Worker processes, started clean: a copy of a process that has used PyTorch's threads can hang for ever."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.pool import Pool
from typing import Any

MOST_PROCESSES = 64  # each holds up to 0.13 GB (docs/benchmarks/augment_speed.md)


def cores() -> int:
    """Cores this process may use, at most `MOST_PROCESSES`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST_PROCESSES))


def pool(
    processes: int, *, preload: str, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> Pool:
    """A pool whose workers share one import of a module, and use one thread each.

    Not "fork": OpenMP's threads do not survive in the copy, and the first operator that wants them waits for
    them without end.

    Args:
        processes: workers.
        preload: the module whose functions the workers run, imported once for all of them.
        initializer: called in each worker with `initargs`.
        initargs: pickled once per worker.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    with _nameless_main():
        return context.Pool(processes, initializer=_start, initargs=(initializer, initargs))


@contextlib.contextmanager
def _nameless_main() -> Iterator[None]:
    """Workers begin by running the main script again, unless it has no file. Theirs is `preload`, never the script:
    a user's three lines need no `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    kept = {name: main.__dict__.get(name) for name in ("__file__", "__spec__") if main.__dict__.get(name)}
    for name in kept:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


def _start(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # for what is imported later
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if initializer:
        initializer(*initargs)
