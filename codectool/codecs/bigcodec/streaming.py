"""Streaming forms of BigCodec's layers: same weights, chunks of any size, explicit state.

A module takes the next columns ``(B, T, C)`` and its state and returns the output columns that are
now known and the new state. The state holds the columns that later output depends on, so nothing
is computed twice, and the output depends on the chunk sizes only by rounding. The signals of a
batch may have different lengths. `StreamingConv` does most of the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from codectool.nn.packed import PackedConv, PackedLinear, PackedLSTM, pack, round_length

Kernel = Callable[[Tensor], Tensor]

LSTM_COLUMNS = 200  # of all signals of a batch together; they become four times as wide


class StreamState(NamedTuple):
    """State of a streaming module between two chunks of a batch of signals.

    Attributes:
        buffers: input columns that are still needed, ``(B, T, C)``, or h and c of an LSTM; empty
            before the first column.
        position: index in the signal of the first buffered column; negative in the left padding.
        lengths: length of each signal in columns; None if all of them end with the last chunk.
        inner: states of the modules inside.
    """

    buffers: tuple[Tensor, ...] = ()
    position: int = 0
    lengths: tuple[int, ...] | None = None
    inner: tuple[StreamState, ...] = ()


class StreamingModule(ABC):
    """A layer that processes a signal in chunks."""

    def initial_state(self, lengths: Sequence[int] | None = None) -> StreamState:
        """Return the state before the first chunk.

        Args:
            lengths: length of each signal in columns, if they differ. Beyond its end a signal may
                hold anything: it is padded there like a signal that ends with the last chunk.
        """
        return StreamState()

    @abstractmethod
    def forward(self, x: Tensor, state: StreamState, last: bool) -> tuple[Tensor, StreamState]:
        """Process the next columns.

        Args:
            x: ``(B, T, C)``, T >= 0.
            state: from `initial_state` or the previous call.
            last: whether this is the last chunk.

        Returns:
            The next output columns ``(B, T', C')``, T' >= 0, and the new state.
        """

    def output_length(self, length: int) -> int:
        """Return the number of output columns for ``length`` input columns."""
        return length

    def required_input(self, columns: int) -> int:
        """Return how many first input columns the first ``columns`` output columns depend on."""
        return columns


@dataclass(frozen=True, eq=False)
class StreamingConv(StreamingModule):
    """A function of a sliding window, such as a convolution.

    If it upsamples, each window makes several columns, and there is one window more than columns:
    the windows extend beyond both ends of the signal, and the output outside is trimmed.

    Attributes:
        make_kernel: returns the function of all windows in ``(B, T, C)``, or what `_compute` of a
            subclass calls; called on first use.
        out_channels: channels of the output.
        span: columns in a window.
        stride: columns from one window to the next.
        left: columns of padding before the signal.
        replicate: pad with the first and last column instead of zeros.
        upsampling: columns made from each window.
        trim: columns made before the start of the signal.
    """

    make_kernel: Callable[[], Any]
    out_channels: int
    span: int
    stride: int
    left: int
    replicate: bool = False
    upsampling: int = 1
    trim: int = 0

    @cached_property
    def _right(self) -> int:  # columns of padding after the signal
        return self.span - self.stride - self.left + (self.upsampling > 1)

    @cached_property
    def _kernel(self) -> Any:
        return self.make_kernel()

    @override
    def initial_state(self, lengths: Sequence[int] | None = None) -> StreamState:
        return StreamState((), -self.left, None if lengths is None else tuple(lengths))

    @override
    def forward(self, x: Tensor, state: StreamState, last: bool) -> tuple[Tensor, StreamState]:
        if not state.buffers and not x.shape[1]:
            return x.new_empty(len(x), 0, self.out_channels), state
        held = state.buffers[0].shape[1] if state.buffers else self.left
        length = held + x.shape[1] + self._right * last
        windows = max(0, (length - self.span) // self.stride + 1)
        used = 0
        if windows:
            computed = round_length(windows) if x.device.type == "cpu" else windows
            used = (computed - 1) * self.stride + self.span
        columns = self._join(x, state, last, max(length, used))
        done = windows * self.stride
        buffers = (columns[:, done:length].clone(),)
        after = StreamState(buffers, state.position + done, state.lengths)
        if not windows:
            return x.new_empty(len(x), 0, self.out_channels), after
        if used < columns.shape[1]:
            columns = columns[:, :used]
        y = self._compute(columns, windows, state, last)
        start = self.trim if self.upsampling > 1 and state.position == -self.left else 0
        stop = windows * self.upsampling
        if self.upsampling > 1:
            stop -= (self.upsampling - self.trim) * last
        return (y[:, start:stop] if stop - start < y.shape[1] else y), after

    @override
    def output_length(self, length: int) -> int:
        return length // self.stride * self.upsampling

    @override
    def required_input(self, columns: int) -> int:
        last_window = (columns - 1 + self.trim) // self.upsampling
        return last_window * self.stride + self.span - self.left

    def _compute(self, columns: Tensor, windows: int, state: StreamState, last: bool) -> Tensor:
        """Return the function of ``windows`` windows; its results for others are dropped.

        The first column is at ``state.position``.
        """
        output: Tensor = self._kernel(columns)
        return output

    def _join(self, x: Tensor, state: StreamState, last: bool, length: int) -> Tensor:
        """Return the buffered columns, ``x``, the padding of the signal, and zeros at the end."""
        before = state.buffers[0] if state.buffers else self._pad(x[:, :1], self.left)
        parts = [before, x] if before.shape[1] else [x]
        if last and self._right:
            parts.append(self._pad(x[:, -1:] if x.shape[1] else before[:, -1:], self._right))
        missing = length - sum(part.shape[1] for part in parts)
        if missing:
            parts.append(x.new_zeros(len(x), missing, x.shape[2]))
        columns = torch.cat(parts, 1) if len(parts) > 1 else x
        if state.lengths is not None and self._right:
            self._pad_ended(columns, [length - state.position for length in state.lengths])
        return columns

    def _pad(self, column: Tensor, width: int) -> Tensor:
        if self.replicate:
            return column.expand(-1, width, -1)
        return column.new_zeros(len(column), width, column.shape[2])

    def _pad_ended(self, columns: Tensor, ends: Sequence[int]) -> None:
        """Write the padding after the end of each signal, as far as these columns reach."""
        places = [
            (item, column, max(0, end - 1))
            for item, end in enumerate(ends)
            for column in range(max(0, end), min(end + self._right, columns.shape[1]))
        ]
        if places:
            indices = torch.tensor(places, device="cpu").to(columns.device, non_blocking=True)
            items, targets, edges = indices.unbind(1)
            padding = columns[items, edges] if self.replicate else columns.new_zeros(())
            columns[items, targets] = padding


class Pointwise(StreamingModule):
    """A function of single columns; it may change its argument in place."""

    def __init__(self, function: Kernel) -> None:
        self._function = function

    @override
    def forward(self, x: Tensor, state: StreamState, last: bool) -> tuple[Tensor, StreamState]:
        return self._function(x), state


class Sequential(StreamingModule):
    """Modules applied one after another."""

    def __init__(self, modules: Iterable[StreamingModule]) -> None:
        self.modules = list(modules)

    @override
    def initial_state(self, lengths: Sequence[int] | None = None) -> StreamState:
        states = []
        for module in self.modules:
            states.append(module.initial_state(lengths))
            if lengths is not None:
                lengths = [module.output_length(length) for length in lengths]
        return StreamState(inner=tuple(states))

    @override
    def forward(self, x: Tensor, state: StreamState, last: bool) -> tuple[Tensor, StreamState]:
        states = []
        for module, before in zip(self.modules, state.inner, strict=True):
            x, after = module.forward(x, before, last)
            states.append(after)
        return x, StreamState(state.buffers, inner=tuple(states))

    @override
    def output_length(self, length: int) -> int:
        for module in self.modules:
            length = module.output_length(length)
        return length

    @override
    def required_input(self, columns: int) -> int:
        for module in reversed(self.modules):
            columns = module.required_input(columns)
        return columns


class Residual(Sequential):
    """Modules whose output is added to their input, which is buffered until then.

    The first one must not change its input.
    """

    @override
    def forward(self, x: Tensor, state: StreamState, last: bool) -> tuple[Tensor, StreamState]:
        y, inner = super().forward(x, state, last)
        rest, added = [], 0
        for waiting in (*state.buffers, x):
            part = y[:, added : added + waiting.shape[1]]
            part.add_(waiting[:, : part.shape[1]])
            rest.append(waiting[:, part.shape[1] :])
            added += part.shape[1]
        return y, StreamState((torch.cat(rest, 1),), inner=inner.inner)

    @override
    def required_input(self, columns: int) -> int:
        return max(columns, super().required_input(columns))


class Tiled(Sequential):
    """Modules that get few columns at a time on a CPU, so that activations stay in the cache."""

    def __init__(self, modules: Iterable[StreamingModule], columns: int) -> None:
        super().__init__(modules)
        self._columns = columns

    @override
    def forward(self, x: Tensor, state: StreamState, last: bool) -> tuple[Tensor, StreamState]:
        if x.device.type != "cpu" or x.shape[1] <= self._columns:
            return super().forward(x, state, last)
        return run_in_chunks(super().forward, x, state, last, self._columns)


class StreamingLSTM(StreamingModule):
    """A unidirectional LSTM with as many hidden units as channels, plus its input."""

    def __init__(self, lstm: nn.LSTM, dtype: torch.dtype = torch.float32) -> None:
        self._lstm = PackedLSTM(lstm, dtype)

    @override
    def forward(self, x: Tensor, state: StreamState, last: bool) -> tuple[Tensor, StreamState]:
        if not x.shape[1]:
            return x, state
        y, buffers = self._lstm(x, state.buffers)
        return x + y, StreamState(buffers)

    def run_batch(self, signals: Sequence[Tensor]) -> None:
        """Process signals ``(T_i, C)`` of any lengths, in place.

        They are one batch, which shrinks as they end.
        """
        order = _longest_first(signals)
        longest, size = len(signals[order[0]]), max(1, LSTM_COLUMNS // len(signals))
        stops = sorted({len(signal) for signal in signals} | set(range(0, longest, size)))
        state = StreamState()
        for start, stop in pairwise(stops):
            order = [i for i in order if len(signals[i]) >= stop]
            x = torch.stack([signals[i][start:stop] for i in order])
            state = StreamState(tuple(b[:, : len(order)].contiguous() for b in state.buffers))
            y, state = self.forward(x, state, False)
            for i, row in zip(order, y, strict=True):
                signals[i][start:stop] = row


Forward = Callable[[Tensor, StreamState, bool], tuple[Tensor, StreamState]]


def run_in_chunks(
    forward: Forward, x: Tensor, state: StreamState, last: bool, size: int
) -> tuple[Tensor, StreamState]:
    """Call `StreamingModule.forward` for chunks of ``size`` columns of ``x``, T > 0."""
    outputs, chunks = [], torch.split(x, size, 1)
    for number, chunk in enumerate(chunks, start=1):
        y, state = forward(chunk, state, last and number == len(chunks))
        outputs.append(y)
    return torch.cat(outputs, 1), state


def streaming_conv(conv: nn.Conv1d, dtype: torch.dtype = torch.float32) -> StreamingModule:
    """Return the streaming form of a convolution with factors of type ``dtype``."""
    (width,), (stride,), (dilation,) = conv.kernel_size, conv.stride, conv.dilation

    def make_kernel() -> Kernel:
        if width == stride == 1:
            return pack(PackedLinear, dtype, conv.weight[:, :, 0], conv.bias)
        return pack(PackedConv, dtype, conv.weight, conv.bias, stride, dilation)

    return StreamingConv(
        make_kernel,
        out_channels=conv.out_channels,
        span=(width - 1) * dilation + 1,
        stride=stride,
        left=int(conv.padding[0]),
    )


def streaming_transposed_conv(
    conv: nn.ConvTranspose1d, dtype: torch.dtype = torch.float32
) -> StreamingModule:
    """Return the streaming form of a convolution whose kernel is two strides wide.

    Each output column depends on two neighbouring input columns. So this is an ordinary convolution
    of width 2 to ``stride`` times the channels, which in this layout are ``stride`` columns.
    """
    stride, channels = conv.stride[0], conv.out_channels

    def make_kernel() -> Kernel:
        current, previous = torch.split(conv.weight.detach(), stride, dim=-1)
        weight = torch.stack((previous, current), -1).permute(2, 1, 0, 3).flatten(0, 1)
        bias = None if conv.bias is None else conv.bias.detach().repeat(stride)
        packed = pack(PackedConv, dtype, weight, bias)
        return lambda columns: packed(columns).view(len(columns), -1, channels)

    trim = int(conv.padding[0])
    return StreamingConv(make_kernel, channels, 2, 1, left=1, upsampling=stride, trim=trim)


def run_batch(
    network: Sequential, signals: list[Tensor], chunk_size: int, batch_convolutions: bool
) -> list[Tensor]:
    """Replace whole signals of any lengths by their outputs, the same as for each alone.

    An LSTM always processes all signals as one batch, because reading its weights takes most of
    its time.

    Args:
        network: encoder or decoder.
        signals: ``(T_i, C)``, at least one, each of at least one frame; also returned.
        chunk_size: columns per chunk.
        batch_convolutions: run other layers on signals of similar length as one batch, too.
    """
    groups: list[list[int]] = []
    for i in _longest_first(signals):
        # In a group, no signal is shorter than half of the longest.
        if batch_convolutions and groups and 2 * len(signals[i]) >= len(signals[groups[-1][0]]):
            groups[-1].append(i)
        else:
            groups.append([i])
    for is_lstm, modules in groupby(
        network.modules, lambda module: isinstance(module, StreamingLSTM)
    ):
        if is_lstm:
            for lstm in modules:
                cast(StreamingLSTM, lstm).run_batch(signals)
            continue
        part = Sequential(modules)
        for group in groups:
            lengths = [len(signals[i]) for i in group]
            batch = pad_sequence([signals[i] for i in group], batch_first=True)
            state = part.initial_state(lengths if len(set(lengths)) > 1 else None)
            y, _ = run_in_chunks(part.forward, batch, state, True, chunk_size)
            for i, length, row in zip(group, lengths, y, strict=True):
                signals[i] = row[: part.output_length(length)]
        chunk_size = part.output_length(chunk_size)
    return signals


def _longest_first(signals: Sequence[Tensor]) -> list[int]:
    return sorted(range(len(signals)), key=lambda i: len(signals[i]), reverse=True)
