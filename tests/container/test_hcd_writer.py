import contextlib
import io
import os

import numpy as np
import pytest
from hcd_samples import (
    BIGCODEC,
    HAC,
    ODD,
    ONE_CODEBOOK,
    SAMPLES,
    SUPERCODEC,
    SUPERCODEC_24K,
    TAGS,
    random_codes,
    stream,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from independent_reader import read_hcd

import codectool
from codectool.container import Header, Reader, Writer, read
from codectool.errors import ContainerError, TokensError
from codectool.tokens import TokenLayout, Tokens

ONE_KBPS = TokenLayout("supercodec", 12_000, 240, (10, 10))
ODD_RATE_1_KBPS = TokenLayout("bigcodec", 14_700, 294, (20,))


def overhead(layout, rate, seconds):
    """Return the bytes that are not tokens and all bytes of a mono file with default blocks."""
    header = Header(layout, "0123abcd", rate, num_samples=seconds * rate)
    size = len(write(header, random_codes(layout, 1, header.num_frames)))
    return size - -(-header.num_frames * layout.bits_per_frame // 8), size


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("layout", [HAC, BIGCODEC, SUPERCODEC, SUPERCODEC_24K])
def test_overhead_of_a_standard_profile_is_20_bytes(layout, rate):
    assert overhead(layout, rate, 3)[0] == 20


@pytest.mark.parametrize(
    ("layout", "cost"), [(ONE_CODEBOOK, 25), (ONE_KBPS, 25), (ODD_RATE_1_KBPS, 27)]
)
def test_overhead_of_a_custom_model_is_at_most_28_bytes(layout, cost):
    assert overhead(layout, 16_000, 3)[0] == cost


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("seconds", [60, 61, 72, 73, 96, 97, 600])
@pytest.mark.parametrize(
    "layout", [HAC, BIGCODEC, SUPERCODEC, SUPERCODEC_24K, ONE_KBPS, ODD_RATE_1_KBPS]
)
def test_overhead_is_half_a_percent_from_one_minute(layout, seconds, rate):
    cost, size = overhead(layout, rate, seconds)
    assert cost <= 0.005 * size


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_independent_reader_reads_what_was_written(sample):
    found = read_hcd(sample.data)
    header, layout = sample.header, sample.header.layout
    assert found == {
        "family": layout.family,
        "model_rate": layout.sample_rate,
        "hop": layout.hop_length,
        "bits_per_codebook": list(layout.bits_per_codebook),
        "fingerprint": header.fingerprint,
        "input_rate": header.sample_rate,
        "samples": sample.num_samples,
        "extra": sample.extra_frames,
        "segment": header.segment_frames,
        "block": header.block_frames,
        "tags": sample.tags,
        "gain": sample.gain_db,
        "codes": sample.codes.tolist(),
    }


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("chunk_frames", [1, 2, 3, 1000])
def test_bytes_do_not_depend_on_chunking(sample, chunk_frames):
    end = (sample.num_samples, sample.extra_frames)
    data = write(sample.header, sample.codes, sample.tags, *end, chunk_frames, sample.gain_db)
    assert data == sample.data


def test_bytes_do_not_depend_on_the_order_of_tags():
    backwards = dict(reversed(TAGS.items()))
    assert list(backwards) != list(TAGS)
    sample = SAMPLES["tags"]
    assert write(sample.header, sample.codes, backwards) == sample.data


layouts = st.builds(
    TokenLayout,
    st.sampled_from(["hac", "bigcodec", "supercodec", "a", "my-codec-2"]),
    st.sampled_from([8_000, 14_700, 16_000, 24_000]),
    st.integers(50, 400),
    st.lists(st.integers(1, 24), min_size=1, max_size=4).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(
    layout=layouts | st.sampled_from([HAC, BIGCODEC, SUPERCODEC, SUPERCODEC_24K]),
    rate=st.sampled_from([8_000, 16_000, 44_100, 12_345]),
    channels=st.integers(1, 3) | st.integers(15, 17),
    num_samples=st.integers(0, 5_000),
    extra=st.integers(0, 5),
    segment=st.none() | st.integers(1, 1000),
    block=st.integers(0, 20),
    is_stream=st.booleans(),
    tags=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
)
def test_round_trip(layout, rate, channels, num_samples, extra, segment, block, is_stream, tags):
    fields = {"segment_frames": segment, "block_frames": block, "channels": channels}
    if is_stream:
        sample = stream(layout, rate, num_samples, extra, tags, **fields)
        data, codes = sample.data, sample.codes
    else:
        header = Header(
            layout, "0123abcd", rate, num_samples=num_samples, extra_frames=extra, **fields
        )
        codes = random_codes(layout, channels, header.num_frames)
        data = write(header, codes, tags)
    tokens = read(io.BytesIO(data))
    assert np.array_equal(tokens.codes, codes)
    assert (tokens.layout, tokens.sample_rate) == (layout, rate)
    assert (tokens.num_samples, tokens.segment_frames) == (num_samples, segment)
    assert tokens.tags == tags


def test_round_trip_of_tokens():
    tokens = Tokens(
        codes=random_codes(ODD, 2, 9),
        layout=ODD,
        fingerprint="00ff00ff",
        sample_rate=44_100,
        num_samples=7_000,
        segment_frames=5,
        tags=TAGS,
    )
    file = io.BytesIO()
    codectool.write(file, tokens, block_frames=4)
    file.seek(0)
    again = read(file)
    assert np.array_equal(again.codes, tokens.codes)
    for name in ("layout", "fingerprint", "sample_rate", "num_samples", "segment_frames", "tags"):
        assert getattr(again, name) == getattr(tokens, name)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_writer_accepts_any_integer_type(dtype):
    codes = random_codes(TokenLayout("x", 16_000, 320, (7,)), 1, 5)
    header = Header(TokenLayout("x", 16_000, 320, (7,)), "0123abcd", 16_000, num_samples=1_600)
    assert write(header, codes.astype(dtype), chunk_frames=2) == write(header, codes)


def test_block_is_written_as_soon_as_it_is_full():
    file = io.BytesIO()
    writer = Writer(file, Header(BIGCODEC, "0123abcd", 16_000, block_frames=4))
    sizes = []
    for _ in range(9):
        writer.write(np.zeros((1, 1, 1), np.int32))
        sizes.append(len(file.getvalue()))
    head = 11 + 1 + 6 + 1 + 7
    assert sizes == [0, 0, 0, *[head] * 4, *[head + 1 + 7 + 4] * 2]


def test_each_block_arrives_on_a_pipe_before_the_next_is_written():
    to_read, to_write = os.pipe()
    codes = random_codes(HAC, 1, 7)
    with open(to_read, "rb") as source, open(to_write, "wb") as target:
        writer = Writer(target, Header(HAC, "0123abcd", 24_000, block_frames=2))
        writer.write(codes[:, :, :2])
        blocks = Reader(source).blocks()
        assert np.array_equal(next(blocks).codes, codes[:, :, :2])
        for start in (2, 4):
            writer.write(codes[:, :, start : start + 2])
            block = next(blocks)
            assert (block.index, block.first_frame) == (start // 2, start)
            assert np.array_equal(block.codes, codes[:, :, start : start + 2])
        writer.write(codes[:, :, 6:])
        writer.close(7 * 320)
        # The last block arrives before the pipe is closed.
        assert np.array_equal(next(blocks).codes, codes[:, :, 6:])
        target.close()
        assert list(blocks) == []


def test_writer_rejects_a_length_other_than_in_the_header():
    header = Header(BIGCODEC, "0123abcd", 16_000, num_samples=1_000)
    writer = Writer(io.BytesIO(), header)
    writer.write(np.zeros((1, 1, 4), np.int32))
    with pytest.raises(ContainerError, match="make 5 frames, but 4 were written"):
        writer.close()
    with pytest.raises(ContainerError, match="more frames than the 5"):
        writer.write(np.zeros((1, 1, 2), np.int32))
    with pytest.raises(ContainerError, match="header says 1000 and 0"):
        writer.close(800)
    writer.write(np.zeros((1, 1, 1), np.int32))
    writer.close()
    with pytest.raises(ContainerError, match="already closed"):
        writer.close()
    with pytest.raises(ContainerError, match="already closed"):
        writer.write(np.zeros((1, 1, 1), np.int32))


def test_stream_requires_its_length_at_close():
    header = Header(BIGCODEC, "0123abcd", 16_000, block_frames=2)
    writer = Writer(io.BytesIO(), header)
    writer.write(np.zeros((1, 1, 5), np.int32))
    with pytest.raises(ContainerError, match="must be given"):
        writer.close()
    with pytest.raises(ContainerError, match="make 6 frames, but 5 were written"):
        writer.close(1_001)
    with pytest.raises(ContainerError, match="extra frames"):
        writer.close(1_000, -1)
    writer.close(1_000)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((1, 2, 3), np.int32),
        np.zeros((2, 1, 3), np.int32),
        np.zeros((1, 1, 3)),
        np.zeros((1, 3), np.int32),
        np.full((1, 1, 5), 8_192),
        np.full((1, 1, 5), -1),
    ],
)
def test_writer_rejects_codes_that_do_not_fit(codes):
    writer = Writer(io.BytesIO(), Header(BIGCODEC, "0123abcd", 16_000, num_samples=1_000))
    with pytest.raises(ContainerError, match="codes"):
        writer.write(codes)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"": "x"}, "no name"),
        ({"x": "\ud800"}, "UTF-8"),
        ({"text": "x" * 65_536}, "the limit is 65536"),
    ],
)
def test_writer_rejects_tags_that_do_not_fit(tags, message):
    with pytest.raises(ContainerError, match=message):
        Writer(io.BytesIO(), Header(BIGCODEC, "0123abcd", 16_000), tags)


