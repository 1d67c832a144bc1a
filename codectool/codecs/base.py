"""`CodecModel`, the interface of every codec model on tensors, and the `Stream` it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.properties import Context, Latency, count_frames
from codectool.codecs.stream import ChunkStream
from codectool.schema import to_json

State = TypeVar("State")
Step = Callable[[Tensor, State, bool], tuple[Tensor, State]]


class Stream(ChunkStream[Tensor, State]):
    """A `ChunkStream` of tensors."""

    def __init__(
        self, make_step: Callable[[], Step[State]], state: State, chunk_size: int, empty: Tensor
    ) -> None:
        super().__init__(make_step, state, chunk_size, empty, torch.cat)

    @override
    @torch.no_grad()
    def _run_step(self, x: Tensor, last: bool) -> Tensor:
        return super()._run_step(x, last)


class CodecModel(nn.Module, ABC):
    """A neural codec for one channel at its own sampling rate: waveform to codes and back.

    The codes of a signal do not depend on the other signals of a batch.

    Attributes:
        family: name of the codec family, as in ``--model``.
        config: hyper-parameters.
        sample_rate: sampling rate in Hz.
        hop_length: samples per frame.
        codebook_sizes: number of codes of each codebook.
        latent_channels: width D of the latents that are quantized.
        min_frames: shortest input in frames; shorter ones are padded with zeros.
        min_padding: zeros that are appended at least to a signal before it is padded to whole
            frames.
        extra_frames: frames of a signal beyond those that its samples fill.
        segment_frames: default length in frames of the segments of a model that sees a whole
            segment at once; None for other models.
        decode_context: frames around a range that its decoded samples depend on.
        latency: look-ahead of the model, derived from its layers.
        cpu_threads: number of CPU threads beyond which the model is not faster, because its matrix
            products are too small to be split further; None if there is no such number.
        faster_in_batches: whether a CPU computes a batch of signals faster than one by one.
        cpu_fast_path: use the CPU-specific form of the model where there is one. Set it to False to
            run the plain modules, for example to compare their speed.
        decoder_dtype: of the factors of the decoder's products on a CPU, float32 or bfloat16. Sums
            and everything else stay in float32.
    """

    family: ClassVar[str]
    config: Any
    sample_rate: int
    hop_length: int
    codebook_sizes: tuple[int, ...]
    latent_channels: int
    min_frames: int = 1
    min_padding: int = 0
    extra_frames: int = 0
    segment_frames: int | None = None
    decode_context: Context
    latency: Latency
    cpu_threads: int | None = None
    faster_in_batches: bool = False
    cpu_fast_path: bool = True
    decoder_dtype: torch.dtype = torch.float32

    @classmethod
    @abstractmethod
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> CodecModel:
        """Build the model for inference from the tensors of a checkpoint.

        Args:
            state: tensors by the model's own names, weight norm not folded.
            config: hyper-parameters; None derives them from the shapes where that is possible.

        Raises:
            CheckpointError: Tensors are missing, unexpected or of the wrong shape.
            ConfigError: The hyper-parameters are missing or invalid.
        """

    @property
    def follows_autocast(self) -> bool:
        """Whether autocast changes how the model computes; False if it always uses float32."""
        return True

    @property
    def has_bf16_decoder(self) -> bool:
        """Whether decoding on a CPU follows `decoder_dtype`; False means that it does not help."""
        return False

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """The config as JSON values; part of the fingerprint."""
        values: dict[str, Any] = to_json(self.config)
        return values

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames that hold ``num_samples`` at the model's rate."""
        return count_frames(
            num_samples, self.hop_length, self.min_frames, self.min_padding, self.extra_frames
        )

    def reference_frames(self, num_samples: int) -> int:
        """Return the number of frames that the reference implementation has for a signal."""
        return self.num_frames(num_samples)

    @abstractmethod
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Encode signals of any lengths, each as if it were alone.

        Where a batch changes the shapes of matrix products, codes may differ where two codewords
        are equally near within rounding.

        Args:
            waves: float32 ``(1, N_i)`` in [-1, 1], each N_i a positive multiple of `hop_length`.

        Returns:
            int64 ``(K, N_i / hop_length)`` for each signal.
        """

    @abstractmethod
    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Decode signals of any lengths, each as if it were alone, to rounding.

        Args:
            codes: int64 ``(K', F_i)``, F_i > 0 and K' <= K: the first K' codebooks of a residual
                quantizer.

        Returns:
            float32 ``(1, F_i * hop_length)`` for each signal.
        """

    @abstractmethod
    def latents(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Return what `encode` quantizes: float32 ``(D, N_i / hop_length)`` for each signal."""

    @abstractmethod
    def quantize(self, latent: Tensor) -> Tensor:
        """Return codes ``(B, K, F)`` of latents ``(B, F, D)``, in float32 under autocast, too."""

    @abstractmethod
    def dequantize(self, codes: Tensor) -> Tensor:
        """Return the input of the decoder ``(B, F, D)`` for codes ``(B, K', F)``."""

    @abstractmethod
    def stream_encoder(
        self, chunk_frames: int | None = None, *, latents: bool = False
    ) -> Stream[Any]:
        """Return a stream that encodes one signal: ``(1, 1, N)`` to ``(1, K, F)``.

        Args:
            chunk_frames: frames per computation. None uses the number that `encode` uses, and the
                codes are identical. Smaller chunks reduce the latency; codes may then differ where
                two codewords are equally near within rounding. For a model with segments it is the
                length of a segment, which changes the codes.
            latents: return the latents ``(1, D, F)`` that would be quantized, instead of codes.
        """

    @abstractmethod
    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        """Return a stream that decodes one signal: ``(1, K', F)`` to ``(1, 1, N)``.

        Args:
            chunk_frames: see `stream_encoder`.
        """

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def no_codes(self) -> Tensor:
        """Codes of no frames, ``(1, K, 0)``."""
        return torch.zeros(1, len(self.codebook_sizes), 0, dtype=torch.int64, device=self.device)

    @property
    def no_latents(self) -> Tensor:
        """Latents of no frames, ``(1, D, 0)``."""
        return torch.zeros(1, self.latent_channels, 0, dtype=torch.float32, device=self.device)

    @property
    def no_samples(self) -> Tensor:
        """Audio of no frames, ``(1, 1, 0)``."""
        return torch.zeros(1, 1, 0, dtype=torch.float32, device=self.device)


@runtime_checkable
class WholeSignalModel(Protocol):
    """A model with segments that can also process a whole signal, in several passes.

    Memory does not grow with the signal, except for the codes.
    """

    def encode_whole(self, read: Callable[[], Iterable[Tensor]]) -> Iterator[Tensor]:
        """Encode a signal that can be read several times; yield codes ``(1, K, F)``.

        Args:
            read: starts to read the signal: chunks ``(1, 1, N)`` of any lengths, together a
                multiple of the hop length. A chunk is used before the next one is asked for.
        """

    def decode_whole(self, codes: Tensor) -> Iterator[Tensor]:
        """Decode codes ``(1, K', F)``; yield the samples ``(1, 1, N)``, chunk by chunk."""
