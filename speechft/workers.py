"""Worker processes, started clean: a copy of a process that has used PyTorch's threads can hang for ever."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from speechft.errors import InputError

A = TypeVar("A")
R = TypeVar("R")

MOST_PROCESSES = 64  # each holds up to 0.13 GB (docs/benchmarks/augment_speed.md)
AHEAD = 3  # chunks of arguments given to each worker before the first result is taken


def cores() -> int:
    """Cores this process may use, at most `MOST_PROCESSES`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST_PROCESSES))


def each(
    function: Callable[[A], R], arguments: Iterable[A], *, processes: int, preload: str, chunk: int = 4,
    initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = (),
) -> Generator[R]:  # fmt: skip
    """Results of a function in the arguments' order, from workers that share one import and use one thread each.

    Arguments are taken a little ahead of the results, so there may be millions. Not "fork": OpenMP's threads do not
    survive in the copy, and the first operator that wants them waits for them without end.

    Args:
        function: of a module, as it is sent by name; what it raises is raised here.
        arguments: what to call it with.
        processes: workers.
        preload: the module whose functions the workers run, imported once for all of them.
        chunk: arguments sent at a time.
        initializer: called in each worker with `initargs`.
        initargs: pickled once per worker.

    Raises:
        InputError: a worker was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    others = set(multiprocessing.active_children())
    waiting = deque[Future[list[R]]]()
    todo = iter(arguments)
    executor = ProcessPoolExecutor(processes, context, initializer=_start, initargs=(initializer, initargs))
    try:
        while some := list(itertools.islice(todo, chunk)):
            with _nameless_main():  # for the worker that may be started for it
                waiting.append(executor.submit(_call, function, some))
            if len(waiting) > AHEAD * processes:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, by somebody or for want of memory; the same command goes on with what is "
            "missing"
        ) from error
    finally:
        if waiting:  # nobody will take these results
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
        executor.shutdown(cancel_futures=True)


def _call(function: Callable[[A], R], arguments: list[A]) -> list[R]:
    return [function(argument) for argument in arguments]


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; whoever gave the work ends it
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"  # for what is imported later
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if initializer:
        initializer(*initargs)


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