def test_exception_leaves_a_truncated_file():
    file = io.BytesIO()
    writer = Writer(file, Header(BIGCODEC, "0123abcd", 16_000, block_frames=2))
    with contextlib.suppress(KeyboardInterrupt), writer:
        writer.write(np.zeros((1, 1, 5), np.int32))
        raise KeyboardInterrupt
    file.seek(0)
    reader = Reader(file, damaged="keep")
    assert [block.num_frames for block in reader.blocks()] == [2, 2]
    assert reader.truncated is not None


def test_write_rejects_tokens_that_do_not_fit():
    fields = {"layout": BIGCODEC, "fingerprint": "0123abcd", "sample_rate": 16_000}
    with pytest.raises(TokensError, match="4 frames are too few for 1000 samples"):
        Tokens(np.zeros((1, 1, 4), np.int32), num_samples=1_000, **fields)
    tokens = Tokens(np.zeros((1, 1, 4), np.int32), num_samples=800, **fields)
    with pytest.raises(ContainerError, match=r"in 1\.\.1048576, not 2097152"):
        codectool.write(io.BytesIO(), tokens, block_frames=1 << 21)


@pytest.mark.parametrize(
    "fields",
    [
        {"fingerprint": "0123ABCD"},
        {"sample_rate": 0},
        {"channels": 0},
        {"channels": 1_025},
        {"num_samples": -1},
        {"num_samples": 1 << 63},
        {"extra_frames": -1},
        {"extra_frames": 1},
        {"segment_frames": 0},
        {"block_frames": -1},
        {"block_frames": (1 << 20) + 1},
        {"sample_rate": 10_000_000},
        {"layout": TokenLayout("x", 1_000_000, 65_537, (1,))},
    ],
)
def test_header_rejects_invalid_fields(fields):
    valid = {"layout": BIGCODEC, "fingerprint": "0123abcd", "sample_rate": 16_000}
    with pytest.raises(ValueError):
        Header(**{**valid, **fields})
