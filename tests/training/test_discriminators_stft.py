from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from codectool.errors import ConfigError
from codectool.training.discriminators.stft import (
    ComplexImage,
    ComplexStftConfig,
    MagnitudeImage,
    MagnitudeStftConfig,
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def layer_size(before, width, kernel, norm=True):
    """Weights, bias and, with weight norm, g."""
    return before * width * kernel + width * (2 if norm else 1)


def dft(samples, size, starts):
    """Hann-windowed spectra by the definition of the DFT: complex (T, size / 2 + 1)."""
    n = np.arange(size)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / size)
    kernel = np.exp(-2j * np.pi * np.outer(n, np.arange(size // 2 + 1)) / size)
    return np.stack([(samples[start : start + size] * hann) @ kernel for start in starts])


@pytest.mark.parametrize(("size", "length"), [(16, 60), (32, 64), (32, 17)])
def test_magnitude_image_matches_definition(size, length):
    wave = noise(1, 1, length)
    samples = np.pad(wave.flatten().double().numpy(), size // 2, mode="reflect")
    frames = length // (size // 4) + 1
    expected = np.abs(dft(samples, size, np.arange(frames) * (size // 4))).T
    image = MagnitudeImage(size)(wave)
    assert image.shape == (1, size // 2 + 1, frames, 1)
    np.testing.assert_allclose(image[0, :, :, 0], np.clip(expected, 1e-7**0.5, 1e3**0.5), 1e-4)


@pytest.mark.parametrize(("size", "length"), [(16, 60), (32, 64), (32, 32), (64, 127)])
def test_complex_image_matches_definition(size, length):
    wave = noise(1, 1, length)
    frames = (length - size) // (size // 4) + 1
    spectra = dft(wave.flatten().double().numpy(), size, np.arange(frames) * (size // 4))
    expected = np.stack([spectra.real, spectra.imag], axis=2) / np.sqrt(0.375 * size)
    image = ComplexImage(size)(wave)
    assert image.shape == (1, frames, size // 2 + 1, 2)
    np.testing.assert_allclose(image[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [64, 512])
def test_white_noise_has_unit_power_at_every_resolution(size):
    image = ComplexImage(size)(noise(1, 1, 100_000))
    inner = image[:, :, 1:-1]
    assert inner.square().sum(3).mean() == pytest.approx(1, abs=0.03)


def test_magnitudes_are_clipped():
    time = torch.arange(2000.0)
    for amplitude, expected in ((0.5, 0.5 * 64 / 4), (100.0, 1e3**0.5), (0.0, 1e-7**0.5)):
        wave = amplitude * torch.sin(2 * torch.pi * 10 / 64 * time)
        image = MagnitudeImage(64)(wave.reshape(1, 1, -1))
        assert image[0, 10, 60, 0].item() == pytest.approx(expected, rel=1e-4)


def test_bigcodec_discriminator_has_expected_shapes():
    outputs = MagnitudeStftConfig((128, 256, 512, 1024, 2048)).build()(noise(1, 1, 4000))
    # bins size / 2 + 1 and frames 4000 / (size / 4) + 1, halved and rounded up four times
    expected = [(5, 8), (9, 4), (17, 2), (33, 1), (65, 1)]
    for output, (height, width) in zip(outputs, expected, strict=True):
        last = (1, height, width, 512)
        assert tuple(output.features[4].shape) == last
        assert tuple(output.features[3].shape) == (*last[:3], 256)
        assert output.logits.shape == (1, height * width)
    first = outputs[2].features
    assert [tuple(feature.shape) for feature in first[:3]] == [
        (1, 129, 16, 32),
        (1, 65, 8, 64),
        (1, 33, 4, 128),
    ]


def test_bigcodec_discriminator_has_expected_number_of_parameters():
    discriminator = MagnitudeStftConfig((128, 256)).build()
    widths = (1, 32, 64, 128, 256)
    halving = sum(layer_size(a, b, 25) for a, b in pairwise(widths))
    one = halving + layer_size(256, 512, 9) + layer_size(512, 1, 9)
    assert count(discriminator) == 2 * one


def test_width_is_limited_by_max_channels():
    discriminator = MagnitudeStftConfig((64,), 8, 24).build()
    assert [layer.out_channels for layer in discriminator.members[0].hidden] == [8, 16, 24, 24, 24]


def test_hac_discriminators_have_expected_number_of_parameters():
    full = ComplexStftConfig((128, 256, 512, 1024), (16, 16, 32, 64, 128)).build()
    small = ComplexStftConfig((512, 1024, 2048), (8, 8, 16, 32, 64)).build()
    assert round(count(full) / 1e6, 2) == 0.61
    assert round(count(small) / 1e6, 2) == 0.12


def test_supercodec_discriminator_has_expected_number_of_parameters():
    discriminator = ComplexStftConfig((1024, 2048, 512), (32,) * 5, norm_first=False).build()
    one = (
        layer_size(2, 32, 27, norm=False)
        + 3 * layer_size(32, 32, 27)
        + layer_size(32, 32, 9)
        + layer_size(32, 1, 9)
    )
    assert count(discriminator) == 3 * one
    for member in discriminator.members:
        normed = [parametrize.is_parametrized(layer, "weight") for layer in member.hidden]
        assert normed == [False, True, True, True, True]
        assert parametrize.is_parametrized(member.last, "weight")


@pytest.mark.parametrize("length", [2048, 2100, 8000])
def test_supercodec_discriminator_has_expected_shapes(length):
    discriminator = ComplexStftConfig((1024, 2048, 512), (4,) * 5, norm_first=False).build()
    outputs = discriminator(noise(2, 1, length))
    for window, output in zip((1024, 2048, 512), outputs, strict=True):
        frames = (length - window) // (window // 4) + 1
        bins = [window // 2 + 1, window // 4 + 1, window // 8 + 1, window // 16 + 1]
        expected = [(2, frames, bins[i], 4) for i in (0, 1, 2, 3, 3)]
        assert [tuple(feature.shape) for feature in output.features] == expected
        assert output.logits.shape == (2, frames * bins[3])


def test_receptive_field_is_ten_frames_on_both_sides():
    """1 + 1 + 2 + 4 + 1 + 1 frames around frame 20 of the image."""
    torch.manual_seed(0)
    member = ComplexStftConfig((16,), (4,) * 5).build().members[0]
    member.image = torch.nn.Identity()
    image = noise(1, 41, 9, 2).requires_grad_()
    member(image).logits.reshape(41, 2)[20].sum().backward()
    reached = image.grad.abs().sum((0, 2, 3)).nonzero().flatten()
    assert (reached.min(), reached.max()) == (10, 30)


def test_short_crops_are_refused_with_the_needed_length():
    discriminator = ComplexStftConfig((512, 64), (4,) * 5).build()
    assert len(discriminator(noise(1, 1, 512))) == 2
    with pytest.raises(
        ConfigError, match="window 512 needs crops of at least 512 samples, not 511"
    ):
        discriminator(noise(1, 1, 511))
    discriminator = MagnitudeStftConfig((512,), 4, 8).build()
    assert len(discriminator(noise(1, 1, 257))) == 1
    with pytest.raises(ConfigError, match="size 512 needs crops of at least 257 samples, not 256"):
        discriminator(noise(1, 1, 256))


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="window 30 .* not a multiple of 4"):
        ComplexStftConfig((30,), (4,) * 5)
    with pytest.raises(ConfigError, match="window 0 .* not a multiple of 4"):
        MagnitudeStftConfig((0,), 4, 8)
    with pytest.raises(ConfigError, match="channels has 4 widths; .* 5 hidden layers"):
        ComplexStftConfig((32,), (4,) * 4)


@pytest.mark.parametrize("channels", [(12, 12, 24, 48, 96), (8, 24, 40, 17, 8)])
def test_gradients_in_bfloat16_are_those_in_float32_for_any_width(channels):
    torch.manual_seed(0)
    discriminator = ComplexStftConfig(windows=(512,), channels=channels).build()
    wave = torch.randn(2, 1, 8000)

    def gradients():
        discriminator.zero_grad()
        (output,) = discriminator(wave)
        output.logits.square().mean().backward()
        return [parameter.grad.clone() for parameter in discriminator.parameters()]

    expected = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients()
    for right, gradient in zip(expected, found, strict=True):
        assert (gradient - right).norm() < 0.1 * right.norm()
