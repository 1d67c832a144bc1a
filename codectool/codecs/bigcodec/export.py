"""BigCodec as modules for export: a whole signal at once.

Tensors are copied to contiguous memory where it would otherwise depend on the number of frames
whether they are contiguous, which a traced program would check.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.codecs.bigcodec.alias_free import REACH, AliasFreeSnake
from codectool.codecs.bigcodec.model import BigCodec, ResidualLSTM
from codectool.codecs.bigcodec.quantizer import FactorizedQuantizer
from codectool.codecs.exportable import ExportPart, lookup_present


def export_parts(model: BigCodec) -> list[ExportPart]:
    """Return encoder and decoder."""
    options: dict[str, Any] = {
        "translations": {lstm_marker: "onnxscript.function_libs.torch_lib.ops.core:aten_lstm"},
        "substitutes": {lstm_marker: torch.ops.aten.lstm.input},
    }
    return [
        ExportPart("encoder", SignalEncoder(model), **options),
        ExportPart("decoder", SignalDecoder(model), **options),
    ]


class SignalEncoder(nn.Module):
    """A signal ``(1, 1, N)`` to codes ``(1, K, F)``."""

    def __init__(self, model: BigCodec) -> None:
        super().__init__()
        self.encoder, self.quantizer = _exportable(model.encoder), model.quantizer

    @override
    def forward(self, audio: Tensor) -> Tensor:
        residual = self.encoder(audio).mT.clone(memory_format=torch.contiguous_format)
        codes = []
        for layer in self.quantizer.layers:
            stage = cast(FactorizedQuantizer, layer)
            narrow = stage.in_proj(residual)
            directions = F.normalize(narrow, dim=-1)
            codewords = F.normalize(stage.codebook.weight, dim=-1)
            distance = directions.square().sum(-1, keepdim=True) - 2 * directions @ codewords.T
            nearest = (distance + codewords.square().sum(-1)).argmin(-1)
            residual = residual - stage.out_proj(narrow + (stage.codebook(nearest) - narrow))
            codes.append(nearest)
        return torch.stack(codes, 1)


class SignalDecoder(nn.Module):
    """Codes ``(1, K, F)`` to a signal ``(1, 1, N)``."""

    def __init__(self, model: BigCodec) -> None:
        super().__init__()
        self.quantizer, self.decoder = model.quantizer, _exportable(model.decoder)

    @override
    def forward(self, codes: Tensor) -> Tensor:
        audio: Tensor = self.decoder(
            lookup_present(self.quantizer, codes).mT.clone(memory_format=torch.contiguous_format)
        )
        return audio


@torch.library.custom_op("codectool::lstm", mutates_args=())
def _lstm(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Stand for ``aten.lstm`` during tracing, which would fix the number of frames."""
    output: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.lstm.input(
        x, states, weights, has_biases, num_layers, dropout, train, bidirectional, batch_first
    )
    return output


@_lstm.register_fake
def _(
    x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    hidden, cell = states
    directions = 2 if options[4] else 1
    output = x.new_empty(x.shape[0], x.shape[1], directions * hidden.shape[2])
    return output, torch.empty_like(hidden), torch.empty_like(cell)


lstm_marker = torch.ops.codectool.lstm.default


class MarkedLSTM(nn.Module):
    """`ResidualLSTM` with the operator that is replaced after tracing."""

    def __init__(self, layer: ResidualLSTM) -> None:
        super().__init__()
        self.lstm = layer.lstm

    @override
    def forward(self, x: Tensor) -> Tensor:
        lstm = self.lstm
        directions = 2 if lstm.bidirectional else 1
        start = x.new_zeros(directions * lstm.num_layers, x.shape[0], lstm.hidden_size)
        weights = [weight for layer in lstm.all_weights for weight in layer]
        output, _, _ = lstm_marker(
            x.transpose(1, 2),
            [start, start],
            weights,
            True,
            lstm.num_layers,
            0.0,
            False,
            lstm.bidirectional,
            True,
        )
        return (x + cast(Tensor, output).transpose(1, 2)).clone(
            memory_format=torch.contiguous_format
        )


class ExportedSnake(nn.Module):
    """`AliasFreeSnake` with all that depends on weights only computed beforehand.

    The channels are the batch of convolutions with one or two channels, which all have the same
    kernels.
    """

    def __init__(self, layer: AliasFreeSnake) -> None:
        super().__init__()
        alpha, inverse_beta = layer.factors()
        self.alpha = nn.Buffer(alpha.detach().clone()[:, None, None])
        self.inverse_beta = nn.Buffer(inverse_beta.detach().clone()[:, None, None])
        self.up_kernel = nn.Buffer(layer.up_kernel())
        self.down_kernel = nn.Buffer(layer.down_kernel()[None])

    @override
    def forward(self, x: Tensor) -> Tensor:
        rows = F.pad(x, (REACH, REACH), mode="replicate")[0][:, None]  # (C, 1, T)
        phases = F.conv1d(rows, self.up_kernel)
        phases = phases + self.inverse_beta * torch.sin(self.alpha * phases).square()
        first, last = phases[:, :1, :1], phases[:, 1:, -1:]
        edges = (edge.expand(-1, 2, REACH) for edge in (first, last))
        padded = torch.cat((next(edges), phases, next(edges)), dim=-1)
        return F.conv1d(padded, self.down_kernel)[:, 0][None]


def _exportable(module: nn.Module) -> nn.Module:
    """Return a copy of the modules, which shares all weights, in the forms for export."""
    if isinstance(module, ResidualLSTM):
        return MarkedLSTM(module)
    if isinstance(module, AliasFreeSnake):
        return ExportedSnake(module)
    converted = copy.copy(module)
    converted._modules = {
        name: child if child is None else _exportable(child)
        for name, child in module._modules.items()
    }
    return converted
