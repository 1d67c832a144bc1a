"""JSON Lines: a line per record, with the tokens as nested lists."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from typing_extensions import override

from codectool.corpus.formats.base import (
    Format,
    Schema,
    Write,
    make_record,
    read_lines,
    to_json_line,
)
from codectool.corpus.records import TOKENS, Record
from codectool.errors import TokensError
from codectool.files import atomic_output


class JsonlFormat(Format):
    """JSON Lines, compressed if the name ends with `.gz`."""

    name = "jsonl"
    suffix = ".jsonl"

    @contextmanager
    @override
    def open_shard(self, path: Path, schema: Schema) -> Iterator[Write]:
        with atomic_output(path, overwrite=True) as raw, _compressed(raw, path) as file:

            def write(record: Record) -> None:
                values = record.fixed_columns() | {TOKENS: record.tokens.tolist()}
                file.write(to_json_line(values | dict(record.columns)))

            yield write

    @override
    def read_shard(self, path: Path) -> Iterator[Record]:
        try:
            with path.open("rb") as raw:
                gzipped = path.name.lower().endswith(".gz")
                file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if gzipped else raw
                for where, values in read_lines(file, str(path)):
                    if TOKENS not in values:
                        raise TokensError(f"{where}: has no column `{TOKENS}`")
                    yield make_record(values.pop(TOKENS), values, where)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise TokensError(f"{path}: is not gzip, or is cut off: {error}") from error


@contextmanager
def _compressed(file: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    if not path.name.lower().endswith(".gz"):
        yield file
        return
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as compressed:
        yield cast(BinaryIO, compressed)


FORMAT = JsonlFormat()
