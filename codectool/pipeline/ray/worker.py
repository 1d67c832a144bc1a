"""What runs on the other machines: one process with one codec, which takes batches one by one.

While one batch goes through the model the next one is read, each in a thread of its own. The caller
stands between `prepare` and `finish`, for it alone writes the journal.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codectool.checkpoints import bundled
from codectool.errors import CodectoolError, FingerprintError
from codectool.loading import limit_threads, load
from codectool.pipeline import steps
from codectool.pipeline.journal import Entry
from codectool.pipeline.operations import Decoding, Encoding, Reconstruction, Work
from codectool.pipeline.plan import Batch
from codectool.pipeline.report import Result, Timing
from codectool.pipeline.steps import Member
from codectool.streaming import Padding

KINDS = {kind.verb: kind for kind in (Encoding, Decoding, Reconstruction)}


@dataclass(frozen=True)
class Recipe:
    """Plain values that a `Work` can be made of.

    Attributes:
        verb: the kind of work.
        options: those of the kind.
        family: codec family.
        checkpoint: absolute path of the weights; None for those that come with codectool.
        config: the model's hyper-parameters; None likewise.
        precision: of the matrix products.
        padding: what happens at the ends of a file.
        quantizers: codebooks that are used.
        fingerprint: of the weights.
    """

    verb: str
    options: Any
    family: str
    checkpoint: str | None
    config: Mapping[str, Any] | None
    precision: str
    padding: Padding
    quantizers: int
    fingerprint: str

    @classmethod
    def of(cls, work: Work[Any, Any]) -> Recipe:
        """The recipe of some work."""
        codec = work.codec
        ours = bundled.find_available(codec.fingerprint) is not None
        return cls(
            verb=work.verb,
            options=work.options,
            family=codec.layout.family,
            checkpoint=None if ours else os.path.abspath(codec.checkpoint),
            config=None if ours else codec.model.hyper_parameters,
            precision=codec.precision,
            padding=codec.padding,
            quantizers=codec.layout.num_codebooks,
            fingerprint=codec.fingerprint,
        )

    def make(self, device: str) -> Work[Any, Any]:
        """Load the codec and make the same work of it.

        Raises:
            CodectoolError: this machine lacks the weights or the device, or has other weights;
                the message names the machine.
        """
        try:
            codec = load(
                self.family,
                self._weights(),
                config=self.config,
                device=device,
                precision=self.precision,
                padding=self.padding,
                codebooks=self.quantizers,
            )
        except CodectoolError as error:
            raise type(error)(f"{error} (on {socket.gethostname()})") from error
        if codec.fingerprint != self.fingerprint:
            raise FingerprintError(
                f"{codec.checkpoint}: holds weights {codec.fingerprint} on {socket.gethostname()}, "
                f"but {self.fingerprint} here"
            )
        return KINDS[self.verb](codec, self.options)

    def _weights(self) -> Path | None:
        if self.checkpoint is not None:
            return Path(self.checkpoint)
        weights = bundled.find(self.fingerprint)
        return None if weights is None else weights.path


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
