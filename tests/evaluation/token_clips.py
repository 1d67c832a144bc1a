"""Tokens for tests of token statistics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codectool.tokens import TokenLayout, Tokens

FINGERPRINT = "0123abcd"


def clip(
    codes: npt.ArrayLike,
    bits_per_codebook: tuple[int, ...],
    family: str = "bigcodec",
    fingerprint: str = FINGERPRINT,
) -> Tokens:
    """Return tokens with codes ``(K, F)`` or ``(C, K, F)`` and 80 frames per second."""
    array = np.asarray(codes, np.int32)
    array = array if array.ndim == 3 else array[None]
    layout = TokenLayout(family, 16000, 200, bits_per_codebook)
    return Tokens(array, layout, fingerprint, 16000, 200 * array.shape[2])
