"""Messages to the user, all on stderr."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

EXIT_BAD_INPUT = 2
EXIT_CONCEALED = 3
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + signal number, as in shells


@dataclass
class Settings:
    """Values of the options that every command has."""

    debug: bool = False


def report_error(error: BaseException, settings: Settings, unexpected: bool = False) -> None:
    """Print an error in one line; with ``--debug``, print the traceback first."""
    if settings.debug:
        traceback.print_exception(error)
    say("error", _sentence(error, unexpected), "red")


def _sentence(error: BaseException, unexpected: bool) -> str:
    if unexpected:
        return (
            f"unexpected {type(error).__name__}: {error}; this is a bug in codectool: "
            "please report it with what `--debug` prints"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return "not enough memory for this input"
    return str(error)


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


def printable(text: str) -> str:
    """Return ``text`` on one line with control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
