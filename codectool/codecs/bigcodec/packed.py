"""Convolutions and LSTMs with weights packed for oneDNN once.

oneDNN computes PyTorch's convolutions and LSTMs on a CPU. By default it reorders the weights at
every call, which for a second of audio takes as long as the deep layers themselves. On other
devices, and in other precisions, PyTorch's functions are called.
"""

from __future__ import annotations

from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LSTM_MODE = 2  # PyTorch's number for LSTM among its recurrent networks
TYPICAL_COLUMNS = 400  # oneDNN chooses the layout of the weights for a signal of this length

LSTMState = tuple[Tensor, ...]  # h and c, (layers, B, H) each; empty before the first column


def can_use_packed(x: Tensor) -> bool:
    """Return whether ``x`` can be multiplied by packed weights: float32 on a CPU with oneDNN."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )


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
        self._matrix: Tensor | None = None
        if weight.shape[2] == stride == groups == 1:
            self._matrix = weight.detach()[:, :, 0].T.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve ``(B, T, C)``."""
        if self._matrix is not None and self._bias is not None:
            rows = torch.addmm(self._bias, x.flatten(0, 1), self._matrix)
            return rows.view(len(x), -1, len(self._bias))
        image = x.unsqueeze(1).permute(0, 3, 1, 2)
        if can_use_packed(x):
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(
                image, self._packed_weight, self._bias, *self._geometry, "none", [], ""
            )
        else:
            padding, stride, dilation, groups = self._geometry
            y = F.conv2d(image, self._weight, self._bias, stride, padding, dilation, groups)
        return y.permute(0, 2, 3, 1).contiguous().squeeze(1)

    @cached_property
    def _packed_weight(self) -> Tensor:
        channels = self._weight.shape[1] * self._geometry[3]
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            self._weight.contiguous(), *self._geometry, (1, channels, 1, TYPICAL_COLUMNS)
        )
        return cast(Tensor, packed)


class PackedLSTM:
    """A unidirectional, batch-first `torch.nn.LSTM` that starts from a given state."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self._lstm = lstm

    def __call__(self, x: Tensor, state: LSTMState = ()) -> tuple[Tensor, LSTMState]:
        """Return the output ``(B, T, H)`` for ``(B, T, C)``, T > 0, and the state after it."""
        zeros = x.new_zeros(self._lstm.num_layers, len(x), self._lstm.hidden_size)
        state = state or (zeros, zeros)
        if not can_use_packed(x):
            return cast(tuple[Tensor, LSTMState], self._lstm(x, state))
        columns = x.transpose(0, 1).contiguous()
        hidden, cell = [], []
        for (w_ih, w_hh, b_ih, b_hh), h, c in zip(self._packed_layers, *state, strict=True):
            columns, last_h, last_c, _ = torch.mkldnn_rnn_layer(
                columns,
                w_ih,
                w_hh,
                b_ih,
                b_hh,
                h,
                c,
                reverse=False,
                batch_sizes=[],
                mode=LSTM_MODE,
                hidden_size=self._lstm.hidden_size,
                num_layers=1,
                has_biases=True,
                bidirectional=False,
                batch_first=False,
                train=False,
            )
            hidden.append(last_h.view_as(h))
            cell.append(last_c.view_as(c))
        return columns.transpose(0, 1), (torch.stack(hidden), torch.stack(cell))

    @cached_property
    def _packed_layers(self) -> list[list[Tensor]]:
        layers = []
        for weights in self._lstm.all_weights:
            w_ih, w_hh, b_ih, b_hh = (cast(Tensor, weight).detach() for weight in weights)
            packed = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
                w_ih, w_hh, self._lstm.hidden_size, False, True, False
            )
            layers.append([*packed, b_ih, b_hh])
        return layers
