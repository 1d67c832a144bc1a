"""One `.npy` file per record in a tree of folders, listed in JSON Lines files.

A data set of a single record may also be one `.npy` file, with its columns and metadata in a
`.json` file of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import override

from codectool.corpus.formats.base import (
    METADATA_KEY,
    Format,
    Schema,
    Write,
    file_name,
    make_record,
    npy_bytes,
    parse_json,
    parse_npy,
    read_lines,
    to_json_line,
)
from codectool.corpus.records import Record
from codectool.errors import TokensError, UsageError
from codectool.files import atomic_output

FILE = "file"  # column with the name of the `.npy` file, relative to the list


class NpyFormat(Format):
    """A `.npy` file per record."""

    name = "npy"
    suffix = ".jsonl"

    @contextmanager
    @override
    def open_shard(self, path: Path, schema: Schema) -> Iterator[Write]:
        if path.suffix.lower() == ".npy":
            with self._open_single(path, schema) as write:
                yield write
            return
        made: set[Path] = set()
        with atomic_output(path, overwrite=True) as listing:

            def write(record: Record) -> None:
                name = f"{file_name(record.key)}.npy"
                target = path.parent / name
                if target.parent not in made:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    made.add(target.parent)
                with atomic_output(target, overwrite=True) as file:
                    file.write(npy_bytes(record.tokens))
                columns = record.fixed_columns() | dict(record.columns)
                listing.write(to_json_line({FILE: name} | columns))

            yield write

    @contextmanager
    def _open_single(self, path: Path, schema: Schema) -> Iterator[Write]:
        records: list[Record] = []

        def write(record: Record) -> None:
            if records:
                raise UsageError(
                    f"{path}: a .npy file holds one sequence, and there are several; "
                    "name a folder, with `--format npy`"
                )
            records.append(record)

        yield write
        with atomic_output(path, overwrite=True) as file:
            for record in records:
                columns = record.fixed_columns() | dict(record.columns)
                with atomic_output(path.with_suffix(".json"), overwrite=True) as sidecar:
                    sidecar.write(to_json_line({METADATA_KEY: schema.metadata} | columns))
                file.write(npy_bytes(record.tokens))

    @override
    def read_shard(self, path: Path) -> Iterator[Record]:
        if path.suffix.lower() == ".npy":
            values = self._sidecar(path)
            values.pop(METADATA_KEY, None)
            tokens = parse_npy(path.read_bytes(), str(path))
            yield make_record(tokens, {"id": path.stem} | values, str(path))
            return
        with path.open("rb") as file:
            for where, values in read_lines(file, str(path)):
                name = values.pop(FILE, None)
                if not isinstance(name, str) or name.startswith("/") or ".." in name.split("/"):
                    raise TokensError(
                        f"{where}: has no column `{FILE}` with a file below its folder"
                    )
                array = path.parent / name
                yield make_record(parse_npy(array.read_bytes(), str(array)), values, where)

    @override
    def read_metadata(self, path: Path) -> Mapping[str, Any] | None:
        if path.suffix.lower() != ".npy":
            return None
        metadata = self._sidecar(path).get(METADATA_KEY)
        return metadata if isinstance(metadata, dict) else None

    @override
    def files(self, path: Path) -> list[Path]:
        if path.suffix.lower() == ".npy":
            return [path.with_suffix(".json")]
        with path.open("rb") as file:
            names = [values.get(FILE) for _, values in read_lines(file, str(path))]
        return [path.parent / name for name in names if isinstance(name, str)]

    def _sidecar(self, path: Path) -> dict[str, Any]:
        sidecar = path.with_suffix(".json")
        if not sidecar.is_file():
            return {}
        return parse_json(sidecar.read_bytes(), str(sidecar))


FORMAT = NpyFormat()
