"""`Runner`: run a codec model on NumPy arrays. PyTorch and ONNX Runtime each implement it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from codectool.codecs.properties import ModelProperties

Wave = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Features = npt.NDArray[np.float32]


class Stream(Protocol):
    """A stream of C independent channels; encoders take ``(C, 1, N)``, return ``(C, K, F)``."""

    def push(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Add input; return the output that is ready."""

    def flush(self) -> npt.NDArray[Any]:
        """End the signals; return the rest of the output."""


class Runner(ABC):
    """A model with its weights on a device.

    Attributes:
        model: properties of the model; with PyTorch the `CodecModel` itself.
        runtime: ``"torch"`` or ``"onnx"``.
        device: where the model runs, for example ``cuda:0``.
        device_type: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: of the matrix products, as requested; ``"auto"`` is possible.
        encode_precision: what the encoder is run with.
        decode_precision: what the decoder is run with.
    """

    model: ModelProperties
    runtime: str
    device: Any
    device_type: str = "cpu"
    precision: str = "fp32"
    encode_precision: str = "fp32"
    decode_precision: str = "fp32"

    @abstractmethod
    def encode(self, waves: Sequence[Wave]) -> list[Codes]:
        """Encode signals of any lengths, each as if it were alone.

        Args:
            waves: ``(1, N_i)`` in [-1, 1], each N_i a positive multiple of the hop length.

        Returns:
            ``(K, N_i / hop_length)`` for each signal.
        """

    @abstractmethod
    def decode(self, codes: Sequence[Codes]) -> list[Wave]:
        """Decode signals of any lengths, each as if it were alone, to rounding.

        Args:
            codes: ``(K', F_i)``, F_i > 0 and K' <= K.

        Returns:
            ``(1, F_i * hop_length)`` for each signal.
        """

    @abstractmethod
    def embed(self, codes: Codes) -> Features:
        """Return the input of the decoder ``(C, D, F)`` for codes ``(C, K', F)``."""

    @abstractmethod
    def stream_encoder(
        self, channels: int, chunk_frames: int | None = None, *, latents: bool = False
    ) -> Stream:
        """Return a stream ``(C, 1, N)`` to ``(C, K, F)``; see `CodecModel.stream_encoder`.

        With ``latents``, it returns what would be quantized, ``(C, D, F)``, instead of codes.
        """

    @abstractmethod
    def stream_decoder(self, channels: int, chunk_frames: int | None = None) -> Stream:
        """Return a stream ``(C, K', F)`` to ``(C, 1, N)``; see `CodecModel.stream_decoder`."""

    @abstractmethod
    def encode_whole(self, read: Callable[[], Iterable[Wave]]) -> Codes:
        """Encode one signal as one segment, in several passes and bounded memory.

        Args:
            read: starts to read the signal: chunks ``(1, N)`` of any lengths, together a multiple
                of the hop length.

        Returns:
            ``(K, F)``.
        """

    @abstractmethod
    def decode_whole(self, codes: Codes) -> Iterator[Wave]:
        """Decode channels ``(C, K', F)`` of one segment each; yield samples ``(C, N)``."""

    @abstractmethod
    def limit_threads(self) -> None:
        """Use no more CPU threads than the model is faster with."""

    @abstractmethod
    def sharing_threads(self, workers: int) -> AbstractContextManager[None]:
        """Divide the CPU threads among ``workers`` threads that run the model concurrently."""
