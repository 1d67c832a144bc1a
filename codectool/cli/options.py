"""Options that several commands share, and `-` for stdin and stdout."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

import click
from typing_extensions import override

from codectool.cli.console import Settings
from codectool.codecs.registry import FAMILIES
from codectool.errors import UsageError
from codectool.files import atomic_output, check_writable

Function = TypeVar("Function", bound=Callable[..., Any])
PIPE = Path("-")


class PaddingChoice(click.Choice[str]):
    """Values of ``--padding``; names of earlier versions are accepted."""

    ALIASES: ClassVar[dict[str, str]] = {"whole": "lossless", "upstream": "reference"}

    def __init__(self) -> None:
        super().__init__(["lossless", "reference"])

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(self.ALIASES.get(value, value), param, ctx)


def finite(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    """Raise if the value of an option in seconds is not finite."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number of seconds")
    return value


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    settings = ctx.find_object(Settings)
    if settings is not None and value:
        settings.debug = True


def debug_option(function: Function) -> Function:
    """Add ``--debug``."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_set_debug,
        help="Show the traceback of an error.",
    )(function)


def codec_options(function: Function) -> Function:
    """Add the options that select a codec and its device."""
    for decorator in (
        click.option(
            "--precision",
            type=click.Choice(["fp32", "bf16", "fp16"]),
            default="fp32",
            show_default=True,
            help="Precision of matrix products. Only fp32 gives the tokens of the reference "
            "implementation.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            metavar="DEVICE",
            help="cpu, cuda, cuda:N, mps or auto (the fastest available).",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="JSON",
            help="Hyper-parameters, if the checkpoint does not include them.",
        ),
        click.option(
            "--checkpoint",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Weights: a file or folder in the published layout or ours, or the name of "
            "bundled weights.",
        ),
        click.option("--model", type=click.Choice(list(FAMILIES)), help="Codec family."),
    ):
        function = decorator(function)
    return function


def encoder_options(function: Function) -> Function:
    """Add ``--codebooks`` and ``--padding``, with their names of earlier versions hidden."""
    for decorator in (
        click.option(
            "--padding",
            type=PaddingChoice(),
            default="lossless",
            show_default=True,
            help="End of the file: lossless keeps every sample; reference does what the reference "
            "implementation does.",
        ),
        click.option("--framing", "padding", type=PaddingChoice(), hidden=True),
        click.option(
            "--codebooks",
            type=click.IntRange(1),
            metavar="N",
            help="Use the first N codebooks only.",
        ),
        click.option("--quantizers", "codebooks", type=click.IntRange(1), hidden=True),
    ):
        function = decorator(function)
    return function


def audio_options(function: Function) -> Function:
    """Add the options of decoded audio: ``--native-rate``, ``--format`` and ``--subtype``."""
    for decorator in (
        click.option(
            "--subtype",
            metavar="NAME",
            help="Sample format: PCM_16 (default), PCM_24 or FLOAT.",
        ),
        click.option(
            "--format",
            "container",
            type=click.Choice(["wav", "flac"]),
            help="Audio format. Default: from the suffix of OUTPUT, else wav.",
        ),
        click.option("--native-rate", is_flag=True, help="Keep the sampling rate of the model."),
    ):
        function = decorator(function)
    return function


def overwrite_option(function: Function) -> Function:
    """Add ``--overwrite``."""
    return click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")(function)


def files_argument(function: Function) -> Function:
    """Add one or more FILE arguments as ``sources``."""
    return click.argument(
        "sources", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
    )(function)


@contextmanager
def open_input(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Open a path or `-`; yield a binary file object and its name in messages."""
    if path == PIPE:
        if sys.stdin is None:
            raise UsageError("stdin is closed; give a file name")
        yield sys.stdin.buffer, "<stdin>"
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    with file:
        yield file, str(path)


def choose_output(source: Path, target: Path | None, suffix: str, overwrite: bool) -> Path:
    """Return OUTPUT, or INPUT with another suffix if OUTPUT was not given.

    Raises:
        UsageError: OUTPUT cannot be written; see `check_output`.
    """
    if target is None and not source.name:
        raise UsageError(f"{source}: is a folder; give a file name")
    if target is None:
        target = PIPE if source == PIPE else source.with_suffix(suffix)
    check_output(target, source, overwrite)
    return target


def check_output(path: Path, source: Path, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        UsageError: the output exists, is the input, is a folder or is a terminal.
    """
    if path == PIPE:
        if sys.stdout is None:
            raise UsageError("stdout is closed; give an OUTPUT")
        if sys.stdout.isatty():
            raise UsageError(
                "refusing to write binary data to a terminal; give an OUTPUT or a pipe"
            )
        return
    if source != PIPE and path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{path}: is the input itself; give another OUTPUT")
    check_writable(path, overwrite)


def check_figure(path: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """Refuse a figure that cannot be written next to a table, before any work is done.

    Raises:
        UsageError: the path is not writable, not a PNG, an input, or stdout.
    """
    if path == PIPE:
        raise UsageError("stdout is used for the table; give a file name for the figure")
    check_png(path)
    for source in sources:
        check_output(path, source, overwrite)


def check_png(path: Path) -> None:
    """Refuse a figure whose name does not end in .png."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: figures are PNG files; give a name that ends in .png")


def is_pipe(path: Path, file: BinaryIO | None = None) -> bool:
    """Return whether a path is a pipe or another stream that cannot seek.

    Args:
        path: INPUT or OUTPUT.
        file: its file object if it is open; None means stdout if the path is `-`.
    """
    if path == PIPE:
        return not (file or sys.stdout.buffer).seekable()
    return path.exists() and not path.is_file()


@contextmanager
def open_output(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """Open OUTPUT for writing while work is done; `-` is stdout."""
    if path != PIPE:
        with atomic_output(path, overwrite) as file:
            yield file
        return
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


def write_output(path: Path, data: memoryview, overwrite: bool) -> None:
    """Write a finished result to OUTPUT or stdout."""
    if path != PIPE:
        with atomic_output(path, overwrite) as file:
            file.write(data)
        return
    while data:  # an unbuffered stdout may write less than it is given
        data = data[sys.stdout.buffer.write(data) :]
    sys.stdout.buffer.flush()
