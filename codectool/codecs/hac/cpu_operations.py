"""Buffers and operations of the CPU forms of HAC blocks.

A block becomes an operation in two steps: a function copies its weights and returns another
function, which allocates buffers for one length of chunks (`Bind`).

The activation is cheaper than as a module. With h = 1 / (2 alpha) and u = x / h, Snake is
``x + h (1 - cos(x / h)) = h (u - cos u) + h``. The layer before it absorbs the division by h, the
layer after it the factor h and the constant; only ``u - cos u`` remains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Module

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.layers import Pointwise

Array = npt.NDArray[np.float32]

SMALL_ROWS = 2  # up to this number of rows, NumPy's loop is faster than a BLAS product
LARGE_SIZE = 8192  # from this number of values, one pass per tap is faster than one for all taps


class Operation(NamedTuple):
    """Operation of one block on chunks of one length.

    Attributes:
        input_buffer: where the input is written before `run`, ``(T, C)``.
        run: computes the output from `input_buffer` and the past in `memory`.
        memory: past of the input or of an intermediate result, if the block has any.
    """

    input_buffer: Buffer
    run: Callable[[Buffer], object]
    memory: Memory | None = None


class Memory(Protocol):
    """What an operation keeps from one chunk to the next.

    Attributes:
        shape: shape of the state.
    """

    shape: tuple[int, ...]

    def load(self, state: Array) -> None:
        """Set the past of this chunk."""

    def save(self) -> Array:
        """Return the past of the next chunk, in memory of its own."""


class Buffer:
    """The same memory as a torch tensor and as a NumPy array."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.array: Array = tensor.numpy()


class Workspace(dict[str, Tensor]):
    """Memory for the duration of one operation, which all operations share by name."""

    def take(self, name: str, frames: int, channels: int) -> Buffer:
        """Return a buffer ``(T, C)`` with undefined content."""
        size = frames * channels
        if name not in self or self[name].numel() < size:
            self[name] = torch.empty(size, dtype=torch.float32, device="cpu")
        return Buffer(self[name][:size].view(frames, channels))


class StateArrays:
    """Memory in two arrays.

    Attributes:
        past: written before a chunk.
        end: read after it, the past of the next chunk.
    """

    def __init__(self, past: Array, end: Array) -> None:
        self.past, self.end = past, end
        self.shape: tuple[int, ...] = past.shape

    def load(self, state: Array) -> None:
        """Set the past of this chunk."""
        np.copyto(self.past, state)

    def save(self) -> Array:
        """Return the past of the next chunk."""
        end: Array = self.end.copy()
        return end


