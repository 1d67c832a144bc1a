"""One flat file of all ids, which `numpy.memmap` opens in one line, as nanoGPT and Megatron use.

Next to `tokens.bin` are `tokens.idx.npy`, where each record begins (int64, one more than there are
records, in ids), and `tokens.jsonl`, with the columns of each record.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from codectool.corpus.formats.base import (
    Format,
    Schema,
    Write,
    make_record,
    parse_npy,
    read_lines,
    to_json_line,
)
from codectool.corpus.records import Record
from codectool.errors import TokensError
from codectool.files import atomic_output

DTYPE = "dtype"  # columns of the reader
SHAPE = "shape"


class MemmapFormat(Format):
    """All ids in one file."""

    name = "memmap"
    suffix = ".bin"
    records_per_shard = None

    @contextmanager
    @override
    def open_shard(self, path: Path, schema: Schema) -> Iterator[Write]:
        index, lines = self.files(path)
        dtype = np.dtype(schema.dtype).newbyteorder("<")
        starts = [0]
        with (
            atomic_output(path, overwrite=True) as file,
            atomic_output(index, overwrite=True) as index_file,
            atomic_output(lines, overwrite=True) as lines_file,
        ):

            def write(record: Record) -> None:
                file.write(np.ascontiguousarray(record.tokens, dtype).data)
                starts.append(starts[-1] + record.tokens.size)
                columns = record.fixed_columns() | dict(record.columns)
                lines_file.write(
                    to_json_line(columns | {SHAPE: record.tokens.shape, DTYPE: dtype.name})
                )

            yield write
            np.save(index_file, np.array(starts, np.int64))

    @override
    def read_shard(self, path: Path) -> Iterator[Record]:
        index, lines = self.files(path)
        starts = parse_npy(index.read_bytes(), str(index))
        if starts.ndim != 1 or starts.dtype != np.int64 or not len(starts):
            raise TokensError(f"{index}: is not a list of positions")
        with path.open("rb") as file, lines.open("rb") as lines_file:
            number = -1
            for number, (where, values) in enumerate(read_lines(lines_file, str(lines))):
                if number + 1 >= len(starts):
                    raise TokensError(f"{where}: is not in {index.name}")
                start, stop = int(starts[number]), int(starts[number + 1])
                yield _read_record(file, path, start, stop, values, where)
            if number + 2 != len(starts):
                raise TokensError(f"{lines}: has {number + 1} lines for {len(starts) - 1} records")

    @override
    def files(self, path: Path) -> list[Path]:
        return [path.with_suffix(".idx.npy"), path.with_suffix(".jsonl")]


def _read_record(
    file: Any, path: Path, start: int, stop: int, values: dict[str, Any], where: str
) -> Record:
    try:
        dtype = np.dtype(values.pop(DTYPE)).newbyteorder("<")
        shape = tuple(values.pop(SHAPE))
        if dtype.kind not in "iu" or not 0 <= start <= stop:
            raise ValueError("the data type or the position is wrong")
        file.seek(start * dtype.itemsize)
        data = file.read((stop - start) * dtype.itemsize)
        if len(data) < (stop - start) * dtype.itemsize:
            raise TokensError(f"{path}: ends inside the record of {where}")
        tokens = np.frombuffer(data, dtype).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, TokensError):
            raise
        raise TokensError(f"{where}: does not fit {path.name}: {error}") from error
    return make_record(tokens, values, where)


FORMAT = MemmapFormat()
