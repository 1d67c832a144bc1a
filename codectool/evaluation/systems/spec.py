"""From words on the command line to systems under test, as values that travel between processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from codectool.errors import UsageError
from codectool.evaluation.systems.codec2 import Codec2
from codectool.evaluation.systems.ffmpeg import CODERS, Ffmpeg
from codectool.evaluation.systems.opus import Opus
from codectool.evaluation.systems.speex import Speex
from codectool.evaluation.systems.system import System

if TYPE_CHECKING:
    from codectool.codec import Codec

# What stands before `@`, and what opens it with what stands behind.
PROGRAMS: dict[str, Callable[[str], System]] = {
    "codec2": Codec2,
    "opus": Opus,
    "speex": Speex,
    **{name: partial(Ffmpeg, name) for name in CODERS},
}
EXAMPLES = "codec2@1300, opus@6, speex@2, amrwb@6.6, gsm"


@dataclass(frozen=True)
class CodecChoice:
    """Which codec of ours, as `codectool.loading.load` takes it.

    Attributes:
        model: family; None takes what the checkpoint is.
        checkpoint: weights; None takes those that ship.
        config: hyper-parameters, where the checkpoint does not say them.
        device: where it runs.
        precision: of the matrix products.
        quantizers: how many codebooks; None takes all.
    """

    model: str | None = None
    checkpoint: Path | None = None
    config: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    quantizers: int | None = None

    def load(self) -> Codec:
        """Load it; raises what `codectool.loading.load` does."""
        from codectool.loading import load  # torch, which those who only score do without

        return load(
            self.model,
            self.checkpoint,
            config=self.config,
            device=self.device,
            precision=self.precision,
            quantizers=self.quantizers,
        )


@dataclass(frozen=True)
class SystemChoice:
    """A system that can be opened wherever it is needed.

    Attributes:
        name: for tables.
        program: ``codec2@1300``; None for a codec of ours.
        codec: which one; None for a program.
    """

    name: str
    program: str | None = None
    codec: CodecChoice | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether as many of it can run at once as there are cores."""
        if self.codec is None or self.codec.device == "cpu":
            return True
        from codectool.loading import find_device

        return find_device(self.codec.device).type == "cpu"

    def open(self) -> System:
        """Make it ready.

        Raises:
            UsageError: there is no such system, or its program is missing.
            CodectoolError: the weights cannot be used.
        """
        if self.codec is not None:
            from codectool.evaluation.systems.codectool_codec import Ours

            return Ours(self.codec.load())
        name, _, setting = (self.program or "").partition("@")
        if name not in PROGRAMS:
            raise UsageError(f"no codec is called `{self.program}`; there are {EXAMPLES}")
        return PROGRAMS[name](setting)


def check_names(names: list[str]) -> None:
    """Refuse two systems of one name.

    Raises:
        UsageError: there are.
    """
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two systems are called `{name}`; write NAME=PATH to name one")
