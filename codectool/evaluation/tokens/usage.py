"""Codebook usage: how many of the coded bits carry information, by model and codebook.

A codebook of more than 65536 entries is binary: each bit of its tokens is a quantized scalar (HAC
has one codebook of 18 bits). Its statistics are computed bit by bit, because entry frequencies
cannot be estimated from fewer tokens than entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.tokens import TokenLayout, Tokens

MAX_CODEBOOK_SIZE = 65536  # larger codebooks are binary
GROUP_BITS = 6

Codes = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]


class CodebookUsage:
    """Usage of one codebook; all statistics are 0 without tokens.

    Args:
        size: number of entries.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.coded_bits = (size - 1).bit_length()  # bits per token in a file
        self._counts = np.zeros(size, np.int64)

    def add(self, codes: Codes) -> None:
        """Count tokens ``(C, F)``."""
        self._counts += np.bincount(codes.ravel(), minlength=self.size)

    @property
    def counts(self) -> Counts:
        """Tokens per used entry, most frequent first, ``(used,)``."""
        return np.sort(self._counts[self._counts > 0])[::-1]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return int(self._counts.sum())

    @property
    def used(self) -> int:
        """Number of entries that occur."""
        return int((self._counts > 0).sum())

    @property
    def dead(self) -> int:
        """Number of entries that do not occur."""
        return self.size - self.used

    @property
    def dead_by_chance(self) -> float:
        """Expected number of unused entries if all were equally likely."""
        return float(self.size * (1 - 1 / self.size) ** self.tokens)

    @property
    def empirical_entropy(self) -> float:
        """Entropy of the entry frequencies in bits per token; too low for few tokens."""
        return empirical_entropy(self._counts)

    @property
    def entropy(self) -> float:
        """Entropy with the Miller-Madow correction, at most `coded_bits`."""
        return corrected_entropy(self._counts)

    @property
    def perplexity(self) -> float:
        """Number of equally used entries with the same empirical entropy."""
        return 2**self.empirical_entropy if self.tokens else 0.0

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values, without the counts."""
        return {
            "kind": "codebook",
            "coded_bits": self.coded_bits,
            "entropy": self.entropy,
            "empirical_entropy": self.empirical_entropy,
            "perplexity": self.perplexity,
            "tokens": self.tokens,
            "size": self.size,
            "used": self.used,
            "dead": self.dead,
            "dead_by_chance": self.dead_by_chance,
        }


class BinaryUsage:
    """Usage of one binary codebook; all statistics are 0 without tokens.

    Args:
        coded_bits: bits per token in a file.
    """

    def __init__(self, coded_bits: int) -> None:
        self.coded_bits = coded_bits
        self.tokens = 0
        self._pairs = np.zeros((coded_bits, 2, 2), np.int64)  # (bit, previous value, value)
        self._ones = np.zeros(coded_bits, np.int64)
        widths = [min(GROUP_BITS, coded_bits - i) for i in range(0, coded_bits, GROUP_BITS)]
        self._groups = [np.zeros(1 << width, np.int64) for width in widths]
        self._codes: list[Codes] = []  # kept to count distinct tokens

    def add(self, codes: Codes) -> None:
        """Count tokens ``(C, F)``; pairs do not cross channels or clips."""
        self.tokens += codes.size
        self._codes.append(codes.flatten())  # a copy: a view would keep all codebooks in memory
        bits = ((codes[..., None] >> np.arange(self.coded_bits)[::-1]) & 1).astype(np.uint8)
        self._ones += bits.sum(axis=(0, 1), dtype=np.int64)
        pairs = 4 * np.arange(self.coded_bits) + 2 * bits[:, :-1] + bits[:, 1:]
        counts = np.bincount(pairs.ravel(), minlength=4 * self.coded_bits)
        self._pairs += counts.reshape(self._pairs.shape)
        shift = self.coded_bits
        for counts in self._groups:
            shift -= len(counts).bit_length() - 1
            group = (codes.ravel() >> shift) & (len(counts) - 1)
            counts += np.bincount(group, minlength=len(counts))

    @property
    def distinct(self) -> int:
        """Number of different tokens."""
        return len(np.unique(np.concatenate(self._codes)))

    @property
    def bit_entropies(self) -> list[float]:
        """Entropy of each bit, most significant first, 0 to 1."""
        return [empirical_entropy(np.array([self.tokens - n, n])) for n in self._ones]

    @property
    def bit_entropy_min(self) -> float:
        """Lowest entropy of a bit."""
        return min(self.bit_entropies)

    @property
    def bit_entropy_mean(self) -> float:
        """Mean entropy of the bits."""
        return sum(self.bit_entropies) / self.coded_bits

    @property
    def conditional_entropies(self) -> list[float]:
        """Entropy of each bit given the same bit one frame earlier."""
        # H(value | previous) = H(previous, value) - H(previous)
        return [
            max(0.0, empirical_entropy(pair.ravel()) - empirical_entropy(pair.sum(axis=1)))
            for pair in self._pairs
        ]

    @property
    def conditional_entropy(self) -> float:
        """Sum of `conditional_entropies`."""
        return sum(self.conditional_entropies)

    @property
    def empirical_entropy(self) -> float:
        """Sum of the entropies of neighbouring groups of six bits, in bits per token.

        It is too high where groups depend on each other.
        """
        return sum(map(empirical_entropy, self._groups))

    @property
    def entropy(self) -> float:
        """Sum of the group entropies with the Miller-Madow correction, each at most its bits."""
        return sum(map(corrected_entropy, self._groups))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "kind": "binary",
            "coded_bits": self.coded_bits,
            "entropy": self.entropy,
            "empirical_entropy": self.empirical_entropy,
            "conditional_entropy": self.conditional_entropy,
            "tokens": self.tokens,
            "distinct": self.distinct,
            "bit_entropy_min": self.bit_entropy_min,
            "bit_entropy_mean": self.bit_entropy_mean,
            "bit_entropies": self.bit_entropies,
            "conditional_entropies": self.conditional_entropies,
        }


class TokenUsage:
    """Statistics of the tokens of one model over all clips.

    Args:
        layout: layout of the tokens.
        fingerprint: fingerprint of the weights.

    Attributes:
        name: codec and weights: ``bigcodec 1f0a3c5e``.
        clips: number of clips.
        seconds: seconds of audio, summed over channels.
        frames: number of frames, summed over channels.
        coded_bits: bits per frame in a file.
        coded_kbps: bit rate of one channel in kbit/s, without container.
        codebooks: usage of each codebook.
    """

    def __init__(self, layout: TokenLayout, fingerprint: str) -> None:
        self.layout = layout
        self.fingerprint = fingerprint
        self.name = f"{layout.family} {fingerprint}"
        self.clips, self.frames, self.seconds = 0, 0, 0.0
        self.coded_bits = layout.bits_per_frame
        self.coded_kbps = layout.bit_rate / 1000
        self.codebooks = [_usage(1 << bits) for bits in layout.bits_per_codebook]

    def add(self, tokens: Tokens) -> None:
        """Count the tokens of a clip."""
        self.clips += 1
        self.frames += tokens.num_channels * tokens.num_frames
        self.seconds += tokens.num_channels * tokens.duration
        for k, codebook in enumerate(self.codebooks):
            codebook.add(tokens.codes[:, k])

    @property
    def entropy(self) -> float:
        """Bits per frame that an ideal entropy coder of order 0 would need."""
        return sum(codebook.entropy for codebook in self.codebooks)

    @property
    def entropy_kbps(self) -> float:
        """Bit rate of one channel in kbit/s with an ideal entropy coder."""
        return self.entropy * self.layout.frame_rate / 1000

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "codec": self.layout.family,
            "weights": self.fingerprint,
            "model_sample_rate": self.layout.sample_rate,
            "frame_rate": self.layout.frame_rate,
            "clips": self.clips,
            "seconds": self.seconds,
            "frames": self.frames,
            "coded_bits": self.coded_bits,
            "entropy": self.entropy,
            "coded_kbps": self.coded_kbps,
            "entropy_kbps": self.entropy_kbps,
            "codebooks": [codebook.to_json() for codebook in self.codebooks],
        }


def _usage(codebook_size: int) -> CodebookUsage | BinaryUsage:
    if codebook_size > MAX_CODEBOOK_SIZE:
        return BinaryUsage((codebook_size - 1).bit_length())
    return CodebookUsage(codebook_size)


def token_usage(clips: Iterable[Tokens]) -> list[TokenUsage]:
    """Compute statistics for each model, in order of first appearance.

    Different weights, or a different number of codebooks, are different models.

    Args:
        clips: tokens of each clip; consumed one by one, and not kept.
    """
    models: dict[tuple[TokenLayout, str], TokenUsage] = {}
    for tokens in clips:
        key = tokens.layout, tokens.fingerprint
        if key not in models:
            models[key] = TokenUsage(*key)
        models[key].add(tokens)
    return list(models.values())


def codebook_usage(codes: Codes, codebook_sizes: Sequence[int]) -> dict[str, float]:
    """Compute codebook usage by name, for the metrics log of a training run.

    For each codebook k with up to 65536 entries:

    - ``perplexity_k``: 2 to the power of the empirical entropy.
    - ``dead_codes_k``: entries that do not occur; meaningful only for many more tokens than
      entries.

    For a binary codebook, of which a model has at most one:

    - ``bit_entropy_min``, ``bit_entropy_mean``: entropy of single bits, 0 to 1.
    - ``distinct``: distinct tokens as a share of all tokens.
    - ``bits_given_previous``: sum of the conditional entropies of the bits.

    And ``bits_per_token``: sum of the empirical entropies in bits per frame. For n tokens that use
    m entries of a codebook it is too low by about ``m / (1.4 n)`` bits (Miller 1955).

    Args:
        codes: integers ``(K, F)``, clips concatenated.
        codebook_sizes: number of entries of each codebook.

    Returns:
        Empty if there are no tokens.
    """
    if codes.shape[1] == 0:
        return {}
    values: dict[str, float] = {}
    total = 0.0
    for k, (row, size) in enumerate(zip(codes, codebook_sizes, strict=True)):
        usage = _usage(size)
        usage.add(row[None])
        total += usage.empirical_entropy
        if isinstance(usage, CodebookUsage):
            values |= {f"perplexity_{k}": usage.perplexity, f"dead_codes_{k}": usage.dead}
        else:
            values |= {
                "bit_entropy_min": usage.bit_entropy_min,
                "bit_entropy_mean": usage.bit_entropy_mean,
                "distinct": usage.distinct / usage.tokens,
                "bits_given_previous": usage.conditional_entropy,
            }
    return values | {"bits_per_token": total}


def empirical_entropy(counts: npt.NDArray[np.integer[Any]]) -> float:
    """Return the entropy in bits of the relative frequencies of ``counts``; 0 if all are 0.

    Examples:
        >>> empirical_entropy(np.array([2, 0, 1, 1]))
        1.5
    """
    used = counts[counts > 0]
    if len(used) == 0:
        return 0.0
    share = used / used.sum()
    return max(0.0, float(-(share * np.log2(share)).sum()))


def corrected_entropy(counts: npt.NDArray[np.integer[Any]]) -> float:
    """Return the entropy with the Miller-Madow correction, at most ``log2(len(counts))``.

    Frequencies of n tokens that use m values are too low by ``(m - 1) / (2 n ln 2)`` bits on
    average (Miller 1955, "Note on the bias of information estimates"). This is the first term of a
    series in 1/n: it is too small where n is not much larger than m.
    """
    total = int(counts.sum())
    if total == 0:
        return 0.0
    used = int((counts > 0).sum())
    corrected = empirical_entropy(counts) + (used - 1) / (2 * total * math.log(2))
    return min(math.log2(len(counts)), corrected)
