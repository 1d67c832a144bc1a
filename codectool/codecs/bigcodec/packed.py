"""Convolutions and LSTM layers whose weights lie as oneDNN wants them, put in order once.

oneDNN is what PyTorch computes with on a CPU. Left to itself it brings the weights into its own
order at every call; on a second of audio that costs as much as the work on the deep layers. Signals
lie channels last. Elsewhere, or in another precision, the plain functions of PyTorch are called.

Letters used in shapes: B batch, C channels, T time, W width of the kernel, H hidden units.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LSTM_MODE = 2  # PyTorch's number for LSTM among its recurrent networks
TYPICAL_COLUMNS = 400  # oneDNN chooses the order of the weights for a signal of about this length

State = tuple[Tensor, Tensor]


def takes_packed(x: Tensor) -> bool:
    """Whether ``x`` can be multiplied with packed weights: float32 on a CPU with oneDNN."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )


class PackedConv:
    """A convolution without padding: ``(B, T, C)`` -> ``(B, T', C')``.

    Args:
        weight: ``(C', C / groups, W)``.
        bias: ``(C',)`` or None.
        stride: columns from one output to the next.
        dilation: columns from one tap to the next.
        groups: as for `torch.nn.Conv1d`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        self._weight = weight.detach().unsqueeze(2)  # an image of one row
        self._bias = None if bias is None else bias.detach()
        self._stride, self._dilation, self._groups = (1, stride), (1, dilation), groups
        self._packed: Tensor | None = None
        self._matrix: Tensor | None = None
        if weight.shape[2] == stride == groups == 1:
            self._matrix = weight.detach()[:, :, 0].T.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve ``(B, T, C)``."""
        if self._matrix is not None and self._bias is not None:
            rows = torch.addmm(self._bias, x.flatten(0, 1), self._matrix)
            return rows.view(len(x), -1, len(self._bias))
        image = x.unsqueeze(1).permute(0, 3, 1, 2)
        if takes_packed(x):
            y = self._convolve_packed(image)
        else:
            y = F.conv2d(
                image, self._weight, self._bias, self._stride, 0, self._dilation, self._groups
            )
        return y.permute(0, 2, 3, 1).contiguous().squeeze(1)

    def _convolve_packed(self, image: Tensor) -> Tensor:
        where = ((0, 0), self._stride, self._dilation, self._groups)
        if self._packed is None:
            typical = (1, image.shape[1], 1, TYPICAL_COLUMNS)
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight.contiguous(), *where, typical
            )
        y = torch.ops.mkldnn._convolution_pointwise(
            image, self._packed, self._bias, *where, "none", [], ""
        )
        return cast(Tensor, y)


class PackedLSTM:
    """The layers of a forward `torch.nn.LSTM`, run from any state.

    Args:
        lstm: batch first, not bidirectional, without projections.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        self._lstm = lstm
        self._packed: list[list[Tensor]] | None = None

    def start(self, x: Tensor) -> State:
        """State before the first column of ``x``, ``(B, T, C)``: zeros, twice ``(L, B, H)``."""
        zeros = x.new_zeros(self._lstm.num_layers, len(x), self._lstm.hidden_size)
        return zeros, zeros

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Run over ``(B, T, C)``, T > 0: ``(B, T, H)`` and the state after it."""
        if not takes_packed(x):
            return cast(tuple[Tensor, State], self._lstm(x, state))
        if self._packed is None:
            self._packed = [self._pack(layer) for layer in range(self._lstm.num_layers)]
        steps = x.transpose(0, 1).contiguous()
        hidden, cell = [], []
        for (w_ih, w_hh, b_ih, b_hh), h, c in zip(self._packed, *state, strict=True):
            steps, last_h, last_c, _ = torch.mkldnn_rnn_layer(
                steps,
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
        return steps.transpose(0, 1), (torch.stack(hidden), torch.stack(cell))

    def _pack(self, layer: int) -> list[Tensor]:
        weights = [
            getattr(self._lstm, f"{name}_l{layer}").detach()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        packed = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
            *weights[:2], self._lstm.hidden_size, False, True, False
        )
        return [*packed, *weights[2:]]
