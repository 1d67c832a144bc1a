"""What people read: everything here goes to standard error."""

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
EXIT_BUG = 70  # as sysexits.h has it
EXIT_INTERRUPTED = 130  # as shells have it: 128 and the signal's number


@dataclass
class Settings:
    """What the options that every command has were set to."""

    debug: bool = False


def report_error(error: BaseException, settings: Settings, unexpected: bool = False) -> None:
    """Say what went wrong, in one line; with ``--debug`` the traceback comes before it."""
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
    """Say something that a person should know, in one line."""
    say("warning", message, "yellow")


def at_terminal() -> bool:
    """Whether a person reads standard error as it comes."""
    return sys.stderr is not None and sys.stderr.isatty()


def note(message: str) -> None:
    """Tell a person at a terminal what was done; silence in pipes."""
    if at_terminal():
        click.echo(printable(message), err=True)


def say(label: str, message: str, color: str) -> None:
    """Write ``label: message`` to standard error."""
    if at_terminal() and not os.environ.get("NO_COLOR"):
        label = click.style(label, fg=color)
    click.echo(f"{label}: {printable(message)}", err=True)


def printable(text: str) -> str:
    """``text`` on one line, without anything that could move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner at a terminal while something long runs."""
    if not at_terminal():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(printable(what))):
        yield
