"""WebDataset: tar archives with `KEY.npy` and `KEY.json` for each record.

They are written with `tarfile`: the package `webdataset` imports PyTorch, which takes over a
second, and its conventions are two names per record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import override

from codectool.corpus.formats.base import (
    Format,
    Schema,
    Write,
    file_name,
    make_record,
    npy_bytes,
    open_tar,
    parse_json,
    parse_npy,
    read_tar,
    read_tar_metadata,
    to_json_line,
)
from codectool.corpus.records import Record
from codectool.errors import TokensError
from codectool.files import atomic_output
from codectool.messages import shorten


class WebDatasetFormat(Format):
    """Tar archives."""

    name = "webdataset"
    has_metadata = True
    suffix = ".tar"

    @contextmanager
    @override
    def open_shard(self, path: Path, schema: Schema) -> Iterator[Write]:
        with atomic_output(path, overwrite=True) as file, open_tar(file, schema.metadata) as add:

            def write(record: Record) -> None:
                key = file_name(record.key, dots=False)  # all after the first dot is the suffix
                add(f"{key}.npy", npy_bytes(record.tokens))
                columns = record.fixed_columns() | dict(record.columns)
                add(f"{key}.json", to_json_line(columns).rstrip())

            yield write

    @override
    def read_shard(self, path: Path) -> Iterator[Record]:
        key, sample = "", dict[str, bytes]()
        for name, data in read_tar(path):
            folder, slash, base = name.rpartition("/")
            stem, _, suffix = base.partition(".")
            if folder + slash + stem != key:
                if sample:
                    yield _make_record(path, key, sample)
                key, sample = folder + slash + stem, {}
            sample[suffix.lower()] = data
        if sample:
            yield _make_record(path, key, sample)

    @override
    def read_metadata(self, path: Path) -> Mapping[str, Any] | None:
        return read_tar_metadata(path)


def _make_record(path: Path, key: str, sample: Mapping[str, bytes]) -> Record:
    where = f"{path}: {shorten(key)}"
    if "npy" not in sample:
        raise TokensError(f"{where}: has no file `.npy` with the tokens")
    values = parse_json(sample["json"], f"{where}.json") if "json" in sample else {}
    return make_record(parse_npy(sample["npy"], f"{where}.npy"), {"id": key} | values, where)


FORMAT = WebDatasetFormat()
