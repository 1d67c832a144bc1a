"""`encode_tree`, `decode_tree`, `reconstruct_tree`: a folder through a codec into another folder.

A run that was killed is taken up again by calling the same once more: what is there as it should be
is left alone, all else is made. The outputs are those of a run that was never disturbed.
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

from codectool.audio.discovery import Rejected, find_names
from codectool.codec import Codec
from codectool.cores import cores
from codectool.errors import UsageError
from codectool.pipeline import steps
from codectool.pipeline.executor import Books, Engine, LocalEngine, Start
from codectool.pipeline.jobs import Job, make_jobs
from codectool.pipeline.journal import Journal
from codectool.pipeline.leftovers import remove_leftovers
from codectool.pipeline.operations import (
    DecodeOptions,
    Decoding,
    EncodeOptions,
    Encoding,
    Reconstruction,
    Work,
)
from codectool.pipeline.plan import Measured, make_batches
from codectool.pipeline.report import Report, Result

MOST_WORKERS = 8  # unless more are asked for
LOOKED_AT_ONCE = 1024  # headers that are read before progress is told


@dataclass(frozen=True)
class RunOptions:
    """How the work is done; the outputs do not depend on it but for rounding.

    Attributes:
        files: inputs, each below the input folder; None is all audio that is there. Relative
            paths are seen from the input folder, or from where the program runs.
        workers: threads that read, and as many that write; None is by the number of cores.
        batch_seconds: most seconds of audio that go through the model together; a longer file goes
            alone, window by window. None is what suits the device.
        overwrite: make all outputs anew, and replace files that are not ours.
    """

    files: Sequence[str] | None = None
    workers: int | None = None
    batch_seconds: float | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Observer:
    """Whom to tell, from the thread that called.

    Attributes:
        on_found: how many files there are, once that is known.
        on_planned: seconds of audio of all files.
        on_result: what became of a file.
    """

    on_found: Callable[[int], object] = lambda _: None
    on_planned: Callable[[float], object] = lambda _: None
    on_result: Callable[[Result], object] = lambda _: None


def encode_tree(
    codec: Codec,
    in_dir: Path,
    out_dir: Path,
    options: EncodeOptions | None = None,
    how: RunOptions | None = None,
    observer: Observer | None = None,
    engine: Start | None = None,
) -> Report:
    """Encode all audio below a folder to `.hcd` files of the same names in another.

    Args:
        codec: what encodes.
        in_dir: folder of the inputs.
        out_dir: folder of the outputs; made if it is not there.
        options: what goes into the files.
        how: how the work is done.
        observer: whom to tell.
        engine: who does it; None is threads of this process, `ray_engine.on_ray` gives another.

    Returns:
        Totals, and the files that could not be encoded; one bad file does not stop the others.

    Raises:
        UsageError: there are no inputs, or another run writes to the same folder.
        OSError: the disk is full.
    """
    work = Encoding(codec, options or EncodeOptions())
    return run(work, in_dir, out_dir, how, observer, engine)


def decode_tree(
    codec: Codec,
    in_dir: Path,
    out_dir: Path,
    options: DecodeOptions | None = None,
    how: RunOptions | None = None,
    observer: Observer | None = None,
    engine: Start | None = None,
) -> Report:
    """Decode all `.hcd` files below a folder; otherwise as `encode_tree`."""
    work = Decoding(codec, options or DecodeOptions())
    return run(work, in_dir, out_dir, how, observer, engine)


def reconstruct_tree(
    codec: Codec,
    in_dir: Path,
    out_dir: Path,
    options: DecodeOptions | None = None,
    how: RunOptions | None = None,
    observer: Observer | None = None,
    engine: Start | None = None,
) -> Report:
    """Encode all audio below a folder and decode it again; otherwise as `encode_tree`."""
    work = Reconstruction(codec, options or DecodeOptions())
    return run(work, in_dir, out_dir, how, observer, engine)


def run(
    work: Work[Any, Any],
    in_dir: Path,
    out_dir: Path,
    how: RunOptions | None = None,
    observer: Observer | None = None,
    engine: Start | None = None,
) -> Report:
    """Do any kind of work on a folder; see `encode_tree`."""
    how, observer = how or RunOptions(), observer or Observer()
    started = time.perf_counter()
    _check_folders(work, in_dir, out_dir)
    report = Report()

    def tell(result: Result) -> None:
        report.add(result)
        observer.on_result(result)

    with Journal(out_dir) as journal:
        jobs, rejected = _find(work, in_dir, out_dir, how, journal)
        observer.on_found(len(jobs) + len(rejected))
        for file in rejected:
            tell(Result(file.source, None, "failed", reason=file.reason))
        targets = [job.target for job in jobs]
        remove_leftovers(out_dir, targets)
        start = engine or _local(how)
        try:
            _work(work, jobs, journal, how, observer, tell, report, start)
        finally:
            remove_leftovers(out_dir, targets)
        journal.put_in_order()
    report.wall_seconds = time.perf_counter() - started
    return report


def model_threads(codec: Codec) -> int:
    """Batches to compute at once: on a CPU one on each core, which wait for nobody.

    Threads that share the work of one batch have to wait for each other after every operation.
    """
    if codec.device.type != "cpu":
        return 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(wanted) if wanted.isdecimal() else cores())


def _work(
    work: Work[Any, Any],
    jobs: Sequence[Job],
    journal: Journal,
    how: RunOptions,
    observer: Observer,
    tell: Callable[[Result], None],
    report: Report,
    start: Start,
) -> None:
    """Measure, plan, and have the batches done."""
    with start(work) as engine:
        files = []
        for found in _measure(work, jobs, _workers(how)):
            if isinstance(found, Result):
                tell(found)
            else:
                files.append(found)
        observer.on_planned(sum(file.seconds for file in files))
        batches = make_batches(files, how.batch_seconds or engine.batch_seconds, engine.width)
        books = Books(journal, settings_hash(work.settings), how.overwrite)
        with closing(engine.run(batches, books)) as results:
            for result in results:
                tell(result)
        report.timing = engine.timing


def _local(how: RunOptions) -> Start:
    """Threads of this process."""

    @contextmanager
    def start(work: Work[Any, Any]) -> Iterator[Engine]:
        yield LocalEngine(work, model_threads(work.codec), _workers(how))

    return start


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that differ where the settings do."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_folders(work: Work[Any, Any], in_dir: Path, out_dir: Path) -> None:
    if not in_dir.is_dir():
        raise UsageError(f"{in_dir}: there is no such folder")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out_dir}: cannot be made ({error.strerror or error})") from error
    if in_dir.samefile(out_dir) and work.output_suffix in work.input_suffixes:
        raise UsageError(f"{out_dir}: is the input folder; outputs would replace inputs")


def _find(
    work: Work[Any, Any], in_dir: Path, out_dir: Path, how: RunOptions, journal: Journal
) -> tuple[list[Job], list[Rejected]]:
    names, rejected = find_names(in_dir, work.input_suffixes, how.files, exclude=out_dir)
    made = {name for name in journal.targets if name.endswith(work.output_suffix)}
    jobs, doubles = make_jobs(names, in_dir, out_dir, work.target_name, made)
    if not jobs and not rejected:
        kinds = " ".join(sorted(work.input_suffixes))
        listed = "the list names no files" if how.files is not None else f"no files ({kinds})"
        raise UsageError(f"{in_dir}: {listed}")
    return jobs, rejected + doubles


def _measure(
    work: Work[Any, Any], jobs: Sequence[Job], workers: int
) -> Iterator[Measured | Result]:
    with ThreadPoolExecutor(workers, "measure") as pool:
        for first in range(0, len(jobs), LOOKED_AT_ONCE):
            part = jobs[first : first + LOOKED_AT_ONCE]
            yield from pool.map(lambda job: steps.measure(work, job), part)


def _workers(how: RunOptions) -> int:
    return how.workers or min(MOST_WORKERS, cores())
