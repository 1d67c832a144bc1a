"""Fingerprints of tensors: of all weights, and of the parts that make tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from codectool.checkpoints.stored import (
    StoredTensor,
    fingerprint_stored,
    token_fingerprint_stored,
)


def fingerprint(
    family: str, hyper_parameters: Mapping[str, Any], state: Mapping[str, Tensor]
) -> str:
    """Compute the fingerprint of weights; see `fingerprint_stored`.

    Args:
        family: codec family.
        hyper_parameters: JSON values.
        state: tensors by canonical name as they are stored, weight norm not folded.

    Returns:
        Eight hexadecimal digits.
    """
    stored = {name: _as_stored(tensor) for name, tensor in state.items()}
    return fingerprint_stored(family, hyper_parameters, stored)


def token_fingerprint(
    family: str, hyper_parameters: Mapping[str, Any], state: Mapping[str, Tensor]
) -> str:
    """Compute the fingerprint of what makes tokens; see `token_fingerprint_stored`.

    Arguments and result are those of `fingerprint`.
    """
    stored = {name: _as_stored(tensor) for name, tensor in state.items()}
    return token_fingerprint_stored(family, hyper_parameters, stored)


def _as_stored(tensor: Tensor) -> StoredTensor:
    tensor = tensor.detach().cpu().contiguous()
    dtype = str(tensor.dtype).removeprefix("torch.")
    # via uint8, because NumPy has no bfloat16; all supported machines are little-endian
    data = tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b""
    return StoredTensor(dtype, tuple(tensor.shape), data)
