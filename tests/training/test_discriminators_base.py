"""Properties of all discriminators."""

import pytest
import torch
from torch.nn.utils import parametrize

from codectool.errors import ConfigError
from codectool.training.discriminators.bands import FilterBandConfig
from codectool.training.discriminators.levels import LogMelConfig
from codectool.training.discriminators.periods import MultiPeriodConfig
from codectool.training.discriminators.stft import (
    ComplexStftConfig,
    MagnitudeStftConfig,
)

CONFIGS = {
    "periods": MultiPeriodConfig((2, 3, 5), 4, 2, 8),
    "magnitudes": MagnitudeStftConfig((128, 256), 4, 16),
    "complex": ComplexStftConfig((64, 128), (4, 4, 8, 8, 8)),
    "bands": FilterBandConfig((1, 2, 3, 5), (4, 4, 8, 8, 8)),
    "levels": LogMelConfig(window=128, hop=64, fft_size=128, bands=20, channels=(4, 4, 8, 8)),
}


@pytest.fixture(params=CONFIGS)
def discriminator(request):
    torch.manual_seed(0)
    return CONFIGS[request.param].build()


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def total(outputs):
    """A scalar that depends on every logit and every feature."""
    return sum(
        j.logits.square().mean() + sum(f.float().square().mean() for f in j.features)
        for j in outputs
    )


def test_each_member_has_logits_and_five_features(discriminator):
    outputs = discriminator(noise(2, 1, 2000))
    assert len(outputs) == len(discriminator.members)
    for output, member in zip(outputs, discriminator.members, strict=True):
        assert output.logits.shape[0] == 2
        assert output.logits.ndim == 2
        widths = [layer.out_channels for layer in member.hidden]
        assert [feature.shape[3] for feature in output.features] == widths
        assert len(widths) == 5


def test_features_are_outputs_of_the_activations(discriminator):
    """Undoing the leaky ReLU of a layer gives its convolution of the features before."""
    outputs = discriminator(noise(2, 1, 2000))
    for output, member in zip(outputs, discriminator.members, strict=True):
        inputs = [f.permute(0, 3, 1, 2) for f in output.features]
        for before, after, layer in zip(inputs, inputs[1:], member.hidden[1:], strict=False):
            undone = torch.where(after < 0, after / member.slope, after)
            torch.testing.assert_close(undone, layer(before), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.logits, member.last(inputs[-1]).flatten(1))


def test_items_of_a_batch_are_independent(discriminator):
    batch = noise(3, 1, 1501)
    together = discriminator(batch)
    for item in range(3):
        alone = discriminator(batch[item : item + 1])
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one.logits[0], all_.logits[item], atol=1e-5, rtol=1e-4)
            for a, b in zip(one.features, all_.features, strict=True):
                torch.testing.assert_close(a[0], b[item], atol=1e-5, rtol=1e-4)


def test_gradient_reaches_every_sample_and_every_weight(discriminator):
    # A multiple of every hop, so that the last sample is in a frame of the complex spectra; their
    # first sample has the window's only zero.
    wave = noise(2, 1, 2048).requires_grad_()
    total(discriminator(wave)).backward()
    assert wave.grad.isfinite().all()
    assert (wave.grad[..., 1:] != 0).all()
    for name, weight in discriminator.named_parameters():
        assert weight.grad.isfinite().all(), name
        assert (weight.grad != 0).any(), name


@pytest.mark.parametrize("level", [0.0, 1e-30])
def test_gradient_is_finite_for_silence(discriminator, level):
    wave = (level * noise(2, 1, 2000)).requires_grad_()
    total(discriminator(wave)).backward()
    assert wave.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in discriminator.parameters())


def test_gradient_matches_finite_difference(discriminator):
    torch.manual_seed(1)
    wave, direction = noise(2, 1, 1024).requires_grad_(), noise(2, 1, 1024, seed=1)
    total(discriminator(wave)).backward()
    step = 0.02
    with torch.no_grad():
        rise = total(discriminator(wave + step * direction)) - total(
            discriminator(wave - step * direction)
        )
    expected = (wave.grad * direction).sum()
    assert rise / (2 * step) == pytest.approx(expected.item(), rel=0.02)


def test_gradient_reaches_wave_through_frozen_weights(discriminator):
    discriminator.requires_grad_(False)
    wave = noise(2, 1, 1024).requires_grad_()
    total(discriminator(wave)).backward()
    assert wave.grad.abs().sum() > 0


def test_images_and_logits_are_float32_under_autocast(discriminator):
    wave = noise(2, 1, 2000)
    exact = discriminator(wave)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = [member.image(wave) for member in discriminator.members]
        rough = discriminator(wave)
    for member, image in zip(discriminator.members, images, strict=True):
        assert image.dtype == torch.float32
        assert torch.equal(image, member.image(wave))
    for a, b in zip(exact, rough, strict=True):
        assert b.logits.dtype == torch.float32
        torch.testing.assert_close(a.logits, b.logits, atol=0.02, rtol=0.05)


def test_state_dict_holds_parameters_only(discriminator):
    assert {name for name, _ in discriminator.named_parameters()} == set(discriminator.state_dict())


def test_features_are_contiguous(discriminator):
    for output in discriminator(noise(2, 1, 2000)):
        assert all(feature.is_contiguous() for feature in output.features)


def test_every_layer_has_weight_norm(discriminator):
    for member in discriminator.members:
        for layer in [*member.hidden, member.last]:
            assert parametrize.is_parametrized(layer, "weight")


def test_empty_wave_is_refused(discriminator):
    with pytest.raises(ConfigError, match="needs crops of at least [0-9]+ samples, not 0"):
        discriminator(torch.zeros(1, 1, 0))
