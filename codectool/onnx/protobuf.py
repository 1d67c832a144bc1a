"""Read parts of ONNX files, which are protobuf messages, without loading the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # kinds of fields
MAX_TEXT_BYTES = 1 << 20
# Numbers of fields in onnx.proto.
GRAPH, METADATA_PROPS = 7, 14  # of ModelProto
INITIALIZER = 5  # of GraphProto
TENSOR_NAME, DATA_LOCATION = 8, 14  # of TensorProto
KEY, VALUE = 1, 2  # of StringStringEntryProto


def metadata_props(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file; raise `ValueError` if the file is not one."""
    entries = {}
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ValueError("empty")
        for number, stop in _fields(file, size):
            if number == METADATA_PROPS:
                entry = {key: _text(file, end) for key, end in _fields(file, stop)}
                entries[entry.get(KEY, "")] = entry.get(VALUE, "")
    return entries


def external_initializers(path: Path) -> list[str]:
    """Return the names of the initializers that are not in the file."""
    names = []
    with path.open("rb") as file:
        for number, stop in _fields(file, os.fstat(file.fileno()).st_size):
            if number != GRAPH:
                continue
            for kind, end in _fields(file, stop):
                if kind != INITIALIZER:
                    continue
                name, is_external = "", False
                for field, value_end in _fields(file, end):
                    if field == TENSOR_NAME:
                        name = _text(file, value_end)
                    is_external |= field == DATA_LOCATION
                if is_external:
                    names.append(name)
    return names


def _fields(file: BinaryIO, stop: int) -> Iterator[tuple[int, int]]:
    """Yield number and end of each field; the file is where its value starts.

    Raises:
        ValueError: the data is damaged or not protobuf.
    """
    while file.tell() < stop:
        number, kind = divmod(_varint(file), 8)
        length = _varint(file) if kind == BYTES else {FIXED64: 8, FIXED32: 4}.get(kind, 0)
        end = file.tell() + length
        if not number or kind not in (VARINT, BYTES, FIXED64, FIXED32) or end > stop:
            raise ValueError("not a protobuf message")
        yield number, end
        if kind == VARINT:
            _varint(file)
        else:
            file.seek(end)


def _text(file: BinaryIO, end: int) -> str:
    size = end - file.tell()
    if size > MAX_TEXT_BYTES:
        raise ValueError("text is too long")
    return file.read(size).decode()


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("ends too early")
