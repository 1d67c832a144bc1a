"""Folders and lists of files as INPUT: options, and the way to `codectool.pipeline`."""

from __future__ import annotations

import functools
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

import click

from codectool.cli.console import Settings, note, say, warn
from codectool.cli.options import PIPE, open_input
from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.codec import Codec
    from codectool.pipeline.executor import Start
    from codectool.pipeline.operations import Work
    from codectool.pipeline.report import Report, Result

Function = TypeVar("Function", bound=Callable[..., Any])
EXIT_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class BatchOptions:
    """Options that only folders and lists have."""

    files_from: Path | None
    workers: int | None
    batch_seconds: float | None
    report: Path | None
    profile: bool
    as_json: bool
    engine: str | None
    ray_address: str | None
    ray_actors: int | None

    @property
    def with_ray(self) -> bool:
        """Whether Ray does the work.

        Raises:
            UsageError: it does not, but one of its options is given.
        """
        if self.engine == "ray":
            return True
        if self.ray_address is not None or self.ray_actors is not None:
            raise UsageError("`--ray-address` and `--ray-actors` go with `--engine ray`")
        return False

    def own_device(self, device: str) -> str:
        """Where this process has its codec: it only asks for facts if Ray does the work."""
        return "cpu" if self.with_ray else device

    def wanted(self, source: Path) -> bool:
        """Whether INPUT is a folder or a list.

        Raises:
            UsageError: it is one file, but one of these options is given.
        """
        if self.files_from is not None or source.is_dir():
            return True
        for option, value in _named(self):
            if value:
                raise UsageError(f"{source}: is no folder, which `{option}` is for")
        return False


def batch_options(function: Function) -> Function:
    """All of `BatchOptions`, as ``batch``."""
    names = [field.name for field in fields(BatchOptions)]

    @functools.wraps(function)
    def collect(**values: Any) -> Any:
        batch = BatchOptions(**{name: values.pop(name) for name in names})
        return function(batch=batch, **values)

    decorated: Any = collect
    for decorator in (
        click.option(
            "--ray-actors",
            type=click.IntRange(1, 65536),
            metavar="N",
            help="Ray: processes with a codec each; default one per GPU, without GPUs as many as "
            "the CPUs have room for.",
        ),
        click.option(
            "--ray-address",
            metavar="ADDRESS",
            help="Ray: cluster to join, `auto` or HOST:PORT; default: started here for the run.",
        ),
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            help="Folders: threads of this process (default), or Ray, on machines that see the "
            "same files.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="Folders: print the totals as JSON at the end."
        ),
        click.option(
            "--profile", is_flag=True, help="Folders: tell at the end what the model waited for."
        ),
        click.option(
            "--report",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="JSONL",
            help="Folders: write a line of JSON about each file.",
        ),
        click.option(
            "--batch-seconds",
            type=click.FloatRange(0.0, min_open=True),
            callback=_finite,
            metavar="S",
            help="Folders: most audio that goes through the model at once; default 40, on a GPU "
            "400. A longer file goes alone, window by window.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, 256),
            metavar="N",
            help="Folders: threads that read, and as many that write.",
        ),
        click.option(
            "--files-from",
            type=click.Path(path_type=Path),
            metavar="LIST",
            help="Only the files of this list, one per line, all below INPUT; `-` is standard "
            "input.",
        ),
    ):
        decorated = decorator(decorated)
    return decorated  # type: ignore[no-any-return]