class History(StateArrays):
    """Past frames and the current chunk in one buffer, so that a window can span both.

        |<- past: reach ->|<------ chunk: T ------>|
                                |<- end: reach --->|

    Attributes:
        past: frames before the chunk, ``(reach, C)``.
        chunk: the chunk, ``(T, C)``.
        end: the past of the next chunk, ``(reach, C)``.
    """

    def __init__(self, state_shape: tuple[int, ...], frames: int) -> None:
        reach, channels = state_shape
        self._frames = frames
        self._rows = torch.zeros(reach + frames, channels, dtype=torch.float32, device="cpu")
        self.chunk = Buffer(self._rows[reach:])
        super().__init__(self._rows[:reach].numpy(), self._rows[frames:].numpy())

    def windows(self, taps: int, dilation: int = 1, stride: int = 1) -> Buffer:
        """Return a view ``(T / stride, taps, C)``: the frames that each output frame sees."""
        channels = self._rows.shape[1]
        size = (self._frames // stride, taps, channels)
        return Buffer(self._rows.as_strided(size, (stride * channels, dilation * channels, 1)))


class JoinedMemory:
    """Memories of several operations, whose state is one vector."""

    def __init__(self, memories: Iterable[Memory | None]) -> None:
        self._memories = [memory for memory in memories if memory is not None]
        ends = list(accumulate(math.prod(memory.shape) for memory in self._memories))
        self._slices = [slice(first, last) for first, last in pairwise([0, *ends])]
        self.shape: tuple[int, ...] = (ends[-1],)

    def load(self, state: Array) -> None:
        """Set the past of this chunk."""
        for memory, part in zip(self._memories, self._slices, strict=True):
            memory.load(state[part].reshape(memory.shape))

    def save(self) -> Array:
        """Return the past of the next chunk."""
        return np.concatenate([memory.save().ravel() for memory in self._memories])


class Affine:
    """Matrix product and bias, which absorb the factors of adjacent Snakes.

    Args:
        layer: the matrix product.
        before: h of a Snake before it, ``(fan_in,)``, which is computed as ``u - cos u``.
        after: h of a Snake after it, ``(out,)``, which expects its input divided by h.
    """

    def __init__(
        self, layer: Pointwise, before: Tensor | None = None, after: Tensor | None = None
    ) -> None:
        weight = layer.weight.double()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
        if before is not None:
            bias = bias + weight @ before
            weight = weight * before
        if after is not None:
            frequency = 1 / after
            weight, bias = weight * frequency[:, None], bias * frequency
        self.weight = Buffer(weight.T.float().contiguous())
        self.bias = Buffer(bias.float())

    def __call__(self, x: Buffer, out: Buffer) -> None:
        """Compute ``(T, fan_in)`` -> ``(T, out)``."""
        if len(x.array) > SMALL_ROWS:
            torch.addmm(self.bias.tensor, x.tensor, self.weight.tensor, out=out.tensor)
            return
        np.einsum("tc,ch->th", x.array, self.weight.array, out=out.array)
        np.add(out.array, self.bias.array, out=out.array)


def half_period(activation: Module) -> Tensor:
    """Return the h of a Snake in float64, ``(C,)``."""
    assert isinstance(activation, Snake)
    return 0.5 * torch.exp(-activation.log_alpha.double())


def snake_(angle: Array, cosine: Array) -> None:
    """Replace ``angle`` u by ``u - cos u``; ``cosine`` is overwritten."""
    np.cos(angle, out=cosine)
    np.subtract(angle, cosine, out=angle)


def depthwise_conv(windows: Buffer, taps: Buffer, out: Buffer) -> None:
    """Weigh the frames that each output frame sees: ``(T, k, C)``, ``(k, C)`` -> ``(T, C)``."""
    if out.array.size < LARGE_SIZE:
        np.einsum("tkc,kc->tc", windows.array, taps.array, out=out.array)
        return
    torch.mul(windows.tensor[:, 0], taps.tensor[0], out=out.tensor)
    for tap in range(1, len(taps.tensor)):
        out.tensor.addcmul_(windows.tensor[:, tap], taps.tensor[tap])


Bind = Callable[[int, Workspace], Operation]


def residual_unit(
    kernel: Tensor, widen: Pointwise, activation: Module, narrow: Pointwise, dilation: int = 1
) -> Bind:
    """Return a function that allocates ``x + narrow(snake(widen(convolve(x))))``.

    ``kernel`` is that of a causal depthwise convolution, ``(C, K)``.
    """
    half = half_period(activation)
    taps = Buffer(kernel.T.contiguous())
    enter, leave = Affine(widen, after=half), Affine(narrow, before=half)
    size, channels = taps.array.shape

    def bind(frames: int, workspace: Workspace) -> Operation:
        history = History(((size - 1) * dilation, channels), frames)
        windows = history.windows(size, dilation)
        convolved = workspace.take("convolved", frames, channels)
        angle = workspace.take("angle", frames, len(half))
        cosine = workspace.take("cosine", frames, len(half))

        def run(out: Buffer) -> None:
            depthwise_conv(windows, taps, convolved)
            enter(convolved, angle)
            snake_(angle.array, cosine.array)
            leave(angle, out)
            np.add(out.array, history.chunk.array, out=out.array)

        return Operation(history.chunk, run, history)

    return bind
