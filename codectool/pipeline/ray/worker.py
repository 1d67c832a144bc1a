"""The process on a machine of the cluster: one codec, which takes batches one by one.

While one batch is in the model the next one is loaded, in another thread. The calling process acts
between `prepare` and `finish`, because only it writes the journal.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from codectool.checkpoints import registry
from codectool.errors import CodectoolError, FingerprintError, UsageError
from codectool.loading import load
from codectool.pipeline import steps
from codectool.pipeline.journal import Entry
from codectool.pipeline.operations import (
    AnyOperation,
    DecodeOperation,
    EncodeOperation,
    ReconstructOperation,
)
from codectool.pipeline.plan import Batch
from codectool.pipeline.report import Result, Timing
from codectool.pipeline.steps import BatchItem, Rules

BATCHES_PER_WORKER = 2  # one in the model, one that is loaded or written

OPERATIONS = {kind.name: kind for kind in (EncodeOperation, DecodeOperation, ReconstructOperation)}


@dataclass(frozen=True)
class OperationSpec:
    """Plain values that an operation can be built from on another machine.

    Attributes:
        operation: name of the operation.
        options: its options.
        codec: arguments of `load`; the checkpoint is the name of a bundled model or a path.
        decode_precision: what the decoder is run with.
        fingerprint: fingerprint of the weights.
        same_tokens_as: fingerprints of tokens that they decode.
    """

    operation: str
    options: Any
    codec: Mapping[str, Any]
    decode_precision: str
    fingerprint: str
    same_tokens_as: frozenset[str]

    @classmethod
    def of(cls, operation: AnyOperation) -> OperationSpec:
        """Return the specification of an operation."""
        codec = operation.codec
        entry = registry.find(codec.fingerprint)
        weights = entry if entry is not None and entry.is_bundled else None
        is_onnx = codec.runner.runtime == "onnx"
        arguments = {
            "model": codec.layout.family,
            "checkpoint": weights.name if weights else os.path.abspath(codec.checkpoint),
            "config": None if weights or is_onnx else codec.model.hyper_parameters,
            "runtime": codec.runner.runtime,
            "precision": codec.precision,
            "padding": codec.padding,
            "codebooks": codec.layout.num_codebooks,
        }
        names = codec.fingerprint, frozenset(codec.same_tokens_as)
        return cls(operation.name, operation.options, arguments, codec.decode_precision, *names)

    def build(self, device: str) -> AnyOperation:
        """Load the codec and return the operation.

        Raises:
            CodectoolError: this machine lacks the weights or the device, or has other weights;
                the message names the machine.
        """
        try:
            codec = load(**self.codec, device=device)
        except CodectoolError as error:
            raise type(error)(f"{error} (on {socket.gethostname()})") from error
        if codec.decode_precision != self.decode_precision:
            raise UsageError(
                f"precision auto: decodes in {codec.decode_precision} on {socket.gethostname()}, "
                f"but in {self.decode_precision} here; use `--precision fp32`"
            )
        if codec.fingerprint != self.fingerprint:
            raise FingerprintError(
                f"{codec.checkpoint}: contains weights {codec.fingerprint} on "
                f"{socket.gethostname()}, but {self.fingerprint} here; copy the same weights there"
            )
        codec.same_tokens_as |= self.same_tokens_as
        return OPERATIONS[self.operation](codec, self.options)


@dataclass(frozen=True)
class FinishedBatch:
    """The outcome of a batch.

    Attributes:
        outcomes: journal entry and result of each file, in the order of the batch.
        timing: time of the model since the previous batch.
    """

    outcomes: list[tuple[Entry, Result]]
    timing: Timing


class Worker:
    """Processes batches, two at a time.

    Args:
        spec: the operation.
        device: where the model runs.
        rules: which outputs to make.
    """

    def __init__(self, spec: OperationSpec, device: str, rules: Rules) -> None:
        self._spec = spec
        self._device = device
        self._rules = rules
        self._prepared: dict[int, list[BatchItem]] = {}
        self._model_lock = threading.Lock()

    def load(self) -> None:
        """Load the codec; called first.

        Raises:
            CodectoolError: this machine lacks the weights or the device.
        """
        self._operation = self._spec.build(self._device)
        self._operation.codec.runner.limit_threads()
        self._idle_since = time.perf_counter()

    def prepare(self, number: int, batch: Batch, known: Mapping[str, Entry]) -> list[Entry]:
        """Check which outputs are missing, and load and keep the inputs.

        Args:
            number: number of the batch, for `finish`.
            batch: the files, with absolute paths.
            known: journal entries of the outputs, by name.

        Returns:
            Entries of the outputs that will be made.
        """
        items = steps.prepare(self._operation, batch, known, self._rules)
        self._prepared[number] = items
        return [item.entry for item in items if item.result is None]

    def finish(self, number: int) -> FinishedBatch:
        """Run the model on a prepared batch, and write the outputs."""
        items = self._prepared.pop(number)
        with self._model_lock:
            timing = Timing(reading=-self._idle_since + (clock := time.perf_counter()))
            steps.compute(self._operation, items)
            self._idle_since = time.perf_counter()
            timing.model = self._idle_since - clock
        outcomes = []
        for item in steps.store(self._operation, items):
            assert item.result is not None
            # the exception may hold objects that cannot be sent
            outcomes.append((item.entry, replace(item.result, error=None)))
        return FinishedBatch(outcomes, timing)
