"""Each block is compared with the plain convolution that it implements."""

import pytest
import torch
from torch.nn import functional as F

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.blocks import OutputProjection, ResidualUnit, Stack, TokenMixer
from codectool.codecs.hac.layers import Pointwise
from codectool.codecs.hac.spectral import (
    STFT,
    BinGain,
    FrameLinear,
    FrequencyDownsample,
    FrequencyUpsample,
    InverseSTFT,
    LastSpectrumConv,
    SpectrumConv,
    SpectrumUnit,
)
from codectool.codecs.hac.waveform import Downsample, Head, Shift, Stem, Upsample
from tests.hac_models import small_preset


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def run(block, x):
    return Stack({"only": block.eval()})(x)[0]


def test_residual_unit_is_a_dilated_causal_convolution_and_an_mlp():
    block = ResidualUnit(6, Snake(12), hidden=12, kernel=7, dilation=3)
    x = torch.randn(2, 40, 6)
    convolved = F.conv1d(F.pad(x.mT, (18, 0)), block.depthwise[:, None], dilation=3, groups=6).mT
    torch.testing.assert_close(run(block, x), x + block.branch(convolved), atol=1e-5, rtol=1e-5)


def test_downsample_is_a_strided_convolution():
    block = Downsample(6, 8, stride=5)
    x = torch.randn(2, 40, 6)
    entry = F.pad(block.entry(x).mT, (5, 0))
    expected = F.conv1d(entry, block.depthwise[:, None], block.bias, stride=5, groups=8).mT
    torch.testing.assert_close(run(block, x), expected, atol=1e-5, rtol=1e-5)


def test_upsample_is_a_transposed_convolution():
    block = Upsample(6, 8, stride=4)
    x = torch.randn(2, 10, 6)
    kernel = block.depthwise.permute(2, 0, 1).reshape(8, 1, 8)
    expected = F.conv_transpose1d(block.entry(x).mT, kernel, block.bias, stride=4, groups=8)
    torch.testing.assert_close(run(block, x), expected[..., :40].mT, atol=1e-5, rtol=1e-5)


def test_stem_is_a_strided_convolution():
    block = Stem(6, stride=8, taps=4)
    x = torch.randn(2, 80, 1)
    weight, bias = block.transform.weight[:, None], block.transform.bias
    expected = F.conv1d(F.pad(x.mT, (24, 0)), weight, bias, stride=8).mT
    torch.testing.assert_close(run(block, x), expected, atol=1e-5, rtol=1e-5)


def test_head_is_a_transposed_convolution():
    block = Head(6, stride=8, taps=4)
    x = torch.randn(2, 10, 6)
    activated = block.entry.activation(block.entry.scale(x))
    weight = block.entry.pointwise.weight.T[:, None]
    expected = F.conv_transpose1d(activated.mT, weight, stride=8)[..., :80].mT
    torch.testing.assert_close(run(block, x), expected, atol=1e-5, rtol=1e-5)


