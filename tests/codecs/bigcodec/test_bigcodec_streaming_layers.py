"""Streaming forms of BigCodec's layers against the plain modules on whole signals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from codectool.codecs.bigcodec.alias_free import AliasFreeSnake
from codectool.codecs.bigcodec.model import streaming_form
from codectool.codecs.bigcodec.streaming import (
    Pointwise,
    Residual,
    StreamingModule,
    StreamState,
    Tiled,
)
from codectool.nn.packed import PackedConv, PackedLSTM

CHUNKINGS = ([1], [7, 0, 2], [13, 100], [1000])


def make_conv(kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv1d:
    padding = stride // 2 + stride % 2 if stride > 1 else (kernel - 1) // 2 * dilation
    return nn.Conv1d(6, 4, kernel, stride, padding, dilation)


def make_up_conv(stride: int) -> nn.ConvTranspose1d:
    odd = stride % 2
    return nn.ConvTranspose1d(6, 3, 2 * stride, stride, stride // 2 + odd, output_padding=odd)


def make_activation() -> AliasFreeSnake:
    module = AliasFreeSnake(6)
    nn.init.normal_(module.alpha)
    nn.init.normal_(module.beta)
    return module


def make(name: str) -> tuple[nn.Module, StreamingModule]:
    torch.manual_seed(0)
    kind, *numbers = name.split()
    factory = {"activation": make_activation, "conv": make_conv, "up": make_up_conv}[kind]
    module: nn.Module = factory(*map(int, numbers))
    return module, streaming_form(module)


LAYERS = (
    "activation",
    *("conv 7", "conv 7 1 9", "conv 1", "conv 3", "conv 4 2", "conv 10 5"),
    *("up 2", "up 3", "up 4", "up 5"),
)


def run_chunks(
    layer: StreamingModule, x: Tensor, sizes: list[int], state: StreamState | None = None
) -> Tensor:
    """Process ``(B, T, C)`` in chunks of these sizes, repeated as often as necessary."""
    state = state or layer.initial_state()
    parts, first = [], 0
    while not parts or first < x.shape[1]:
        for size in sizes:
            last = first < x.shape[1] <= first + size
            y, state = layer.forward(x[:, first : first + size], state, last)
            parts.append(y)
            first += size
            if last:
                break
    return torch.cat(parts, 1)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("sizes", CHUNKINGS, ids=str)
@pytest.mark.parametrize("length", [10, 130])
@torch.inference_mode()
def test_streaming_layer_matches_plain_module(name: str, sizes: list[int], length: int) -> None:
    module, layer = make(name)
    x = torch.randn(1, length, 6)
    whole = module(x.mT).mT
    torch.testing.assert_close(run_chunks(layer, x, sizes), whole, atol=2e-5, rtol=1e-5)
    assert layer.output_length(length) == whole.shape[1]


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17])
@torch.inference_mode()
def test_streaming_activation_matches_plain_module_for_short_signals(length: int) -> None:
    module, layer = make("activation")
    x = torch.randn(2, length, 6)
    torch.testing.assert_close(run_chunks(layer, x, [5]), module(x.mT).mT, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("sizes", CHUNKINGS, ids=str)
@torch.inference_mode()
def test_variable_length_batch_matches_single_signals(name: str, sizes: list[int]) -> None:
    module, layer = make(name)
    lengths = [120, 110, 50, 10]
    x = torch.randn(len(lengths), 120, 6)
    batch = run_chunks(layer, x, sizes, layer.initial_state(lengths))
    for signal, row, length in zip(x, batch, lengths, strict=True):
        alone = module(signal[None, :length].mT).mT[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@torch.inference_mode()
def test_required_input_is_exact(name: str) -> None:
    _, layer = make(name)
    x = torch.randn(1, 200, 6)
    for columns in (10, 11, 12, 13):
        required = layer.required_input(columns)
        expected = run_chunks(layer, x, [1000])[:, :columns]
        changed = [x.clone(), x.clone()]
        changed[0][:, required:] += 1
        changed[1][:, required - 1 :] += 1
        after, before = (run_chunks(layer, other, [1000])[:, :columns] for other in changed)
        assert torch.equal(after, expected)
        assert not torch.equal(before, expected)


@torch.inference_mode()
def test_composed_layers_match_plain_modules() -> None:
    torch.manual_seed(0)
    module = nn.Conv1d(6, 6, 7, padding=3)
    inner = [streaming_form(module), Pointwise(torch.tanh)]
    x = torch.randn(1, 130, 6)
    whole = x + module(x.mT).mT.tanh()
    for layer in (Residual(inner), Tiled([Residual(inner)], 16)):
        assert layer.required_input(20) == 23
        torch.testing.assert_close(run_chunks(layer, x, [50, 1]), whole, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_state_has_constant_size() -> None:
    _, layer = make("conv 7 1 9")
    state = layer.initial_state()
    for _ in range(5):
        _, state = layer.forward(torch.randn(1, 200, 6), state, False)
        (buffer,) = state.buffers
        assert buffer.shape == (1, 54, 6)
        assert buffer.untyped_storage().nbytes() == 4 * buffer.numel()


@torch.inference_mode()
def test_forward_does_not_change_the_state_it_is_given() -> None:
    _, layer = make("conv 7")
    _, state = layer.forward(torch.randn(1, 20, 6), layer.initial_state(), False)
    x = torch.randn(1, 20, 6)
    first, second = (layer.forward(x, state, False)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("width", "stride", "dilation"), [(1, 1, 1), (7, 1, 3), (10, 5, 1)])
@torch.inference_mode()
def test_packed_conv_matches_conv(width: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    module = nn.Conv1d(5, 3, width, stride, dilation=dilation)
    packed = PackedConv(module.weight, module.bias, stride, dilation)
    for batch, time in ((1, 40), (2, 61), (1, 500)):
        x = torch.randn(batch, time, 5)
        expected = module(x.mT).mT
        torch.testing.assert_close(packed(x), expected, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = packed(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.05)


@torch.inference_mode()
def test_packed_lstm_continues_from_its_state() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 6, 2, batch_first=True)
    packed = PackedLSTM(lstm)
    x = torch.randn(3, 9, 6)
    first, state = packed(x[:, :4])
    second, (h, c) = packed(x[:, 4:], state)
    expected, (last_h, last_c) = lstm(x)
    torch.testing.assert_close(torch.cat((first, second), 1), expected)
    torch.testing.assert_close((h, c), (last_h, last_c))
