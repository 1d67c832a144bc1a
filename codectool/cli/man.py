"""`codectool man`: manual pages from the help texts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from codectool._version import __version__
from codectool.cli.console import count, note
from codectool.cli.options import debug_option
from codectool.errors import UsageError
from codectool.files import atomic_output


@click.command()
@click.argument("out_dir", metavar="OUT_DIR", type=click.Path(file_okay=False, path_type=Path))
@debug_option
def man(out_dir: Path) -> None:
    """Write manual pages for all commands to OUT_DIR, which is created if it does not exist.

    Existing pages are replaced. The pages have the texts of --help.

    \b
    Examples:
      codectool man ~/.local/share/man/man1 && man codectool-encode
      codectool man debian/codectool/usr/share/man/man1
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out_dir}: cannot be created ({error.strerror})") from error
    root = click.get_current_context().find_root()
    contexts = list(walk(root))
    for context in contexts:
        path = out_dir / f"{_page_name(context)}.1"
        with atomic_output(path, overwrite=True) as file:
            file.write(page(context).encode())
    note(f"{out_dir}: {count(len(contexts), 'page')}")


def walk(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command and of all commands below it that are not hidden."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None and not command.hidden:
                yield from walk(click.Context(command, context, info_name=name))


def page(context: click.Context) -> str:
    """Return the manual page of a command, in the man macros of roff."""
    command = context.command
    name, summary = _page_name(context), _summary(command)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [
        f'.TH "{name.upper()}" "1" "" "codectool {__version__}" "codectool manual"',
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{_text(name)} \\- {_text(summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_text(context.command_path)}",
        _text(usage),
        ".SH DESCRIPTION",
        *_paragraphs(inspect.cleandoc(command.help or "")),
        ".SH OPTIONS",
    ]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            parts += [".TP", f".B {_text(record[0])}", _text(record[1])]
    if isinstance(command, click.Group):
        parts.append(".SH COMMANDS")
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                parts += [".TP", f".B {_text(name)}", _text(_summary(inner))]
    others = {_page_name(other): None for other in walk(context.find_root())}
    del others[_page_name(context)]
    parts += [".SH SEE ALSO", ",\n".join(f".BR {_text(other)} (1)" for other in others)]
    return "\n".join(part for part in parts if part) + "\n"


def _summary(command: click.Command) -> str:
    """Return the first paragraph of a help text on one line."""
    return " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())


def _page_name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; click marks those with fixed lines by ``\\b``."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield ".PP"
        if paragraph.startswith("\b"):
            yield ".nf"
            yield from map(_text, paragraph.splitlines()[1:])
            yield ".fi"
        else:
            yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Escape text for roff, and set what is in backticks in bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fP", text)
    return re.sub(r"^(?=[.'])", r"\\&", text)