def test_token_mixer_is_a_causal_convolution():
    block = TokenMixer(5, 7, kernel=3)
    x = torch.randn(2, 10, 5)
    kernel = block.pointwise.weight.reshape(7, 3, 5).mT
    expected = F.conv1d(F.pad(x.mT, (2, 0)), kernel, block.pointwise.bias).mT
    torch.testing.assert_close(run(block, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [3, 4])
def test_frequency_downsample_is_a_strided_convolution_over_frequency(stride):
    block = FrequencyDownsample(6, 8, stride, num_bins=24)
    x = torch.randn(2, 3, 24, 6)
    below = stride // 2
    entry = F.pad(block.entry(x).flatten(0, 1).mT, (below, stride - below))
    expected = F.conv1d(entry, block.depthwise[:, None], stride=stride, groups=8).mT
    torch.testing.assert_close(run(block, x).flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [3, 4])
def test_frequency_upsample_is_the_transpose_of_downsample(stride):
    block = FrequencyUpsample(6, 8, stride, num_bins=6)
    x = torch.randn(2, 3, 6, 6)
    kernel = block.depthwise.permute(2, 0, 1).reshape(8, 1, 2 * stride)
    entry = block.entry(x).flatten(0, 1).mT
    expected = F.conv_transpose1d(entry, kernel, stride=stride, groups=8).mT
    expected = expected[:, stride // 2 :][:, : 6 * stride]
    torch.testing.assert_close(run(block, x).flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


BLOCKS = [  # block, shape of the input of one item
    (lambda: ResidualUnit(4, Snake(4), 4, kernel=7, dilation=2), (30, 4)),
    (lambda: Downsample(4, 4, stride=5), (30, 4)),
    (lambda: Upsample(4, 4, stride=5), (6, 4)),
    (lambda: Stem(4, stride=8, taps=4), (80, 1)),
    (lambda: Head(4, stride=8, taps=4), (10, 4)),
    (lambda: TokenMixer(4, 4, kernel=3), (10, 4)),
    (lambda: OutputProjection(Snake, 4, 4), (10, 4)),
    (lambda: Shift(torch.ones(1)), (10, 1)),
    (lambda: STFT(16, 4), (40, 1)),
    (lambda: InverseSTFT(16, 4), (10, 8, 2)),
    (lambda: BinGain(torch.rand(8, 1)), (10, 8, 2)),
    (lambda: SpectrumConv(2, 4, 8), (10, 8, 2)),
    (lambda: LastSpectrumConv(4, 2, 8), (10, 8, 4)),
    (lambda: SpectrumUnit(small_preset("hac-3.6-v12"), 0, 8), (10, 8, 4)),
    (lambda: SpectrumUnit(small_preset("hac-3.6-v13"), 0, 8), (10, 8, 4)),
    (lambda: FrequencyDownsample(4, 6, 4, 8), (10, 8, 4)),
    (lambda: FrequencyUpsample(4, 6, 4, 8), (10, 8, 4)),
    (lambda: FrameLinear(8 * 4, (6,)), (10, 8, 4)),
    (lambda: FrameLinear(6, (8, 4)), (10, 6)),
]


def block_id(value):
    return type(value()).__name__ if callable(value) else ""


# not the STFT, whose window begins with a zero
@pytest.mark.parametrize(
    ("build", "inputs"), [case for case in BLOCKS if case[1] != (40, 1)], ids=block_id
)
def test_first_input_is_the_earliest_frame_with_a_gradient(build, inputs):
    block = build()
    x = torch.randn(1, *inputs, requires_grad=True)
    y = run(block, x)
    frame = y.shape[1] - 1 - (block.up - 1)  # the first output frame of the last input frame
    y[:, frame].sum().backward()
    assert x.grad[0].flatten(1).abs().sum(-1).nonzero()[0].item() == block.first_input(frame)


@pytest.mark.parametrize(("build", "inputs"), BLOCKS, ids=block_id)
@torch.no_grad()
def test_block_gives_the_same_output_in_chunks(build, inputs):
    block = build()
    stack = Stack({"only": block.eval()})
    x = torch.randn(2, *inputs)
    expected, end = stack(x)
    parts, state = [], None
    for chunk in torch.split(x, 2 * block.down, dim=1):
        y, state = stack(chunk, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, end, atol=1e-5, rtol=1e-5)
    assert state[0].shape == (2, *block.state_shape)


@pytest.mark.parametrize(
    "shape", [(1, 30, 12), (5, 7, 12), (16, 6, 12), (2, 9, 3, 12), (40, 12)], ids=str
)
def test_training_computes_products_as_a_linear_layer(shape):
    torch.manual_seed(0)
    layer, x = Pointwise(12, 20), torch.randn(shape, requires_grad=True)
    gradient = torch.randn(*shape[:-1], 20)
    results = []
    for mode in (True, False):
        layer.train(mode).zero_grad()
        y = layer(x)
        inputs = [x, layer.weight, layer.bias]
        results.append([y.detach(), *torch.autograd.grad(y, inputs, gradient)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
