"""Parquet, as `datasets` reads it: tokens are nested lists of integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from typing_extensions import override

from codectool.corpus.formats import missing_package
from codectool.corpus.formats.base import (
    METADATA_KEY,
    Format,
    Schema,
    Write,
    make_record,
    parse_json,
)
from codectool.corpus.records import FIXED_COLUMNS, TOKENS, Record
from codectool.errors import TokensError
from codectool.files import atomic_output
from codectool.messages import shorten

if TYPE_CHECKING:
    import pyarrow
else:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("pyarrow") from error

ROWS = 1000  # in a row group, at most
IDS = 1 << 22
MAX_IDS_PER_BYTE = 64  # of a row group in a file; ids of speech do not repeat more
FREE_IDS = 1 << 24


class ParquetFormat(Format):
    """Parquet."""

    name = "parquet"
    has_metadata = True
    suffix = ".parquet"

    @contextmanager
    @override
    def open_shard(self, path: Path, schema: Schema) -> Iterator[Write]:
        arrow = _arrow_schema(schema)
        waiting: list[Record] = []
        size = 0
        with (
            atomic_output(path, overwrite=True) as file,
            pyarrow.parquet.ParquetWriter(file, arrow, compression="zstd") as writer,
        ):

            def flush() -> None:
                nonlocal size
                writer.write_table(_table(waiting, schema, arrow))
                waiting.clear()
                size = 0

            def write(record: Record) -> None:
                nonlocal size
                waiting.append(record)
                size += record.tokens.size
                if len(waiting) >= ROWS or size >= IDS:
                    flush()

            yield write
            if waiting:
                flush()

    @override
    def read_shard(self, path: Path) -> Iterator[Record]:
        with _opened(path) as file:
            if TOKENS not in file.schema_arrow.names:
                raise TokensError(f"{path}: has no column `{TOKENS}`")
            json_columns = {
                field.name
                for field in file.schema_arrow
                if (field.metadata or {}).get(b"type") == b"json"
            }
            number = 0
            _check_expansion(path, file.metadata)
            others = [name for name in file.schema_arrow.names if name != TOKENS]
            for batch in file.iter_batches(batch_size=64):
                arrays = _arrays(batch.column(TOKENS))
                rows = batch.select(others).to_pylist()
                for tokens, values in zip(arrays, rows, strict=True):
                    number += 1
                    where = f"{path}: row {number}"
                    for name in json_columns & values.keys():
                        if values[name] is not None:
                            values[name] = msgspec.json.decode(values[name])
                    values = {name: value for name, value in values.items() if value is not None}
                    yield make_record(tokens, values, where)

    @override
    def read_metadata(self, path: Path) -> Mapping[str, Any] | None:
        with _opened(path) as file:
            text = (file.schema_arrow.metadata or {}).get(METADATA_KEY.encode())
        return None if text is None else parse_json(text, f"{path}: metadata")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as raw, pyarrow.parquet.ParquetFile(raw) as file:
            yield file
    except pyarrow.ArrowException as error:
        reason = shorten(str(error).splitlines()[0])
        raise TokensError(f"{path}: cannot be read as Parquet: {reason}") from error


def _check_expansion(path: Path, metadata: Any) -> None:
    """Raise if ids would take far more memory than the file: repeated ones take almost none."""
    limit = FREE_IDS + MAX_IDS_PER_BYTE * path.stat().st_size
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            if column.path_in_schema.split(".")[0] == TOKENS and column.num_values > limit:
                raise TokensError(f"{path}: {column.num_values:,} ids in a row group are too many")


def _arrow_schema(schema: Schema) -> pyarrow.Schema:
    kinds = {
        "string": pyarrow.string(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "json": pyarrow.string(),
    }
    ids = pyarrow.from_numpy_dtype(np.dtype(schema.dtype))
    for size in reversed(schema.shape):
        ids = pyarrow.list_(ids) if size is None else pyarrow.list_(ids, size)
    fields = [pyarrow.field("id", kinds["string"]), pyarrow.field(TOKENS, ids)]
    columns = {name: kind for name, kind in FIXED_COLUMNS.items() if name != "id"}
    for name, kind in (columns | dict(schema.columns)).items():
        fields.append(pyarrow.field(name, kinds[kind], metadata={"type": kind}))
    metadata = {METADATA_KEY: msgspec.json.encode(schema.metadata)}
    return pyarrow.schema(fields, metadata=metadata)


def _table(records: Sequence[Record], schema: Schema, arrow: pyarrow.Schema) -> pyarrow.Table:
    rows = [record.fixed_columns() | dict(record.columns) for record in records]
    kinds = FIXED_COLUMNS | dict(schema.columns)
    columns = []
    for field in arrow:
        if field.name == TOKENS:
            columns.append(_token_lists([record.tokens for record in records], field.type))
            continue
        values = [row.get(field.name) for row in rows]
        if kinds[field.name] == "json":
            values = [msgspec.json.encode(value).decode() if value else None for value in values]
        columns.append(pyarrow.array(values, field.type))
    return pyarrow.Table.from_arrays(columns, schema=arrow)


def _arrays(column: Any) -> list[Any]:
    """Return the arrays of lists; undo `_token_lists`."""
    kind = column.type
    if column.null_count or not _is_list(kind):
        return list(column.to_pylist())
    if pyarrow.types.is_fixed_size_list(kind):
        rows = _arrays(column.flatten())
        size = kind.list_size
        return [np.array(rows[first : first + size]) for first in range(0, len(rows), size)]
    values = column.values
    shape: tuple[int, ...] = (-1,)
    if pyarrow.types.is_fixed_size_list(kind.value_type):
        values, shape = values.values, (-1, kind.value_type.list_size)
    if values.null_count or _is_list(values.type):
        return list(column.to_pylist())
    offsets = column.offsets.to_numpy()
    ids = values.to_numpy().reshape(shape)
    return [ids[start:stop] for start, stop in pairwise(offsets)]


def _is_list(kind: pyarrow.DataType) -> bool:
    return bool(
        pyarrow.types.is_list(kind)
        or pyarrow.types.is_large_list(kind)
        or pyarrow.types.is_fixed_size_list(kind)
    )


def _token_lists(arrays: Sequence[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    """Return a list per array, without making Python objects of its ids."""
    if pyarrow.types.is_fixed_size_list(kind):  # (columns, time)
        inner = _token_lists([row for array in arrays for row in array], kind.value_type)
        return pyarrow.FixedSizeListArray.from_arrays(inner, type=kind)
    offsets = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int32)
    ids = pyarrow.array(np.concatenate([array.reshape(-1) for array in arrays]))
    if pyarrow.types.is_fixed_size_list(kind.value_type):  # (time, columns)
        ids = pyarrow.FixedSizeListArray.from_arrays(ids, type=kind.value_type)
    return pyarrow.ListArray.from_arrays(offsets, ids, type=kind)


FORMAT = ParquetFormat()
