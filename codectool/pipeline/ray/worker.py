"""What runs on the other machines: one process with one codec, which takes batches one by one.

While one batch goes through the model the next one is read, each in a thread of its own. The caller
stands between `prepare` and `finish`, for it alone writes the journal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from codectool.loading import limit_threads
from codectool.pipeline import steps
from codectool.pipeline.journal import Entry
from codectool.pipeline.plan import Batch
from codectool.pipeline.recipe import Recipe
from codectool.pipeline.report import Result, Timing
from codectool.pipeline.steps import Member
from codectool.pipeline.work import Work

BATCHES = 2  # that a worker holds at once: one in the model, one that is read or written


@dataclass(frozen=True)
class Finished:
    """What became of a batch.

    Attributes:
        outcomes: of its files in their order.
        timing: what the model did since the batch before.
    """

    outcomes: list[tuple[Entry, Result]]
    timing: Timing


class Worker:
    """Does batches, two at a time.

    Args:
        recipe: what is done.
        device: where.
        settings: hash of all that the outputs depend on beside the inputs.
        overwrite: make all outputs anew, and replace files that are not ours.
    """

    def __init__(self, recipe: Recipe, device: str, settings: str, overwrite: bool) -> None:
        self._recipe = recipe
        self._device = device
        self._how = settings, overwrite
        self._prepared: dict[int, list[Member]] = {}
        self._turn = threading.Lock()

    def load(self) -> None:
        """Get ready; before anything else.

        Raises:
            CodectoolError: this machine lacks the weights or the device.
        """
        self._work: Work[Any, Any] = self._recipe.make(self._device)
        limit_threads(self._work.codec)
        self._idle_since = time.perf_counter()

    def prepare(self, number: int, batch: Batch, known: Mapping[str, Entry]) -> list[Entry]:
        """See what is missing, read the inputs, and keep them.

        Args:
            number: of the batch, for `finish`.
            batch: the files, with paths that hold on this machine.
            known: what the journal says of the outputs, by name.

        Returns:
            Entries of the outputs that are about to be made.
        """
        members = steps.prepare(self._work, batch, known, *self._how)
        self._prepared[number] = members
        return [member.entry for member in members if member.result is None]

    def finish(self, number: int) -> Finished:
        """Take a batch that was prepared through the model, and write the outputs."""
        members = self._prepared.pop(number)
        with self._turn:
            timing = Timing(reading=-self._idle_since + (clock := time.perf_counter()))
            steps.compute(self._work, members)
            self._idle_since = time.perf_counter()
            timing.model = self._idle_since - clock
        outcomes = []
        for member in steps.store(self._work, members):
            assert member.result is not None
            # what was raised may hold anything, which need not survive the way back
            outcomes.append((member.entry, replace(member.result, error=None)))
        return Finished(outcomes, timing)
