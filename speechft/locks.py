"""A folder held by one process at a time."""

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from speechft.errors import InputError

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"


@contextlib.contextmanager
def only_one(folder: str | Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it however the process ends.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    with _lock_file(folder) as file:
        if not _take(file, wait=False):
            raise InputError(
                f"{folder}: another process is at work on this run; wait for it to end, or name another with RUN="
            )
        yield


@contextlib.contextmanager
def in_turn(folder: str | Path) -> Iterator[None]:
    """As `only_one`, but wait, and say so, until a process that holds the folder lets go of it."""
    with _lock_file(folder) as file:
        if not _take(file, wait=False):
            log.info("%s: another process is making this; waiting for it", folder)
            _take(file, wait=True)
        yield


def _lock_file(folder: str | Path) -> TextIO:
    path = Path(folder) / LOCK_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another run directory") from error


def _take(file: TextIO, *, wait: bool) -> bool:
    """Take the lock; False where another process holds it. A file system without locks gives it to all."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        log.debug("%s: cannot be locked", file.name)
    return True
