import binascii
import contextlib
import io
import random
import re

import numpy as np
import pytest
from hcd_samples import BIGCODEC, SAMPLES, Pipe, known, random_codes, stream, write

from codectool.container import Header, Reader
from codectool.errors import ContainerError, DamagedError, NotHcdError, TruncatedError

FIVE = known(BIGCODEC, 16_000, 9_000, block_frames=10)  # 45 frames: blocks of 17 + 4 bytes
FIVE_STREAM = stream(BIGCODEC, 16_000, 9_000, block_frames=10)
HEAD, HEAD_STREAM = 20, 18


def read_strictly(data, opened):
    return Reader(opened(data), "x.hcd").read_all()


def read_leniently(data, opened):
    """Return the reader and all blocks with ``damaged="keep"``."""
    reader = Reader(opened(data), "x.hcd", damaged="keep")
    blocks = list(reader.blocks())
    for block in blocks:
        assert (block.codes is None) == (block.error is not None)
    return reader, blocks


@pytest.mark.parametrize("opened", [io.BytesIO, Pipe])
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_reader_detects_every_truncation(sample, opened):
    for size in range(len(sample.data)):
        with pytest.raises(TruncatedError, match=r"^x\.hcd: "):
            read_strictly(sample.data[:size], opened)


@pytest.mark.parametrize("opened", [io.BytesIO, Pipe])
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_reader_detects_every_flipped_bit(sample, opened):
    data = bytearray(sample.data)
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        kind = NotHcdError if bit < 24 else ContainerError
        with pytest.raises(kind, match=r"^x\.hcd: "):
            read_strictly(bytes(data), opened)
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_reader_detects_trailing_data(sample):
    for opened in (io.BytesIO, Pipe):
        with pytest.raises(DamagedError, match=f"trailing data .* byte {len(sample.data)};"):
            read_strictly(sample.data + b"\0", opened)
    reader, _ = read_leniently(sample.data + b"\0", io.BytesIO)
    assert len(reader.problems) == 1
    assert reader.truncated is None


