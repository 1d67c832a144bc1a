"""The interface of a format of token data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from codectool.corpus.records import ColumnType, Record

Write: TypeAlias = Callable[[Record], None]


@dataclass(frozen=True)
class Schema:
    """What all records of a data set have in common.

    Attributes:
        metadata: JSON values that describe the tokens; written with them.
        dtype: data type of the arrays.
        ndim: number of dimensions of the arrays, 1 or 2.
        columns: types of the columns of the manifest.
        frame_rate: positions per second along the time axis of the arrays.
        time_axis: number of the time axis.
    """

    metadata: Mapping[str, Any]
    dtype: npt.DTypeLike = np.int32
    ndim: int = 2
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    frame_rate: float = 50.0
    time_axis: int = 0


class Format(ABC):
    """A format of token data sets, which consist of one or more shards.

    Attributes:
        name: name in options.
        suffix: suffix of the main file of a shard; its other files have the same stem.
        records_per_shard: default size of a shard; None for one shard.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    records_per_shard: ClassVar[int | None] = 10_000

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
        """Return the paths of all files of a shard, the main file last."""
        return [path]
