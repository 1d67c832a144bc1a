"""Read ids without metadata, as programs save what a language model generates.

The first bytes of a file say what it is: `.npy`, `.npz`, JSON (Lines), or text. An array or list
with one dimension more than the layout is a batch of sequences.

    .npy, .npz    arrays of integers; `.npz`: a sequence or a batch per array
    JSON          a document or a line per sequence: lists of ids, or objects with a list of ids
    text          ids separated by spaces or commas; a line per sequence, or, if the layout has two
                  dimensions, a line per row and a blank line between sequences
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, BinaryIO, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from codectool.corpus.formats.base import MAX_LINE_BYTES, make_record, parse_npy
from codectool.corpus.records import Record
from codectool.errors import TokensError
from codectool.filetypes import START_BYTES, describe_foreign
from codectool.messages import shorten

COLUMNS = ("tokens", "ids", "input_ids", "codes")  # names of the list in an object
WORDS_AT_ONCE = 1 << 20  # of a line of text
JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
BOM = b"\xef\xbb\xbf"
MAX_EXPANSION = 64  # of a compressed array; ids of one codec do not repeat more
FREE_BYTES = 1 << 24  # of an array that may be compressed further

Sequence: TypeAlias = tuple[str, Any, Mapping[str, Any]]  # place, ids, other columns
Sequences: TypeAlias = Iterator[Sequence]


def read_plain(
    file: BinaryIO,
    name: str,
    dimensions: int,
    column: str | None = None,
    stem: str = "tokens",
) -> Iterator[Record]:
    """Yield a record for each sequence of ids in a file.

    A record is named by the key ``id`` of its object, or ``stem``, with a number if there are
    several.

    Args:
        file: the file, or a pipe.
        name: its name in messages.
        dimensions: of the ids of a sequence, 1 or 2.
        column: key of the ids in objects; None for any of `COLUMNS`.
        stem: name of records without one.

    Raises:
        TokensError: the file is nothing of the above, or is damaged.
    """
    sequences = _sequences(file, name, dimensions, column)
    held = next(sequences, None)
    if held is None:
        return
    number = 0
    for number, following in enumerate(sequences, 1):
        yield _named(held, f"{stem}-{number:05d}")
        held = following
    yield _named(held, f"{stem}-{number + 1:05d}" if number else stem)


def _named(sequence: Sequence, name: str) -> Record:
    where, ids, columns = sequence
    return make_record(ids, {"id": name, **columns}, where)


def _sequences(file: BinaryIO, name: str, dimensions: int, column: str | None) -> Sequences:
    first = file.readline(MAX_LINE_BYTES)
    if first.startswith(b"\x93NUMPY"):
        yield from _batch(parse_npy(first + file.read(), name), dimensions, name, {})
    elif first.startswith(b"PK\x03\x04"):
        yield from _read_npz(first + file.read(), name, dimensions)
    elif first.removeprefix(BOM).lstrip()[:1] in (b"[", b"{"):
        yield from _read_json(first, file, name, dimensions, column)
    elif what := _describe(first):
        raise TokensError(f"{name}: is {what}; give .npy, .npz, JSON Lines or text")
    else:
        yield from _read_text(chain([first], file), name, dimensions)


def _describe(start: bytes) -> str | None:
    if not start:
        return "empty"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16 text"
    return describe_foreign(start[:START_BYTES], "ids")


def _batch(ids: Any, dimensions: int, where: str, columns: Mapping[str, Any]) -> Sequences:
    """Yield the sequences of an array or of nested lists."""
    depth = ids.ndim if isinstance(ids, np.ndarray) else _depth(ids)
    if depth != dimensions + 1 or len(ids) == 1:
        yield where, ids, columns
        return
    for number, item in enumerate(ids):
        named = {"id": f"{columns['id']}-{number + 1:05d}"} if "id" in columns else {}
        yield f"{where}: sequence {number}", item, {**columns, **named}


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = next((item for item in value if item != []), None)
    return depth


def _read_npz(data: bytes, name: str, dimensions: int) -> Sequences:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                where = f"{name}: {shorten(member.filename)}"
                if not member.filename.endswith(".npy"):
                    raise TokensError(
                        f"{where}: is not an array; is this a file of `torch.save`? use "
                        "`numpy.save('ids.npy', ids.cpu().numpy())`"
                    )
                limit = FREE_BYTES + MAX_EXPANSION * member.compress_size
                if member.file_size > limit:
                    raise TokensError(f"{where}: {member.file_size} bytes are compressed too far")
                with archive.open(member) as file:
                    content = file.read(limit + 1)
                key = member.filename.removesuffix(".npy")
                yield from _batch(parse_npy(content, where), dimensions, where, {"id": key})
    except TokensError:
        raise
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError),
        *(NotImplementedError, RuntimeError, ValueError, OSError),  # of zipfile, for wrong fields
    ) as error:
        raise TokensError(f"{name}: is not a .npz file: {shorten(str(error))}") from error


def _read_json(
    first: bytes, file: BinaryIO, name: str, dimensions: int, column: str | None
) -> Sequences:
    first = first.removeprefix(BOM)
    try:
        msgspec.json.decode(first)
    except JSON_ERRORS:  # a document of several lines
        yield from _from_json(_parse(first + file.read(), name), name, dimensions, column)
        return
    for number, line in enumerate(chain([first], iter(lambda: file.readline(MAX_LINE_BYTES), b""))):
        if line.strip():
            where = f"{name}: line {number + 1}"
            yield from _from_json(_parse(line, where), where, dimensions, column)


def _parse(data: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except JSON_ERRORS as error:
        raise TokensError(f"{where}: is not JSON: {shorten(str(error))}") from error


def _from_json(value: Any, where: str, dimensions: int, column: str | None) -> Sequences:
    if not isinstance(value, dict):
        yield from _batch(value, dimensions, where, {})
        return
    names = (column,) if column else COLUMNS
    found = next((name for name in names if name in value), None)
    if found is None:
        keys = ", ".join(map(repr, names))
        raise TokensError(f"{where}: has no key {keys} with ids; name it with `--column`")
    ids = value.pop(found)
    yield from _batch(ids, dimensions, where, value)


def _read_text(lines: Iterator[bytes], name: str, dimensions: int) -> Sequences:
    rows: list[npt.NDArray[np.int64]] = []
    start = 0
    for number, line in enumerate(chain(lines, [b""]), 1):
        row = _parse_row(line, f"{name}: line {number}")
        if dimensions == 1 and row.size:
            yield f"{name}: line {number}", row, {}
        elif row.size:
            start = start or number
            rows.append(row)
        elif rows:
            yield f"{name}: line {start}", rows, {}
            rows, start = [], 0


def _parse_row(line: bytes, where: str) -> npt.NDArray[np.int64]:
    """Parse ids, some at a time: words take many times the memory of the ids."""
    rest = line.removeprefix(BOM).replace(b",", b" ")
    parts = []
    while rest:
        *words, rest = [*rest.split(None, WORDS_AT_ONCE), b""][: WORDS_AT_ONCE + 1]
        try:
            parts.append(np.array([int(word) for word in words], np.int64))
        except (ValueError, OverflowError) as error:
            shown = shorten(line[:60].decode("utf-8", "replace").strip(), 40)
            raise TokensError(f"{where}: `{shown}` is not ids separated by spaces") from error
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
