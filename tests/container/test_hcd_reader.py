import dataclasses
import io
import os
import threading

import numpy as np
import pytest
from hcd_samples import (
    BIGCODEC,
    SAMPLES,
    Pipe,
    known,
    stream,
)

from codectool.container import Header, Reader, Writer, read
from codectool.errors import (
    ContainerError,
    DamagedError,
)
from codectool.tokens import TokenLayout

LONG = known(BIGCODEC, 16_000, 200_000, block_frames=40)  # 25 blocks of 65 bytes, 0.5 s each
LONG_STREAM = stream(BIGCODEC, 16_000, 199_000, block_frames=40)


class Counted(io.BytesIO):
    """Counts the bytes that are read."""

    num_bytes_read = 0

    def read(self, size=-1):
        data = super().read(size)
        self.num_bytes_read += len(data)
        return data


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("opened", [io.BytesIO, Pipe])
def test_reader_reads_every_kind_from_files_and_pipes(sample, opened):
    reader = Reader(opened(sample.data))
    assert reader.tags == sample.tags
    assert reader.header.layout == sample.header.layout
    codes = reader.read_all()
    assert codes.dtype == np.int32
    assert np.array_equal(codes, sample.codes)
    assert (reader.num_samples, reader.num_frames) == (sample.num_samples, codes.shape[2])


@pytest.mark.parametrize("sample", [LONG, LONG_STREAM], ids=["known", "stream"])
def test_blocks_are_in_order_and_can_be_read_again(sample):
    reader = Reader(io.BytesIO(sample.data))
    for _ in range(2):
        blocks = list(reader.blocks())
        assert [block.index for block in blocks] == list(range(25))
        assert [block.first_frame for block in blocks] == list(range(0, 1000, 40))
        assert all(block.codes.shape == (1, 1, block.num_frames) for block in blocks)


def test_pipe_can_be_read_only_once():
    reader = Reader(Pipe(LONG.data))
    reader.read_all()
    assert (reader.file_size, reader.bytes_read) == (None, len(LONG.data))
    with pytest.raises(ContainerError, match="only once"):
        reader.read_all()
    with pytest.raises(ContainerError, match="known at its end"):
        Reader(Pipe(LONG_STREAM.data)).scan()


@pytest.mark.parametrize("sample", [LONG, LONG_STREAM], ids=["known", "stream"])
@pytest.mark.parametrize("opened", [io.BytesIO, Pipe])
@pytest.mark.parametrize(
    ("start", "count"), [(0, 0), (0, 1), (39, 2), (400, 40), (401, 80), (960, 35), (990, 99)]
)
def test_read_frames_returns_any_range(sample, opened, start, count):
    codes = Reader(opened(sample.data)).read_frames(start, count)
    assert np.array_equal(codes, sample.codes[:, :, start : start + count])


def test_read_frames_beyond_the_end_is_empty():
    for sample in (LONG, LONG_STREAM):
        assert Reader(io.BytesIO(sample.data)).read_frames(5_000, 7).shape == (1, 1, 0)
    with pytest.raises(ValueError, match="negative"):
        Reader(io.BytesIO(LONG.data)).read_frames(-1, 7)


@pytest.mark.parametrize("sample", [LONG, LONG_STREAM], ids=["known", "stream"])
def test_read_frames_reads_only_header_and_needed_blocks(sample):
    file = Counted(sample.data)
    reader = Reader(file)
    header = file.num_bytes_read
    assert header <= 22
    reader.scan()
    found_end = file.num_bytes_read - header
    assert found_end <= 2 + (1 + 3 + 1 + 65 + 4) * (sample is LONG_STREAM)
    for start in (200, 230, 640):
        before = file.num_bytes_read
        reader.read_frames(start, 40)
        blocks = 1 if start % 40 == 0 else 2
        assert file.num_bytes_read - before <= blocks * (1 + 65 + 4)


def test_read_frames_ignores_damage_in_other_blocks():
    data = bytearray(LONG.data)
    data[100] ^= 1
    reader = Reader(io.BytesIO(bytes(data)))
    assert np.array_equal(reader.read_frames(500, 80), LONG.codes[:, :, 500:580])
    with pytest.raises(DamagedError, match=r"block 1 \(0:00.5 to 0:01.0\)"):
        reader.read_frames(0, 80)


def test_scan_finds_the_length_of_a_stream():
    for rest in range(40):
        sample = stream(BIGCODEC, 16_000, 200 * (400 + rest), block_frames=40)
        reader = Reader(io.BytesIO(sample.data))
        assert reader.num_frames is None
        assert reader.scan() == 400 + rest
        assert reader.num_samples == 200 * (400 + rest)


def test_reader_starts_at_the_position_of_the_file_object():
    file = io.BytesIO(b"before" + LONG.data)
    file.seek(6)
    reader = Reader(file)
    assert reader.file_size == len(LONG.data)
    assert np.array_equal(reader.read_frames(500, 80), LONG.codes[:, :, 500:580])


def test_reader_reads_an_operating_system_pipe():
    to_read, to_write = os.pipe()

    def send():
        with open(to_write, "wb", buffering=0) as target:
            writer = Writer(target, LONG_STREAM.header)
            writer.write(LONG_STREAM.codes)
            writer.close(199_000)

    sender = threading.Thread(target=send)
    sender.start()
    with open(to_read, "rb", buffering=0) as source:
        tokens = read(source)
    sender.join()
    assert np.array_equal(tokens.codes, LONG_STREAM.codes)
    assert tokens.num_samples == 199_000


def test_scan_finds_a_final_record_longer_than_several_blocks():
    layout = TokenLayout("tiny", 8_000, 65_536, (1,))
    header = Header(layout, "00112233", 8_000, block_frames=8)
    for frames in (*range(16, 60), 4807):
        file = io.BytesIO()
        writer = Writer(file, header)
        writer.write(np.ones((1, 1, frames), np.int32))
        writer.close(frames * 65_536)
        file.seek(0)
        reader = Reader(file)
        assert reader.scan() == frames
        assert reader.read_frames(frames - 3, 3).shape == (1, 1, 3)


@pytest.mark.parametrize("extra", [0, 1, 5])
@pytest.mark.parametrize("block_frames", [1, 2, 3, 8])
def test_frames_after_the_end_of_short_blocks_are_no_damage(block_frames, extra):
    """The record at the end of a stream may be longer than a block."""
    header = Header(TokenLayout("tiny", 16_000, 200, (1,)), "00112233", 16_000)
    header = dataclasses.replace(header, block_frames=block_frames)
    for frames in range(5, 40):
        file = io.BytesIO()
        writer = Writer(file, header)
        writer.write(np.ones((1, 1, frames), np.int32))
        writer.close((frames - extra) * 200, extra)
        for start in (frames - 1, frames, frames + 1, frames + block_frames, frames + 1000):
            file.seek(0)
            reader = Reader(file, damaged="keep")
            assert reader.read_frames(start).shape == (1, 1, max(0, frames - start))
            assert reader.problems == []
