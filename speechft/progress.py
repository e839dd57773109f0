"""Progress with time left: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

log = logging.getLogger(__name__)

SPEAK_EVERY_S = 10.0


class Progress:
    """Use as `with Progress("encode") as tell: tell(done, total, note)`."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._started = self._spoken = time.monotonic()
        self._bar: Bar | None = None
        self._first: tuple[int, float] | None = None  # how much was done when it was first told, and when

    def __enter__(self) -> Progress:
        self._started = self._spoken = time.monotonic()
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=None)
        return self

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Tell how far the work is."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=f"{self.title} {note}".strip())
            return
        now = time.monotonic()
        self._first = self._first or (done, now)
        if done and now - self._spoken > SPEAK_EVERY_S:
            before, since = self._first  # the first took the start-up too
            left = f", about {(now - since) / (done - before) * (total - done):.0f} s left" if done > before else ""
            note = f", {note}" if note else ""
            log.info("%s: %s of %s%s%s", self.title, f"{done:,}", f"{total:,}", left, note)
            self._spoken = now

    def part(self, before: int, total: int) -> Callable[[int], None]:
        """A teller for one part of the work, of which `before` was done earlier."""
        return lambda done: self(before + done, total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
