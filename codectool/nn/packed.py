"""Products, convolutions and LSTMs with weights packed for oneDNN once.

oneDNN computes PyTorch's convolutions on a CPU. By default it reorders the weights at every call,
which for a second of audio takes as long as the deep layers themselves. Products of matrices are
computed by oneDNN, too: the library that PyTorch calls for them has no AVX-512 code for processors
of AMD, where oneDNN is more than twice as fast. On other devices, and in other precisions,
PyTorch's functions are called.
"""

from __future__ import annotations

import platform
from functools import cached_property, partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# oneDNN chooses the layout of packed weights for an input of a given length. If it wants another
# one for the actual length, it reorders the weights in each call, which can take a hundred times as
# long as the convolution. Above a dozen rows, products have one layout for all lengths. So have
# convolutions of many channels; those of few channels have another one for short inputs, which are
# therefore padded.
TYPICAL_COLUMNS = 400
MIN_ROWS = 12  # fewer are not padded, so that short pushes of a stream stay fast
MIN_COLUMNS = 96
FEW_CHANNELS = 384
FEW_BF16_CHANNELS = 768

LSTMState = tuple[Tensor, ...]  # h and c, (layers, B, H) each; empty before the first column


def has_bf16_instructions() -> bool:
    """Return whether the CPU multiplies bfloat16: with AVX512-BF16, AMX or ARM's extension."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if platform.machine() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def can_use_packed(x: Tensor) -> bool:
    """Return whether ``x`` can be multiplied by packed weights of its type: with oneDNN."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )


