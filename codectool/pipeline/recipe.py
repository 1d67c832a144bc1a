"""How to make some work once more in another process, on another machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codectool.checkpoints import bundled as shipped
from codectool.codec import Framing
from codectool.errors import CodectoolError, FingerprintError
from codectool.loading import load
from codectool.pipeline.work import Decoding, Encoding, Reconstruction, Work

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
        framing: what happens at the ends of a file.
        quantizers: codebooks that are used.
        fingerprint: of the weights.
    """

    verb: str
    options: Any
    family: str
    checkpoint: str | None
    config: Mapping[str, Any] | None
    precision: str
    framing: Framing
    quantizers: int
    fingerprint: str

    @classmethod
    def of(cls, work: Work[Any, Any]) -> Recipe:
        """The recipe of some work."""
        codec = work.codec
        ours = shipped.find(codec.fingerprint) is not None
        return cls(
            verb=work.verb,
            options=work.options,
            family=codec.layout.family,
            checkpoint=None if ours else os.path.abspath(codec.checkpoint),
            config=None if ours else codec.model.hyper_parameters,
            precision=codec.precision,
            framing=codec.framing,
            quantizers=codec.layout.num_streams,
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
                framing=self.framing,
                quantizers=self.quantizers,
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
        weights = shipped.find(self.fingerprint)
        return None if weights is None else weights.path
