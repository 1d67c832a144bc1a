"""Zip archives and safetensors files that claim more than they hold, and damaged ones."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from codectool.checkpoints.load import load_model
from codectool.checkpoints.pickles import read_torch_file
from codectool.errors import CheckpointError
from tests.attacks.limited_loader import LimitedLoader


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


WEIGHTS = {"state_dict": {"model.CodecEnc.w": torch.arange(100.0)}}
HONEST = saved(WEIGHTS)


def directory_entry(name: bytes, position: int, size: int, crc: int, extra: bytes = b"") -> bytes:
    return (
        struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, crc, size, size, len(name), len(extra),
            0, 0, 0, 0, position,
        )
        + name + extra
    )  # fmt: skip


def end(count: int, size: int, start: int) -> bytes:
    return struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, min(count, 65535), min(count, 65535), size,
                       start, 0)  # fmt: skip


def local(name: bytes, data: bytes) -> bytes:
    head = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, zlib.crc32(data), len(data),
                       len(data), len(name), 0)  # fmt: skip
    return head + name + data


def with_directory(records: bytes, entries: list[bytes]) -> bytes:
    directory = b"".join(entries)
    return records + directory + end(len(entries), len(directory), len(records))


def test_overlapping_records_are_refused(tmp_path: Path, loader: LimitedLoader) -> None:
    """700 names for one record: each storage would be a copy of the whole file."""
    values = bytes(4 << 20)
    names = [f"{n}" for n in range(700)]
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(1 << 20)}))) as file:
        single = file.read("archive/data.pkl")
    begin, tensor = single[: single.index(b"X\1\0\0\0a")], single[single.index(b"ctorch._utils") :]
    parts = [
        b"X" + struct.pack("<I", len(n)) + n.encode() + tensor[:-2].replace(
            b"X\1\0\0\0000", b"X" + struct.pack("<I", len(n)) + n.encode()
        ) + b"s"
        for n in names
    ]  # fmt: skip
    pickled = begin + b"".join(parts) + b"."
    pickled = b"\x80\2}X\x0a\0\0\0state_dict" + pickled[2:-1] + b"s."
    first = local(b"x/data.pkl", pickled)
    records = first + local(b"x/data/0", values)
    entries = [directory_entry(b"x/data.pkl", 0, len(pickled), zlib.crc32(pickled))]
    crc = zlib.crc32(values)
    entries += [
        directory_entry(f"x/data/{n}".encode(), len(first), len(values), crc) for n in names
    ]
    path = tmp_path / "x.pt"
    path.write_bytes(with_directory(records, entries))
    error = loader.load(path)
    assert error is not None
    assert "its records overlap" in error


def test_huge_directory_is_refused(tmp_path: Path, loader: LimitedLoader) -> None:
    entries = [directory_entry(b"%x" % n, 0, 0, 0) for n in range(400_000)]
    path = tmp_path / "x.pt"
    path.write_bytes(with_directory(local(b"x/data.pkl", b"."), entries))
    error = loader.load(path)
    assert error is not None
    assert "more records than any checkpoint" in error


@pytest.mark.parametrize("size", [1 << 20, 1 << 31, (1 << 32) - 2])
def test_record_beyond_the_end_is_refused(tmp_path: Path, loader: LimitedLoader, size: int) -> None:
    path = tmp_path / "x.pt"
    entry = directory_entry(b"x/data.pkl", 0, size, 0)
    path.write_bytes(with_directory(local(b"x/data.pkl", b"."), [entry]))
    error = loader.load(path)
    assert error is not None
    assert "cut off, or its directory is damaged" in error


def test_sizes_of_64_bits_are_checked(tmp_path: Path, loader: LimitedLoader) -> None:
    path = tmp_path / "x.pt"
    for fields in [(1 << 62,), (1 << 62, 1 << 62, 1 << 62), ((1 << 64) - 1,) * 3, ()]:
        extra = struct.pack("<2H", 1, 8 * len(fields)) + struct.pack(f"<{len(fields)}Q", *fields)
        entry = directory_entry(b"x/data.pkl", 0xFFFFFFFF, 0xFFFFFFFF, 0, extra)
        path.write_bytes(with_directory(local(b"x/data.pkl", b"."), [entry]))
        error = loader.load(path)
        assert error is not None
        assert "cut off, or its directory is damaged" in error


def test_archive_that_zipfile_denies_is_not_left_to_torch(tmp_path: Path) -> None:
    """`torch.load` looks farther back for the end of an archive than `zipfile.is_zipfile`."""
    path = tmp_path / "x.pt"
    path.write_bytes(HONEST + bytes(70_000))
    assert not zipfile.is_zipfile(path)
    with pytest.raises(CheckpointError, match=r"cut off, or not a zip archive"):
        read_torch_file(path)


def test_archive_without_zip64_and_with_a_comment_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(io.BytesIO(HONEST)) as old, zipfile.ZipFile(path, "w") as new:
        new.comment = b"a comment"
        for name in old.namelist():
            new.writestr(name, old.read(name))
    found = read_torch_file(path)
    torch.testing.assert_close(found, WEIGHTS)


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    data = bytearray(HONEST)
    for place in range(len(data)):
        data[place] ^= 0xFF
        path.write_bytes(data)
        with contextlib.suppress(CheckpointError):
            torch.testing.assert_close(read_torch_file(path), WEIGHTS)
        data[place] ^= 0xFF


def test_compressed_archive_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", bytes(100_000_000))
    with pytest.raises(CheckpointError, match="compressed or encrypted.*pack it again"):
        load_model(path)


def test_big_endian_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(io.BytesIO(HONEST)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(CheckpointError, match="big-endian"):
        load_model(path)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "complex64", "int64", "uint16"])
def test_unknown_types_of_tensors_are_refused(tmp_path: Path, suffix: str, name: str) -> None:
    tensor = torch.zeros(2).to(getattr(torch, name))
    path = tmp_path / f"x.{suffix}"
    if suffix == "pt":
        torch.save({"state_dict": {"model.CodecEnc.w": tensor}}, path)
    else:
        path.write_bytes(save({"w": tensor}))
    with pytest.raises(CheckpointError, match=r"not float|a type that no codec uses"):
        load_model(path)


def safetensors_file(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


MANY = {f"{n}": entry("F32", [0], 0, 0) for n in range(100_000)}
DEEP = b'{"__metadata__":' + b"[" * 100_000
METADATA = {"codectool": "[" * 100_000}
HEADERS = {
    "huge length": (struct.pack("<Q", 90 << 20) + b"{" + b" " * (91 << 20), "header is larger"),
    "impossible length": (struct.pack("<Q", 1 << 63) + b"{}", "header is larger"),
    "many tensors": (safetensors_file(json.dumps(MANY).encode()), "more than 65536 tensors"),
    "deep": (safetensors_file(DEEP), "not a safetensors file"),
    "overlapping": (
        safetensors_file(
            json.dumps({f"{n}": entry("F32", [1000], 0, 4000) for n in range(900)}).encode(),
            bytes(4000),
        ),
        "not a safetensors file",
    ),
    "shape beyond all numbers": (
        safetensors_file(json.dumps({"a": entry("F32", [1 << 40, 1 << 40], 0, 4)}).encode(),
                         bytes(4)),
        "not a safetensors file",
    ),
    "unknown type": (
        safetensors_file(json.dumps({"a": entry("F99", [1], 0, 4)}).encode(), bytes(4)),
        "not a safetensors file",
    ),
    "four bits": (
        safetensors_file(json.dumps({"a": entry("F4", [2], 0, 1)}).encode(), bytes(1)),
        "not float32",
    ),
    "long name": (
        safetensors_file(json.dumps({"A" * 1_000_000: entry("I8", [1], 0, 1)}).encode(), bytes(1)),
        "not float32",
    ),
    "long type": (
        safetensors_file(json.dumps({"a": entry("A" * 1_000_000, [1], 0, 1)}).encode(), bytes(1)),
        "not a safetensors file",
    ),
    "deep config": (
        safetensors_file(
            json.dumps({"__metadata__": METADATA, "a": entry("F32", [1], 0, 4)}).encode(),
            bytes(4),
        ),
        "not JSON",
    ),
    "long family": (
        safetensors_file(
            json.dumps({
                "__metadata__": {"codectool": json.dumps({"family": "A" * 100_000, "model": {}})},
                "a": entry("F32", [1], 0, 4),
            }).encode(),
            bytes(4),
        ),
        "no codec is called",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_safetensors_bomb_is_refused(tmp_path: Path, loader: LimitedLoader, name: str) -> None:
    data, message = HEADERS[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    error = loader.load(path)
    assert error is not None
    assert message in error
    assert "A" * 201 not in error
    assert len(error) < 2 * 800