def round_length(length: int) -> int:
    """Round up to a multiple of 50; above 400, to one of 4 sizes per octave.

    oneDNN generates code for each length of an input, in up to 0.3 ms, and keeps up to 0.6 MB for
    it.
    """
    step = 50 << (length // 400).bit_length()
    return -(-length // step) * step


class PackedLinear:
    """A product ``(..., C)`` -> ``(..., C')``; see `torch.nn.Linear`.

    Args:
        weight: ``(C', C)``.
        bias: ``(C',)`` or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.detach()
        self._bias = None if bias is None else bias.detach()

    def __call__(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Multiply ``(..., C)``; add ``(..., C')`` to the product."""
        if not can_use_packed(x):
            y = F.linear(x, self._weight, self._bias)
            return y if add is None else y + add
        linear = torch.ops.mkldnn._linear_pointwise
        packed: Tensor
        if add is None:
            packed = linear(x, self._packed_weight, self._bias, "none", [], "")
        else:
            packed = linear.binary(x, add, self._packed_weight, self._bias, "add")
        return packed

    @cached_property
    def _packed_weight(self) -> Tensor:
        weight = self._weight.contiguous()
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_COLUMNS)
        return packed


class PackedConv:
    """A convolution without padding, ``(B, T, C)`` -> ``(B, T', C')``; see `torch.nn.Conv1d`.

    Args:
        weight: ``(C', C / groups, width)``.
        bias: ``(C',)`` or None.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        self._weight = weight.detach().unsqueeze(2)  # an image of height 1
        self._bias = None if bias is None else bias.detach()
        # padding, stride, dilation, groups: the order of oneDNN's functions
        self._geometry = ((0, 0), (1, stride), (1, dilation), groups)
        self._channels = weight.shape[1] * groups
        self._min_input = 0
        few = FEW_BF16_CHANNELS if weight.dtype == torch.bfloat16 else FEW_CHANNELS
        if self._channels <= few and groups == 1:
            self._min_input = (MIN_COLUMNS - 1) * stride + (weight.shape[2] - 1) * dilation + 1

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve ``(B, T, C)``."""
        padding, stride, dilation, groups = self._geometry
        if not can_use_packed(x):
            y = F.conv2d(_as_image(x), self._weight, self._bias, stride, padding, dilation, groups)
            return _from_image(y)
        length = x.shape[1]
        if length < self._min_input:
            x = F.pad(x, (0, 0, 0, self._min_input - length))
            span = (self._weight.shape[3] - 1) * dilation[1] + 1
            return self(x)[:, : (length - span) // stride[1] + 1].contiguous()
        y = torch.ops.mkldnn._convolution_pointwise(
            *(_as_image(x), self._packed_weight, self._bias, *self._geometry, "none", [], "")
        )
        return _from_image(y)

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """Add the convolution of ``(B, T, C)`` to ``(B, T', C')`` in place."""
        if x.shape[1] < self._min_input or not can_use_packed(x):
            y += self(x)
            return
        torch.ops.mkldnn._convolution_pointwise_.binary(
            *(_as_image(y), _as_image(x), self._packed_weight, self._bias, *self._geometry),
            *("add", 1.0, None, [], None),
        )

    @cached_property
    def _packed_weight(self) -> Tensor:
        shape = (1, self._channels, 1, TYPICAL_COLUMNS)
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            self._weight.contiguous(), *self._geometry, shape
        )
        return packed


class Bfloat16Factors:
    """A packed layer whose factors are rounded to bfloat16; input and output are float32.

    Where the CPU has no instructions for bfloat16, the rounded factors are multiplied in float32.

    Args:
        kind: `PackedLinear` or `PackedConv`.
        weight: see ``kind``.
        bias: see ``kind``; it is not rounded.
        geometry: further arguments of ``kind``.
    """

    def __init__(
        self,
        kind: type[PackedLinear] | type[PackedConv],
        weight: Tensor,
        bias: Tensor | None,
        *geometry: int,
    ) -> None:
        self._dtype = torch.bfloat16 if has_bf16_instructions() else torch.float32
        make: Any = kind
        self._layer = make(self._round(weight.detach()), bias, *geometry)

    def __call__(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Return the output for ``x``, plus ``add``."""
        y: Tensor = self._layer(self._round(x))
        return y.float() if add is None else add + y

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """Add the output for ``x`` to ``y`` in place."""
        y += self._layer(self._round(x))

    def _round(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16).to(self._dtype)


Layer = TypeVar("Layer", PackedLinear, PackedConv)


def pack(
    kind: type[Layer], dtype: torch.dtype, weight: Tensor, bias: Tensor | None, *geometry: int
) -> Layer:
    """Return a packed layer whose factors are of type ``dtype``; see `Bfloat16Factors`."""
    make: Any = partial(Bfloat16Factors, kind) if dtype == torch.bfloat16 else kind
    return cast(Layer, make(weight, bias, *geometry))


def _as_image(x: Tensor) -> Tensor:
    """Return ``(B, T, C)`` as images of height 1, ``(B, C, 1, T)``, without a copy.

    In one operation: each one releases Python's lock, for which other model threads wait.
    """
    batch, time, channels = x.shape
    item, column, channel = x.stride()
    return torch.as_strided(x, (batch, channels, 1, time), (item, channel, item, column))


def _from_image(y: Tensor) -> Tensor:
    """Return images ``(B, C, 1, T)`` as ``(B, T, C)``."""
    batch, channels, _, time = y.shape
    item, channel, _, column = y.stride()
    if channel == 1 and column == channels:
        return torch.as_strided(y, (batch, time, channels), (item, column, channel))
    return y.squeeze(2).mT.contiguous()


class PackedLSTM:
    """A unidirectional, batch-first `torch.nn.LSTM` that starts from a given state.

    Args:
        lstm: the LSTM.
        dtype: of the factors of its products.
    """

    def __init__(self, lstm: nn.LSTM, dtype: torch.dtype = torch.float32) -> None:
        self._lstm = lstm
        self._dtype = dtype

    def __call__(self, x: Tensor, state: LSTMState = ()) -> tuple[Tensor, LSTMState]:
        """Return the output ``(B, T, H)`` for ``(B, T, C)``, T > 0, and the state after it."""
        zeros = x.new_zeros(self._lstm.num_layers, len(x), self._lstm.hidden_size)
        state = state or (zeros, zeros)
        if not can_use_packed(x):
            return cast(tuple[Tensor, LSTMState], self._lstm(x, state))
        columns = x.transpose(0, 1).contiguous()
        hidden, cell = (part.clone() for part in state)
        for layer, h, c in zip(self._packed_layers, hidden, cell, strict=True):
            columns = layer(columns, h, c)
        return columns.transpose(0, 1), (hidden, cell)

    @cached_property
    def _packed_layers(self) -> list[_PackedLSTMLayer]:
        return [
            _PackedLSTMLayer(self._dtype, *(cast(Tensor, weight).detach() for weight in weights))
            for weights in self._lstm.all_weights
        ]


class _PackedLSTMLayer:
    """One layer: the product of all inputs at once, then one product of the state per column.

    Gates are reordered to input, forget, output, cell, so that one call computes three sigmoids.
    """

    def __init__(
        self, dtype: torch.dtype, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
    ) -> None:
        self._hidden_size = w_hh.shape[1]
        w_ih, w_hh, bias = map(self._reorder, (w_ih, w_hh, b_ih + b_hh))
        self._input = pack(PackedLinear, dtype, w_ih, bias)
        self._recurrent = pack(PackedLinear, dtype, w_hh, None)

    def _reorder(self, rows: Tensor) -> Tensor:
        in_gate, forget, cell, out = torch.split(rows, self._hidden_size)
        return torch.cat((in_gate, forget, out, cell))

    def __call__(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Return the output ``(T, B, H)`` for ``(T, B, C)``; update h and c, ``(B, H)``."""
        time, batch, _ = x.shape
        size = self._hidden_size
        output = x.new_empty(time, batch, size)
        previous = h
        for inputs, out in zip(self._multiply_inputs(x), output, strict=True):
            gates = self._recurrent(previous, add=inputs)
            in_gate, forget, out_gate = torch.split(gates[:, : 3 * size].sigmoid_(), size, 1)
            c.mul_(forget).addcmul_(in_gate, gates[:, 3 * size :].tanh_())
            previous = torch.mul(out_gate, c.tanh(), out=out)
        h.copy_(previous)
        return output

    def _multiply_inputs(self, x: Tensor) -> Tensor:
        time, batch, channels = x.shape
        rows = x.view(time * batch, channels)
        if len(rows) > MIN_ROWS:
            rows = F.pad(rows, (0, 0, 0, round_length(len(rows)) - len(rows)))
        return self._input(rows)[: time * batch].view(time, batch, -1)
