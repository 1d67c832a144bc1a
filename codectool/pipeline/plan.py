"""Assign files to batches.

The plan depends on the list of files only, not on what is already done. A codec whose rounding
depends on the batch therefore gives the same outputs in a resumed run as in an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from codectool.pipeline.jobs import Job

MIN_COST_SECONDS = 0.1  # opening and closing a short file takes time too


@dataclass(frozen=True)
class MeasuredFile:
    """A job and the properties of its input.

    Attributes:
        job: input and output.
        source_bytes: size of the input.
        source_mtime_ns: modification time of the input.
        source_ctime_ns: time of the last change of the input or its metadata.
        seconds: length of the audio; 0 if the header does not give it.
        channels: number of channels.
        single: whether the file cannot share a batch with others.
    """

    job: Job
    source_bytes: int
    source_mtime_ns: int
    source_ctime_ns: int
    seconds: float = 0.0
    channels: int = 1
    single: bool = False

    @property
    def cost(self) -> float:
        """Return the seconds of audio to compute: channels are encoded independently."""
        return max(self.seconds * self.channels, MIN_COST_SECONDS)


@dataclass(frozen=True)
class Batch:
    """Files that the model processes together.

    Attributes:
        files: the files.
        single: whether it is a single file that is streamed instead of held in memory.
    """

    files: tuple[MeasuredFile, ...]
    single: bool


def make_batches(
    files: Iterable[MeasuredFile],
    batch_seconds: float,
    threads: int = 1,
    batches_per_thread: int = 1,
) -> list[Batch]:
    """Group files of similar length, the longest first, so that short work remains at the end.

    Args:
        files: all files, in any order.
        batch_seconds: maximum seconds of audio in a batch; a longer file becomes a single one.
        threads: number of batches computed at once. With more than one, batches take equal time
            and all threads get the same number of them, as far as possible.
        batches_per_thread: minimum for each of several threads.
    """
    ordered = sorted(files, key=lambda file: (-file.cost, file.job.target_name))
    batches = []
    shared = []
    for file in ordered:
        if file.single or file.cost > batch_seconds:
            batches.append(Batch((file,), True))
        else:
            shared.append(file)
    share = math.inf  # of the work, for each batch
    if shared and threads > 1:
        total = sum(file.cost for file in shared)
        rounds = threads * batches_per_thread
        share = total / (math.ceil(total / batch_seconds / rounds) * rounds)
    groups: list[list[MeasuredFile]] = []
    cost = done = 0.0
    for file in shared:
        # A file belongs to the share that its middle is in.
        is_next = not groups or done + file.cost / 2 > share * len(groups)
        if is_next or cost + file.cost > batch_seconds:
            groups.append([])
            cost = 0.0
        groups[-1].append(file)
        cost += file.cost
        done += file.cost
    return batches + [Batch(tuple(group), False) for group in groups]
