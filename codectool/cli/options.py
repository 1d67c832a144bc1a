"""Options that several commands share, and the meaning of `-`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from codectool.cli.console import Settings
from codectool.codecs.registry import FAMILIES
from codectool.errors import UsageError
from codectool.files import atomic_output, check_writable

Function = TypeVar("Function", bound=Callable[..., Any])
PIPE = Path("-")


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    settings = ctx.find_object(Settings)
    if settings is not None and value:
        settings.debug = True


def debug_option(function: Function) -> Function:
    """``--debug``."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_set_debug,
        help="On an error, show the traceback as well.",
    )(function)


def codec_options(function: Function) -> Function:
    """The options that choose a codec and where it runs."""
    for decorator in (
        click.option(
            "--precision",
            type=click.Choice(["fp32", "bf16", "fp16"]),
            default="fp32",
            show_default=True,
            help="Of the matrix products; only fp32 gives the tokens of the published code.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            metavar="DEVICE",
            help="cpu, cuda, cuda:N, mps, or auto: the best there is.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="JSON",
            help="Hyper-parameters, where neither the checkpoint nor its folder says them.",
        ),
        click.option(
            "--checkpoint",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Weights: a file or folder in the authors' layout or ours, or the name of what "
            "comes with codectool (hac-1110df23).",
        ),
        click.option("--model", type=click.Choice(list(FAMILIES)), help="The codec."),
    ):
        function = decorator(function)
    return function


def encoder_options(function: Function) -> Function:
    """What only encoding has: ``--quantizers`` and ``--padding``."""
    for decorator in (
        click.option(
            "--padding",
            type=click.Choice(["lossless", "reference"]),
            default="whole",
            show_default=True,
            help="whole loses no sample; upstream does at the file's end what the published script "
            "does.",
        ),
        click.option(
            "--quantizers",
            type=click.IntRange(1),
            metavar="N",
            help="Use the first N codebooks only.",
        ),
    ):
        function = decorator(function)
    return function


def audio_options(function: Function) -> Function:
    """How decoded audio is written: ``--native-rate``, ``--format`` and ``--subtype``."""
    for decorator in (
        click.option(
            "--subtype",
            metavar="NAME",
            help="Sample format: PCM_16 (default), PCM_24, FLOAT.",
        ),
        click.option(
            "--format",
            "container",
            type=click.Choice(["wav", "flac"]),
            help="Default: of a file, by the suffix of OUTPUT, else wav.",
        ),
        click.option(
            "--native-rate", is_flag=True, help="Leave the audio at the model's sampling rate."
        ),
    ):
        function = decorator(function)
    return function


def overwrite_option(function: Function) -> Function:
    """``--overwrite``."""
    return click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")(function)


def files_argument(function: Function) -> Function:
    """One or more FILEs as ``sources``."""
    return click.argument(
        "sources", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
    )(function)


@contextmanager
def open_input(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """A binary file object for a path or `-`, and what messages call it."""
    if path == PIPE:
        if sys.stdin is None:
            raise UsageError("standard input is closed; name a file")
        yield sys.stdin.buffer, "<stdin>"
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    with file:
        yield file, str(path)


def choose_output(source: Path, target: Path | None, suffix: str, overwrite: bool) -> Path:
    """OUTPUT as it was named, or INPUT with another suffix.

    Raises:
        UsageError: it cannot be written; see `check_output`.
    """
    if target is None and not source.name:
        raise UsageError(f"{source}: is a folder; name a file")
    if target is None:
        target = PIPE if source == PIPE else source.with_suffix(suffix)
    check_output(target, source, overwrite)
    return target


def check_output(path: Path, source: Path, overwrite: bool) -> None:
    """Refuse what cannot be written before any work is done.

    Raises:
        UsageError: the file exists, is the input itself, is a folder or a terminal.
    """
    if path == PIPE:
        if sys.stdout is None:
            raise UsageError("standard output is closed; name an OUTPUT")
        if sys.stdout.isatty():
            raise UsageError("binary data would go to the terminal; name an OUTPUT, or pipe it on")
        return
    if source != PIPE and path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{path}: is the input itself; name another OUTPUT")
    check_writable(path, overwrite)


def check_picture(path: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """Refuse a picture beside a table that cannot be written, before any work is done.

    Raises:
        UsageError: it cannot, is no PNG, would replace an input, or would mix with the table.
    """
    if path == PIPE:
        raise UsageError("standard output takes the table; name a file for the picture")
    check_png(path)
    for source in sources:
        check_output(path, source, overwrite)


def check_png(path: Path) -> None:
    """Refuse a picture whose name says that it is something else."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the picture is a PNG; let its name end in .png")


def is_pipe(path: Path, file: BinaryIO | None = None) -> bool:
    """Whether data flow there as they come: whether `-`, or what has this name, cannot seek.

    Args:
        path: INPUT or OUTPUT.
        file: its file object if it is open; None stands for standard output, if the path is `-`.
    """
    if path == PIPE:
        return not (file or sys.stdout.buffer).seekable()
    return path.exists() and not path.is_file()


@contextmanager
def open_output(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A binary file object for OUTPUT that grows while work is done; `-` is standard output."""
    if path != PIPE:
        with atomic_output(path, overwrite) as file:
            yield file
        return
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


def write_output(path: Path, data: memoryview, overwrite: bool) -> None:
    """Write a finished result to OUTPUT or to standard output."""
    if path != PIPE:
        with atomic_output(path, overwrite) as file:
            file.write(data)
        return
    while data:  # unbuffered, as under PYTHONUNBUFFERED, it may take less than it is given
        data = data[sys.stdout.buffer.write(data) :]
    sys.stdout.buffer.flush()
