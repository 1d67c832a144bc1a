"""What the tokens of many clips carry of the bits that are sent, by model and by stream.

Streams with a codebook are told from streams of binary scalars (HAC: one stream of 18) by their
size, as in `code_use`: what has more than 65536 values is bits side by side. All sums grow clip by
clip; of the tokens themselves only those of binary streams are kept, as int32.

Letters used in shapes: C channels, F frames of one clip, W bits of a token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.tokens import TokenLayout, Tokens

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


Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CodebookUse:
    """How a codebook is used; 0 everywhere where there are no tokens.

    Attributes:
        bits: that are sent per token; the codebook has ``2 ** bits`` entries.
        tokens: how many there are.
        counts: tokens of every entry that is used, most frequent first: int64 ``(used,)``.
        perplexity: ``2 ** entropy``: so many entries, used alike, would carry as much.
        entropy: of the frequencies, in bits per token; too low where tokens are few.
        carried: entropy with Miller and Madow's correction, at most ``bits``.
    """

    bits: int
    tokens: int
    counts: Counts
    perplexity: float
    entropy: float
    carried: float

    @property
    def size(self) -> int:
        """Entries of the codebook."""
        return 1 << self.bits

    @property
    def used(self) -> int:
        """Entries that some token names."""
        return len(self.counts)

    @property
    def dead(self) -> int:
        """Entries that no token names."""
        return self.size - self.used

    @property
    def dead_by_chance(self) -> float:
        """How many entries so few tokens would leave unnamed on average, were all used alike."""
        return float(self.size * (1 - 1 / self.size) ** self.tokens)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; the counts stay here."""
        return {
            "kind": "codebook",
            "bits_sent": self.bits,
            "tokens": self.tokens,
            "size": self.size,
            "used": self.used,
            "dead": self.dead,
            "dead_by_chance": self.dead_by_chance,
            "perplexity": self.perplexity,
            "entropy": self.entropy,
            "bits_carried": self.carried,
        }


@dataclass(frozen=True)
class BitsUse:
    """How the bits of a stream of binary scalars are used; 0 where there are no tokens.

    Attributes:
        tokens: how many there are.
        distinct: how many different ones.
        entropies: of every bit, most significant first, 0 to 1.
        given_previous: likewise, of a bit whose predecessor one frame earlier is known.
        carried: bits per token: entropies, with Miller and Madow's correction, of neighbouring
            groups of six bits, added up. Too high where groups depend on each other: no estimate
            of 2^18 frequencies is possible from fewer tokens than those.
    """

    tokens: int
    distinct: int
    entropies: tuple[float, ...]
    given_previous: tuple[float, ...]
    carried: float

    @property
    def bits(self) -> int:
        """Bits that are sent per token."""
        return len(self.entropies)

    @property
    def least(self) -> float:
        """Entropy of the bit that tells least."""
        return min(self.entropies)

    @property
    def mean(self) -> float:
        """Mean entropy of the bits."""
        return sum(self.entropies) / self.bits

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "kind": "bits",
            "bits_sent": self.bits,
            "tokens": self.tokens,
            "distinct": self.distinct,
            "bit_entropy": list(self.entropies),
            "bit_entropy_min": self.least,
            "bit_entropy_mean": self.mean,
            "bit_entropy_given_previous": list(self.given_previous),
            "bits_given_previous": sum(self.given_previous),
            "bits_carried": self.carried,
        }


@dataclass(frozen=True)
class TokenUse:
    """What the tokens of one model carry, over all clips.

    Attributes:
        layout: of the tokens.
        fingerprint: of the weights that made them.
        clips: how many.
        seconds: of audio; channels count one by one.
        frames: likewise.
        streams: one after another.
    """

    layout: TokenLayout
    fingerprint: str
    clips: int
    seconds: float
    frames: int
    streams: tuple[CodebookUse | BitsUse, ...]

    @property
    def name(self) -> str:
        """Codec and weights: ``bigcodec 1f0a3c5e``."""
        return f"{self.layout.family} {self.fingerprint}"

    @property
    def bits_sent(self) -> int:
        """Bits per frame, of all streams."""
        return self.layout.bits_per_frame

    @property
    def bits_carried(self) -> float:
        """Bits per frame that an entropy coder of order 0, one per stream, would need."""
        return sum(stream.carried for stream in self.streams)

    @property
    def kbps_sent(self) -> float:
        """Kilobits per second of one channel, without container."""
        return self.layout.bit_rate / 1000

    @property
    def kbps_carried(self) -> float:
        """Kilobits per second that such an entropy coder would need."""
        return self.bits_carried * self.layout.frame_rate / 1000

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "codec": self.layout.family,
            "weights": self.fingerprint,
            "model_sample_rate": self.layout.sample_rate,
            "frame_rate": self.layout.frame_rate,
            "clips": self.clips,
            "seconds": self.seconds,
            "frames": self.frames,
            "bits_sent": self.bits_sent,
            "bits_carried": self.bits_carried,
            "kbps_sent": self.kbps_sent,
            "kbps_carried": self.kbps_carried,
            "streams": [stream.to_json() for stream in self.streams],
        }


