"""Batches of signals of equal length for tests of codec models."""

from __future__ import annotations

import torch
from torch import Tensor

from codectool.codecs.base import CodecModel


def encode_batch(model: CodecModel, waves: Tensor) -> Tensor:
    """Encode ``(B, 1, N)`` to ``(B, K, F)``."""
    return torch.stack(model.encode(list(waves)))


def decode_batch(model: CodecModel, codes: Tensor) -> Tensor:
    """Decode ``(B, K', F)`` to ``(B, 1, N)``."""
    return torch.stack(model.decode(list(codes)))
