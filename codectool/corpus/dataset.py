"""A token data set on disk: shards in one folder with `metadata.json`, or a single file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codectool.corpus.formats import FORMATS, format_of, get_format
from codectool.corpus.formats.base import METADATA_KEY, Format, parse_json
from codectool.corpus.records import Record
from codectool.errors import TokensError, UsageError

METADATA_NAME = "metadata.json"
DIGEST = "[0-9a-f]{8}"


@dataclass(frozen=True)
class TokenDataset:
    """A data set that can be read.

    Attributes:
        path: folder or file.
        format: its format.
        shards: main files of the shards, in order.
        metadata: what the tokens mean; None if another program wrote them without it.
    """

    path: Path
    format: Format
    shards: tuple[Path, ...]
    metadata: Mapping[str, Any] | None

    def __iter__(self) -> Iterator[Record]:
        """Yield all records, in memory that does not grow with their number.

        Raises:
            TokensError: a shard is damaged.
        """
        for shard in self.shards:
            yield from self.format.read_shard(shard)


def open_dataset(path: str | Path, format_name: str | None = None) -> TokenDataset:
    """Open a data set, or files of one of its formats that another program wrote.

    Args:
        path: folder or file.
        format_name: format of files of other programs; None to choose by their suffix.

    Raises:
        UsageError: there is no data set, or an export has not finished.
        TokensError: its metadata are damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, format_name)
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    name = format_name or format_of(path)
    if name is None:
        raise UsageError(f"{path}: its suffix is of no format; name it with `--format`")
    found = get_format(name)
    metadata = found.read_metadata(path)
    if metadata is None and sidecar_of(path).is_file():
        sidecar = parse_json(sidecar_of(path).read_bytes(), str(sidecar_of(path)))
        metadata = sidecar.get(METADATA_KEY)
    return TokenDataset(path, found, (path,), metadata)


def _open_folder(path: Path, format_name: str | None) -> TokenDataset:
    sidecar = path / METADATA_NAME
    if sidecar.is_file():
        values = parse_json(sidecar.read_bytes(), str(sidecar))
        name, metadata = values.get("format"), values.get(METADATA_KEY)
        if name in FORMATS and isinstance(metadata, dict):
            if values.get("complete") is not True:
                raise UsageError(f"{path}: its export has not finished; repeat the command")
            found = get_format(name)
            return TokenDataset(path, found, tuple(find_shards(path, found)), metadata)
    for name in [format_name] if format_name else [n for n in FORMATS if FORMATS[n]]:
        suffixes = FORMATS[name]
        shards = sorted(p for p in path.rglob("*") if suffixes and p.name.endswith(suffixes))
        if shards:
            found = get_format(name)
            return TokenDataset(path, found, tuple(shards), found.read_metadata(shards[0]))
    raise UsageError(f"{path}: contains no tokens in one of the formats {', '.join(FORMATS)}")


def sidecar_of(path: Path) -> Path:
    """Return the file with the metadata of a data set that is a single file."""
    suffix = next((s for ss in FORMATS.values() for s in ss if path.name.endswith(s)), path.suffix)
    return path.with_name(path.name.removesuffix(suffix) + ".metadata.json")


def shard_name(found: Format, number: int, digest: str) -> str:
    """Return the name of the main file of a shard."""
    return f"{found.stem}{number:05d}-{digest}{found.suffix}"


def find_shards(folder: Path, found: Format) -> list[Path]:
    """Return the main files of the shards in the folder of a data set, in order."""
    pattern = re.compile(rf"{re.escape(found.stem)}\d{{5,}}-{DIGEST}{re.escape(found.suffix)}")
    place = folder / found.folder
    if not place.is_dir():
        return []
    shards = [path for path in place.iterdir() if pattern.fullmatch(path.name)]
    return sorted(shards, key=lambda path: (len(path.name), path.name))


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """Return the content of `metadata.json` if codectool wrote it; None if it did not."""
    try:
        values = parse_json(path.read_bytes(), str(path))
    except (OSError, TokensError):
        return None
    return values if METADATA_KEY in values else None
