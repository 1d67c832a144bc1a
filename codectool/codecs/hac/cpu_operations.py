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
from codectool.nn.packed import PackedConv, PackedLinear

Array = npt.NDArray[np.float32]

# From these numbers of multiply-accumulate operations on, oneDNN is faster, although a call of it
# takes longer and allocates its result.
LARGE_PRODUCT = 2**20
LARGE_CONVOLUTION = 2**17


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

    @property
    def rows(self) -> Tensor:
        """All frames, ``(reach + T, C)``."""
        return self._rows

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


class Product:
    """Matrix product with a bias, by the library that is faster for its size.

    Args:
        weight: ``(out, fan_in)``.
        bias: ``(out,)``, zeros by default.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        if bias is None:
            bias = weight.new_zeros(len(weight))
        self.weight, self._bias = weight.T.float().contiguous(), bias.float()
        self._packed = PackedLinear(self.weight.T, self._bias)

    def __call__(self, x: Buffer, out: Buffer) -> None:
        """Compute ``(T, fan_in)`` -> ``(T, out)``."""
        if (y := self.compute(x, out)) is not out:
            np.copyto(out.array, y.array)

    def compute(self, x: Buffer, space: Buffer) -> Buffer:
        """Compute ``(T, fan_in)`` -> ``(T, out)`` in ``space`` or in new memory."""
        if len(x.array) * self.weight.numel() >= LARGE_PRODUCT:
            return Buffer(self._packed(x.tensor))
        torch.addmm(self._bias, x.tensor, self.weight, out=space.tensor)
        return space


def affine(layer: Pointwise, before: Tensor | None = None, after: Tensor | None = None) -> Product:
    """Return the product of a layer, which absorbs the factors of adjacent Snakes.

    Args:
        layer: the matrix product.
        before: h of a Snake before it, ``(fan_in,)``, which is computed as ``u - cos u``.
        after: h of a Snake after it, ``(out,)``, which expects its input divided by h.
    """
    weight = layer.weight.double()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
    if before is not None:
        bias = bias + weight @ before
        weight = weight * before
    if after is not None:
        frequency = 1 / after
        weight, bias = weight * frequency[:, None], bias * frequency
    return Product(weight, bias)


def half_period(activation: Module) -> Tensor:
    """Return the h of a Snake in float64, ``(C,)``."""
    assert isinstance(activation, Snake)
    return 0.5 * torch.exp(-activation.log_alpha.double())


def snake_(angle: Array, cosine: Array) -> None:
    """Replace ``angle`` u by ``u - cos u``; ``cosine`` is overwritten."""
    np.cos(angle, out=cosine)
    np.subtract(angle, cosine, out=angle)


class DepthwiseConv:
    """Causal depthwise convolution of the frames in a `History`.

    Args:
        kernel: ``(C, K)``.
        bias: ``(C,)``.
    """

    def __init__(
        self, kernel: Tensor, bias: Tensor | None = None, stride: int = 1, dilation: int = 1
    ) -> None:
        self.taps: Array = kernel.T.contiguous().numpy()
        self.bias: Array | None = None if bias is None else bias.numpy().copy()
        self._steps = dilation, stride
        self._packed = PackedConv(kernel.clone()[:, None], bias, stride, dilation, len(kernel))

    def bind(self, history: History) -> Callable[[Buffer], Buffer]:
        """Return a function that computes ``(T / stride, C)`` in the given or in new memory."""
        windows = history.windows(len(self.taps), *self._steps).array
        rows = history.rows[None]

        def run(space: Buffer) -> Buffer:
            if windows.size >= LARGE_CONVOLUTION:
                return Buffer(self._packed(rows)[0])
            np.einsum("tkc,kc->tc", windows, self.taps, out=space.array)
            if self.bias is not None:
                np.add(space.array, self.bias, out=space.array)
            return space

        return run


Bind = Callable[[int, Workspace], Operation]


def residual_unit(
    kernel: Tensor, widen: Pointwise, activation: Module, narrow: Pointwise, dilation: int = 1
) -> Bind:
    """Return a function that allocates ``x + narrow(snake(widen(convolve(x))))``.

    ``kernel`` is that of a causal depthwise convolution, ``(C, K)``.
    """
    half = half_period(activation)
    convolution = DepthwiseConv(kernel, dilation=dilation)
    enter, leave = affine(widen, after=half), affine(narrow, before=half)
    channels, size = kernel.shape

    def bind(frames: int, workspace: Workspace) -> Operation:
        history = History(((size - 1) * dilation, channels), frames)
        convolve = convolution.bind(history)
        convolved = workspace.take("convolved", frames, channels)
        angle = workspace.take("angle", frames, len(half))
        cosine = workspace.take("cosine", frames, len(half))

        def run(out: Buffer) -> None:
            widened = enter.compute(convolve(convolved), angle)
            snake_(widened.array, cosine.array)
            residual = leave.compute(widened, out)
            np.add(residual.array, history.chunk.array, out=out.array)

        return Operation(history.chunk, run, history)

    return bind
