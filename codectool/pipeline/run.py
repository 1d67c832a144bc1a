"""`encode_tree`, `decode_tree` and `reconstruct_tree`: process a folder into another folder.

Call the same function again to resume a run that was killed: complete outputs are kept, all others
are made. The outputs equal those of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codectool.audio.discovery import (
    AUDIO_SUFFIXES,
    Rejected,
    count_untaken,
    describe_untaken,
    find_names,
)
from codectool.codec import Codec
from codectool.cores import cores
from codectool.deprecation import renamed_keywords, warn_renamed
from codectool.errors import UsageError
from codectool.pipeline import steps
from codectool.pipeline.executor import Engine, EngineFactory, Ledger, LocalEngine
from codectool.pipeline.jobs import Job, make_jobs
from codectool.pipeline.journal import Journal
from codectool.pipeline.operations import (
    AnyOperation,
    DecodeOperation,
    DecodeOptions,
    EncodeOperation,
    EncodeOptions,
    ReconstructOperation,
)
from codectool.pipeline.plan import MeasuredFile, make_batches
from codectool.pipeline.report import Report, Result
from codectool.pipeline.steps import Rules

MAX_DEFAULT_WORKERS = 8
MEASURED_AT_ONCE = 1024  # headers


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; outputs do not depend on it, except for rounding.

    Attributes:
        files: inputs, all inside the input folder; None for all files in it. Relative paths start
            at the input folder or at the current directory.
        workers: number of reader threads and of writer threads; None to choose by the cores.
        batch_seconds: maximum seconds of audio in a batch; a longer file is streamed. None for
            the default of the device.
        overwrite: remake all outputs, and replace files that no earlier run made.
        strict: files fail whose audio gives a warning, because it is truncated or damaged.
        verify_inputs: compare the checksum of each input with the one recorded when its output
            was made, instead of size and times only.
    """

    files: Sequence[str] | None = None
    workers: int | None = None
    batch_seconds: float | None = None
    overwrite: bool = False
    strict: bool = False
    verify_inputs: bool = False


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called during a run, in the thread that started it.

    Attributes:
        on_found: called with the number of files.
        on_planned: called with the total seconds of audio.
        on_result: called with the result of each file.
    """

    on_found: Callable[[int], object] = lambda _: None
    on_planned: Callable[[float], object] = lambda _: None
    on_result: Callable[[Result], object] = lambda _: None


@renamed_keywords(how="run_options", observer="callbacks")
def encode_tree(
    codec: Codec,
    in_dir: str | Path,
    out_dir: str | Path,
    options: EncodeOptions | None = None,
    run_options: RunOptions | None = None,
    callbacks: Callbacks | None = None,
    engine: EngineFactory | None = None,
) -> Report:
    """Encode all audio in a folder and its subfolders to `.hcd` files of the same names.

    Args:
        codec: the codec.
        in_dir: folder of the inputs.
        out_dir: folder of the outputs; created if necessary.
        options: options that the outputs depend on.
        run_options: how the run is carried out.
        callbacks: functions to call.
        engine: None for threads of this process; see `codectool.pipeline.ray.engine.on_ray`.

    Returns:
        Totals and failures; a file that fails does not stop the run.

    Raises:
        UsageError: there are no inputs, or another run writes to the same folder.
        OSError: the disk is full.
    """
    operation = EncodeOperation(codec, options or EncodeOptions())
    return run(operation, in_dir, out_dir, run_options, callbacks, engine)


@renamed_keywords(how="run_options", observer="callbacks")
def decode_tree(
    codec: Codec,
    in_dir: str | Path,
    out_dir: str | Path,
    options: DecodeOptions | None = None,
    run_options: RunOptions | None = None,
    callbacks: Callbacks | None = None,
    engine: EngineFactory | None = None,
) -> Report:
    """Decode all `.hcd` files in a folder and its subfolders; see `encode_tree`."""
    operation = DecodeOperation(codec, options or DecodeOptions())
    return run(operation, in_dir, out_dir, run_options, callbacks, engine)


@renamed_keywords(how="run_options", observer="callbacks")
def reconstruct_tree(
    codec: Codec,
    in_dir: str | Path,
    out_dir: str | Path,
    options: DecodeOptions | None = None,
    run_options: RunOptions | None = None,
    callbacks: Callbacks | None = None,
    engine: EngineFactory | None = None,
) -> Report:
    """Encode and decode all audio in a folder and its subfolders; see `encode_tree`."""
    operation = ReconstructOperation(codec, options or DecodeOptions())
    return run(operation, in_dir, out_dir, run_options, callbacks, engine)


def run(
    operation: AnyOperation,
    in_dir: str | Path,
    out_dir: str | Path,
    run_options: RunOptions | None = None,
    callbacks: Callbacks | None = None,
    engine: EngineFactory | None = None,
) -> Report:
    """Run an operation on a folder; see `encode_tree`."""
    in_dir, out_dir = Path(in_dir), Path(out_dir)
    run_options, callbacks = run_options or RunOptions(), callbacks or Callbacks()
    workers = run_options.workers or min(MAX_DEFAULT_WORKERS, cores())
    started = time.perf_counter()
    report = Report()

    def add(result: Result) -> None:
        report.add(result)
        callbacks.on_result(result)

    _check_folders(operation, in_dir, out_dir)
    with Journal(out_dir) as journal:
        if run_options.files is None and operation.input_suffixes == AUDIO_SUFFIXES:
            report.untaken = count_untaken(in_dir, exclude=out_dir)
        jobs, rejected = _find_jobs(
            operation, in_dir, out_dir, run_options.files, journal, report.untaken
        )
        callbacks.on_found(len(jobs) + len(rejected))
        for file in rejected:
            add(Result(file.source, None, "failed", reason=file.reason))
        targets = [job.target for job in jobs]
        journal.remove_stale_files(targets)
        try:
            with (engine or _local_engine(workers))(operation) as started_engine:
                files = []
                for measured in _measure(operation, jobs, workers):
                    if isinstance(measured, Result):
                        add(measured)
                    else:
                        files.append(measured)
                callbacks.on_planned(sum(file.seconds for file in files))
                batch_seconds = run_options.batch_seconds or started_engine.batch_seconds
                batches = make_batches(
                    *(files, batch_seconds, started_engine.width),
                    batches_per_thread=started_engine.batches_per_thread,
                )
                rules = Rules(
                    settings_hash(operation.settings),
                    run_options.overwrite,
                    run_options.strict,
                    run_options.verify_inputs,
                )
                ledger = Ledger(journal, rules)
                with closing(started_engine.run(batches, ledger)) as results:
                    for result in results:
                        add(result)
                report.timing = started_engine.timing
        finally:
            journal.remove_stale_files(targets)
        journal.compact()
    report.wall_seconds = time.perf_counter() - started
    return report


def __getattr__(name: str) -> Any:
    if name != "Observer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_renamed("Observer", "Callbacks")
    return Callbacks


def model_threads(device_type: str) -> int:
    """Return how many batches to compute at once: on a CPU one per core.

    Threads that share one batch would wait for each other after every operation.
    """
    if device_type != "cpu":
        return 1
    requested = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(requested) if requested.isdecimal() else cores())


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits that differ if the settings do."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _local_engine(workers: int) -> EngineFactory:
    @contextmanager
    def start(operation: AnyOperation) -> Iterator[Engine]:
        yield LocalEngine(operation, model_threads(operation.device_type), workers)

    return start


def _check_folders(operation: AnyOperation, in_dir: Path, out_dir: Path) -> None:
    if not in_dir.is_dir():
        raise UsageError(f"{in_dir}: there is no such folder")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out_dir}: cannot be created ({error.strerror or error})") from error
    if in_dir.samefile(out_dir) and operation.output_suffix in operation.input_suffixes:
        raise UsageError(
            f"{out_dir}: is the input folder, and outputs would replace inputs; name another one"
        )


def _find_jobs(
    operation: AnyOperation,
    in_dir: Path,
    out_dir: Path,
    files: Sequence[str] | None,
    journal: Journal,
    untaken: Mapping[str, int],
) -> tuple[list[Job], list[Rejected]]:
    names, outside = find_names(in_dir, operation.input_suffixes, files, exclude=out_dir)
    earlier = {name for name in journal.targets if name.endswith(operation.output_suffix)}
    jobs, rejected = make_jobs(names, in_dir, out_dir, operation.target_name, earlier)
    if not jobs and not outside and not rejected:
        if untaken:
            raise UsageError(describe_untaken(in_dir, untaken))
        if files is not None:
            raise UsageError(f"{in_dir}: the list names no files")
        is_audio = operation.input_suffixes == AUDIO_SUFFIXES
        kind = "audio" if is_audio else f"{' '.join(operation.input_suffixes)} files"
        raise UsageError(f"{in_dir}: contains no {kind}")
    return jobs, outside + rejected


def _measure(
    operation: AnyOperation, jobs: Sequence[Job], workers: int
) -> Iterator[MeasuredFile | Result]:
    with ThreadPoolExecutor(workers, "measure") as pool:
        for first in range(0, len(jobs), MEASURED_AT_ONCE):
            next_jobs = jobs[first : first + MEASURED_AT_ONCE]
            yield from pool.map(lambda job: steps.measure(operation, job), next_jobs)
