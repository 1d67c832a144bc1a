"""Which files go through the model together.

The plan depends on all files and on nothing else, such as what is done already: where rounding
depends on the neighbours in a batch, a restarted run gives what an undisturbed one would have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from codectool.pipeline.jobs import Job

MIN_COST = 0.1  # in seconds, of a file that is shorter: opening and closing it is work, too
BATCHES_PER_THREAD = 4  # at least, so that all threads end at about the same time


@dataclass(frozen=True)
class Measured:
    """A job and the facts of its input.

    Attributes:
        job: what to do.
        source_bytes: size of the input.
        source_mtime_ns: when it was last changed.
        seconds: of audio; 0 if only reading it tells.
        channels: of audio.
        alone: it cannot go through the model with others.
    """

    job: Job
    source_bytes: int
    source_mtime_ns: int
    seconds: float = 0.0
    channels: int = 1
    alone: bool = False

    @property
    def cost(self) -> float:
        """Seconds that the model has to work on: each channel is encoded alone."""
        return max(self.seconds * self.channels, MIN_COST)


@dataclass(frozen=True)
class Batch:
    """Files that go through the model together.

    Attributes:
        members: the files.
        alone: it is one file that is too long to be held in memory.
    """

    members: tuple[Measured, ...]
    alone: bool


def make_batches(files: Iterable[Measured], batch_seconds: float, threads: int = 1) -> list[Batch]:
    """Put files of like length together, the longest first: what is left at the end is short.

    Args:
        files: all of them, in any order.
        batch_seconds: most seconds of audio in a batch; a longer file goes alone.
        threads: how many batches are worked on at once. For more than one, batches may be
            smaller, so that there is work for all.
    """
    ordered = sorted(files, key=lambda file: (-file.cost, file.job.target_name))
    alone = [file for file in ordered if file.alone or file.cost > batch_seconds]
    rest = [file for file in ordered if not (file.alone or file.cost > batch_seconds)]
    most = batch_seconds
    if threads > 1:
        total = sum(file.cost for file in rest)
        most = min(batch_seconds, total / (BATCHES_PER_THREAD * threads))
    batches = [Batch((file,), True) for file in alone]
    members: list[Measured] = []
    cost = 0.0
    for file in rest:
        if members and cost + file.cost > most:
            batches.append(Batch(tuple(members), False))
            members, cost = [], 0.0
        members.append(file)
        cost += file.cost
    if members:
        batches.append(Batch(tuple(members), False))
    return batches
