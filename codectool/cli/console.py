"""Messages to the user, all on stderr."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import click

from codectool.messages import printable

EXIT_BAD_INPUT = 2
EXIT_CONCEALED = 3
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 128 + signal.SIGINT  # as in shells
EXIT_TERMINATED = 128 + signal.SIGTERM

debug = ContextVar("debug", default=False)  # whether `--debug` is given


def report_error(error: BaseException, unexpected: bool = False) -> None:
    """Print an error in one line; with ``--debug``, print the traceback first."""
    print_traceback(error)
    message = str(error)
    if unexpected:
        message = (
            f"unexpected {type(error).__name__}: {error}; this is a bug in codectool: "
            "please report it with the output of `--debug`"
        )
    elif isinstance(error, OSError) and error.filename is not None:
        message = f"{os.fsdecode(error.filename)}: {(error.strerror or str(error)).lower()}"
    elif isinstance(error, MemoryError):
        message = "not enough memory for this input"
    say("error", message, "red")


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an error with ``--debug``."""
    if debug.get():
        traceback.print_exception(error)


def warn(message: str) -> None:
    """Print a warning in one line."""
    say("warning", message, "yellow")


def at_terminal() -> bool:
    """Return whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def note(message: str) -> None:
    """Print a message if stderr is a terminal."""
    if at_terminal():
        click.echo(printable(message), err=True)


def say(label: str, message: str, color: str) -> None:
    """Print ``label: message`` on stderr."""
    if at_terminal() and not os.environ.get("NO_COLOR"):
        label = click.style(label, fg=color)
    click.echo(f"{label}: {printable(message)}", err=True)


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as in ``1 block`` and ``2 blocks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner while something long runs, if stderr is a terminal."""
    if not at_terminal():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(printable(what))):
        yield
