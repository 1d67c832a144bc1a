"""Layers on a signal in pieces against the same layers on the whole of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from codectool.codecs.bigcodec.alias_free import AliasFreeSnake, alias_free
from codectool.codecs.bigcodec.packed import PackedConv, PackedLSTM
from codectool.codecs.bigcodec.streaming import Chain, Conv, Cut, Flow, Layer, Skip, Tanh, UpConv

CUTTINGS = ([1], [7, 0, 2], [13, 100], [1000])
RATE = 10  # columns per frame


def conv(kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv1d:
    padding = stride // 2 + stride % 2 if stride > 1 else (kernel - 1) // 2 * dilation
    return nn.Conv1d(6, 4, kernel, stride, padding, dilation)


def up_conv(stride: int) -> nn.ConvTranspose1d:
    odd = stride % 2
    return nn.ConvTranspose1d(6, 3, 2 * stride, stride, stride // 2 + odd, output_padding=odd)


def activation() -> AliasFreeSnake:
    module = AliasFreeSnake(6)
    nn.init.normal_(module.alpha)
    nn.init.normal_(module.beta)
    return module


def make(name: str) -> tuple[nn.Module, Layer]:
    torch.manual_seed(0)
    if name == "activation":
        module: nn.Module = activation()
        assert isinstance(module, AliasFreeSnake)
        return module, alias_free(module, RATE)
    kind, *numbers = name.split()
    if kind == "up":
        up = up_conv(int(numbers[0]))
        return up, UpConv(up, RATE)
    plain = conv(*map(int, numbers))
    return plain, Conv(plain, RATE)


LAYERS = (
    "activation",
    *("conv 7", "conv 7 1 9", "conv 1", "conv 3", "conv 4 2", "conv 10 5"),
    *("up 2", "up 3", "up 4", "up 5"),
)


def pieces(layer: Layer, x: Tensor, sizes: list[int], flow: Flow | None = None) -> Tensor:
    """Push ``(B, T, C)`` in pieces of these sizes, over and over."""
    flow = flow or Flow()
    parts, first = [], 0
    while not parts or first < x.shape[1]:
        for size in sizes:
            last = first < x.shape[1] <= first + size
            parts.append(layer.push(x[:, first : first + size], flow, last))
            first += size
            if last:
                break
    return torch.cat(parts, 1)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("sizes", CUTTINGS, ids=str)
@pytest.mark.parametrize("length", [10, 130])
@torch.inference_mode()
def test_pieces_make_the_whole(name: str, sizes: list[int], length: int) -> None:
    module, layer = make(name)
    x = torch.randn(1, length, 6)
    whole = module(x.mT).mT
    torch.testing.assert_close(pieces(layer, x, sizes), whole, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17])
@torch.inference_mode()
def test_activation_of_short_signals(length: int) -> None:
    module, layer = make("activation")
    x = torch.randn(2, length, 6)
    torch.testing.assert_close(pieces(layer, x, [5]), module(x.mT).mT, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("sizes", CUTTINGS, ids=str)
@torch.inference_mode()
def test_signals_side_by_side_end_where_they_end(name: str, sizes: list[int]) -> None:
    module, layer = make(name)
    frames = [12, 11, 5, 1]
    x = torch.randn(len(frames), 12 * RATE, 6)
    made = pieces(layer, x, sizes, Flow(frames))
    for signal, row, count in zip(x, made, frames, strict=True):
        alone = module(signal[None, : count * RATE].mT).mT[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@torch.inference_mode()
def test_needs_is_how_far_a_layer_sees(name: str) -> None:
    _, layer = make(name)
    x = torch.randn(1, 20 * RATE, 6)
    for columns in (10, 11, 12, 13):
        needed = layer.needs(columns)
        first = pieces(layer, x, [1000])[:, :columns]
        changed = [x.clone(), x.clone()]
        changed[0][:, needed:] += 1
        changed[1][:, needed - 1 :] += 1
        after, before = (pieces(layer, other, [1000])[:, :columns] for other in changed)
        assert torch.equal(after, first)
        assert not torch.equal(before, first)


@torch.inference_mode()
def test_layers_of_layers() -> None:
    torch.manual_seed(0)
    module = nn.Conv1d(6, 6, 7, padding=3)
    inner = Chain([Conv(module, RATE), Tanh()])
    x = torch.randn(1, 130, 6)
    whole = x + module(x.mT).mT.tanh()
    for layer in (Skip(inner), Cut(Skip(inner), 16)):
        assert layer.needs(20) == 23
        torch.testing.assert_close(pieces(layer, x, [50, 1]), whole, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_what_is_kept_does_not_grow() -> None:
    _, layer = make("conv 7 1 9")
    flow = Flow()
    for _ in range(5):
        layer.push(torch.randn(1, 200, 6), flow, False)
        (kept,) = flow.kept.values()
        assert kept.shape == (1, 54, 6)
        assert kept.untyped_storage().nbytes() == 4 * kept.numel()


@pytest.mark.parametrize(("width", "stride", "dilation"), [(1, 1, 1), (7, 1, 3), (10, 5, 1)])
@torch.inference_mode()
def test_packed_convolution(width: int, stride: int, dilation: int) -> None:
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
def test_packed_lstm_goes_on_where_it_stopped() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 6, 2, batch_first=True)
    packed = PackedLSTM(lstm)
    x = torch.randn(3, 9, 6)
    state = packed.start(x)
    first, state = packed(x[:, :4], state)
    second, (h, c) = packed(x[:, 4:], state)
    expected, (last_h, last_c) = lstm(x)
    torch.testing.assert_close(torch.cat((first, second), 1), expected)
    torch.testing.assert_close((h, c), (last_h, last_c))
