"""Fingerprints: the first four bytes of a hash over weights and hyper-parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FINGERPRINT_BYTES = 4


def fingerprint(
    family: str, hyper_parameters: Mapping[str, Any], state: Mapping[str, Tensor]
) -> str:
    """Compute the fingerprint of weights.

    It is the start of a SHA-256 over one JSON line with the family and the hyper-parameters (keys
    sorted), followed by, for every tensor in the order of the names, one JSON line ``[name, dtype,
    shape]`` and its bytes, little-endian, in C order.

    Args:
        family: codec family.
        hyper_parameters: JSON values.
        state: tensors by canonical name as they are stored, weight norm not folded.

    Returns:
        Eight hexadecimal digits.
    """
    digest = hashlib.sha256(_line({"family": family, "model": hyper_parameters}))
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(_line([name, dtype, list(tensor.shape)]))
        if tensor.numel():
            # via uint8, because NumPy has no bfloat16; all supported machines are little-endian
            digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.digest()[:FINGERPRINT_BYTES].hex()


def _line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
