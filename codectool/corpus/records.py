"""`Record`: one sequence of a token data set, with its columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from codectool.tokens import check_gain

Value: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None
ColumnType: TypeAlias = Literal["string", "int", "float", "bool", "json"]

# Columns that every data set has besides those of the manifest, and their types.
FIXED_COLUMNS: dict[str, ColumnType] = {
    "id": "string",
    "num_samples": "int",
    "sample_rate": "int",
    "duration": "float",
    "channel": "int",
    "num_channels": "int",
    "segment_frames": "int",
    "gain_db": "float",
    "tags": "json",
}
TOKENS = "tokens"  # name of the column with the array


@dataclass(frozen=True, eq=False)
class Record:
    """The tokens of one channel of a recording.

    Attributes:
        id: name of the recording, unique in its data set; its channels share it.
        tokens: integers, one- or two-dimensional, as the layout of the data set arranges them.
        num_samples: samples per channel at ``sample_rate`` that decoding returns; None if unknown.
        sample_rate: sampling rate of the audio in Hz; None if unknown.
        channel: number of the channel, from 0.
        num_channels: number of channels of the recording.
        segment_frames: frames per independently encoded segment; None if there is one segment.
        gain_db: gain in dB that was applied before encoding; decoding undoes it.
        tags: text tags of the `.hcd` file.
        columns: values from the manifest, such as ``text`` and ``speaker``.
    """

    id: str
    tokens: npt.NDArray[np.integer[Any]]
    num_samples: int | None = None
    sample_rate: int | None = None
    channel: int = 0
    num_channels: int = 1
    segment_frames: int | None = None
    gain_db: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Value] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name that is unique among all channels, for formats that name each sequence."""
        return self.id if self.num_channels == 1 else f"{self.id}-ch{self.channel}"

    @property
    def duration(self) -> float | None:
        """Length of the audio in seconds; None if unknown."""
        if self.num_samples is None or not self.sample_rate:
            return None
        return self.num_samples / self.sample_rate

    def fixed_columns(self) -> dict[str, Any]:
        """Return the values of `FIXED_COLUMNS`."""
        return {name: getattr(self, name) for name in FIXED_COLUMNS} | {"tags": dict(self.tags)}

    @classmethod
    def from_columns(cls, tokens: npt.NDArray[Any], values: Mapping[str, Any]) -> Record:
        """Make a record of an array and the values of all columns; most of them may be missing.

        Raises:
            KeyError: there is no id.
            TypeError, ValueError: a value is not of the type of its column.
        """
        fixed = {
            name: values[name]
            for name in FIXED_COLUMNS
            if name != "duration" and values.get(name) is not None
        }
        for name, value in fixed.items():
            if FIXED_COLUMNS[name] == "int" and (type(value) is not int or value < 0):
                raise ValueError(f"{name} is {value!r:.40}, not a number of 0 or more")
        check_gain(fixed.get("gain_db", 0.0))
        tags = fixed.get("tags", {})
        if not isinstance(tags, Mapping) or not all(isinstance(v, str) for v in tags.values()):
            raise TypeError("tags are not texts by name")
        others = {name: value for name, value in values.items() if name not in FIXED_COLUMNS}
        return cls(tokens=tokens, columns=others, **{**fixed, "id": str(values["id"])})


def group_channels(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield the channels of each recording together; they follow each other in a data set.

    Raises:
        ValueError: a channel is missing or out of order.
    """
    group: list[Record] = []
    for record in records:
        if record.channel != len(group) or (group and record.id != group[0].id):
            raise ValueError(f"{record.id}: channel {record.channel} is not the next one")
        group.append(record)
        if len(group) == record.num_channels:
            yield group
            group = []
    if group:
        raise ValueError(f"{group[0].id}: {len(group)} of {group[0].num_channels} channels")
