"""Signals of any length as one whole, for models that look at all of a signal at once.

Such a model reads its input several times and keeps nothing but sums, so memory does not grow with
the length. Letters used in shapes: C channels, K codebooks, F frames, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from codectool.audio.samples import Resampler, Samples
from codectool.codec import Codec
from codectool.streaming import check_range

Codes = npt.NDArray[np.int32]


def encode_exact(
    codec: Codec, read: Callable[[], Iterable[Samples]], sample_rate: int, channels: int
) -> tuple[Codes, int]:
    """Encode a signal as one whole, however long it is.

    Args:
        codec: what encodes.
        read: begins to read the signal: pieces ``(C, N)``.
        sample_rate: of the signal, in Hz.
        channels: number of channels C; each is encoded alone.

    Returns:
        int32 ``(C, K, F)``, and the samples per channel that were read.
    """
    model: Any = codec.model
    rows, num_samples = [], 0
    for channel in range(channels):
        signal = _Signal(codec, read, sample_rate, channel)
        with codec.running():
            parts = [
                codes[0, : codec.layout.num_codebooks].to("cpu", torch.int32).numpy()
                for codes in model.encode_whole(signal.read)
            ]
        rows.append(np.concatenate(parts, axis=1))
        num_samples = signal.num_samples
    return np.stack(rows), num_samples


def decode_exact(codec: Codec, codes: Codes) -> Iterator[Samples]:
    """Decode codes ``(C, K', F)`` that were encoded as one whole.

    Yields:
        Samples ``(C, N)`` at the model's rate.

    Raises:
        DamagedError: a code is larger than its codebook.
    """
    check_range(codec.model, codes)
    rows = torch.from_numpy(codes.astype(np.int64)).to(codec.device)
    model: Any = codec.model
    channels = [model.decode_whole(row[None]) for row in rows]
    while True:
        with codec.running():  # not around a `yield`: who takes the samples is not the model
            parts = [next(channel, None) for channel in channels]
        if parts[0] is None:
            return
        yield np.stack([part[0, 0].float().cpu().numpy() for part in parts if part is not None])


class _Signal:
    """One channel at the model's rate, filled up to whole frames; read as often as needed."""

    def __init__(
        self, codec: Codec, read: Callable[[], Iterable[Samples]], sample_rate: int, channel: int
    ) -> None:
        self.num_samples = 0
        self._codec = codec
        self._read = read
        self._rate = sample_rate
        self._channel = channel

    def read(self) -> Iterator[torch.Tensor]:
        """Pieces ``(1, 1, N)``."""
        resampler = Resampler(self._rate, self._codec.sample_rate, 1)
        self.num_samples = length = 0
        for piece in self._read():
            self.num_samples += piece.shape[1]
            native = resampler.push(piece[self._channel, None])
            length += native.shape[1]
            yield self._tensor(native)
        rest = resampler.flush()
        length += rest.shape[1]
        filling = self._codec.model.num_frames(length) * self._codec.hop_length - length
        yield self._tensor(np.pad(rest, ((0, 0), (0, filling))))

    def _tensor(self, samples: Samples) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(samples))[None].to(self._codec.device)
