"""One batch from files to files in three steps: `prepare`, `compute`, `store`.

Only `compute` runs the model, so that the other steps can run beside it. Steps know nothing about
threads or other batches and pass plain values, so they also run on other machines.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from codectool.errors import AudioError, UsageError
from codectool.files import atomic_output, check_writable
from codectool.pipeline.jobs import Job
from codectool.pipeline.journal import Entry, checksum, matches_checksum
from codectool.pipeline.operations import AnyOperation, Check, NeedsStreaming, Processed
from codectool.pipeline.plan import Batch, MeasuredFile
from codectool.pipeline.report import Result

FATAL = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}  # the next file would fail as well


@dataclass(frozen=True)
class Rules:
    """Which outputs a run makes.

    Attributes:
        settings: hash of everything that outputs depend on besides the inputs.
        overwrite: remake all outputs, and replace files that no earlier run made.
        strict: files fail whose audio gives a warning.
        verify_inputs: compare the checksum of each input with the one in its journal entry.
    """

    settings: str
    overwrite: bool = False
    strict: bool = False
    verify_inputs: bool = False


@dataclass
class BatchItem:
    """The state of a file in a batch.

    Attributes:
        file: the file.
        entry: its journal entry; complete when the output is.
        single: whether it is processed by `Operation.run_single`.
        strict: whether the file fails if its audio gives a warning.
        result: its outcome; None while work is left.
        data: what `Operation.load` or `Operation.compute` returned last.
        warnings: one sentence for each fault of the audio that was read anyway.
    """

    file: MeasuredFile
    entry: Entry
    single: bool
    strict: bool
    result: Result | None = None
    data: Any = None
    warnings: Sequence[str] = ()

    def fail(self, error: Exception) -> None:
        """Set the outcome; raise an error that every file would meet."""
        if isinstance(error, OSError) and error.errno in FATAL:
            raise error
        self.result = Result.failure(self.file.job.source, self.file.job.target, error)
        self.data = None

    def finish(self, processed: Processed, num_bytes: int, crc32: str) -> None:
        """Complete entry and outcome of an output that was written."""
        job = self.file.job
        damage, warnings = tuple(processed.damage), tuple(processed.warnings)
        self.entry = replace(self.entry, bytes=num_bytes, crc32=crc32, warnings=warnings)
        self.result = Result(
            job.source,
            job.target,
            "done",
            processed.seconds,
            num_bytes,
            damage=damage,
            warnings=warnings,
        )


def measure(operation: AnyOperation, job: Job) -> MeasuredFile | Result:
    """Read the header of an input; return the result of a failure if it is not a file."""
    try:
        status = os.stat(job.source)
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("is not a file but a folder, a pipe or a device")
        measured = operation.measure(job.source)
    except Exception as error:
        return Result.failure(job.source, job.target, error)
    properties = (job, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if measured is None:
        return MeasuredFile(*properties, single=True)
    seconds, channels = measured
    return MeasuredFile(*properties, seconds, channels, single=not operation.fits_batch(*measured))


def prepare(
    operation: AnyOperation,
    batch: Batch,
    known: Mapping[str, Entry],
    rules: Rules,
) -> list[BatchItem]:
    """Check which outputs are complete, and load all inputs unless all of them are.

    All inputs are loaded even if only one output is missing: if rounding depends on the batch, the
    missing output is the same again.

    Args:
        operation: the operation.
        batch: the files.
        known: journal entries of the outputs, by name.
        rules: which outputs to make.
    """
    items = []
    for file in batch.files:
        entry = Entry(
            target=file.job.target_name,
            source=file.job.source_name,
            source_bytes=file.source_bytes,
            source_mtime_ns=file.source_mtime_ns,
            settings=rules.settings,
            source_ctime_ns=file.source_ctime_ns,
        )
        items.append(BatchItem(file, entry, batch.single, rules.strict))
    for item in items:
        _check_output(item, known.get(item.entry.target), rules)
        if item.result is None:
            with suppress(OSError):  # loading it gives the reason
                item.entry = replace(item.entry, source_crc32=checksum(item.file.job.source))
    if not batch.single and any(item.result is None for item in items):
        for item in items:
            _load(operation, item)
    return items


def compute(
    operation: AnyOperation, items: Sequence[BatchItem], check: Check | None = None
) -> None:
    """Run the model on loaded files, and process single files from input to output.

    Args:
        operation: the operation.
        items: the files.
        check: called before each chunk of a single file; may raise to stop.
    """
    _compute(operation, [item for item in items if item.data is not None])
    for item in items:
        if item.single and item.result is None:
            _run_single(operation, item, check)


def store(operation: AnyOperation, items: Sequence[BatchItem]) -> Iterator[BatchItem]:
    """Write the missing outputs.

    Yields:
        Each file with its result, as soon as its output is complete.

    Raises:
        OSError: the disk is full.
    """
    for item in items:
        if item.result is None:
            try:
                _write(operation, item)
            except Exception as error:
                item.fail(error)
        item.data = None
        yield item


def _check_output(item: BatchItem, known: Entry | None, rules: Rules) -> None:
    """Decide whether the output has to be made, and whether it may be."""
    job = item.file.job
    try:
        if job.target.exists() and job.target.samefile(job.source):
            raise UsageError("is also the output; name another folder")
        if (
            known is not None
            and not rules.overwrite
            and _is_input_of(known, item, rules.verify_inputs)
            and matches_checksum(job.target, known)
        ):
            if item.strict and known.warnings:
                raise AudioError(known.warnings[0])
            if known.source_crc32 is not None:  # the time of the last change may differ
                item.entry = replace(known, source_ctime_ns=item.file.source_ctime_ns)
            seconds, warnings = item.file.seconds, tuple(known.warnings)
            item.result = Result(
                job.source, job.target, "skipped", seconds, known.bytes, warnings=warnings
            )
            return
        job.target.parent.mkdir(parents=True, exist_ok=True)
        check_writable(job.target, rules.overwrite or known is not None)
    except Exception as error:
        item.fail(error)


def _is_input_of(known: Entry, item: BatchItem, verify: bool) -> bool:
    """Return whether an output with this journal entry was made from the input as it is now.

    The input is read only if its size and modification time are the same, but the time of its last
    change is not, as after changes in place, `chmod` or copying.
    """
    if not known.has_equal_properties(item.entry):
        return False
    if known.source_ctime_ns in (None, item.entry.source_ctime_ns) and not verify:
        return True
    return known.source_crc32 == checksum(item.file.job.source)


def _load(operation: AnyOperation, item: BatchItem) -> None:
    if item.result is not None and item.result.status == "failed":
        return
    try:
        warnings: list[str] = []
        item.data = operation.load(item.file.job.source, warnings)
        if item.strict and warnings and item.result is None:
            item.data = None
            raise AudioError(warnings[0])
        item.warnings = warnings
    except NeedsStreaming:
        item.single = True
    except Exception as error:
        if item.result is None:
            item.fail(error)


def _compute(operation: AnyOperation, loaded: Sequence[BatchItem]) -> None:
    """Run the model; if it fails, run it again on each file to find the failing one."""
    if not loaded:
        return
    try:
        outputs = operation.compute([item.data for item in loaded])
    except Exception as error:
        if len(loaded) == 1:
            item = loaded[0]
            item.data = None
            if item.result is None:
                item.fail(error)
            return
    else:
        for item, output in zip(loaded, outputs, strict=True):
            item.data = output
        return
    # outside `except`, which keeps the memory of the failed attempt alive
    for item in loaded:
        _compute(operation, [item])


def _write(operation: AnyOperation, item: BatchItem) -> None:
    data, seconds = operation.pack(item.data)
    with atomic_output(item.file.job.target, overwrite=True) as file:
        file.write(data)
    processed = Processed(seconds, warnings=item.warnings)
    item.finish(processed, len(data), f"{zlib.crc32(data):08x}")


def _run_single(operation: AnyOperation, item: BatchItem, check: Check | None) -> None:
    target = item.file.job.target
    try:
        processed = operation.run_single(item.file.job.source, target, check, item.strict)
        item.finish(processed, target.stat().st_size, checksum(target))
    except Exception as error:
        item.fail(error)
