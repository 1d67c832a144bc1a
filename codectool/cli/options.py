"""Options that several commands share, and `-` for stdin and stdout."""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import click
from click.shell_completion import CompletionItem
from typing_extensions import override

from codectool.cli.console import STDOUT, debug
from codectool.errors import UsageError, naming
from codectool.files import atomic_output, check_writable, write_all

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
PIPE = Path("-")
STDIN = "<stdin>"


class FilePath(click.Path):
    """A path, or `-` as `PIPE`; a file of the name `-` can be given as `./-`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        return Path.cwd() / path if path == PIPE and value not in ("-", PIPE) else path


FILE = FilePath()


def complete_file(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete a file name where an option takes text."""
    return [CompletionItem(incomplete, type="file")]


def complete_model(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a model in the registry."""
    from codectool.checkpoints.registry import entries

    return [name for name in entries() if name.startswith(incomplete)]


def complete_weights(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a model in the registry, or a file name."""
    names = complete_model(ctx, param, incomplete)
    return [*complete_file(ctx, param, incomplete), *map(CompletionItem, names)]


def complete_metric(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a metric."""
    from codectool.evaluation.metrics.registry import METRIC_INFO

    return [name for name in METRIC_INFO if name.startswith(incomplete)]


def complete_device(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete a device, whether or not this machine has it: asking takes seconds."""
    devices = ("auto", "cpu", "cuda", "mps")
    return [name for name in devices if name.startswith(incomplete)]


debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=lambda _ctx, _param, value: value and debug.set(True),
    help="Show the traceback of an error.",
)
metric_option = click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_metric,
    show_default="all whose packages are installed",
    help="Metric to compute. Repeatable.",
)


asr_model_option = click.option(
    "--asr-model",
    metavar="MODEL",
    help="Whisper model for wer and cer: a folder in CTranslate2 format, or a name such as small, "
    "which is downloaded once. Needs codectool[asr].",
)
asr_language_option = click.option(
    "--asr-language",
    metavar="CODE",
    show_default="found in each recording",
    help="Language for --asr-model, such as en.",
)


def finite(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    """Raise if the value of an option in seconds is not finite."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number of seconds")
    return value


def collect_options(argument: str, cls: type, *options: Decorator) -> Decorator:
    """Return a decorator that adds options, and passes their values as one dataclass instance."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            given = (field.name for field in fields(cls) if field.name in values)
            collected = cls(**{name: values.pop(name) for name in list(given)})
            return function(**{argument: collected}, **values)

        decorated: Callable[..., Any] = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


@dataclass(frozen=True)
class AudioOptions:
    """Format of decoded audio."""

    native_rate: bool
    container: str | None
    subtype: str | None
    keep_loudness: bool

    def container_for(self, target: Path | None) -> str:
        """Return ``--format``, by default the audio format for the suffix of OUTPUT."""
        suffix = target.suffix.lower() if target else ""
        formats = {"": "wav", ".wav": "wav", ".wave": "wav", ".flac": "flac"}
        if self.container is None and suffix not in formats:
            raise UsageError(
                f"{target}: only wav and flac can be written; rename it or use `--format`"
            )
        return self.container or formats[suffix]


audio_options = collect_options(
    "audio",
    AudioOptions,
    click.option("--native-rate", is_flag=True, help="Write audio at the model's sampling rate."),
    click.option(
        "--format",
        "container",
        type=click.Choice(["wav", "flac"]),
        show_default="from the suffix of OUTPUT, else wav",
        help="Audio format.",
    ),
    click.option(
        "--subtype",
        metavar="NAME",
        show_default="PCM_16",
        help="Sample format: PCM_16, PCM_24, FLOAT or another one of libsndfile.",
    ),
    click.option(
        "--keep-loudness",
        is_flag=True,
        help="Keep the loudness that `--normalize` gave the audio before encoding.",
    ),
)


class NormalizeCommand(click.Command):
    """A command with `--normalize [LUFS]`, whose value may be left out before other arguments."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        joined: list[str] = []
        given = iter(args)
        for argument in given:
            if joined[-1:] == ["--normalize"]:
                number = re.fullmatch(r"[-+]?\d+(\.\d*)?", argument, re.ASCII)
                joined[-1] = f"--normalize={argument}" if number else DEFAULT
                if number:
                    continue
            joined.append(argument)
            if argument == "--":
                joined += given
        if joined[-1:] == ["--normalize"]:
            joined[-1] = DEFAULT
        return super().parse_args(ctx, joined)


DEFAULT = "--normalize=-23"  # EBU R 128

normalize_option = click.option(
    "--normalize",
    type=click.FloatRange(-70.0, 0.0),
    metavar="[LUFS]",
    show_default="off; -23 without a number",
    help="Bring the loudness (ITU-R BS.1770) to this value before encoding; `decode` undoes the "
    "gain.",
)


@contextmanager
def open_input(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Open a path or `-`; yield a binary file object and its name in messages."""
    if path == PIPE:
        if sys.stdin is None:
            raise UsageError("stdin is closed; give a file name")
        with naming(STDIN):
            yield sys.stdin.buffer, STDIN
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    with naming(str(path)), file:
        yield file, str(path)


def check_output(path: Path, source: Path, overwrite: bool) -> None:
    """Refuse an output that cannot be written, is the input or is a terminal, before any work."""
    if path == PIPE:
        if _stdout().isatty():
            raise UsageError(
                "refusing to write binary data to a terminal; give an OUTPUT or a pipe"
            )
        return
    if source != PIPE and path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{path}: is the input itself; give another OUTPUT")
    check_writable(path, overwrite)


def check_figure(path: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """Refuse a figure that cannot be written, is no PNG or is an input, before any work."""
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
    """Return whether a path cannot seek; `-` stands for an open input, or else for stdout."""
    if path == PIPE:
        return not (file or _stdout()).seekable()
    return path.exists() and not path.is_file()


@contextmanager
def open_output(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """Open OUTPUT, which appears when the body ends without an exception; `-` is stdout."""
    if path != PIPE:
        with atomic_output(path, overwrite) as file:
            yield file
        return
    file = _stdout()
    try:
        yield file
        file.flush()
    except OSError as error:
        error.filename = error.filename or STDOUT
        raise


def _stdout() -> BinaryIO:
    if sys.stdout is None:
        raise UsageError("stdout is closed; give an OUTPUT")
    return sys.stdout.buffer


def write_output(path: Path, data: bytes | memoryview, overwrite: bool) -> None:
    """Write a finished result to OUTPUT."""
    with open_output(path, overwrite) as file:
        write_all(file, data)
