"""Pack tokens into bits and back: fixed widths, most significant bit first.

A block is one string of bits: frame by frame, in a frame channel by channel, in a channel codebook
by codebook, each token in the width of its codebook. Zero bits fill the last byte.

If all codebooks have the same width, 8 / gcd(8, width) tokens end on a byte boundary. Within such
a group each byte is a fixed sum of shifted tokens, so a few shifts over all groups at once do the
work. For 13 bits, eight tokens take thirteen bytes::

    token     0            1            2   ...
    bits      0123456789abc0123456789abc0123...
    byte      |0      |1      |2      |3   ...

Codebooks of different widths are packed bit by bit, which is slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np
import numpy.typing as npt

from codectool.tokens import check_codes

# Tokens processed at once, a multiple of 8; the temporary arrays stay in the CPU cache.
_CHUNK_TOKENS = 1 << 16


def packed_bytes(channels: int, bits_per_codebook: Sequence[int], frames: int) -> int:
    """Return the size of ``frames`` packed frames in bytes, rounded up."""
    return -(-frames * channels * sum(bits_per_codebook) // 8)


def pack_codes(codes: npt.NDArray[np.integer], bits_per_codebook: Sequence[int]) -> bytes:
    """Pack tokens into bytes.

    Args:
        codes: integers ``(C, K, F)``; codebook k has values 0..2 ** bits_per_codebook[k] - 1.
        bits_per_codebook: width of the tokens of each codebook, 1..24 bits.

    Returns:
        ``ceil(F * C * sum(bits_per_codebook) / 8)`` bytes.

    Raises:
        TokensError: the shape does not fit the codebooks, or a token does not fit its width.

    >>> pack_codes(np.array([[[1, 2]], [[3, 4]]]), [4]).hex()  # two channels, two frames
    '1324'
    """
    check_codes(codes, bits_per_codebook)
    channels, codebooks, frames = codes.shape
    # From (C, K, F) to the order of the file.
    rows = codes.transpose(2, 0, 1).reshape(frames, channels * codebooks)
    packed = bytearray()
    if len(set(bits_per_codebook)) == 1:
        tokens = rows.ravel()
        for start in range(0, len(tokens), _CHUNK_TOKENS):
            chunk = tokens[start : start + _CHUNK_TOKENS].astype(np.uint32, copy=False)
            packed += _pack_equal(chunk, bits_per_codebook[0])
    else:
        columns = _bit_columns(channels, bits_per_codebook)
        step = _frames_per_chunk(channels * codebooks)
        for start in range(0, frames, step):
            packed += _pack_mixed(rows[start : start + step], columns)
    return bytes(packed)


def unpack_codes(
    data: bytes, channels: int, bits_per_codebook: Sequence[int], frames: int
) -> npt.NDArray[np.int32]:
    """Unpack the bytes that `pack_codes` returns.

    Args:
        data: ``packed_bytes(channels, bits_per_codebook, frames)`` bytes.
        channels: number of channels C.
        bits_per_codebook: width of the tokens of each codebook, 1..24 bits.
        frames: number of frames F.

    Returns:
        int32 ``(C, K, F)``.

    Raises:
        ValueError: wrong number of bytes, or the bits after the last token are not zero.

    >>> unpack_codes(bytes.fromhex("1324"), 2, [4], 2).tolist()
    [[[1, 2]], [[3, 4]]]
    """
    size = packed_bytes(channels, bits_per_codebook, frames)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes of tokens, expected {size}")
    padding = 8 * size - frames * channels * sum(bits_per_codebook)
    if padding and data[-1] & ((1 << padding) - 1):
        raise ValueError("the padding bits after the last token are not zero")
    codebooks = len(bits_per_codebook)
    packed = np.frombuffer(data, np.uint8)
    rows = np.empty((frames, channels * codebooks), np.int32)
    if len(set(bits_per_codebook)) == 1:
        width = bits_per_codebook[0]
        tokens = rows.reshape(-1)
        for start in range(0, len(tokens), _CHUNK_TOKENS):
            chunk = tokens[start : start + _CHUNK_TOKENS]
            first = start * width // 8
            last = first - (-len(chunk) * width // 8)
            chunk[:] = _unpack_equal(packed[first:last], width)[: len(chunk)]
    else:
        columns = _bit_columns(channels, bits_per_codebook)
        step = _frames_per_chunk(channels * codebooks)
        for start in range(0, frames, step):
            chunk = rows[start : start + step]
            first = start * len(columns) // 8
            chunk[:] = _unpack_mixed(packed[first:], columns, chunk.shape)
    return np.ascontiguousarray(rows.reshape(frames, channels, codebooks).transpose(1, 2, 0))


def _pack_equal(tokens: npt.NDArray[np.uint32], width: int) -> bytes:
    """Pack tokens of one width, in groups that end on a byte boundary."""
    group = 8 // gcd(8, width)
    groups = -(-len(tokens) // group)
    size = -(-len(tokens) * width // 8)
    if groups * group != len(tokens):
        tokens = np.concatenate([tokens, np.zeros(groups * group - len(tokens), np.uint32)])
    tokens = tokens.reshape(groups, group)
    packed = np.empty((groups, group * width // 8), np.uint8)
    for byte in range(packed.shape[1]):
        bits = np.zeros(groups, np.uint32)
        for token in range(8 * byte // width, (8 * byte + 7) // width + 1):
            # Bits of the token after the end of the byte; negative if it ends before.
            beyond = (token + 1) * width - 8 * (byte + 1)
            bits |= tokens[:, token] >> beyond if beyond >= 0 else tokens[:, token] << -beyond
        packed[:, byte] = bits  # keeps the low eight bits
    return packed.tobytes()[:size]


def _unpack_equal(packed: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.int32]:
    """Unpack tokens of one width; up to seven tokens too many at the end."""
    group = 8 // gcd(8, width)
    size = group * width // 8
    groups = -(-len(packed) // size)
    # One row per byte of a group, because contiguous rows are faster here than columns.
    planes = np.zeros((size, groups), np.int32)
    whole = len(packed) // size
    planes[:, :whole] = packed[: whole * size].reshape(whole, size).T
    rest = packed[whole * size :]
    planes[: len(rest), whole:] = rest[:, None]
    tokens = np.empty((groups, group), np.int32)
    for token in range(group):
        bits = np.zeros(groups, np.int32)
        for byte in range(token * width // 8, ((token + 1) * width - 1) // 8 + 1):
            beyond = (token + 1) * width - 8 * (byte + 1)
            bits |= planes[byte] << beyond if beyond >= 0 else planes[byte] >> -beyond
        tokens[:, token] = bits & ((1 << width) - 1)
    return tokens.reshape(-1)


def _frames_per_chunk(tokens_per_frame: int) -> int:
    """Return a multiple of 8, so that chunks end on byte boundaries."""
    return max(8, _CHUNK_TOKENS // tokens_per_frame // 8 * 8)


def _bit_columns(channels: int, bits_per_codebook: Sequence[int]) -> npt.NDArray[np.intp]:
    """Return which bits of a frame's 32-bit tokens are stored, in the order of the file."""
    widths = list(bits_per_codebook) * channels
    return np.concatenate(
        [np.arange(32 * (i + 1) - bits, 32 * (i + 1)) for i, bits in enumerate(widths)]
    )


def _pack_mixed(rows: npt.NDArray[np.integer], columns: npt.NDArray[np.intp]) -> bytes:
    """Pack frames ``(F, C * K)`` of several widths, bit by bit."""
    bits = np.unpackbits(rows.astype(">u4", order="C").view(np.uint8), axis=1)
    return np.packbits(bits[:, columns]).tobytes()


def _unpack_mixed(
    packed: npt.NDArray[np.uint8], columns: npt.NDArray[np.intp], shape: tuple[int, ...]
) -> npt.NDArray[np.uint32]:
    """Unpack frames ``shape`` = ``(F, C * K)`` of several widths, bit by bit."""
    frames, tokens = shape
    bits = np.zeros((frames, 32 * tokens), np.uint8)
    stored = np.unpackbits(packed, count=frames * len(columns))
    bits[:, columns] = stored.reshape(frames, len(columns))
    words: npt.NDArray[np.uint32] = np.packbits(bits, axis=1).view(">u4")
    return words
