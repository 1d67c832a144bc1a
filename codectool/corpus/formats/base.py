"""The interface of a format of token data sets, and what several formats need."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import tokenize
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from codectool.corpus.records import TOKENS, ColumnType, Record
from codectool.errors import TokensError
from codectool.messages import shorten, shorten_repr

Write: TypeAlias = Callable[[Record], None]
MAX_LINE_BYTES = 1 << 28  # of JSON; a day of audio is shorter
MAX_NAME_BYTES = 200  # of a part of a path
METADATA_KEY = "codectool"  # in files that have named metadata


@dataclass(frozen=True)
class Schema:
    """What all records of a data set have in common.

    Attributes:
        metadata: JSON values that describe the tokens; written with them.
        dtype: data type of the arrays.
        shape: shape of the arrays; None is the time axis.
        frame_rate: positions per second along the time axis.
        columns: types of the columns of the manifest.
    """

    metadata: Mapping[str, Any]
    dtype: npt.DTypeLike = np.int32
    shape: tuple[int | None, ...] = (None, 1)
    frame_rate: float = 50.0
    columns: Mapping[str, ColumnType] = field(default_factory=dict)

    @property
    def time_axis(self) -> int:
        """Number of the time axis."""
        return self.shape.index(None)


class Format(ABC):
    """A format of token data sets, which consist of one or more shards.

    Attributes:
        name: name in options.
        suffix: suffix of the main file of a shard; its other files have the same stem.
        records_per_shard: default size of a shard; None for one shard.
        folder: folder of the shards inside that of the data set.
        stem: name of the main file of a shard before its number.
        has_metadata: whether shards contain their metadata.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    records_per_shard: ClassVar[int | None] = 10_000
    folder: ClassVar[str] = ""
    stem: ClassVar[str] = "tokens-"
    has_metadata: ClassVar[bool] = False

    @abstractmethod
    def open_shard(self, path: Path, schema: Schema) -> AbstractContextManager[Write]:
        """Open a shard for writing; its main file appears last, when the body has succeeded.

        Args:
            path: path of the main file; replaced if it exists.
            schema: what the records have in common.
        """

    @abstractmethod
    def read_shard(self, path: Path) -> Iterator[Record]:
        """Yield the records of a shard, in memory that does not grow with their number.

        Raises:
            TokensError: the shard is not in this format, or is damaged.
        """

    def read_metadata(self, path: Path) -> Mapping[str, Any] | None:
        """Return the metadata inside a shard; None if it has none."""
        return None

    def files(self, path: Path) -> list[Path]:
        """Return the files of a shard besides the main file."""
        return []


def to_json_line(values: Mapping[str, Any]) -> bytes:
    """Return JSON in UTF-8, with a line break; NaN becomes null."""
    return msgspec.json.encode(values) + b"\n"


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in ``data``; raise a `TokensError` that begins with ``where``."""
    try:
        values = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise TokensError(f"{where}: is not JSON: {shorten(str(error))}") from error
    if not isinstance(values, dict):
        raise TokensError(f"{where}: is not a JSON object")
    return values


def read_lines(file: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON object of each line that is not blank, and where it stands."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if line.strip():
            where = f"{name}: line {number}"
            yield where, parse_json(line, where)


def make_record(tokens: Any, values: Mapping[str, Any], where: str) -> Record:
    """Make a record; raise a `TokensError` that begins with ``where``."""
    try:
        array = np.asarray(tokens)
        if array.size == 0 and array.dtype.kind == "f":  # an empty list
            array = array.astype(np.int32)
        if array.dtype.kind not in "iu" or not 1 <= array.ndim <= 3:
            raise ValueError(f"{TOKENS} are not an array of integers but {shorten_repr(tokens)}")
        return Record.from_columns(array, values)
    except KeyError as error:
        raise TokensError(f"{where}: has no column {error}") from error
    except (TypeError, ValueError) as error:
        raise TokensError(f"{where}: {shorten(str(error))}") from error


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """Return the content of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def parse_npy(data: bytes, where: str) -> npt.NDArray[Any]:
    """Return the array of a `.npy` file; its size is checked before memory is requested."""
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, fortran_order, dtype = read[version](file)
        if dtype.hasobject:
            raise ValueError("holds Python objects")
        array = np.frombuffer(data, dtype, offset=file.tell())
        return array.reshape(shape, order="F" if fortran_order else "C")
    except (
        *(KeyError, ValueError, TypeError, OverflowError, RecursionError),
        *(SyntaxError, tokenize.TokenError),  # of the header, which NumPy parses as Python
    ) as error:
        raise TokensError(f"{where}: is not a .npy file: {shorten(str(error))}") from error


def file_name(key: str, dots: bool = True) -> str:
    """Return a key as the name of a file in folders: relative, and not too long.

    Other characters than letters, digits, spaces and `-_+@=,` become `%XX`, so that different keys
    have different names.

    Args:
        key: name of a record.
        dots: keep dots, except those at the start of a name.

    Examples:
        >>> file_name("p253/utt.1"), file_name("../a", dots=False)
        ('p253/utt.1', '%2E%2E/a')
    """
    parts = [_file_part(part, dots) for part in key.split("/")]
    return "/".join(part or "%" for part in parts)


def _file_part(part: str, dots: bool) -> str:
    other = r"[^\w.\-+@=, ]|^[._]" if dots else r"[^\w\-+@=, ]|^_"
    part = re.sub(other, lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), part)
    data = part.encode()
    if len(data) <= MAX_NAME_BYTES:
        return part
    digest = hashlib.sha256(data).hexdigest()[:16]
    return data[: MAX_NAME_BYTES - 20].decode(errors="ignore") + "%" + digest


@contextmanager
def open_tar(file: BinaryIO, metadata: Mapping[str, Any]) -> Iterator[Callable[[str, bytes], None]]:
    """Open a tar archive for writing; yield a function that adds a file.

    Archives do not depend on the time or the user. The metadata are in a global header, which
    programs that read samples skip.
    """
    headers = {f"{METADATA_KEY.upper()}.metadata": msgspec.json.encode(metadata).decode()}
    with tarfile.open(
        fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers
    ) as tar:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        yield add


def read_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files of a tar archive."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for info in tar:
                opened = tar.extractfile(info) if info.isfile() else None
                if opened is not None:
                    data = opened.read()
                    if len(data) < info.size:
                        raise TokensError(f"{path}: ends inside {shorten(info.name)}")
                    yield info.name, data
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, TokensError):
            raise
        raise TokensError(f"{path}: is not a tar archive: {shorten(str(error))}") from error


def read_tar_metadata(path: Path) -> Mapping[str, Any] | None:
    """Return the metadata of `open_tar`; None if there are none."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            text = tar.pax_headers.get(f"{METADATA_KEY.upper()}.metadata")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise TokensError(f"{path}: is not a tar archive: {shorten(str(error))}") from error
    return None if text is None else parse_json(text.encode(), f"{path}: metadata")
