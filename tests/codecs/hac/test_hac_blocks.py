"""Each block against the plain convolution that it stands for."""

import pytest
import torch
from torch.nn import functional as F

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.blocks import Down, Head, Stack, Stem, TokenMixer, Unit, Up
from codectool.codecs.hac.spectral import FrequencyDown, FrequencyUp


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def run(block, x):
    stack = Stack([("only", block.eval())])
    return stack(x, stack.start(len(x), x.device))[0]


def test_unit():
    block = Unit(6, Snake(12), hidden=12, kernel=7, dilation=3)
    x = torch.randn(2, 40, 6)
    swept = F.conv1d(F.pad(x.mT, (18, 0)), block.depthwise[:, None], dilation=3, groups=6).mT
    torch.testing.assert_close(run(block, x), x + block.branch(swept), atol=1e-5, rtol=1e-5)


def test_down():
    block = Down(6, Snake(6), 8, stride=5)
    x = torch.randn(2, 40, 6)
    entry = F.pad(block.entry(x).mT, (5, 0))
    expected = F.conv1d(entry, block.depthwise[:, None], block.bias, stride=5, groups=8).mT
    torch.testing.assert_close(run(block, x), expected, atol=1e-5, rtol=1e-5)


def test_up():
    block = Up(6, Snake(6), 8, stride=4)
    x = torch.randn(2, 10, 6)
    kernel = block.depthwise.permute(2, 0, 1).reshape(8, 1, 8)
    expected = F.conv_transpose1d(block.entry(x).mT, kernel, block.bias, stride=4, groups=8)
    torch.testing.assert_close(run(block, x), expected[..., :40].mT, atol=1e-5, rtol=1e-5)


def test_stem():
    block = Stem(6, stride=8, taps=4)
    x = torch.randn(2, 80, 1)
    weight, bias = block.transform.weight[:, None], block.transform.bias
    expected = F.conv1d(F.pad(x.mT, (24, 0)), weight, bias, stride=8).mT
    torch.testing.assert_close(run(block, x), expected, atol=1e-5, rtol=1e-5)


def test_head():
    block = Head(6, Snake(6), stride=8, taps=4)
    x = torch.randn(2, 10, 6)
    wide = block.entry.activation(block.entry.scale(x))
    weight = block.entry.pointwise.weight.T[:, None]
    expected = F.conv_transpose1d(wide.mT, weight, stride=8)[..., :80].mT
    torch.testing.assert_close(run(block, x), expected, atol=1e-5, rtol=1e-5)


def test_token_mixer():
    block = TokenMixer(5, 7, kernel=3)
    x = torch.randn(2, 10, 5)
    kernel = block.pointwise.weight.reshape(7, 3, 5).mT
    expected = F.conv1d(F.pad(x.mT, (2, 0)), kernel, block.pointwise.bias).mT
    torch.testing.assert_close(run(block, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [3, 4])
def test_frequency_down(stride):
    block = FrequencyDown(6, 8, stride, num_bins=24)
    x = torch.randn(2, 3, 24, 6)
    below = stride // 2
    entry = F.pad(block.entry(x).flatten(0, 1).mT, (below, stride - below))
    expected = F.conv1d(entry, block.depthwise[:, None], stride=stride, groups=8).mT
    torch.testing.assert_close(run(block, x).flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [3, 4])
def test_frequency_up_is_the_transpose_of_down(stride):
    block = FrequencyUp(6, 8, stride, num_bins=6)
    x = torch.randn(2, 3, 6, 6)
    kernel = block.depthwise.permute(2, 0, 1).reshape(8, 1, 2 * stride)
    entry = block.entry(x).flatten(0, 1).mT
    expected = F.conv_transpose1d(entry, kernel, stride=stride, groups=8).mT
    expected = expected[:, stride // 2 :][:, : 6 * stride]
    torch.testing.assert_close(run(block, x).flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("block", "inputs"),
    [
        (Unit(4, Snake(4), 4, kernel=7, dilation=2), (30, 4)),
        (Down(4, Snake(4), 4, stride=5), (30, 4)),
        (Up(4, Snake(4), 4, stride=5), (6, 4)),
        (Stem(4, stride=8, taps=4), (80, 1)),
        (Head(4, Snake(4), stride=8, taps=4), (10, 4)),
        (TokenMixer(4, 4, kernel=3), (10, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_reach_is_as_stated(block, inputs):
    x = torch.randn(1, *inputs, requires_grad=True)
    y = run(block, x)
    frame = y.shape[1] - 1 - (block.up - 1)  # the first of the last input frame's
    y[:, frame].sum().backward()
    assert x.grad[0].abs().sum(-1).nonzero()[0].item() == block.first_input(frame)
