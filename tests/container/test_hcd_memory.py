"""Memory stays within one block, even if a file states larger sizes."""

import io
import tracemalloc

import pytest
from hcd_samples import (
    HAC,
    Pipe,
    random_codes,
    with_header_check,
    write,
)

from codectool.container import Header, Reader
from codectool.container.header import build_fields
from codectool.errors import (
    ContainerError,
    TruncatedError,
)


class Endless(io.RawIOBase):
    """A pipe that repeats some bytes after its start, up to a given size."""

    def __init__(self, start, repeated, size):
        self._start = start
        self._repeated = repeated * (1 + 70_000 // len(repeated))
        self._left = size

    def readable(self):
        return True

    def read(self, size=-1):
        size = min(size, self._left)
        self._left -= size
        data = self._start[:size]
        self._start = self._start[size:]
        return data + self._repeated[: size - len(data)]


def peak_memory(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HUGE = Header(HAC, "0123abcd", 16_000, num_samples=1 << 60, block_frames=1 << 20)
HUGE_STREAM = Header(HAC, "0123abcd", 16_000, block_frames=1 << 20)


def header_bytes(header, sections=False):
    return with_header_check(build_fields(header, sections) + bytes(4))


def test_huge_length_is_compared_with_the_file_size():
    data = header_bytes(HUGE) + bytes(1_000)
    with pytest.raises(TruncatedError, match=f"has {len(data)} of [0-9]{{15,}} bytes"):
        Reader(io.BytesIO(data))
    reader = Reader(io.BytesIO(data), damaged="keep")
    assert reader.truncated is not None
    assert list(reader.blocks()) == []
    assert list(reader.blocks(1 << 50, 1 << 51)) == []


@pytest.mark.parametrize("header", [HUGE, HUGE_STREAM], ids=["known", "stream"])
def test_huge_length_on_a_pipe_allocates_no_memory(header):
    def work():
        with pytest.raises(TruncatedError):
            Reader(Pipe(header_bytes(header) + b"\1" + bytes(1_000))).read_all()

    assert peak_memory(work) < 1 << 20


@pytest.mark.parametrize("header", [HUGE, HUGE_STREAM], ids=["known", "stream"])
@pytest.mark.parametrize("repeated", [b"\0", b"\1", b"\2\0\0"])
def test_gigabyte_of_hostile_blocks_takes_a_few_megabytes(header, repeated):
    damaged = 0

    def work():
        nonlocal damaged
        file = Endless(header_bytes(header), repeated, 1 << 30)
        for block in Reader(file, damaged="keep").blocks():
            assert block.codes is None
            damaged += 1

    assert peak_memory(work) < 24 << 20
    assert damaged > 400


@pytest.mark.parametrize("repeated", [b"\2", b"\1\0", b"\xff", b"\2\0\0\0\0\0"])
def test_gigabyte_of_hostile_sections_is_not_read(repeated):
    def work():
        file = Endless(header_bytes(HUGE, True), repeated, 1 << 30)
        with pytest.raises(ContainerError):
            Reader(file).read_all()
        with pytest.raises(ContainerError):
            Reader(Endless(header_bytes(HUGE, True), repeated, 1 << 30), damaged="keep").read_all()

    assert peak_memory(work) < 4 << 20


def test_gigabyte_of_header_is_not_read():
    for repeated in (b"\xff", b"\x80", b"\x00", b"\x01", b"HCD\1"):
        for flags in range(64):
            file = Endless(b"HCD\1" + bytes([flags, 0]), repeated, 1 << 30)
            with pytest.raises(ContainerError):
                Reader(file).read_all()


def test_largest_block_stays_within_bounds():
    header = Header(HAC, "0123abcd", 24_000, num_samples=320 << 20, block_frames=1 << 20)
    data = write(header, random_codes(HAC, 1, 1 << 20))
    assert peak_memory(lambda: list(Reader(io.BytesIO(data)).blocks())) < 24 << 20
