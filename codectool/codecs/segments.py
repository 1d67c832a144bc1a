"""Segments: stretches that a model without memory encodes independently, each as a whole."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from codectool.codecs.base import CodecModel
from codectool.codecs.stream import Stream


def segment_encoder(model: CodecModel, frames: int) -> Stream[None]:
    """Encode segments of ``frames`` frames independently; the last may be shorter."""

    def step(wave: Tensor, state: None, last: bool) -> tuple[Tensor, None]:
        frames = wave.shape[-1] // model.hop_length
        if not frames:
            return empty, None
        missing = max(0, model.min_frames - frames) * model.hop_length
        return model.encode([F.pad(wave[0], (0, missing))])[0][None, :, :frames], None

    empty = torch.zeros(1, len(model.codebook_sizes), 0, dtype=torch.int64, device=model.device)
    return Stream(step, None, frames * model.hop_length, empty)


def segment_decoder(model: CodecModel, frames: int) -> Stream[None]:
    """Decode segments of ``frames`` frames independently; see `segment_encoder`."""

    def step(codes: Tensor, state: None, last: bool) -> tuple[Tensor, None]:
        frames = codes.shape[-1]
        if not frames:
            return empty, None
        missing = max(0, model.min_frames - frames)
        padded = torch.cat([codes, codes[..., -1:].expand(-1, -1, missing)], dim=-1)
        return model.decode([padded[0]])[0][None, :, : frames * model.hop_length], None

    empty = torch.zeros(1, 1, 0, device=model.device)
    return Stream(step, None, frames, empty)
