"""Batches of signals of equal length, and streams in chunks, for tests of codec models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from codectool.codecs.base import CodecModel, Stream


def encode_batch(model: CodecModel, waves: Tensor) -> Tensor:
    """Encode ``(B, 1, N)`` to ``(B, K, F)``."""
    return torch.stack(model.encode(list(waves)))


def decode_batch(model: CodecModel, codes: Tensor) -> Tensor:
    """Decode ``(B, K', F)`` to ``(B, 1, N)``."""
    return torch.stack(model.decode(list(codes)))


def push_in_chunks(stream: Stream[Any], x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Push ``x`` in chunks of these sizes, repeated as needed; return the whole output."""
    parts, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= x.shape[-1]:
            break
        parts.append(stream.push(x[..., start : start + size]))
        start += size
    return torch.cat([*parts, stream.flush()], dim=-1)
