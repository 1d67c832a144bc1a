"""The part of `codectool evaluate` that is about tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from codectool.audio.discovery import names_in
from codectool.audio.files import read_audio
from codectool.cli.console import note, say
from codectool.cli.options import check_picture, write_output
from codectool.cli.progress import evaluation_progress
from codectool.errors import CodectoolError, UsageError
from codectool.evaluation import tables
from codectool.evaluation.tokens.files import tokens_of
from codectool.evaluation.tokens.table import token_csv, token_tables, token_text
from codectool.evaluation.tokens.usage import TokenUse, token_use
from codectool.plots import need_matplotlib

if TYPE_CHECKING:
    from codectool.evaluation.systems.spec import SystemChoice
    from codectool.tokens import Tokens


def tell_tokens(
    folder: Path,
    files: Sequence[str] | None,
    systems: Sequence[SystemChoice],
    output: str,
    plot: Path | None,
    overwrite: bool,
) -> int:
    """Print statistics of the tokens of a folder.

    Args:
        folder: of `.hcd` files, or with systems of recordings.
        files: those of a list; None is all that are there.
        systems: codecs of ours that encode the recordings.
        output: ``table``, ``markdown``, ``json`` or ``csv``.
        plot: a picture, too.
        overwrite: replace it if it exists.

    Returns:
        How many files could not be used.

    Raises:
        UsageError: there are none that could; a system is none of ours; or there can be no
            picture.
    """
    if plot is not None:
        check_picture(plot, [folder], overwrite)
        need_matplotlib()
    for choice in systems:  # before the first of them works for hours
        if choice.codec is None:
            raise UsageError(f"{choice.name}: has no tokens that we know; name codecs of ours")
    told: set[tuple[str, str]] = set()

    def complain(name: str, reason: str) -> None:
        if (name, reason) not in told:  # every system meets the same files
            told.add((name, reason))
            say("error", f"{name}: {reason}", "red")

    if systems:
        models = [use for choice in systems for use in _encoded(folder, files, choice, complain)]
    else:
        models = token_use(tokens_of(_sources(folder, files, complain), complain))
    if not models:
        raise UsageError(f"{folder}: not one of its files could be used")
    _print(models, output)
    if plot is not None:
        from codectool.evaluation.tokens.plot import draw_tokens

        write_output(plot, memoryview(draw_tokens(models)), overwrite)
        note(f"{plot}: how often each code is used")
    return len({name for name, _ in told})


def _sources(
    folder: Path, files: Sequence[str] | None, complain: Callable[[str, str], None]
) -> Path | list[Path]:
    """The folder, or the listed files in it, each once."""
    if files is None:
        return folder
    names, rejected = names_in(folder, files)
    for bad in rejected:
        complain(str(bad.source), bad.reason)
    return [folder / name for name in names]


def _encoded(
    folder: Path,
    files: Sequence[str] | None,
    choice: SystemChoice,
    complain: Callable[[str, str], None],
) -> list[TokenUse]:
    """Statistics of the tokens that a codec of ours makes of recordings."""
    from codectool.evaluation.pairs import find_references

    assert choice.codec is not None
    names, problems = find_references(folder, files, [])
    for _, name, reason in problems:
        complain(name, reason)
    codec = choice.codec.load()

    def encoded() -> Iterator[tuple[str, Tokens]]:
        with evaluation_progress() as watcher:
            watcher.on_step(f"encoding with {choice.name}", len(names))
            for name in names:
                try:
                    samples, rate = read_audio(folder / name, str(folder / name))
                    yield name, codec.encode(samples, rate)
                except CodectoolError as error:
                    complain(name, str(error).removeprefix(f"{folder / name}: "))
                watcher.on_clip()

    return token_use(encoded())


def _print(models: Sequence[TokenUse], output: str) -> None:
    if output == "json":
        click.echo(json.dumps([model.to_json() for model in models], indent=1))
    elif output == "csv":
        click.echo(token_csv(models), nl=False)
    elif output == "markdown":
        click.echo("\n\n".join(tables.as_markdown(rows) for rows in token_tables(models)))
    else:
        click.echo(token_text(models))
