"""Lhotse Shar: `cuts.*.jsonl.gz` with cuts, and `tokens.*.tar` with their arrays.

The manifests are written as JSON: the package `lhotse` imports PyTorch, which takes over a second.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from typing_extensions import override

from codectool.corpus.formats.base import (
    Format,
    Schema,
    Write,
    file_name,
    make_record,
    npy_bytes,
    open_tar,
    parse_npy,
    read_lines,
    read_tar,
    read_tar_metadata,
    to_json_line,
)
from codectool.corpus.records import TOKENS, Record
from codectool.errors import TokensError
from codectool.files import atomic_output

SUPERVISION = ("text", "speaker", "language", "gender")


class LhotseFormat(Format):
    """Lhotse Shar."""

    name = "lhotse"
    has_metadata = True
    suffix = ".jsonl.gz"
    folder = "shar"  # `CutSet.from_shar(in_dir=...)` takes all files of a folder
    stem = "cuts."

    @contextmanager
    @override
    def open_shard(self, path: Path, schema: Schema) -> Iterator[Write]:
        axis, shift = schema.time_axis, 1 / schema.frame_rate
        (arrays,) = self.files(path)
        with (
            atomic_output(path, overwrite=True) as raw,
            gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="", compresslevel=6) as cuts,
            atomic_output(arrays, overwrite=True) as tar,
            open_tar(tar, schema.metadata) as add,
        ):

            def write(record: Record) -> None:
                name = file_name(record.key)
                shape = record.tokens.shape
                array = {
                    "array": {
                        "storage_type": "shar",
                        "storage_path": "",
                        "storage_key": "",
                        "shape": shape,
                    },
                    "temporal_dim": axis,
                    "frame_shift": shift,
                    "start": 0,
                }
                add(f"{name}.npy", npy_bytes(record.tokens))
                add(f"{name}.json", to_json_line(array))
                cuts.write(to_json_line(_cut(record, name, shape[axis] * shift)))

            yield write

    @override
    def read_shard(self, path: Path) -> Iterator[Record]:
        (arrays,) = self.files(path)
        members = read_tar(arrays)
        try:
            with path.open("rb") as raw, gzip.open(raw) as file:
                for where, cut in read_lines(cast(BinaryIO, file), str(path)):
                    name, data = next(members, ("", b""))
                    next(members, None)
                    if name != f"{cut.get('id')}.npy":
                        raise TokensError(f"{where}: is not the next one in {arrays.name}")
                    yield make_record(parse_npy(data, f"{arrays}: {name}"), _values(cut), where)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise TokensError(f"{path}: is not gzip, or is cut off: {error}") from error

    @override
    def read_metadata(self, path: Path) -> Mapping[str, Any] | None:
        return read_tar_metadata(self.files(path)[0])

    @override
    def files(self, path: Path) -> list[Path]:
        number = path.name.removeprefix(self.stem).removesuffix(self.suffix)
        return [path.with_name(f"{TOKENS}.{number}.tar")]


def _cut(record: Record, name: str, duration: float) -> dict[str, Any]:
    """Return the manifest of a cut.

    It ends with the last frame, a little after the audio: otherwise, `load_tokens` rounds the
    number of frames down.
    """
    columns = dict(record.columns)
    supervision = {
        "id": name,
        "recording_id": name,
        "start": 0,
        "duration": min(record.duration or duration, duration),
        "channel": record.channel,
        **{key: columns.pop(key) for key in SUPERVISION if columns.get(key) is not None},
    }
    cut = {
        "id": name,
        "start": 0,
        "duration": duration,
        "channel": record.channel,
        "supervisions": [supervision] if duration else [],
        "custom": record.fixed_columns() | columns,
        "type": "MonoCut",
    }
    if record.sample_rate is not None:  # without it, cuts cannot be truncated
        cut["recording"] = {
            "id": name,
            "sources": [{"type": "file", "channels": [record.channel], "source": ""}],
            "sampling_rate": record.sample_rate,
            "num_samples": round(duration * record.sample_rate),
            "duration": duration,
        }
    return cut


def _values(cut: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a cut."""
    values = dict(cut.get("custom") or {})
    supervisions = cut.get("supervisions") or [{}]
    return values | {key: supervisions[0].get(key) for key in SUPERVISION if key in supervisions[0]}


FORMAT = LhotseFormat()
