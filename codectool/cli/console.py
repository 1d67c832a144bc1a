"""Data on stdout, and messages to the user on stderr."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import click

from codectool.errors import memory_advice
from codectool.files import write_all
from codectool.messages import printable

EXIT_BAD_INPUT = 2
EXIT_CONCEALED = 3
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 128 + signal.SIGINT  # as in shells
EXIT_TERMINATED = 128 + signal.SIGTERM
STDOUT = "<stdout>"

debug = ContextVar("debug", default=False)  # whether `--debug` is given


def report_error(error: BaseException, unexpected: bool = False) -> None:
    """Print an error in one line; with ``--debug``, print the traceback first."""
    print_traceback(error)
    text = error_text(error)
    if unexpected:
        text = (
            f"unexpected {type(error).__name__}: {error}; this is a bug in codectool: "
            "please report it with the output of `--debug`"
        )
    say("error", text, "red")


def error_text(error: BaseException) -> str:
    """Return the message of an error, with the name of the file if the error has it."""
    if advice := memory_advice(error):
        return advice
    if isinstance(error, OSError):
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return name + (error.strerror or str(error)).lower()
    return str(error)


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an error with ``--debug``."""
    if debug.get():
        message("".join(traceback.format_exception(error)).rstrip())


def warn(message: str) -> None:
    """Print a warning in one line."""
    say("warning", message, "yellow")


def warn_untaken(folder: Path) -> None:
    """Warn if a folder holds files that look like audio but are not taken."""
    from codectool.audio.discovery import count_untaken, describe_untaken

    if folder.is_dir() and (untaken := count_untaken(folder)):
        warn(describe_untaken(folder, untaken))


def at_terminal() -> bool:
    """Return whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def note(text: str) -> None:
    """Print a message if stderr is a terminal."""
    if at_terminal():
        message(printable(text))


def say(label: str, text: str, color: str) -> None:
    """Print ``label: text`` on stderr."""
    if at_terminal() and not os.environ.get("NO_COLOR"):
        label = click.style(label, fg=color)
    message(f"{label}: {printable(text)}")


def print_data(text: str, end: str = "\n") -> None:
    """Print data on stdout, if it is not closed."""
    if sys.stdout is None:
        return
    data = (text + end).encode(sys.stdout.encoding, "backslashreplace")
    try:
        sys.stdout.flush()
        write_all(sys.stdout.buffer, data)  # `print` ignores short writes of an unbuffered stdout
        sys.stdout.buffer.flush()
    except OSError as error:
        error.filename = STDOUT
        raise


def message(text: str) -> None:
    """Print text on stderr; a command does not fail because its messages cannot be written."""
    with suppress(OSError, ValueError):  # the disk is full, or the reader has gone
        click.echo(text, err=True)


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


def repair_standard_streams() -> None:
    """Replace closed standard streams by the null device.

    A file that is opened later would get the number of a closed stream, and messages that C
    libraries write to stderr would end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # has the lowest free number
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
