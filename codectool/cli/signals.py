"""Signals that end a command: outputs stay complete, and temporary files are removed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from codectool.cli.console import at_terminal, note

SHOW_CURSOR = b"\x1b[?25h"
# SIGHUP: the terminal was closed; Windows has none
TERMINATING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
ENDING = [signal.SIGINT, *TERMINATING]


@contextmanager
def handling(numbers: list[signal.Signals], handler: Callable[..., object]) -> Iterator[None]:
    """Set the handler of signals, except for those that the caller ignores, as `nohup` does."""
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in previous.items():
            if signal.getsignal(number) is handler:  # the handler may have set another one
                signal.signal(number, old)


@contextmanager
def exit_when_terminated() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into a `SystemExit`, so that temporary files are removed."""

    def stop(number: int, _: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice; ignored until the end
        sys.exit(128 + number)

    with handling(TERMINATING, stop):
        yield


@contextmanager
def stoppable_run() -> Iterator[None]:
    """Stop a folder run when its threads allow it, and at once on a second Ctrl-C."""
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        if len(received) == 1:
            # `click.echo` is not safe in a signal handler
            _write(b"\nstopping after the current batches; press Ctrl-C again to quit at once\n")
            raise KeyboardInterrupt
        if number == signal.SIGINT:  # safe at any time: outputs are renamed when they are complete
            _write(SHOW_CURSOR)
            os._exit(128 + number)

    with handling(ENDING, stop):
        try:
            yield
        except KeyboardInterrupt:
            note("stopped; repeat the command to continue")
            if received and received[0] != signal.SIGINT:
                sys.exit(128 + received[0])
            raise


def _write(data: bytes) -> None:
    """Write to the terminal, which may be gone."""
    if at_terminal():
        with suppress(OSError):
            os.write(sys.stderr.fileno(), data)
