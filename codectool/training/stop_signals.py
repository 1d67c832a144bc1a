"""Stop a run between two steps on SIGINT or SIGTERM."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME_REQUEST_S = 1.0  # signals within this time are one request to stop


class StopFlag:
    """Whether a signal has requested to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None  # its number
        self._since = 0.0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; a later signal stops immediately.

        A terminal sends Ctrl-C to all processes and ``torchrun`` forwards it once more, so that
        signals in quick succession are one request.

        Raises:
            KeyboardInterrupt: It is a later signal.
        """
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = number, now
        elif now - self._since > SAME_REQUEST_S:
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turn SIGINT and SIGTERM into a flag inside the context."""
    flag = StopFlag()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, flag.handle) for number in numbers]
    try:
        yield flag
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