def token_use(clips: Iterable[tuple[str, Tokens]]) -> list[TokenUse]:
    """Statistics of the tokens of all clips, one entry per model, in order of appearance.

    Other weights are another model, and so are fewer codebooks of the same weights.

    Args:
        clips: name and tokens of each; none is held on to.
    """
    models: dict[tuple[TokenLayout, str], _Model] = {}
    for _, tokens in clips:
        key = tokens.layout, tokens.fingerprint
        if key not in models:
            models[key] = _Model(*key)
        models[key].add(tokens)
    return [model.result() for model in models.values()]


class _Model:
    """Sums over the clips of one model."""

    def __init__(self, layout: TokenLayout, fingerprint: str) -> None:
        self.layout, self.fingerprint = layout, fingerprint
        self.clips, self.frames, self.seconds = 0, 0, 0.0
        self.streams = [
            _Bits(bits) if 1 << bits > LARGEST_CODEBOOK else _Codebook(bits)
            for bits in layout.bits_per_codebook
        ]

    def add(self, tokens: Tokens) -> None:
        self.clips += 1
        self.frames += tokens.num_channels * tokens.num_frames
        self.seconds += tokens.num_channels * tokens.duration
        for number, stream in enumerate(self.streams):
            stream.add(tokens.codes[:, number])

    def result(self) -> TokenUse:
        return TokenUse(
            self.layout,
            self.fingerprint,
            self.clips,
            self.seconds,
            self.frames,
            tuple(stream.result() for stream in self.streams),
        )


class _Codebook:
    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.counts = np.zeros(1 << bits, np.int64)

    def add(self, codes: Codes) -> None:
        """Count ``(C, F)``."""
        self.counts += np.bincount(codes.ravel(), minlength=len(self.counts))

    def result(self) -> CodebookUse:
        tokens = int(self.counts.sum())
        bits = entropy(self.counts)
        return CodebookUse(
            bits=self.bits,
            tokens=tokens,
            counts=np.sort(self.counts[self.counts > 0])[::-1],
            perplexity=2**bits if tokens else 0.0,
            entropy=bits,
            carried=min(float(self.bits), corrected_entropy(self.counts)),
        )


class _Bits:
    def __init__(self, width: int) -> None:
        self.width = width
        self.ones = np.zeros(width, np.int64)
        self.pairs = np.zeros((width, 2, 2), np.int64)  # of a bit and the one before it
        edges = range(0, width, GROUP_BITS)
        self.groups = [np.zeros(1 << min(GROUP_BITS, width - first), np.int64) for first in edges]
        self.pieces: list[Codes] = []

    def add(self, codes: Codes) -> None:
        """Count ``(C, F)``; the last token of a channel or clip is not followed by the next one."""
        self.pieces.append(codes.flatten())  # a copy: a view would hold all streams
        for row in codes:
            bits = bits_of(row, self.width)
            self.ones += bits.sum(axis=0, dtype=np.int64)
            pairs = 4 * np.arange(self.width) + 2 * bits[:-1] + bits[1:]
            counts = np.bincount(pairs.ravel(), minlength=4 * self.width)
            self.pairs += counts.reshape(self.pairs.shape)
        rest = self.width
        for counts in self.groups:
            rest -= len(counts).bit_length() - 1
            group = (codes.ravel() >> rest) & (len(counts) - 1)
            counts += np.bincount(group, minlength=len(counts))

    def result(self) -> BitsUse:
        tokens = sum(map(len, self.pieces))
        zeros = tokens - self.ones
        carried = sum(min(np.log2(len(g)), corrected_entropy(g)) for g in self.groups)
        return BitsUse(
            tokens=tokens,
            distinct=len(np.unique(np.concatenate(self.pieces))),
            entropies=tuple(map(entropy, np.stack([zeros, self.ones], axis=1))),
            given_previous=tuple(map(_entropy_given_first, self.pairs)),
            carried=float(carried),
        )


def _entropy_given_first(counts: Counts) -> float:
    """Entropy in bits of the second of two values whose pairs are counted: H(both) - H(first)."""
    return max(0.0, entropy(counts.ravel()) - entropy(counts.sum(axis=1)))