def run_folder(
    source: Path,
    target: Path | None,
    batch: BatchOptions,
    device: str,
    overwrite: bool,
    settings: Settings,
    begin: Callable[[Path, list[str] | None], Work[Any, Any]],
) -> NoReturn:
    """Work on a folder and leave the process with its exit code.

    Args:
        source: INPUT, a folder; `-` together with a list is where the program runs.
        target: OUTPUT, a folder.
        batch: the options.
        device: where the model runs.
        overwrite: make everything anew.
        settings: of the command line.
        begin: makes the work, given the folder and the list.

    Raises:
        UsageError: OUTPUT is missing or a file, or there is nothing to do.
    """
    from codectool.cli.progress import BatchProgress
    from codectool.pipeline.run import Observer, RunOptions, run

    if target is None or target == PIPE:
        raise UsageError(f"{source}: is a folder; name a folder for the outputs, too")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is a file; name a folder for the outputs")
    folder = Path() if source == PIPE else source
    if not folder.is_dir():
        raise UsageError(f"{source}: there is no such folder")
    files = None if batch.files_from is None else read_files_from(batch.files_from, folder)
    how = RunOptions(files, batch.workers, batch.batch_seconds, overwrite)
    engine = _engine(batch, device)
    with _terminable(), ExitStack() as stack:
        if engine is not None:
            # deaths of workers are told by Ray on standard output, where totals go
            stack.enter_context(redirect_stdout(sys.stderr))
        work = begin(folder, files)
        lines = _open_report(batch.report, stack)
        progress = stack.enter_context(BatchProgress(work.verb))

        def tell(result: Result) -> None:
            progress.add(result)
            if lines is not None:
                lines.write(result.to_json(rate=work.compresses) + "\n")
                lines.flush()

        observer = Observer(progress.found, progress.planned, tell)
        report = run(work, folder, target, how, observer, engine)
    _tell(report, work, batch, settings)
    sys.exit(report.exit_code)


def _engine(batch: BatchOptions, device: str) -> Start | None:
    """Ray if it is asked for; None is this process."""
    if not batch.with_ray:
        return None
    from codectool.pipeline.ray.cluster import import_ray
    from codectool.pipeline.ray.engine import on_ray

    import_ray()  # before a codec is loaded in vain
    return on_ray(batch.ray_address, batch.ray_actors, device)


def load_decoder(
    folder: Path, files: list[str] | None, load: Callable[[str, str, str], Codec]
) -> Codec:
    """Load the weights that the first readable `.hcd` file of a folder names.

    Args:
        folder: of the inputs.
        files: of a list; None is all that are there.
        load: from fingerprint, family and the name of the file to the codec.

    Raises:
        UsageError: there is none.
    """
    from codectool.audio.discovery import find_names
    from codectool.container import Reader
    from codectool.errors import CodectoolError

    for name in find_names(folder, {".hcd"}, files)[0]:
        path = folder / name
        try:
            with open_input(path) as (file, _):
                header = Reader(file, str(path)).header
        except (CodectoolError, OSError):
            continue
        return load(header.fingerprint, header.layout.family, str(path))
    raise UsageError(f"{folder}: no .hcd file is there that says which weights made it")


def _finite(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds")
    return value


def _named(batch: BatchOptions) -> Iterator[tuple[str, Any]]:
    for name, value in vars(batch).items():
        yield "--" + name.removeprefix("as_").replace("_", "-"), value


def read_files_from(path: Path, folder: Path) -> list[str]:
    """Return the paths of a list of `--files-from`, which may be standard input.

    Args:
        path: the list.
        folder: INPUT; relative paths start there, at the folder of the list or at the current one.
    """
    from codectool.audio.discovery import parse_list

    folders = [Path(os.path.abspath(start)) for start in (folder, path.parent, Path())]
    with open_input(path) as (file, name):
        return [str(entry.path) for entry in parse_list(file, name, folders, lengths=False)]


def _open_report(path: Path | None, stack: ExitStack) -> TextIO | None:
    return None if path is None else stack.enter_context(path.open("w", encoding="utf-8"))


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does."""
    received: list[int] = []  # what is raised may come out as another KeyboardInterrupt: Ray's own

    def stop(number: int, _: object) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        note("stopped; the same command goes on")
        if received:
            sys.exit(EXIT_TERMINATED)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _tell(report: Report, work: Work[Any, Any], batch: BatchOptions, settings: Settings) -> None:
    """Say how it went: failures always, a line for people, totals for programs."""
    for result in report.damaged:
        for sentence in result.damage:
            warn(sentence)
    for result in report.failures:
        if settings.debug and result.error is not None:
            traceback.print_exception(result.error)
        say("error", f"{result.source}: {result.reason}", "red")
    if batch.profile:
        click.echo(report.profile(), err=True)
    note(str(report))
    if batch.as_json:
        click.echo(json.dumps(report.to_json(rate=work.compresses)))
