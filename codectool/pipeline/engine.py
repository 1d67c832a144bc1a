"""What `run` asks of those who do the batches, here or elsewhere, and what it gives them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from codectool.pipeline.journal import Entry, Journal
from codectool.pipeline.plan import Batch
from codectool.pipeline.report import Result, Timing
from codectool.pipeline.work import Work

CPU_BATCH_SECONDS = 40.0
DEVICE_BATCH_SECONDS = 400.0


@dataclass(frozen=True)
class Books:
    """The journal, and what makes an output the right one.

    Attributes:
        journal: of the folder of the outputs.
        settings: hash of all that the outputs depend on beside the inputs.
        overwrite: make all outputs anew, and replace files that are not ours.
    """

    journal: Journal
    settings: str
    overwrite: bool

    def known(self, batch: Batch) -> dict[str, Entry]:
        """What the journal says of the outputs of a batch, by name."""
        names = [file.job.target_name for file in batch.members]
        entries = [(name, self.journal.find(name)) for name in names]
        return {name: entry for name, entry in entries if entry is not None}

    def begin(self, entries: Iterable[Entry]) -> None:
        """Write down that these outputs are about to be made; before any of them is."""
        missing = list(entries)
        if missing:
            self.journal.begin(missing)

    def finish(self, entry: Entry, result: Result) -> None:
        """Write down an output that is there."""
        if result.status == "done":
            self.journal.finish(entry)


class Engine(Protocol):
    """Does batches.

    Attributes:
        width: batches that are worked on at once.
        batch_seconds: most seconds of audio that should go through one model together.
        timing: where the time of the models went; complete when all is done.
    """

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def batch_seconds(self) -> float: ...  # noqa: D102

    @property
    def timing(self) -> Timing: ...  # noqa: D102

    def run(self, batches: Sequence[Batch], books: Books) -> Generator[Result, None, None]:
        """Results of all files, each once. However the iteration ends, nobody works on then."""


# Makes an engine ready for some work; when it is left, all that it needed is gone.
Start = Callable[[Work[Any, Any]], AbstractContextManager[Engine]]


def fitting_seconds(device: str) -> float:
    """Seconds of audio in a batch that keep a device of this type busy."""
    return CPU_BATCH_SECONDS if device == "cpu" else DEVICE_BATCH_SECONDS
