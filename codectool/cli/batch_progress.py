"""Progress through many files: a bar at a terminal, silence in pipes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from codectool.cli.console import at_terminal
from codectool.cli.progress import bar_with_words

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from codectool.pipeline.report import Result


class BatchProgress:
    """Shows files, seconds of audio, speed and the time that is left, on standard error.

    A context manager.

    Args:
        verb: what is being done.
        clock: tells seconds.
    """

    def __init__(self, verb: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._verb = verb
        self._clock = clock
        self._bar: Bar | None = None
        self._files = self._seen = self._failed = 0
        self._seconds = self._seen_seconds = self._done_seconds = 0.0
        self._started = clock()

    def __enter__(self) -> BatchProgress:
        if at_terminal():
            self._bar = bar_with_words()
            self._task = self._bar.add_task(self._verb, total=None, told="looking for files")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def found(self, files: int) -> None:
        """So many files there are."""
        self._files = files
        self._show()

    def planned(self, seconds: float) -> None:
        """They last so long, and work on them begins now."""
        self._seconds = seconds
        self._started = self._clock()
        self._show()

    def add(self, result: Result) -> None:
        """This became of one of them."""
        self._seen += 1
        self._failed += result.status == "failed"
        self._seen_seconds += result.seconds
        if result.status == "done":
            self._done_seconds += result.seconds
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            share = self._seen_seconds / self._seconds if self._seconds else 0.0
            self._bar.update(self._task, total=1.0, completed=share, told=self.describe())

    def describe(self) -> str:
        """``12/40 files  96.1/325.9 s  RTF 0.0121  0:00:03 left``."""
        parts = [f"{self._seen}/{self._files} files"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._seconds:
            parts.append(f"{self._seen_seconds:.1f}/{self._seconds:.1f} s")
        if self._done_seconds:
            rtf = (self._clock() - self._started) / self._done_seconds
            left = max(0.0, self._seconds - self._seen_seconds) * rtf
            parts.append(f"RTF {rtf:.4f}")
            parts.append(f"{timedelta(seconds=round(left))} left")
        return "  ".join(parts)
