"""What every codec model is: a handful of facts and two verbs, on tensors alone.

Letters used in shapes: B batch, N samples, K streams (codebooks), F frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Context:
    """Frames around a wanted frame that its decoded samples depend on.

    Attributes:
        before: frames needed before it; None if every frame of the segment is needed.
        after: frames needed after it; None likewise.
    """

    before: int | None
    after: int | None


class CodecModel(nn.Module, ABC):
    """A neural codec for one channel: waveform to codes and back.

    A model knows no files, no sampling rates but its own, and no other batch item: the codes of an
    item do not depend on its neighbours.

    Attributes:
        family: name of the codec family, as in ``--model``.
        sample_rate: sampling rate in Hz.
        hop_length: samples per frame.
        codebook_sizes: number of values a token of each stream can take.
        min_frames: shortest input in frames; shorter ones are padded with zeros up to it.
        segment_frames: longest input in frames that is encoded as one whole where the model looks
            at all of its input at once; None for models that do not.
        decode_context: frames around a stretch that are enough to decode it alone.
        cpu_threads: threads on a CPU beyond which it hardly gains, None if it takes what there is.
            More of them would wait for each other at every small product, on a busy machine long.
    """

    family: ClassVar[str]
    sample_rate: int
    hop_length: int
    codebook_sizes: tuple[int, ...]
    min_frames: int = 1
    segment_frames: int | None = None
    decode_context: Context
    cpu_threads: int | None = None

    @classmethod
    @abstractmethod
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> CodecModel:
        """Build the inference model from canonical tensors.

        Args:
            state: tensors by their canonical names (see `checkpoints`), weight norm not folded.
            config: hyper-parameters; None reads them off the tensor shapes where that is possible.

        Raises:
            CheckpointError: tensors are missing, left over or misshapen; each is named.
            ConfigError: the hyper-parameters describe no model.
        """

    @property
    @abstractmethod
    def hyper_parameters(self) -> dict[str, Any]:
        """All that the tensors do not say, as JSON values; part of the fingerprint."""

    @abstractmethod
    def encode(self, wave: Tensor) -> Tensor:
        """Encode whole frames.

        Args:
            wave: float32 ``(B, 1, N)`` in [-1, 1], N a multiple of `hop_length`.

        Returns:
            int64 ``(B, K, N / hop_length)``.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Decode whole frames.

        Args:
            codes: int64 ``(B, K', F)`` with K' <= K: the first K' streams of a residual codec.

        Returns:
            float32 ``(B, 1, F * hop_length)``.
        """

    def num_frames(self, num_samples: int) -> int:
        """Frames for ``num_samples`` at the model's rate so that nothing is lost; 0 for none."""
        if num_samples == 0:
            return 0
        return max(self.min_frames, -(-num_samples // self.hop_length))

    @abstractmethod
    def upstream_frames(self, num_samples: int) -> int:
        """Frames that the published script of this model makes of ``num_samples``."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
