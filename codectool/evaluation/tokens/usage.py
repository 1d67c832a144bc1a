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

from codectool.checkpoints.registry import token_fingerprint
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
        names = "coded_bits entropy empirical_entropy perplexity tokens "
        names += "size used dead dead_by_chance"
        return {"kind": "codebook"} | {name: getattr(self, name) for name in names.split()}


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
        names = "coded_bits entropy empirical_entropy conditional_entropy tokens distinct "
        names += "bit_entropy_min bit_entropy_mean bit_entropies conditional_entropies"
        return {"kind": "binary"} | {name: getattr(self, name) for name in names.split()}


class TokenUsage:
    """Statistics of the tokens of one model over all clips.

    Args:
        layout: layout of the tokens.
        fingerprint: token fingerprint.
    """

    def __init__(self, layout: TokenLayout, fingerprint: str) -> None:
        self.layout = layout
        self.fingerprint = fingerprint
        self.name = f"{layout.family} {fingerprint}"
        self.clips = 0
        self.frames, self.seconds = 0, 0.0  # summed over channels
        self.coded_bits = layout.bits_per_frame
        self.coded_kbps = layout.bit_rate / 1000  # of one channel, without container
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
        names = "clips seconds frames coded_bits entropy coded_kbps entropy_kbps"
        return {
            "codec": self.layout.family,
            "token_fingerprint": self.fingerprint,
            "model_sample_rate": self.layout.sample_rate,
            "frame_rate": self.layout.frame_rate,
            **{name: getattr(self, name) for name in names.split()},
            "codebooks": [codebook.to_json() for codebook in self.codebooks],
        }


def _usage(codebook_size: int) -> CodebookUsage | BinaryUsage:
    if codebook_size > MAX_CODEBOOK_SIZE:
        return BinaryUsage((codebook_size - 1).bit_length())
    return CodebookUsage(codebook_size)


def token_usage(clips: Iterable[Tokens]) -> list[TokenUsage]:
    """Compute statistics for each model, in order of first appearance.

    Different encoders, or a different number of codebooks, are different models.
    """
    models: dict[tuple[TokenLayout, str], TokenUsage] = {}
    names: dict[str, str] = {}
    for tokens in clips:
        if tokens.fingerprint not in names:
            names[tokens.fingerprint] = token_fingerprint(tokens.fingerprint)
        key = tokens.layout, names[tokens.fingerprint]
        if key not in models:
            models[key] = TokenUsage(*key)
        models[key].add(tokens)
    return list(models.values())


def codebook_usage(codes: Codes, codebook_sizes: Sequence[int]) -> dict[str, float]:
    """Compute codebook usage by name, for the metrics log of a training run.

    ``dead_codes_k`` is meaningful only for many more tokens than entries. ``bits_per_token`` is the
    sum of the empirical entropies in bits per frame; for n tokens that use m entries of a codebook
    it is too low by about ``m / (1.4 n)`` bits (Miller 1955).

    Args:
        codes: integers ``(K, F)``, clips concatenated.
        codebook_sizes: number of entries of each codebook; at most one is binary.

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
                "distinct": usage.distinct / usage.tokens,  # a share
                "conditional_entropy": usage.conditional_entropy,
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
