"""How much of its codebooks, or of its bits, a codec uses.

Letters used in shapes: K streams (codebooks), F frames of all clips together, n tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST_CODEBOOK = 65536  # larger ones are no codebooks: each bit of their tokens has a meaning
GROUP_BITS = 6

Codes = npt.NDArray[np.integer[Any]]


def code_use(codes: Codes, codebook_sizes: Sequence[int]) -> dict[str, float]:
    """Statistics of the tokens of all clips, by name.

    For every stream k with a codebook:

    - ``perplexity_k``: ``2^H`` of the codes' frequencies; the size of the codebook if all are used
      alike.
    - ``dead_codes_k``: entries that no token names. Few tokens cannot name many entries, so the
      figure means something only where tokens outnumber entries by far.

    For streams of more than 65536 values, which are bits side by side (HAC):

    - ``bit_entropy_min``, ``bit_entropy_mean``: entropy of single bits, 0 to 1 bit.
    - ``distinct``: distinct tokens as a share of all tokens.
    - ``bits_given_previous``: sum over the bits of the entropy of a bit whose predecessor, one
      frame earlier, is known.

    And ``bits_per_token``, bits that one frame of all streams carries, of the `codebook_sizes`'
    logarithm at most. Streams are added up as if they were independent. A stream with a codebook
    counts its entropy H, estimated by frequencies: too low by about ``used / (1.4 n)`` bits for n
    tokens that use ``used`` entries (Miller 1955). Of 2^18 values no such estimate is possible, so
    bits count in neighbouring groups of six, which is too high where groups depend on each other.

    Args:
        codes: integers ``(K, F)``; clips one after another.
        codebook_sizes: number of values of each stream.

    Returns:
        An empty table for no tokens.
    """
    if codes.shape[1] == 0:
        return {}
    values: dict[str, float] = {}
    total = 0.0
    columns = []
    for stream, (row, size) in enumerate(zip(codes, codebook_sizes, strict=True)):
        if size > LARGEST_CODEBOOK:
            columns.append(bits_of(row, (size - 1).bit_length()))
            continue
        counts = np.bincount(row, minlength=size)
        bits = entropy(counts)
        values[f"perplexity_{stream}"] = 2**bits
        values[f"dead_codes_{stream}"] = int((counts == 0).sum())
        total += bits
    if columns:
        table = np.concatenate(columns, axis=1)
        values |= bit_use(table)
        total += grouped_entropy(table)
    return values | {"bits_per_token": total}


def bit_use(bits: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Entropies and diversity of bits ``(n, K)``; see `code_use`."""
    single = [entropy(np.bincount(column, minlength=2)) for column in bits.T]
    pairs = 2 * bits[:-1] + bits[1:]
    # H(now | before) = H(before, now) - H(before)
    given = [
        entropy(np.bincount(pair)) - entropy(np.bincount(before))
        for pair, before in zip(pairs.T, bits[:-1].T, strict=True)
    ]
    return {
        "bit_entropy_min": min(single),
        "bit_entropy_mean": float(np.mean(single)),
        "distinct": len(np.unique(bits, axis=0)) / len(bits),
        "bits_given_previous": float(sum(given)),
    }


def grouped_entropy(bits: npt.NDArray[np.uint8]) -> float:
    """Sum of the entropies of neighbouring groups of six of the bits ``(n, K)``, in bits."""
    total = 0.0
    for first in range(0, bits.shape[1], GROUP_BITS):
        group = bits[:, first : first + GROUP_BITS].astype(np.int64)
        total += entropy(np.bincount(group @ (1 << np.arange(group.shape[1]))))
    return total


def bits_of(tokens: npt.NDArray[np.integer[Any]], width: int) -> npt.NDArray[np.uint8]:
    """Bits ``(n, width)`` of tokens ``(n,)``, most significant first."""
    bits = (tokens[:, None] >> np.arange(width - 1, -1, -1)) & 1
    return bits.astype(np.uint8)


def entropy(counts: npt.NDArray[np.integer[Any]]) -> float:
    """Entropy in bits of the frequencies that belong to ``counts``; 0 where there are none.

    Examples:
        >>> entropy(np.array([2, 0, 1, 1]))
        1.5
    """
    used = counts[counts > 0]
    if len(used) == 0:
        return 0.0
    share = used / used.sum()
    return max(0.0, float(-(share * np.log2(share)).sum()))


def corrected_entropy(counts: npt.NDArray[np.integer[Any]]) -> float:
    """`entropy`, of which Miller and Madow's estimate of its bias is taken off.

    Frequencies of n tokens that use ``used`` values show ``(used - 1) / (2 n ln 2)`` bits too
    little (Miller 1955, "Note on the bias of information estimates"). That is the first term of a
    series in 1/n: it is too small where tokens are hardly more than the values they use, and it can
    carry the estimate above the logarithm of the number of values.
    """
    total = int(counts.sum())
    if total == 0:
        return 0.0
    used = int((counts > 0).sum())
    return entropy(counts) + (used - 1) / (2 * total * math.log(2))
