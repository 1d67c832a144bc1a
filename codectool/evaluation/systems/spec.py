"""System specs: picklable descriptions of systems, from which workers load them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from codectool.errors import UsageError
from codectool.evaluation.systems.codec2 import Codec2
from codectool.evaluation.systems.ffmpeg import FFMPEG_CODECS, ffmpeg_codec
from codectool.evaluation.systems.nolace import OpusNolace
from codectool.evaluation.systems.ogg import opus, speex
from codectool.evaluation.systems.system import System

if TYPE_CHECKING:
    from codectool.codec import Codec

# Constructors by the part of the name before `@`; they take the part after it.
EXTERNAL_CODECS: dict[str, Callable[[str], System]] = {
    "codec2": Codec2,
    "opus": opus,
    "opus-nolace": OpusNolace,
    "speex": speex,
    **{name: partial(ffmpeg_codec, name) for name in FFMPEG_CODECS},
}
EXAMPLES = "codec2@1300, opus@6, speex@2, amrwb@6.6, gsm"


@dataclass(frozen=True)
class CodecSpec:
    """A codectool codec, as arguments of `codectool.loading.load`.

    Attributes:
        model: family; None for the family of the checkpoint.
        checkpoint: weights; None for the bundled weights.
        config: hyper-parameters, if the checkpoint does not contain them.
        device: device to run on.
    """

    model: str | None = None
    checkpoint: Path | None = None
    config: Path | None = None
    device: str = "auto"

    def load(self) -> Codec:
        """Load the codec; raises what `codectool.loading.load` raises."""
        from codectool.loading import load  # imports torch, which scoring does not need

        return load(self.model, self.checkpoint, config=self.config, device=self.device)


@dataclass(frozen=True)
class SystemSpec:
    """A system that can be loaded in any process.

    Attributes:
        name: name in tables.
        codec: a codectool codec, or an external codec such as ``codec2@1300``.
    """

    name: str
    codec: CodecSpec | str

    @property
    def on_cpu(self) -> bool:
        """Whether several processes can run the system at once."""
        if isinstance(self.codec, str) or self.codec.device == "cpu":
            return True
        if find_spec("torch") is None:  # ONNX Runtime
            return True
        from codectool.torch_runner import find_device

        return find_device(self.codec.device).type == "cpu"

    @property
    def version(self) -> str:
        """Version of an external codec; empty if unknown."""
        return self.load().version if isinstance(self.codec, str) else ""

    def load(self) -> System:
        """Load the system.

        Raises:
            UsageError: the system is unknown, or its program is missing.
            CodectoolError: the weights cannot be used.
        """
        if isinstance(self.codec, CodecSpec):
            from codectool.evaluation.systems.codectool_codec import CodectoolSystem

            return CodectoolSystem(self.codec.load())
        name, _, setting = self.codec.partition("@")
        if name not in EXTERNAL_CODECS:
            raise UsageError(f"there is no codec `{self.codec}`; examples are {EXAMPLES}")
        return EXTERNAL_CODECS[name](setting)


def check_names(names: list[str]) -> None:
    """Raise `UsageError` if two systems have the same name."""
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two systems have the name `{name}`; write NAME=PATH to rename one")
