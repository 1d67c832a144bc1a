"""What every codec model is: a handful of facts and two verbs, on tensors alone.

The two verbs, `encode` and `decode`, come in three more forms that give the same codes and samples:
many signals of any lengths at once (`encode_ragged`), one signal in pieces (`stream_encoder`), and
one signal of any length as one whole in bounded memory (`encode_exact`).

Letters used in shapes: B batch, N samples, K codebooks, F frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from codectool.codecs.stream import Stream


@dataclass(frozen=True)
class Context:
    """Frames around a wanted frame that its decoded samples depend on.

    Attributes:
        before: frames needed before it; None if every frame of the segment is needed.
        after: frames needed after it; None likewise.
    """

    before: int | None
    after: int | None


@dataclass(frozen=True)
class Latency:
    """Samples at the model's rate that must follow a frame before something can be made of it.

    Attributes:
        encoder: samples after the end of a frame that its token depends on; None where it depends
            on all of the segment.
        decoder: samples' worth of tokens after a frame that its samples depend on; None likewise.
    """

    encoder: int | None
    decoder: int | None


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
        cpu_fast_path: use the CPU-specific form of the model where there is one. Set it to False to
            run the plain modules, for example to compare their speed.
    """

    family: ClassVar[str]
    sample_rate: int
    hop_length: int
    codebook_sizes: tuple[int, ...]
    min_frames: int = 1
    segment_frames: int | None = None
    decode_context: Context
    cpu_threads: int | None = None
    cpu_fast_path: bool = True

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
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Encode signals of any lengths; each gets the codes that it gets alone.

        Where a batch changes the shapes of matrix products, codes may differ where two codewords
        are equally near within rounding.

        Args:
            waves: float32 ``(1, N_i)`` in [-1, 1], each N_i a positive multiple of `hop_length`.

        Returns:
            int64 ``(K, N_i / hop_length)`` for each.
        """

    @abstractmethod
    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Decode signals of any lengths; each gets the samples that it gets alone, to rounding.

        Args:
            codes: int64 ``(K', F_i)``, each F_i positive and K' <= K: the first K' codebooks of a
                residual quantizer.

        Returns:
            float32 ``(1, F_i * hop_length)`` for each.
        """

    @abstractmethod
    def stream_encoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        """Start to encode one signal that arrives in pieces: ``(1, 1, N)`` to ``(1, K, F)``.

        Args:
            chunk_frames: frames computed at once; None uses the number that `encode` uses, and the
                codes are the same bit for bit. Smaller chunks reduce the latency; codes may then
                differ where two codewords are equally near within rounding. For a model that looks
                at a whole segment this is the length of the segment, which is part of what the
                codes mean.
        """

    @abstractmethod
    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        """Start to decode one signal that arrives in pieces: ``(1, K', F)`` to ``(1, 1, N)``."""

    @property
    @abstractmethod
    def latency(self) -> Latency:
        """Samples the model waits for, derived from its layers."""

    def num_frames(self, num_samples: int) -> int:
        """Frames for ``num_samples`` at the model's rate so that nothing is lost; 0 for none."""
        if num_samples == 0:
            return 0
        return max(self.min_frames, -(-num_samples // self.hop_length))

    @abstractmethod
    def reference_frames(self, num_samples: int) -> int:
        """Frames that the published script of this model makes of ``num_samples``."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
