import doctest

import numpy as np
import pytest
from hcd_samples import random_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from codectool.container import bitpack, layout
from codectool.container.bitpack import pack_codes, packed_bytes, unpack_codes
from codectool.tokens import TokenLayout


def pack_bit_by_bit(codes, bits_per_codebook):
    """Pack by the definition: one long string of bits."""
    channels, codebooks, frames = codes.shape
    bits = "".join(
        f"{codes[c, k, f]:0{bits_per_codebook[k]}b}"
        for f in range(frames)
        for c in range(channels)
        for k in range(codebooks)
    )
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


@pytest.mark.parametrize("width", range(1, 25))
@pytest.mark.parametrize("frames", [0, 1, 7, 8, 9, 100])
def test_pack_matches_the_definition_for_every_width(width, frames):
    codes = random_codes(TokenLayout("x", 1, 1, (width,)), 1, frames)
    data = pack_codes(codes, (width,))
    assert data == pack_bit_by_bit(codes, (width,))
    assert np.array_equal(unpack_codes(data, 1, (width,), frames), codes)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 24), min_size=1, max_size=5),
    st.integers(1, 4),
    st.integers(0, 40),
    st.integers(0, 99),
)
def test_round_trip_of_any_codebooks_and_channels(bits_per_codebook, channels, frames, seed):
    codes = random_codes(TokenLayout("x", 1, 1, tuple(bits_per_codebook)), channels, frames, seed)
    data = pack_codes(codes, bits_per_codebook)
    assert data == pack_bit_by_bit(codes, bits_per_codebook)
    assert len(data) == packed_bytes(channels, bits_per_codebook, frames)
    unpacked = unpack_codes(data, channels, bits_per_codebook, frames)
    assert unpacked.dtype == np.int32
    assert np.array_equal(unpacked, codes)


@pytest.mark.parametrize("bits_per_codebook", [(13,), (10, 10), (18,), (1,) * 18, (3, 24, 1)])
def test_pack_and_unpack_blocks_longer_than_a_chunk(bits_per_codebook):
    frames = 140_003 // len(bits_per_codebook)
    codes = random_codes(TokenLayout("x", 1, 1, bits_per_codebook), 2, frames)
    data = pack_codes(codes, bits_per_codebook)
    assert np.array_equal(unpack_codes(data, 2, bits_per_codebook, frames), codes)
    middle = data[: packed_bytes(2, bits_per_codebook, 1000)]
    assert middle == pack_bit_by_bit(codes[:, :, :1000], bits_per_codebook)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
def test_pack_accepts_any_integer_type(dtype):
    codes = random_codes(TokenLayout("x", 1, 1, (7, 7)), 1, 20)
    assert pack_codes(codes.astype(dtype), (7, 7)) == pack_codes(codes, (7, 7))


@pytest.mark.parametrize("bad", [-1, 8192])
def test_pack_rejects_a_token_that_does_not_fit(bad):
    with pytest.raises(ValueError, match=r"codebook 0 are not all in 0\.\.8191"):
        pack_codes(np.array([[[0, bad]]]), (13,))


def test_pack_rejects_a_wrong_number_of_codebooks():
    with pytest.raises(ValueError, match=r"shape \(channels, 1, frames\), not int32 \(1, 2, 3\)"):
        pack_codes(np.zeros((1, 2, 3), np.int32), (13,))


def test_unpack_rejects_wrong_size_and_padding():
    data = pack_codes(np.array([[[1, 2, 3]]]), (13,))
    with pytest.raises(ValueError, match="6 bytes of tokens, expected 5"):
        unpack_codes(data + b"\0", 1, (13,), 3)
    with pytest.raises(ValueError, match="padding"):
        unpack_codes(data[:-1] + bytes([data[-1] | 1]), 1, (13,), 3)


@pytest.mark.parametrize("module", [bitpack, layout])
def test_docstring_examples(module):
    assert doctest.testmod(module) == (0, 1 + (module is bitpack))
