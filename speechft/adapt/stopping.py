"""SIGTERM and Ctrl-C in the middle of training: the step in hand ends and is saved first."""

from __future__ import annotations

import contextlib
import logging
import signal
from typing import Any

logger = logging.getLogger(__name__)


class StopSignal:
    """Inside, SIGTERM and SIGINT are noted, so that the step in hand ends and is saved; a second one is not held up."""

    def __init__(self) -> None:
        self.asked = 0  # the signal's number
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        with contextlib.suppress(ValueError):  # not the main thread: the caller handles signals
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, _: object) -> None:
        logger.info("%s: saving after this step", signal.Signals(number).name)
        self.asked = number
        self.__exit__()
