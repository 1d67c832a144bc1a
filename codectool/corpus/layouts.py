"""`SequenceLayout`: codes as ids for a language model, and back.

The ids of a frame are its columns: channel by channel, in a channel codebook by codebook, as in a
`.hcd` file. With ``group_bits`` a codebook may be several columns of about equal width, its most
significant bits first.
For C channels with U columns each and F frames:

    kind        shape             order
    frames      (F, C * U)        a row per frame
    codebooks   (C * U, F)        a row per column
    flat        (F * C * U,)      frame by frame
    delay       (C * U, F + U-1)  as codebooks; column u starts u steps later, with pads around it

An id is ``id_base + offsets[column] + value``. Channels share offsets, so that the vocabulary does
not depend on their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from codectool.errors import ConfigError, TokensError
from codectool.messages import shorten_repr
from codectool.schema import Config
from codectool.tokens import (
    MAX_CHANNELS,
    MAX_CODEBOOK_BITS,
    MAX_CODEBOOKS,
    check_codes,
    check_integer,
)

Kind = Literal["frames", "codebooks", "flat", "delay"]
DType = Literal["uint8", "uint16", "int16", "int32", "uint32", "int64"]
LAYOUTS = (*get_args(Kind), "bits")  # the names that `SequenceLayout.make` accepts
DTYPES: tuple[str, ...] = get_args(DType)
MAX_OFFSETS = 64  # in the lists of a config
MAX_ID = (1 << 31) - 1  # of what is given; sums of offsets may exceed it

Bits = Annotated[int, msgspec.Meta(ge=1, le=MAX_CODEBOOK_BITS)]
Id = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
PadId = Annotated[int, msgspec.Meta(ge=-MAX_ID, le=MAX_ID << 8)]
BitsPerCodebook = Annotated[tuple[Bits, ...], msgspec.Meta(min_length=1, max_length=MAX_CODEBOOKS)]
Ids = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]


class Column(NamedTuple):
    """One id of a frame of one channel.

    Attributes:
        codebook: index of the codebook.
        shift: position of the column's least significant bit in the code.
        bits: bits of the value.
        part: index of the column among those of its codebook.
        first_id: id of the value 0.
    """

    codebook: int
    shift: int
    bits: int
    part: int
    first_id: int

    @property
    def last_id(self) -> int:
        """Id of the largest value."""
        return self.first_id + (1 << self.bits) - 1


class SequenceLayout(Config, frozen=True):
    """How the codes of a record are arranged as ids; all that is needed to invert it.

    Make one with `make`, which chooses offsets, pad id and dtype.

    Attributes:
        kind: ``"frames"``, ``"codebooks"``, ``"flat"`` or ``"delay"``; see the module.
        bits_per_codebook: bits per code of each codebook of the codec.
        group_bits: most bits per id; wider codes are split. None: one id per code.
        offsets: what is added to the ids of each column of a channel; empty: nothing.
        id_base: what is added to all ids.
        pad_id: id at the positions of a delay pattern that no frame fills; None for other kinds.
        dtype: NumPy dtype of the ids.

    Examples:
        >>> layout = SequenceLayout.make("flat", [10, 10], offsets=True, id_base=32000)
        >>> layout.to_ids(np.array([[1, 2], [3, 4]])).tolist()  # K = 2 codebooks, F = 2 frames
        [32001, 33027, 32002, 33028]
        >>> layout.from_ids([32001, 33027, 32002, 33028]).tolist()  # (C, K, F)
        [[[1, 2], [3, 4]]]
    """

    kind: Kind
    bits_per_codebook: BitsPerCodebook
    group_bits: Bits | None = None
    offsets: tuple[Id, ...] = ()
    id_base: Id = 0
    pad_id: PadId | None = None
    dtype: DType = "int32"

    def __post_init__(self) -> None:
        if self.offsets and len(self.offsets) != self.ids_per_frame:
            raise ConfigError(
                f"{len(self.offsets)} offsets, but a frame has {self.ids_per_frame} ids per channel"
            )
        if (self.kind == "delay") != (self.pad_id is not None):
            raise ConfigError("`pad_id` is needed for the layout `delay`, and only for it")
        if self.pad_id is not None and any(
            column.first_id <= self.pad_id <= column.last_id for column in self.columns
        ):
            raise ConfigError(
                f"the pad id {self.pad_id} is also the id of a code; take {self.end_id} or above"
            )
        low, high = np.iinfo(self.dtype).min, np.iinfo(self.dtype).max
        smallest = min(0, self.pad_id or 0)
        if not low <= smallest <= self.vocabulary_size - 1 <= high:
            needed = _smallest_dtype(smallest, self.vocabulary_size - 1)
            raise ConfigError(
                f"ids {smallest}..{self.vocabulary_size - 1} do not fit {self.dtype}; take "
                f"{needed}, or split wide codes into groups of fewer bits"
            )

    @classmethod
    def make(
        cls,
        kind: str,
        bits_per_codebook: Sequence[int],
        *,
        group_bits: int | None = None,
        offsets: bool = False,
        id_base: int = 0,
        pad_id: int | None = None,
        dtype: str | None = None,
    ) -> SequenceLayout:
        """Return a layout with offsets, pad id and dtype chosen.

        Args:
            kind: one of `LAYOUTS`; ``"bits"`` is ``"frames"`` with one bit per id.
            bits_per_codebook: of the codec, as in `TokenLayout`.
            group_bits: most bits per id; 9 splits HAC's 18 bits into two ids of 512 values.
            offsets: give each column its own range of ids, one after another.
            id_base: first id, for example the size of the text vocabulary.
            pad_id: pad of a delay pattern; None: the first id after those of the codes.
            dtype: one of `DTYPES`; None: the smallest of uint8, uint16, int32 and int64 (int16
                instead of uint16 for a negative pad id) that holds all ids.

        Raises:
            ConfigError: the values contradict each other, or ids do not fit ``dtype``.
            TokensError: a number is out of range.
        """
        if kind == "bits":
            if group_bits not in (None, 1):
                raise ConfigError("the layout `bits` has one bit per id; leave out the group")
            kind, group_bits = "frames", 1
        if kind not in LAYOUTS:
            raise ConfigError(f"no layout {kind!r}; there are {', '.join(LAYOUTS)}")
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError(f"no dtype {dtype!r} for ids; there are {', '.join(DTYPES)}")
        if kind != "delay" and pad_id is not None:
            raise ConfigError("a pad id is for the layout `delay` only")
        check_integer("number of codebooks", len(bits_per_codebook), 1, MAX_CODEBOOKS)
        for bits in bits_per_codebook:
            check_integer("bits per code", bits, 1, MAX_CODEBOOK_BITS)
        if group_bits is not None:
            check_integer("bits per group", group_bits, 1, MAX_CODEBOOK_BITS)
        check_integer("id base", id_base, 0, MAX_ID)
        widths = [bits for _, _, bits, _ in _split(bits_per_codebook, group_bits)]
        if offsets and len(widths) > MAX_OFFSETS:
            raise ConfigError(
                f"offsets for {len(widths)} ids per frame; the most are {MAX_OFFSETS}: "
                "use wider groups, or no offsets"
            )
        starts = [0]
        for width in widths:
            starts.append(starts[-1] + (1 << width))
        end = id_base + (starts[-1] if offsets else 1 << max(widths))
        if kind == "delay":
            pad_id = end if pad_id is None else pad_id
            check_integer("pad id", pad_id, -MAX_ID, MAX_ID << 8)
        return cls(
            kind=kind,  # type: ignore[arg-type]
            bits_per_codebook=tuple(map(int, bits_per_codebook)),
            group_bits=group_bits,
            offsets=tuple(starts[:-1]) if offsets else (),
            id_base=id_base,
            pad_id=pad_id,
            dtype=dtype or _smallest_dtype(pad_id or 0, max(end - 1, pad_id or 0)),  # type: ignore[arg-type]
        )

    @property
    def columns(self) -> list[Column]:
        """The ids of a frame of one channel, in order."""
        parts = _split(self.bits_per_codebook, self.group_bits)
        offsets = self.offsets or (0,) * len(parts)
        return [
            Column(*part, self.id_base + offset)
            for part, offset in zip(parts, offsets, strict=True)
        ]

    @property
    def ids_per_frame(self) -> int:
        """Ids per frame and channel, U."""
        return len(_split(self.bits_per_codebook, self.group_bits))

    @property
    def first_id(self) -> int:
        """Smallest id of a code."""
        return min(column.first_id for column in self.columns)

    @property
    def end_id(self) -> int:
        """One past the largest id of a code."""
        return 1 + max(column.last_id for column in self.columns)

    @property
    def vocabulary_size(self) -> int:
        """One past the largest id, with ``id_base`` and the pad: rows of an embedding table."""
        return max(self.end_id, 1 + (self.pad_id or 0))

    @property
    def time_axis(self) -> int:
        """Axis of the ids along which frames follow each other."""
        return 0 if self.kind in ("frames", "flat") else 1

    @property
    def max_delay(self) -> int:
        """Steps by which the last column of a delay pattern starts later than the first."""
        return self.ids_per_frame - 1 if self.kind == "delay" else 0

    @property
    def knows_columns(self) -> bool:
        """Whether an id determines its column: the ranges of the columns do not overlap."""
        ranges = sorted((column.first_id, column.last_id) for column in self.columns)
        return all(last < first for (_, last), (first, _) in pairwise(ranges))

    def shape(self, frames: int, channels: int = 1) -> tuple[int, ...]:
        """Return the shape of the ids of a record."""
        width = channels * self.ids_per_frame
        return {
            "frames": (frames, width),
            "codebooks": (width, frames),
            "flat": (frames * width,),
            "delay": (width, frames + self.max_delay),
        }[self.kind]

    def to_ids(self, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Arrange codes as ids.

        Args:
            codes: integers ``(K, F)`` or ``(C, K, F)``.

        Returns:
            Ids of ``dtype`` in the shape ``self.shape(F, C)``.

        Raises:
            TokensError: the codes have another shape or do not fit the codebooks.
        """
        codes = np.asarray(codes)
        codes = codes[None] if codes.ndim == 2 else codes
        check_codes(codes, self.bits_per_codebook)
        channels, _, frames = codes.shape
        columns = self.columns
        grid = np.empty((frames, channels, len(columns)), self.dtype)
        for index, column in enumerate(columns):
            values = codes[:, column.codebook].astype(np.int64) >> column.shift
            grid[:, :, index] = ((values & ((1 << column.bits) - 1)) + column.first_id).T
        rows = grid.reshape(frames, channels * len(columns))
        if self.kind == "frames":
            return rows
        if self.kind == "flat":
            return rows.reshape(-1)
        if self.kind == "codebooks":
            return np.ascontiguousarray(rows.T)
        assert self.pad_id is not None
        delayed = np.full(self.shape(frames, channels), self.pad_id, self.dtype)
        for index, row in enumerate(delayed):
            delay = index % len(columns)
            row[delay : delay + frames] = rows[:, index]
        return delayed

    def from_ids(self, ids: npt.ArrayLike, channels: int = 1) -> Codes:
        """Undo `to_ids`.

        Args:
            ids: integers in the shape of `shape`: an array, a tensor on any device, or lists. A
                batch axis of length 1 is accepted.
            channels: number of channels C.

        Returns:
            Codes, int32 ``(C, K, F)``.

        Raises:
            TokensError: ids are missing, not integers or not those of codes; the message says
                where. `recover_codes` repairs what can be repaired.
        """
        array = self.to_sequence(ids)
        grid = self.to_grid(array, channels, complete=False)
        bad = self.find_bad(grid)
        if bad.any():
            raise self.bad_id_error(grid, *np.argwhere(bad)[0].tolist())
        self.to_grid(array, channels)  # raises for incomplete frames, whose cause is likely before
        return self.to_codes(grid, channels)

    def to_grid(self, ids: npt.ArrayLike, channels: int = 1, *, complete: bool = True) -> Ids:
        """Arrange ids as frames.

        Args:
            ids: as for `from_ids`.
            channels: number of channels C.
            complete: raise if the last frames are incomplete, or if pads are missing; if False,
                only complete frames are returned.

        Returns:
            Ids, int64 ``(F, C * U)``, not checked.

        Raises:
            TokensError: not integers, or of another shape.
        """
        check_integer("number of channels", channels, 1, MAX_CHANNELS)
        array = self.to_sequence(ids)
        width = channels * self.ids_per_frame
        if array.size == 0:
            return np.zeros((0, width), np.int64)
        if self.kind == "flat":
            return self._flat_to_grid(array, width, complete)
        if array.shape[self.time_axis - 1] != width:
            raise self._shape_error(array, width)
        if self.kind == "frames":
            return array
        return array.T if self.kind == "codebooks" else self._undelay(array, complete)

    def to_sequence(self, ids: npt.ArrayLike) -> Ids:
        """Return ids as an int64 array with the number of dimensions that the layout has.

        Raises:
            TokensError: not integers, or of another number of dimensions.
        """
        array = as_ids(ids)
        dimensions = 1 if self.kind == "flat" else 2
        if array.ndim == dimensions + 1 and array.shape[0] == 1:  # a batch of one sequence
            array = array[0]
        if array.ndim == 1 and dimensions == 2 and self.ids_per_frame == 1:
            array = np.expand_dims(array, 1 - self.time_axis)
        if array.size == 0:
            return array.reshape((0,) * dimensions)
        if array.ndim != dimensions:
            raise self._shape_error(array, self.ids_per_frame)
        return array

    def is_code(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Return which ids are those of a code of any codebook."""
        known = np.zeros(ids.shape, np.bool_)
        for column in self.columns:
            np.logical_or(known, (ids >= column.first_id) & (ids <= column.last_id), out=known)
        return known

    def find_bad(self, grid: Ids) -> npt.NDArray[np.bool_]:
        """Return which ids of a grid ``(F, C * U)`` are not those of a code of their column."""
        first, last = self.id_ranges(grid.shape[1])
        return (grid < first) | (grid > last)

    def to_codes(self, grid: Ids, channels: int = 1) -> Codes:
        """Return codes, int32 ``(C, K, F)``, of a grid ``(F, C * U)`` without bad ids."""
        frames = len(grid)
        values = grid.reshape(frames, channels, self.ids_per_frame)
        codes = np.zeros((channels, len(self.bits_per_codebook), frames), np.int32)
        for index, column in enumerate(self.columns):
            part = (values[:, :, index] - column.first_id).T << column.shift
            codes[:, column.codebook] |= part.astype(np.int32)
        return codes

    def id_ranges(self, width: int) -> tuple[Ids, Ids]:
        """Return the first and the last id of each of the ``width`` columns of all channels."""
        columns = self.columns
        ranges = np.array([(c.first_id, c.last_id) for c in columns], np.int64).T
        first, last = np.tile(ranges, width // len(columns))
        return first, last

    def bad_id_error(
        self, grid: Ids, frame: int, index: int, positions: Ids | None = None
    ) -> TokensError:
        """Return the error about a bad id of a grid ``(F, C * U)``.

        Args:
            grid: ids.
            frame: frame of the bad id.
            index: its column.
            positions: position in a flat sequence of each id; None if none were stripped.
        """
        value = int(grid[frame, index])
        column = self.columns[index % self.ids_per_frame]
        others = [
            self.describe_column(other)
            for other, c in enumerate(self.columns)
            if c.first_id <= value <= c.last_id
        ]
        where = f"frame {frame}, {self.describe_column(index, grid.shape[1])}"
        if self.kind == "flat":
            position = frame * grid.shape[1] + index
            where = f"position {position if positions is None else positions[position]} ({where})"
        if others and self.knows_columns:
            remedy = ": see `--realign`" if self.kind == "flat" else ""
            return TokensError(
                f"id {value} at {where} belongs to {others[0]}; ids are missing, added or in "
                f"another order{remedy}"
            )
        return TokensError(
            f"id {value} at {where} is not in {column.first_id}..{column.last_id}; "
            "see `--on-bad-id`"
        )

    def describe_column(self, index: int, width: int = 1) -> str:
        """Return for example ``codebook 1``, with part and channel if there are several."""
        channel, number = divmod(index, self.ids_per_frame)
        column = self.columns[number]
        text = f"codebook {column.codebook}"
        if self.ids_per_frame > len(self.bits_per_codebook):
            text += f" part {column.part}"
        return f"channel {channel} {text}" if width > self.ids_per_frame else text

    def _flat_to_grid(self, array: Ids, width: int, complete: bool) -> Ids:
        frames, rest = divmod(len(array), width)
        if rest and complete:
            remedy = " and `--realign`" if self.knows_columns else ""
            raise TokensError(
                f"{len(array)} ids are not whole frames of {width}: frame {frames} has only "
                f"{rest}; see `--on-bad-id drop-frame`{remedy}"
            )
        return array[: frames * width].reshape(frames, width)

    def _undelay(self, array: Ids, complete: bool) -> Ids:
        width, steps = array.shape
        frames = max(0, steps - self.max_delay)
        grid = np.empty((frames, width), np.int64)
        for index, row in enumerate(array):
            delay = index % self.ids_per_frame
            grid[:, index] = row[delay : delay + frames]
            if not complete:
                continue
            outside = np.concatenate([row[:delay], row[delay + frames :]])
            if (wrong := np.flatnonzero(outside != self.pad_id)).size:
                step = int(wrong[0]) + (frames if wrong[0] >= delay else 0)
                raise TokensError(
                    f"id {int(row[step])} at step {step} of {self.describe_column(index, width)} "
                    f"should be the pad {self.pad_id}: a delay pattern of {frames} frames ends "
                    "before it, or ids are in another order; see `--on-bad-id drop-frame`"
                )
        return grid

    def _shape_error(self, array: Ids, width: int) -> TokensError:
        wanted = {
            "frames": f"(frames, {width})",
            "codebooks": f"({width}, frames)",
            "flat": "(ids,)",
            "delay": f"({width}, steps)",
        }[self.kind]
        text = f"the layout `{self.kind}` needs ids of shape {wanted}, not {array.shape}"
        if array.ndim == 2 and self.kind != "flat" and width in array.shape:
            other = "codebooks" if self.kind == "frames" else "frames"
            text += f"; transposed? that is the layout `{other}`"
        elif array.ndim == 1:
            text += "; a single row is the layout `flat`"
        return TokensError(text)


@dataclass(frozen=True)
class LayoutOptions:
    """Arguments of `SequenceLayout.make`, before the codec is known; kind None is ``frames``."""

    kind: str | None = None
    group_bits: int | None = None
    offsets: bool = False
    id_base: int = 0
    pad_id: int | None = None
    dtype: str | None = None

    def make(self, bits_per_codebook: Sequence[int]) -> SequenceLayout:
        """Return the layout for codes of these widths."""
        options = vars(self) | {"kind": self.kind or "frames"}
        return SequenceLayout.make(bits_per_codebook=bits_per_codebook, **options)


def as_ids(values: npt.ArrayLike) -> Ids:
    """Convert an array, a tensor on any device, or nested lists of integers to int64.

    Raises:
        TokensError: not integers, not below 2 ** 63, or rows of different lengths.
    """
    tensor: Any = values
    if hasattr(tensor, "detach"):  # PyTorch, which this module does not import
        values = tensor.detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise TokensError("rows of ids have different lengths") from error
    if array.ndim == 0:
        raise TokensError(f"ids must be a list or an array, not {shorten_repr(values, 40)}")
    if array.size == 0:
        return np.zeros(array.shape, np.int64)
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and int(array.max()) >> 63:
        raise TokensError(f"id {int(array.max())} is too large")
    if array.dtype.kind not in "iu":
        first = shorten_repr(array.reshape(-1)[0].item() if array.dtype.kind != "O" else values, 40)
        raise TokensError(f"ids must be integers, not {array.dtype} such as {first}")
    return array.astype(np.int64, copy=False)


def _split(
    bits_per_codebook: Sequence[int], group_bits: int | None
) -> list[tuple[int, int, int, int]]:
    """Return codebook, shift, bits and part of each column of a channel."""
    columns = []
    for codebook, bits in enumerate(bits_per_codebook):
        parts = -(-bits // (group_bits or bits))
        shift = bits
        for part in range(parts):
            width = bits // parts + (part < bits % parts)
            shift -= width
            columns.append((codebook, shift, width, part))
    return columns


def _smallest_dtype(low: int, high: int) -> str:
    candidates = ("uint8", "uint16", "int32", "int64") if low >= 0 else ("int16", "int32", "int64")
    return next(
        name for name in candidates if low >= np.iinfo(name).min and high <= np.iinfo(name).max
    )
