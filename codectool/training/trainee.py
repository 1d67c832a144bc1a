"""What the training loop asks of a model.

Letters used in shapes: B batch, N samples, K codebooks, F frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from codectool.codecs.base import CodecModel


@dataclass(frozen=True)
class Reconstruction:
    """What one training step looks at.

    Attributes:
        audio: float32 ``(B, 1, N')``, what the decoder made.
        target: float32 ``(B, 1, N')``, what it should have made.
        penalties: losses of the quantizer by name, scalars, not weighted yet.
        codes: int64 ``(B, K, F)``, the tokens.
    """

    audio: Tensor
    target: Tensor
    penalties: dict[str, Tensor]
    codes: Tensor


class Trainee(nn.Module, ABC):
    """A codec as it is trained: one forward pass from crop to reconstruction.

    Attributes:
        sample_rate: in Hz.
        hop_length: samples per frame.
        penalty_names: what `Reconstruction.penalties` holds.
    """

    sample_rate: int
    hop_length: int
    penalty_names: tuple[str, ...]

    @abstractmethod
    def forward(self, wave: Tensor) -> Reconstruction:
        """Code crops ``(B, 1, N)``, N a multiple of the hop, and decode them again."""

    def prepare(self, step: int, progress: float) -> None:
        """Get ready for a training step.

        Args:
            step: steps done so far.
            progress: done share of the whole run, 0 to 1.
        """

    def compile_parts(self) -> None:
        """Compile what gains from it."""
        self.compile()

    @abstractmethod
    def codec(self) -> CodecModel:
        """An inference model of the present weights, in evaluation mode; self stays as it is."""

    @abstractmethod
    def stored_codec(self) -> CodecModel:
        """The model in the form that `checkpoints.native.write_model` takes; may share weights."""

    @abstractmethod
    def load_codec_state(self, state: Mapping[str, Tensor]) -> None:
        """Start from the weights of a checkpoint, by canonical names.

        Raises:
            CheckpointError: they are not those of this model.
        """

    def settle(self, crops: Callable[[], Tensor]) -> None:
        """Find out what a checkpoint does not say; called after `load_codec_state`.

        Args:
            crops: draws ``(B, 1, N)`` from the speech to be trained on, the same on all ranks.
        """

    def parameters_by(self, names: Iterable[str]) -> list[nn.Parameter]:
        """The parameters among tensors of these canonical names, in their order.

        None of them are where weights are stored in another form than they are trained in.
        """
        return []

    def decayed(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay acts on a parameter."""
        return True
