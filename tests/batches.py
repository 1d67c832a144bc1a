"""Batches of signals of equal length, for tests of codec models."""

from __future__ import annotations

import torch
from torch import Tensor

from codectool.codecs.base import CodecModel


def encode_batch(model: CodecModel, waves: Tensor) -> Tensor:
    """``(B, 1, N)`` -> ``(B, K, F)``."""
    return torch.stack(model.encode(list(waves)))


def decode_batch(model: CodecModel, codes: Tensor) -> Tensor:
    """``(B, K', F)`` -> ``(B, 1, N)``."""
    return torch.stack(model.decode(list(codes)))
