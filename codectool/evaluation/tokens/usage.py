"""Codebook usage: how many of the coded bits carry information, by model and codebook.

A codebook of more than 65536 entries is binary: each bit of its tokens is a quantized scalar (HAC
has one codebook of 18 bits). Its statistics are computed bit by bit, because entry frequencies
cannot be estimated from fewer tokens than entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.tokens import TokenLayout, Tokens

MAX_CODEBOOK_SIZE = 65536  # larger codebooks are binary
GROUP_BITS = 6

Codes = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CodebookUsage:
    """Usage of one codebook; all values are 0 without tokens.

    Attributes:
        size: number of entries.
        tokens: number of tokens.
        counts: tokens per used entry, most frequent first, int64 ``(used,)``.
        empirical_entropy: entropy of the entry frequencies in bits per token; too low for few
            tokens.
        entropy: entropy with the Miller-Madow correction, at most `coded_bits`.
    """

    size: int
    tokens: int
    counts: Counts
    empirical_entropy: float
    entropy: float

    @property
    def coded_bits(self) -> int:
        """Bits per token in a file."""
        return (self.size - 1).bit_length()

    @property
    def used(self) -> int:
        """Number of entries that occur."""
        return len(self.counts)

    @property
    def dead(self) -> int:
        """Number of entries that do not occur."""
        return self.size - self.used

    @property
    def dead_by_chance(self) -> float:
        """Expected number of unused entries if all were equally likely."""
        return float(self.size * (1 - 1 / self.size) ** self.tokens)

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


@dataclass(frozen=True)
class BinaryUsage:
    """Usage of one binary codebook; all values are 0 without tokens.

    Attributes:
        tokens: number of tokens.
        distinct: number of different tokens.
        bit_entropies: entropy of each bit, most significant first, 0 to 1.
        conditional_entropies: entropy of each bit given the same bit one frame earlier.
        empirical_entropy: sum of the entropies of neighbouring groups of six bits, in bits per
            token; too high where groups depend on each other.
        entropy: the same sum with the Miller-Madow correction, each group at most its bits.
    """

    tokens: int
    distinct: int
    bit_entropies: tuple[float, ...]
    conditional_entropies: tuple[float, ...]
    empirical_entropy: float
    entropy: float

    @property
    def coded_bits(self) -> int:
        """Bits per token in a file."""
        return len(self.bit_entropies)

    @property
    def bit_entropy_min(self) -> float:
        """Lowest entropy of a bit."""
        return min(self.bit_entropies)

    @property
    def bit_entropy_mean(self) -> float:
        """Mean entropy of the bits."""
        return sum(self.bit_entropies) / self.coded_bits

    @property
    def conditional_entropy(self) -> float:
        """Sum of `conditional_entropies`."""
        return sum(self.conditional_entropies)

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
            "bit_entropies": list(self.bit_entropies),
            "conditional_entropies": list(self.conditional_entropies),
        }


@dataclass(frozen=True)
class TokenUsage:
    """Statistics of the tokens of one model over all clips.

    Attributes:
        layout: layout of the tokens.
        fingerprint: fingerprint of the weights.
        clips: number of clips.
        seconds: seconds of audio, summed over channels.
        frames: number of frames, summed over channels.
        codebooks: usage of each codebook.
    """

    layout: TokenLayout
    fingerprint: str
    clips: int
    seconds: float
    frames: int
    codebooks: tuple[CodebookUsage | BinaryUsage, ...]

    @property
    def name(self) -> str:
        """Codec and weights: ``bigcodec 1f0a3c5e``."""
        return f"{self.layout.family} {self.fingerprint}"

    @property
    def coded_bits(self) -> int:
        """Bits per frame in a file."""
        return self.layout.bits_per_frame

    @property
    def entropy(self) -> float:
        """Bits per frame that an ideal entropy coder of order 0 would need."""
        return sum(codebook.entropy for codebook in self.codebooks)

    @property
    def coded_kbps(self) -> float:
        """Bit rate of one channel in kbit/s, without container."""
        return self.layout.bit_rate / 1000

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


def token_usage(clips: Iterable[Tokens]) -> list[TokenUsage]:
    """Compute statistics for each model, in order of first appearance.

    Different weights, or a different number of codebooks, are different models.

    Args:
        clips: tokens of each clip; consumed one by one, and not kept.
    """
    models: dict[tuple[TokenLayout, str], _ModelCounter] = {}
    for tokens in clips:
        key = tokens.layout, tokens.fingerprint
        if key not in models:
            models[key] = _ModelCounter(*key)
        models[key].add(tokens)
    return [model.result() for model in models.values()]


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
        counter = _counter(size)
        counter.add(row[None])
        usage = counter.result()
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


class _ModelCounter:
    """Counts the tokens of one model, clip by clip."""

    def __init__(self, layout: TokenLayout, fingerprint: str) -> None:
        self.layout, self.fingerprint = layout, fingerprint
        self.clips, self.frames, self.seconds = 0, 0, 0.0
        self.counters = [_counter(1 << bits) for bits in layout.bits_per_codebook]

    def add(self, tokens: Tokens) -> None:
        self.clips += 1
        self.frames += tokens.num_channels * tokens.num_frames
        self.seconds += tokens.num_channels * tokens.duration
        for k, counter in enumerate(self.counters):
            counter.add(tokens.codes[:, k])

    def result(self) -> TokenUsage:
        return TokenUsage(
            self.layout,
            self.fingerprint,
            self.clips,
            self.seconds,
            self.frames,
            tuple(counter.result() for counter in self.counters),
        )


def _counter(codebook_size: int) -> _CodebookCounter | _BinaryCounter:
    if codebook_size > MAX_CODEBOOK_SIZE:
        return _BinaryCounter((codebook_size - 1).bit_length())
    return _CodebookCounter(codebook_size)


class _CodebookCounter:
    def __init__(self, size: int) -> None:
        self.counts = np.zeros(size, np.int64)

    def add(self, codes: Codes) -> None:
        """Count tokens ``(C, F)``."""
        self.counts += np.bincount(codes.ravel(), minlength=len(self.counts))

    def result(self) -> CodebookUsage:
        return CodebookUsage(
            size=len(self.counts),
            tokens=int(self.counts.sum()),
            counts=np.sort(self.counts[self.counts > 0])[::-1],
            empirical_entropy=empirical_entropy(self.counts),
            entropy=corrected_entropy(self.counts),
        )


class _BinaryCounter:
    def __init__(self, width: int) -> None:
        self.width = width
        self.ones = np.zeros(width, np.int64)
        self.pairs = np.zeros((width, 2, 2), np.int64)  # (bit, previous value, value)
        edges = range(0, width, GROUP_BITS)
        self.groups = [np.zeros(1 << min(GROUP_BITS, width - first), np.int64) for first in edges]
        self.codes: list[Codes] = []  # kept to count distinct tokens

    def add(self, codes: Codes) -> None:
        """Count tokens ``(C, F)``; pairs do not cross channels or clips."""
        self.codes.append(codes.flatten())  # a copy: a view would keep all codebooks in memory
        for row in codes:
            bits = ((row[:, None] >> np.arange(self.width - 1, -1, -1)) & 1).astype(np.uint8)
            self.ones += bits.sum(axis=0, dtype=np.int64)
            pairs = 4 * np.arange(self.width) + 2 * bits[:-1] + bits[1:]
            counts = np.bincount(pairs.ravel(), minlength=4 * self.width)
            self.pairs += counts.reshape(self.pairs.shape)
        shift = self.width
        for counts in self.groups:
            shift -= len(counts).bit_length() - 1
            group = (codes.ravel() >> shift) & (len(counts) - 1)
            counts += np.bincount(group, minlength=len(counts))

    def result(self) -> BinaryUsage:
        tokens = sum(map(len, self.codes))
        bits = np.stack([tokens - self.ones, self.ones], axis=1)
        return BinaryUsage(
            tokens=tokens,
            distinct=len(np.unique(np.concatenate(self.codes))),
            bit_entropies=tuple(map(empirical_entropy, bits)),
            conditional_entropies=tuple(map(_conditional_entropy, self.pairs)),
            empirical_entropy=sum(map(empirical_entropy, self.groups)),
            entropy=sum(map(corrected_entropy, self.groups)),
        )


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


def _conditional_entropy(counts: Counts) -> float:
    """Return H(second | first) in bits of counted pairs ``(2, 2)``."""
    return max(0.0, empirical_entropy(counts.ravel()) - empirical_entropy(counts.sum(axis=1)))
