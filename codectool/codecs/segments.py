"""Streams of a model without memory: each chunk is a segment, which is encoded independently."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from codectool.codecs.base import CodecModel, Step, Stream


def segment_encoder(model: CodecModel, frames: int, latents: bool = False) -> Stream[None]:
    """Return a stream that encodes segments of ``frames`` frames independently.

    A segment shorter than ``model.min_frames`` is padded with zeros.
    """
    empty = model.no_latents if latents else model.no_codes
    make_step = partial(_segment_encoder_step, model, latents)
    return Stream(make_step, None, frames * model.hop_length, empty)


def _segment_encoder_step(model: CodecModel, latents: bool) -> Step[None]:
    def step(wave: Tensor, state: None, last: bool) -> tuple[Tensor, None]:
        frames = wave.shape[-1] // model.hop_length
        if not frames:
            return model.no_latents if latents else model.no_codes, None
        length = max(frames, model.min_frames) * model.hop_length
        wave = F.pad(wave[0, :, :length], (0, max(0, length - wave.shape[-1])))
        output = (model.latents if latents else model.encode)([wave])[0]
        return output[None, :, :frames], None

    return step


def segment_decoder(model: CodecModel, frames: int) -> Stream[None]:
    """Return a stream that decodes segments of ``frames`` frames independently.

    The last frame of a segment shorter than ``model.min_frames`` is repeated.
    """
    return Stream(partial(_segment_decoder_step, model), None, frames, model.no_samples)


def _segment_decoder_step(model: CodecModel) -> Step[None]:
    def step(codes: Tensor, state: None, last: bool) -> tuple[Tensor, None]:
        frames = codes.shape[-1]
        if not frames:
            return model.no_samples, None
        missing = max(0, model.min_frames - frames)
        codes = torch.cat([codes, codes[..., -1:].expand(-1, -1, missing)], dim=-1)
        return model.decode([codes[0]])[0][None, :, : frames * model.hop_length], None

    return step