@pytest.mark.parametrize("opened", [io.BytesIO, Pipe])
@pytest.mark.parametrize(
    ("sample", "head", "step"), [(FIVE, HEAD, 21), (FIVE_STREAM, HEAD_STREAM, 22)]
)
def test_flipped_bit_loses_only_its_block(sample, head, step, opened):
    ends = [head + step * (k + 1) - 4 for k in range(4)] + [len(sample.data)]
    data = bytearray(sample.data)
    for bit in range(8 * head, 8 * len(data)):
        hit = next(k for k, end in enumerate(ends) if bit // 8 < end)
        data[bit // 8] ^= 1 << bit % 8
        reader, blocks = read_leniently(bytes(data), opened)
        data[bit // 8] ^= 1 << bit % 8
        if len(blocks) == 4:
            # The length in the final record of a stream.
            assert sample is FIVE_STREAM
            assert hit == 4
            assert isinstance(reader.truncated, TruncatedError)
            assert (reader.num_frames, reader.num_samples) == (40, 8_000)
            continue
        assert len(blocks) == 5
        assert [block.num_frames for block in blocks] == [10, 10, 10, 10, 5]
        for k, block in enumerate(blocks):
            if k == hit:
                assert block.error.startswith(f"x.hcd: block {k} (0:0")
            else:
                assert np.array_equal(block.codes, sample.codes[:, :, 10 * k : 10 * k + 10])


def test_damage_message_states_place_reason_and_remedy():
    data = bytearray(FIVE.data)
    data[HEAD + 2 * 21 + 3] ^= 0x40
    with pytest.raises(DamagedError) as caught:
        read_strictly(bytes(data), Pipe)
    assert re.fullmatch(
        r"x\.hcd: block 2 \(0:00\.2 to 0:00\.3\) at byte 58: "
        r"CRC-32 is [0-9a-f]{8}, expected [0-9a-f]{8}; "
        r"`codectool verify` lists all damage, "
        r"`codectool decode --conceal` writes silence there",
        str(caught.value),
    )


def test_damage_message_formats_times_above_one_hour():
    sample = known(BIGCODEC, 16_000, 16_000 * 3_700)
    data = bytearray(sample.data)
    data[20 + 3124 * 151 - 4 + 9] ^= 1
    with pytest.raises(DamagedError, match=r"block 151 \(1:00:24\.0 to 1:00:48\.0\)"):
        read_strictly(bytes(data), io.BytesIO)


def block_bytes(data, k):
    """Return block k of a file like FIVE, with its check."""
    start = HEAD + 21 * k - (4 if k else 0)
    return data[start : start + (21 if k else 17)]


def test_swapped_repeated_missing_and_foreign_blocks_are_reported():
    sister_codes = FIVE.codes.copy()
    sister_codes[0, 0, 0] ^= 1  # differs in the first block only
    sister = write(FIVE.header, sister_codes)
    blocks = [block_bytes(FIVE.data, k) for k in range(4)]
    tail = FIVE.data[HEAD + 21 * 4 - 4 :]
    head = FIVE.data[:HEAD]
    assert head + b"".join(blocks) + tail == FIVE.data

    cases = {
        "swapped": ([blocks[0], blocks[2], blocks[1], blocks[3]], {1, 2}),
        "repeated": ([blocks[0], blocks[1], blocks[1], blocks[3]], {2}),
        "foreign": ([blocks[0], blocks[1], block_bytes(sister, 2), blocks[3]], {2}),
        "foreign first": ([block_bytes(sister, 0), *blocks[1:]], {0}),
    }
    for name, (changed, wrong) in cases.items():
        data = head + b"".join(changed) + tail
        with pytest.raises(DamagedError, match=f"block {min(wrong)} "):
            read_strictly(data, Pipe)
        _, found = read_leniently(data, Pipe)
        assert {block.index for block in found if block.error} == wrong, name

    without = head + b"".join([blocks[0], blocks[1], blocks[3]]) + tail
    with pytest.raises(DamagedError, match="block 2 "):
        read_strictly(without, Pipe)
    with pytest.raises(TruncatedError):
        read_strictly(without, io.BytesIO)
    # The header of another file before these blocks.
    with pytest.raises(DamagedError, match="block 0 "):
        read_strictly(sister[:HEAD] + FIVE.data[HEAD:], Pipe)


@pytest.mark.parametrize("opened", [io.BytesIO, Pipe])
@pytest.mark.parametrize(
    ("sample", "head", "step"), [(FIVE, HEAD, 21), (FIVE_STREAM, HEAD_STREAM, 22)]
)
def test_truncated_file_yields_its_full_blocks(sample, head, step, opened):
    for size in range(head, len(sample.data)):
        reader, blocks = read_leniently(sample.data[:size], opened)
        whole = min(4, (size - head + 4) // step)
        assert len(blocks) == whole
        for k, block in enumerate(blocks):
            assert np.array_equal(block.codes, sample.codes[:, :, 10 * k : 10 * k + 10])
        assert isinstance(reader.truncated, TruncatedError)
        assert reader.problems == [reader.truncated]
        assert (reader.num_frames, reader.num_samples) == (10 * whole, 2_000 * whole)
        again = Reader(opened(sample.data[:size]), damaged="keep")
        with pytest.raises(TruncatedError):
            again.read_frames(0, 10 * whole + 1)
        if opened is io.BytesIO:
            again = Reader(io.BytesIO(sample.data[:size]), damaged="keep")
            assert again.scan() == 10 * whole
            assert again.read_frames(0, 10 * whole).shape == (1, 1, 10 * whole)


def test_pipe_can_be_read_only_once_even_after_damage():
    reader, _ = read_leniently(FIVE.data[:50], Pipe)
    with pytest.raises(ContainerError, match="only once"):
        next(reader.blocks())


def test_damaged_final_record_keeps_a_length_that_fits():
    data = bytearray(FIVE_STREAM.data)
    data[-7] ^= 1  # a token
    reader, blocks = read_leniently(bytes(data), io.BytesIO)
    assert (reader.num_frames, reader.num_samples, reader.truncated) == (45, 9_000, None)
    assert [block.codes is None for block in blocks] == [False] * 4 + [True]
    assert Reader(io.BytesIO(bytes(data)), damaged="keep").scan() == 45
    with pytest.raises(DamagedError, match="block 4 "):
        Reader(io.BytesIO(bytes(data))).scan()
    with pytest.raises(DamagedError, match="block 4 "):
        reader.read_all()


def test_marker_changed_to_final_loses_one_block():
    for k in range(4):
        data = bytearray(FIVE_STREAM.data)
        data[HEAD_STREAM + 22 * k - (4 if k else 0)] = 2
        for opened in (io.BytesIO, Pipe):
            _, blocks = read_leniently(bytes(data), opened)
            assert [block.index for block in blocks if block.error] == [k]
            assert len(blocks) == 5


def test_damaged_section_is_skipped_and_reported():
    sample = SAMPLES["tags"]
    data = bytearray(sample.data)
    data[data.index(b"speaker")] ^= 1
    reader, blocks = read_leniently(bytes(data), io.BytesIO)
    assert reader.tags == {}
    assert len(reader.problems) == 1
    assert "section 0 is damaged" in str(reader.problems[0])
    assert all(block.codes is not None for block in blocks)


def test_nonzero_padding_is_rejected_despite_a_correct_check():
    header = Header(BIGCODEC, "0123abcd", 16_000, num_samples=200)
    data = bytearray(write(header, random_codes(BIGCODEC, 1, 1)))
    data[-1] |= 1
    data[-8:-4] = binascii.crc32(data[:13] + bytes(8) + data[-2:]).to_bytes(4, "little")
    data[-4:-2] = binascii.crc_hqx(bytes(data[:-4]), 0xFFFF).to_bytes(2, "little")
    with pytest.raises(DamagedError, match="padding"):
        read_strictly(bytes(data), io.BytesIO)


def repaired(data):
    """Yield the data with a correct CRC-16 at every possible end of the header."""
    for size in (17, 18, 19, 22, 25):
        if len(data) > size + 2:
            check = binascii.crc_hqx(bytes(data[:size]), 0xFFFF).to_bytes(2, "little")
            yield bytes(data[:size]) + check + bytes(data[size + 2 :])


def assert_only_container_errors(data):
    """Read in every way; any other exception or an endless loop fails the test."""
    for opened in (io.BytesIO, Pipe):
        for work in (read_strictly, read_leniently):
            with contextlib.suppress(ContainerError):
                work(data, opened)
    with contextlib.suppress(ContainerError):
        reader = Reader(io.BytesIO(data), "x.hcd", damaged="keep")
        reader.scan()
        reader.read_frames(3, 1 << 40)


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_raise_container_errors(seed):
    rng = random.Random(seed)
    for _ in range(250):
        assert_only_container_errors(b"HCD\1" + rng.randbytes(rng.randrange(80)))
        assert_only_container_errors(rng.randbytes(rng.randrange(30)))


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_mutations_with_correct_checks_raise_container_errors(sample):
    rng = random.Random(len(sample.data))
    hostile = [b"\xff" * 8 + b"\x7f", b"\xff" * 12, b"\x80" * 9, b"\0", b"\xff\xff\x3f", b"\x01"]
    for _ in range(40):
        data = bytearray(sample.data)
        for _ in range(rng.randrange(1, 4)):
            # Mostly in the header, which has the most fields.
            place = 4 + min(rng.randrange(len(data) - 4), rng.randrange(30))
            value = rng.choice([*hostile, rng.randbytes(2)])
            data[place : place + rng.choice([0, 1, len(value)])] = value
        assert_only_container_errors(bytes(data))
        for again in repaired(data):
            assert_only_container_errors(again)
