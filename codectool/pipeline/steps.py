"""One batch from files to files in three steps: `prepare`, `compute`, `store`.

Only the second runs the model, so that the others can run beside it. None of them knows of threads
or of other batches, and what goes in and comes out are plain values: the steps may as well run on
another machine that sees the same files.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codectool.errors import AudioError, UsageError
from codectool.files import atomic_output, check_writable
from codectool.pipeline.jobs import Job
from codectool.pipeline.journal import Entry, checksum, is_whole
from codectool.pipeline.operations import NotInBatch, Work
from codectool.pipeline.plan import Batch, Measured
from codectool.pipeline.report import Result, failure

AnyWork = Work[Any, Any]
# What the next file would meet as well.
FATAL = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}


@dataclass
class Member:
    """A file on its way through a batch.

    Attributes:
        file: what it is.
        entry: what the journal says of its output; complete once that is there.
        result: what became of it; None while it is on its way.
        item: what the next step takes: what was loaded, or what the model made of it.
        alone: it goes through the model by itself, from file to file.
    """

    file: Measured
    entry: Entry
    result: Result | None = None
    item: Any = None
    alone: bool = False

    def fail(self, error: Exception) -> None:
        """End its way."""
        if isinstance(error, OSError) and error.errno in FATAL:
            raise error
        self.result = failure(self.file.job.source, self.file.job.target, error)
        self.item = None


def measure(work: AnyWork, job: Job) -> Measured | Result:
    """Look at the header of an input; what is no file has failed already."""
    try:
        status = os.stat(job.source)
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("is no file but a folder, a pipe or a device")
    except (OSError, AudioError) as error:
        return failure(job.source, job.target, error)
    facts = (job, status.st_size, status.st_mtime_ns)
    header = work.measure(job.source)
    if header is None:  # only reading it tells
        return Measured(*facts, alone=True)
    seconds, channels = header
    return Measured(*facts, seconds, channels, alone=not work.fits(seconds))


def prepare(
    work: AnyWork, batch: Batch, known: Mapping[str, Entry], settings: str, overwrite: bool
) -> list[Member]:
    """See which outputs are there, and if one is missing load all inputs.

    All: where rounding depends on the neighbours, the missing one is to have the same again.

    Args:
        work: what is done.
        batch: the files.
        known: what the journal says of the outputs, by name.
        settings: hash of all that the outputs depend on beside the inputs.
        overwrite: make all outputs anew, and replace files that are not ours.
    """
    members = [_member(file, settings, batch.alone) for file in batch.members]
    for member in members:
        _check_output(member, known.get(member.entry.target), overwrite)
    if not batch.alone and any(member.result is None for member in members):
        for member in members:
            _load(work, member)
    return members


def compute(work: AnyWork, members: Sequence[Member]) -> None:
    """Run the model on what was loaded, and on files that go by themselves from end to end."""
    _compute(work, [member for member in members if member.item is not None])
    for member in members:
        if member.alone and member.result is None:
            _work_alone(work, member)


def store(work: AnyWork, members: Sequence[Member]) -> Iterator[Member]:
    """Write the outputs that are missing.

    Yields:
        Every member with its result, as soon as its output is there.

    Raises:
        OSError: the disk is full.
    """
    for member in members:
        if member.result is None:
            try:
                _write(work, member)
            except Exception as error:
                member.fail(error)
        member.item = None
        yield member


def _member(file: Measured, settings: str, alone: bool) -> Member:
    job = file.job
    facts = (file.source_bytes, file.source_mtime_ns, settings)
    return Member(file, Entry(job.target_name, job.source_name, *facts), alone=alone)


def _check_output(member: Member, known: Entry | None, overwrite: bool) -> None:
    """Decide whether the output has to be made, and may be."""
    job = member.file.job
    try:
        if job.target.exists() and job.target.samefile(job.source):
            raise UsageError("is the output as well; name another folder")
        same = known is not None and known.begun() == member.entry
        if known is not None and same and not overwrite and is_whole(job.target, known):
            member.result = Result(
                job.source, job.target, "skipped", member.file.seconds, known.bytes
            )
            return
        job.target.parent.mkdir(parents=True, exist_ok=True)
        check_writable(job.target, overwrite or known is not None)
    except Exception as error:
        member.fail(error)


def _load(work: AnyWork, member: Member) -> None:
    if member.result is not None and member.result.status == "failed":
        return
    try:
        member.item = work.load(member.file.job.source)
    except NotInBatch:
        member.alone = True
    except Exception as error:
        if member.result is None:
            member.fail(error)


def _compute(work: AnyWork, loaded: Sequence[Member]) -> None:
    """Run the model; where it fails, once more file by file to find the one to blame."""
    if not loaded:
        return
    try:
        outputs = work.compute([member.item for member in loaded])
    except Exception as error:
        if len(loaded) == 1:
            member = loaded[0]
            member.item = None
            if member.result is None:
                member.fail(error)
            return
    else:
        for member, output in zip(loaded, outputs, strict=True):
            member.item = output
        return
    # behind `except`, which would keep what the failed attempt had in memory
    for member in loaded:
        _compute(work, [member])


def _write(work: AnyWork, member: Member) -> None:
    job = member.file.job
    data, seconds = work.pack(member.item)
    with atomic_output(job.target, overwrite=True) as file:
        file.write(data)
    member.entry = replace(member.entry, bytes=len(data), crc32=f"{zlib.crc32(data):08x}")
    member.result = Result(job.source, job.target, "done", seconds, len(data))


def _work_alone(work: AnyWork, member: Member) -> None:
    job = member.file.job
    try:
        done = work.alone(job.source, job.target)
        size = job.target.stat().st_size
        member.entry = replace(member.entry, bytes=size, crc32=checksum(job.target))
        member.result = Result(
            job.source, job.target, "done", done.seconds, size, damage=done.damage
        )
    except Exception as error:
        member.fail(error)
