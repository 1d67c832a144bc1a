"""Options of folder runs (`encode`, `decode`, `reconstruct`), and how the commands start one."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from codectool.cli.console import Settings, at_terminal, note, say, warn
from codectool.cli.options import PIPE, finite, open_input
from codectool.errors import UsageError

if TYPE_CHECKING:
    from codectool.codec import Codec
    from codectool.pipeline.executor import EngineFactory
    from codectool.pipeline.operations import AnyOperation
    from codectool.pipeline.report import Report, Result

Function = TypeVar("Function", bound=Callable[..., Any])
EXIT_TERMINATED = 128 + signal.SIGTERM
SHOW_CURSOR = b"\x1b[?25h"


@dataclass(frozen=True)
class BatchOptions:
    """Options that only folder runs have."""

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
    def uses_ray(self) -> bool:
        """Return whether to use Ray.

        Raises:
            UsageError: Ray is not used, but one of its options is given.
        """
        if self.engine == "ray":
            return True
        if self.ray_address is not None or self.ray_actors is not None:
            raise UsageError("`--ray-address` and `--ray-actors` need `--engine ray`")
        return False

    def local_device(self, device: str) -> str:
        """Return the device of this process, which only reads metadata of the codec with Ray."""
        return "cpu" if self.uses_ray else device

    def is_folder_run(self, source: Path) -> bool:
        """Return whether INPUT is a folder, or the start of a list of files.

        Raises:
            UsageError: INPUT is a single file, but an option of folder runs is given.
        """
        if self.files_from is not None or source.is_dir():
            return True
        for name, value in vars(self).items():
            if value:
                option = "--" + name.removeprefix("as_").replace("_", "-")
                raise UsageError(f"{source}: is not a folder; `{option}` needs a folder")
        return False


def batch_options(function: Function) -> Function:
    """Add all options of `BatchOptions`, passed as the argument ``batch``."""
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
            help="Ray: number of processes. Default: one per GPU, or as many as fit on the CPUs.",
        ),
        click.option(
            "--ray-address",
            metavar="ADDRESS",
            help="Ray: cluster to join, `auto` or HOST:PORT. Default: start Ray on this machine.",
        ),
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            help="Folders: use threads of this process (default), or a Ray cluster with a shared "
            "file system.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Folders: print totals as JSON."),
        click.option(
            "--profile", is_flag=True, help="Folders: report how long the model waited for I/O."
        ),
        click.option(
            "--report",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="JSONL",
            help="Folders: write one line of JSON per file.",
        ),
        click.option(
            "--batch-seconds",
            type=click.FloatRange(0.0, min_open=True),
            callback=finite,
            metavar="S",
            help="Folders: maximum seconds of audio per batch; longer files are streamed. "
            "Default: 40, on a GPU 400.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, 256),
            metavar="N",
            help="Folders: number of reader threads, and of writer threads. Default: one per "
            "core, at most 8.",
        ),
        click.option(
            "--files-from",
            type=click.Path(path_type=Path),
            metavar="LIST",
            help="Process only the files of this list, all inside INPUT; any list that `train` "
            "reads. `-` is stdin.",
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
    make_operation: Callable[[Path, list[str] | None], AnyOperation],
) -> NoReturn:
    """Run an operation on a folder and exit with its exit code.

    Args:
        source: INPUT, a folder; `-` with a list stands for the current directory.
        target: OUTPUT, a folder.
        batch: options of folder runs.
        device: where the model runs.
        overwrite: remake all outputs.
        settings: options of all commands.
        make_operation: returns the operation for a folder and the files of the list.

    Raises:
        UsageError: OUTPUT is missing or a file, or there are no inputs.
    """
    from codectool.cli.progress import BatchProgress
    from codectool.pipeline.run import Callbacks, RunOptions, run

    if target is None or target == PIPE:
        raise UsageError(f"{source}: is a folder; name a folder for the outputs too")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is a file; name a folder for the outputs")
    folder = Path() if source == PIPE else source
    if not folder.is_dir():
        raise UsageError(f"{source}: there is no such folder")
    files = None if batch.files_from is None else read_files_from(batch.files_from, folder)
    run_options = RunOptions(files, batch.workers, batch.batch_seconds, overwrite)
    engine = _engine(batch, device)
    with _stoppable(), ExitStack() as stack:
        if engine is not None:
            # Ray reports dead workers on stdout, which belongs to the totals
            stack.enter_context(redirect_stdout(sys.stderr))
        operation = make_operation(folder, files)
        lines = None
        if batch.report is not None:
            lines = stack.enter_context(batch.report.open("w", encoding="utf-8"))
        progress = stack.enter_context(BatchProgress(operation.name))

        def on_result(result: Result) -> None:
            progress.add(result)
            if lines is not None:
                lines.write(result.to_json(operation.has_bitrate) + "\n")
                lines.flush()

        callbacks = Callbacks(progress.found, progress.planned, on_result)
        report = run(operation, folder, target, run_options, callbacks, engine)
    _print_report(report, operation.has_bitrate, batch, settings)
    sys.exit(report.exit_code)


def read_files_from(path: Path, folder: Path) -> list[str]:
    """Return the files of a list given as `--files-from`, which may be stdin.

    Args:
        path: the list.
        folder: INPUT, which comes first when relative paths are resolved.
    """
    from codectool.audio.discovery import parse_list

    folders = [Path(os.path.abspath(start)) for start in (folder, path.parent, Path())]
    with open_input(path) as (file, name):
        return [str(entry.path) for entry in parse_list(file, name, folders, lengths=False)]


def load_decoder(
    folder: Path, files: list[str] | None, load: Callable[[str, str, str], Codec]
) -> Codec:
    """Load the weights that the first readable `.hcd` file of a folder names.

    Args:
        folder: folder of the inputs.
        files: files to try; None for all in the folder.
        load: returns the codec for a fingerprint, a family and the name of the file.

    Raises:
        UsageError: no file can be read.
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
    raise UsageError(f"{folder}: contains no readable .hcd file, which would name the weights")


def _engine(batch: BatchOptions, device: str) -> EngineFactory | None:
    """Return the Ray engine, or None for threads of this process."""
    if not batch.uses_ray:
        return None
    from codectool.pipeline.ray.cluster import import_ray
    from codectool.pipeline.ray.engine import on_ray

    import_ray()  # fails before the codec is loaded
    return on_ray(batch.ray_address, batch.ray_actors, device)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Stop a run on Ctrl-C or SIGTERM when its threads allow it, and at once on a second one."""
    received: list[int] = []

    def stop(number: int, _: object) -> NoReturn:
        received.append(number)
        if len(received) > 1:  # safe at any time: outputs are renamed when they are complete
            if at_terminal():
                os.write(sys.stderr.fileno(), SHOW_CURSOR)
            os._exit(128 + number)
        if at_terminal():  # `click.echo` is not safe in a signal handler
            message = b"\nstopping after the current batches; press Ctrl-C again to quit at once\n"
            os.write(sys.stderr.fileno(), message)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        note("stopped; repeat the command to continue")
        if signal.SIGTERM in received:
            sys.exit(EXIT_TERMINATED)
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _print_report(
    report: Report, with_bitrate: bool, batch: BatchOptions, settings: Settings
) -> None:
    """Print failures and totals to stderr, and totals as JSON to stdout."""
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
        click.echo(json.dumps(report.to_json(with_bitrate)))
