"""Streams for models that look at all of a signal at once: segment after segment, each alone."""

from __future__ import annotations

import torch
from torch import Tensor

from codectool.codecs.base import CodecModel, StreamDecoder, StreamEncoder


class SegmentEncoder(StreamEncoder):
    """Collects segments of so many frames and encodes each as a whole.

    Args:
        model: what encodes them.
        frames: length of a segment; the last may be shorter.
    """

    def __init__(self, model: CodecModel, frames: int) -> None:
        self._model = model
        self._size = frames * model.hop_length
        self._waiting: list[Tensor] = []
        self._length = 0

    def push(self, wave: Tensor) -> Tensor:
        """Take samples ``(1, 1, N)``; return the codes of the segments now whole."""
        codes = [self._no_codes()]
        while wave.shape[-1]:
            part = wave[..., : self._size - self._length]
            wave = wave[..., part.shape[-1] :]
            self._waiting.append(part.clone())
            self._length += part.shape[-1]
            if self._length == self._size:
                codes.append(self._encode())
        return torch.cat(codes, dim=-1)

    def flush(self) -> Tensor:
        """Encode what is left."""
        return self._encode() if self._length else self._no_codes()

    def _encode(self) -> Tensor:
        wave = torch.cat(self._waiting, dim=-1)
        self._waiting, self._length = [], 0
        frames = wave.shape[-1] // self._model.hop_length
        missing = max(0, self._model.min_frames - frames) * self._model.hop_length
        codes = self._model.encode(torch.nn.functional.pad(wave, (0, missing)))
        return codes[..., :frames]

    def _no_codes(self) -> Tensor:
        streams = len(self._model.codebook_sizes)
        return torch.zeros(1, streams, 0, dtype=torch.int64, device=self._model.device)


class SegmentDecoder(StreamDecoder):
    """Collects segments of so many frames and decodes each as a whole; see `SegmentEncoder`."""

    def __init__(self, model: CodecModel, frames: int) -> None:
        self._model = model
        self._size = frames
        self._waiting: list[Tensor] = []
        self._length = 0

    def push(self, codes: Tensor) -> Tensor:
        """Take codes ``(1, K', F)``; return the samples of the segments now whole."""
        wave = [self._no_samples()]
        while codes.shape[-1]:
            part = codes[..., : self._size - self._length]
            codes = codes[..., part.shape[-1] :]
            self._waiting.append(part.clone())
            self._length += part.shape[-1]
            if self._length == self._size:
                wave.append(self._decode())
        return torch.cat(wave, dim=-1)

    def flush(self) -> Tensor:
        """Decode what is left."""
        return self._decode() if self._length else self._no_samples()

    def _decode(self) -> Tensor:
        codes = torch.cat(self._waiting, dim=-1)
        self._waiting, self._length = [], 0
        frames = codes.shape[-1]
        missing = max(0, self._model.min_frames - frames)
        filled = torch.cat([codes, codes[..., -1:].expand(-1, -1, missing)], dim=-1)
        return self._model.decode(filled)[..., : frames * self._model.hop_length]

    def _no_samples(self) -> Tensor:
        return torch.zeros(1, 1, 0, device=self._model.device)
