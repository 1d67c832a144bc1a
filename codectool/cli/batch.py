"""Input and output of `encode`, `decode` and `reconstruct`, and runs on folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from codectool.cli.codec import CodecOptions
from codectool.cli.console import message, note, print_data, print_traceback, say, warn
from codectool.cli.options import (
    FILE,
    PIPE,
    Decorator,
    check_output,
    collect_options,
    debug_option,
    finite,
    open_input,
)
from codectool.cli.signals import stoppable_run
from codectool.errors import UsageError, naming
from codectool.files import write_all
from codectool.messages import to_json

if TYPE_CHECKING:
    from codectool.pipeline.operations import AnyOperation
    from codectool.pipeline.report import Result

Selected = TypeVar("Selected", bound=CodecOptions | None)


@dataclass(frozen=True)
class FileOptions:
    """INPUT, OUTPUT and how to process folders."""

    source: Path
    target: Path | None
    overwrite: bool
    files_from: Path | None
    workers: int | None
    report: Path | None
    verify_inputs: bool
    as_json: bool
    batch_seconds: float | None = None
    profile: bool = False
    engine: str | None = None
    ray_address: str | None = None
    ray_actors: int | None = None

    def is_folder_run(self) -> bool:
        """Return whether INPUT is a folder; raise if it is not, but an option needs one."""
        if self.files_from is not None or self.source.is_dir():
            return True
        for name, value in vars(self).items():
            if value and name not in ("source", "target", "overwrite"):
                option = "--" + name.removeprefix("as_").replace("_", "-")
                raise UsageError(f"{self.source}: is not a folder; `{option}` needs a folder")
        return False

    def choose_output(self, suffix: str) -> Path:
        """Return OUTPUT, by default INPUT with another suffix; raise if it cannot be written."""
        target = self.target
        if target is None:
            target = PIPE if self.source == PIPE else self.source.with_suffix(suffix)
        check_output(target, self.source, self.overwrite)
        return target


_BATCH_SECONDS = click.option(
    "--batch-seconds",
    type=click.FloatRange(0.0, min_open=True),
    callback=finite,
    metavar="S",
    show_default="40, BigCodec 80, on a GPU 400",
    help="Folders: maximum seconds of audio per batch; longer files are streamed.",
)
_PROFILE = click.option(
    "--profile", is_flag=True, help="Folders: report how long the model waited for I/O."
)
_RAY = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        show_default="local",
        help="Folders: run in threads, or on a Ray cluster with a shared file system.",
    ),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        show_default="a new one on this machine",
        help="With --engine ray: cluster to join, `auto` or HOST:PORT.",
    ),
    click.option(
        "--ray-actors",
        type=click.IntRange(1, 65536),
        metavar="N",
        show_default="one per GPU, or as many as fit on the CPUs",
        help="With --engine ray: number of processes.",
    ),
)
_MODEL_OPTIONS = (_BATCH_SECONDS, _PROFILE, *_RAY)  # make no difference without a model
_OPTIONS = (
    click.option(
        "--files-from",
        type=FILE,
        metavar="LIST",
        help="Folders: process only the files in this list (as `filelist` writes them, or one "
        "path per line); `-` is stdin.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, 256),
        metavar="N",
        show_default="one per core, at most 8",
        help="Folders: number of reader threads and of writer threads.",
    ),
    _BATCH_SECONDS,
    click.option(
        "--report",
        type=FILE,
        metavar="JSONL",
        help="Folders: file to write, with a line of JSON per input.",
    ),
    click.option(
        "--verify-inputs",
        is_flag=True,
        help="Folders: compare checksums of the inputs with the journal, instead of size "
        "and times only.",
    ),
    _PROFILE,
    click.option("--json", "as_json", is_flag=True, help="Folders: print totals as JSON."),
    *_RAY,
    click.option("--overwrite", is_flag=True, help="Replace existing outputs."),
    debug_option,
)


strict_option = click.option(
    "--strict",
    is_flag=True,
    help="Refuse truncated, damaged or too loud audio instead of warning.",
)


def file_options(output_required: bool, uses_model: bool = True) -> Decorator:
    """Return a decorator that adds INPUT, OUTPUT and the options of `FileOptions`."""
    options = [option for option in _OPTIONS if uses_model or option not in _MODEL_OPTIONS]
    return collect_options(
        "files",
        FileOptions,
        click.argument("source", metavar="INPUT", type=FILE),
        click.argument(
            "target",
            metavar="OUTPUT" if output_required else "[OUTPUT]",
            type=FILE,
            required=output_required,
        ),
        *options,
    )


def run_folder(
    files: FileOptions,
    selected: Selected,
    make_operation: Callable[[Selected, Path, list[str] | None], AnyOperation],
    strict: bool = False,
) -> NoReturn:
    """Run an operation on a folder and exit with its exit code.

    ``make_operation`` gets the codec, if one is needed, the folder (`-` with a list is the current
    directory) and the files of the list. With ``strict``, files fail whose audio gives a warning.
    """
    from codectool.audio.discovery import describe_untaken
    from codectool.cli.progress import BatchProgress
    from codectool.pipeline.run import Callbacks, RunOptions, run

    target = files.target
    if target is None or target == PIPE:
        raise UsageError(f"{files.source}: is a folder; name a folder for the outputs too")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is a file; name a folder for the outputs")
    folder = Path() if files.source == PIPE else files.source
    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder; `--files-from` needs a folder")
    listed = None if files.files_from is None else read_files_from(files.files_from, folder)
    if files.report == PIPE:
        raise UsageError("give a file name for `--report`; `--json` prints totals to stdout")
    run_options = RunOptions(
        listed,
        files.workers,
        files.batch_seconds,
        files.overwrite,
        strict,
        files.verify_inputs,
    )
    engine = None
    if files.engine == "ray":
        from codectool.pipeline.ray.cluster import import_ray
        from codectool.pipeline.ray.engine import on_ray

        import_ray()  # fails before the codec is loaded
        assert selected is not None, "without a model there is no `--engine`"
        engine = on_ray(files.ray_address, files.ray_actors, selected.device)
        selected = replace(selected, device="cpu")  # this process only reads metadata of the codec
    elif files.ray_address is not None or files.ray_actors is not None:
        raise UsageError("`--ray-address` and `--ray-actors` need `--engine ray`")
    with stoppable_run(), ExitStack() as stack:
        if engine is not None:
            # Ray reports dead workers on stdout, which belongs to the totals
            stack.enter_context(redirect_stdout(sys.stderr))
        operation = make_operation(selected, folder, listed)
        lines = None
        if files.report is not None:
            lines = stack.enter_context(files.report.open("wb", buffering=0))
        progress = stack.enter_context(BatchProgress(operation.name))

        def on_result(result: Result) -> None:
            progress.add(result)
            if lines is not None:
                line = result.to_json(operation.has_bitrate) + "\n"
                with naming(str(files.report)):
                    write_all(lines, line.encode())

        callbacks = Callbacks(progress.found, progress.planned, on_result)
        report = run(operation, folder, target, run_options, callbacks, engine)
    for result in report.warned:
        for sentence in result.warnings:
            warn(sentence)
    for result in report.damaged:
        for sentence in result.damage:
            warn(sentence)
    for result in report.failures:
        if result.error is not None:
            print_traceback(result.error)
        say("error", f"{result.source}: {result.reason}", "red")
    if report.untaken:
        warn(describe_untaken(folder, report.untaken))
    if files.profile:
        message(report.profile())
    note(str(report))
    if files.as_json:
        print_data(to_json(report.to_json(operation.has_bitrate)))
    sys.exit(report.exit_code)


def read_files_from(path: Path, folder: Path) -> list[str]:
    """Return the files of a list, which may be stdin; relative paths may start at ``folder``."""
    from codectool.audio.discovery import parse_list

    folders = [Path(os.path.abspath(start)) for start in (folder, path.parent, Path())]
    with open_input(path) as (file, name):
        listed = [str(entry.path) for entry in parse_list(file, name, folders, lengths=False)]
    if not listed:
        raise UsageError(f"{name}: names no files")
    return listed
