"""What every codec model is: a handful of facts and two verbs, on tensors alone.

The two verbs, `encode` and `decode`, come in three more forms that give the same codes and samples:
many signals of any lengths at once (`encode_ragged`), one signal in pieces (`stream_encoder`), and
one signal of any length as one whole in bounded memory (`encode_exact`).

Letters used in shapes: B batch, N samples, K streams (codebooks), F frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

EXACT_FRAMES = 1000  # codes handed to a stream at once by `decode_exact`


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


class StreamEncoder(ABC):
    """Takes one signal in pieces of any length and gives out its codes as early as it can."""

    @abstractmethod
    def push(self, wave: Tensor) -> Tensor:
        """Take the next samples ``(1, 1, N)``; return the codes now known, int64 ``(1, K, F)``.

        N and F may be zero.
        """

    @abstractmethod
    def flush(self) -> Tensor:
        """End the signal, of which whole frames were pushed; return the codes that are left.

        All calls together have then returned as many frames as were pushed.
        """


class StreamDecoder(ABC):
    """Takes the codes of one signal in pieces and gives out its samples as early as it can."""

    @abstractmethod
    def push(self, codes: Tensor) -> Tensor:
        """Take the next codes ``(1, K', F)``; return the samples now known, ``(1, 1, N)``.

        F and N may be zero.
        """

    @abstractmethod
    def flush(self) -> Tensor:
        """End the signal; return the samples that are left.

        All calls together have then returned ``F * hop_length`` samples.
        """


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

    @property
    @abstractmethod
    def latency(self) -> Latency:
        """What the model has to wait for; derived from its layers."""

    def encode_ragged(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Encode signals of any lengths: the codes of each are those it would get alone.

        Where products of another size round otherwise, that holds up to codewords and bits within
        rounding of a tie.

        Args:
            waves: float32 ``(1, N_i)``, each N_i a positive multiple of `hop_length`.

        Returns:
            int64 ``(K, N_i / hop_length)`` for each.
        """
        return [self.encode(wave[None])[0] for wave in waves]

    def decode_ragged(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Decode signals of any lengths: the samples of each are those it would get alone.

        Args:
            codes: int64 ``(K', F_i)``, each F_i positive.

        Returns:
            float32 ``(1, F_i * hop_length)`` for each.
        """
        return [self.decode(signal[None])[0] for signal in codes]

    @abstractmethod
    def stream_encoder(self, block_frames: int | None = None) -> StreamEncoder:
        """Begin to encode a signal that comes in pieces.

        Args:
            block_frames: frames worked on at once; None takes the number that `encode` works with,
                so that the codes are the same bit for bit. Fewer give codes out sooner, and where
                two codewords are equally near within rounding may choose the other. Where the model
                looks at a whole segment this is the segment, and part of what the codes mean.
        """

    @abstractmethod
    def stream_decoder(self, block_frames: int | None = None) -> StreamDecoder:
        """Begin to decode a signal that comes in pieces; ``block_frames`` as for the encoder."""

    def encode_exact(self, read: Callable[[], Iterable[Tensor]]) -> Iterator[Tensor]:
        """Encode a signal of any length as one whole, whatever `segment_frames` is.

        Memory does not grow with the length; the signal may be read more than once.

        Args:
            read: begins to read the signal: pieces ``(1, 1, N)``, whole frames in all.

        Yields:
            Codes ``(1, K, F)``, piece after piece.
        """
        stream = self.stream_encoder()
        for wave in read():
            yield stream.push(wave)
        yield stream.flush()

    def decode_exact(self, codes: Tensor) -> Iterator[Tensor]:
        """Decode ``(1, K', F)`` as one whole, whatever `segment_frames` is.

        Memory beyond that of the codes does not grow with the length.

        Yields:
            Samples ``(1, 1, N)``, piece after piece.
        """
        stream = self.stream_decoder()
        for first in range(0, codes.shape[-1], EXACT_FRAMES):
            yield stream.push(codes[..., first : first + EXACT_FRAMES])
        yield stream.flush()

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
