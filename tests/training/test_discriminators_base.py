"""What every family of discriminators promises."""

import pytest
import torch
from torch.nn.utils import parametrize

from codectool.errors import ConfigError
from codectool.training.discriminators.bands import FilterBandDiscriminator
from codectool.training.discriminators.periods import MultiPeriodDiscriminator
from codectool.training.discriminators.stft import (
    ComplexStftDiscriminator,
    MagnitudeStftDiscriminator,
)

FAMILIES = {
    "periods": lambda: MultiPeriodDiscriminator((2, 3, 5), 4, 2, 8),
    "magnitudes": lambda: MagnitudeStftDiscriminator((128, 256), 4, 16),
    "complex": lambda: ComplexStftDiscriminator((64, 128), (4, 4, 8, 8, 8)),
    "bands": lambda: FilterBandDiscriminator((1, 2, 3, 5), (4, 4, 8, 8, 8)),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    torch.manual_seed(0)
    return FAMILIES[request.param]()


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def total(judgements):
    """A scalar that every logit and every feature has a share in."""
    return sum(
        j.logits.square().mean() + sum(f.float().square().mean() for f in j.features)
        for j in judgements
    )


def test_one_judgement_for_each_member_with_five_features(family):
    judgements = family(noise(2, 1, 2000))
    assert len(judgements) == len(family.members)
    for judgement, member in zip(judgements, family.members, strict=True):
        assert judgement.logits.shape[0] == 2
        assert judgement.logits.ndim == 2
        widths = [layer.out_channels for layer in member.hidden]
        assert [feature.shape[3] for feature in judgement.features] == widths
        assert len(widths) == 5


def test_features_are_taken_after_the_activation(family):
    """Undoing the leaky ReLU of one layer gives what its convolution makes of the last."""
    judgements = family(noise(2, 1, 2000))
    for judgement, member in zip(judgements, family.members, strict=True):
        inputs = [f.permute(0, 3, 1, 2) for f in judgement.features]
        for before, after, layer in zip(inputs, inputs[1:], member.hidden[1:], strict=False):
            undone = torch.where(after < 0, after / member.slope, after)
            torch.testing.assert_close(undone, layer(before), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(judgement.logits, member.last(inputs[-1]).flatten(1))


def test_items_of_a_batch_do_not_see_each_other(family):
    batch = noise(3, 1, 1501)
    together = family(batch)
    for item in range(3):
        alone = family(batch[item : item + 1])
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one.logits[0], all_.logits[item], atol=1e-5, rtol=1e-4)
            for a, b in zip(one.features, all_.features, strict=True):
                torch.testing.assert_close(a[0], b[item], atol=1e-5, rtol=1e-4)


def test_gradient_reaches_every_sample_and_every_weight(family):
    # A multiple of every hop, so that the last sample lies in a frame of spectra that are not
    # centred; their very first one has the window's only zero.
    wave = noise(2, 1, 2048).requires_grad_()
    total(family(wave)).backward()
    assert wave.grad.isfinite().all()
    assert (wave.grad[..., 1:] != 0).all()
    for name, weight in family.named_parameters():
        assert weight.grad.isfinite().all(), name
        assert (weight.grad != 0).any(), name


@pytest.mark.parametrize("level", [0.0, 1e-30])
def test_gradient_is_finite_for_silence(family, level):
    wave = (level * noise(2, 1, 2000)).requires_grad_()
    total(family(wave)).backward()
    assert wave.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in family.parameters())


def test_gradient_is_the_slope(family):
    torch.manual_seed(1)
    wave, direction = noise(2, 1, 1024).requires_grad_(), noise(2, 1, 1024, seed=1)
    total(family(wave)).backward()
    step = 0.02
    with torch.no_grad():
        rise = total(family(wave + step * direction)) - total(family(wave - step * direction))
    expected = (wave.grad * direction).sum()
    assert rise / (2 * step) == pytest.approx(expected.item(), rel=0.02)


def test_weights_can_be_frozen_for_the_generators_step(family):
    family.requires_grad_(False)
    wave = noise(2, 1, 1024).requires_grad_()
    total(family(wave)).backward()
    assert wave.grad.abs().sum() > 0


def test_pictures_and_logits_stay_in_float32_under_autocast(family):
    wave = noise(2, 1, 2000)
    exact = family(wave)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pictures = [member.picture(wave) for member in family.members]
        rough = family(wave)
    for member, picture in zip(family.members, pictures, strict=True):
        assert picture.dtype == torch.float32
        assert torch.equal(picture, member.picture(wave))
    for a, b in zip(exact, rough, strict=True):
        assert b.logits.dtype == torch.float32
        torch.testing.assert_close(a.logits, b.logits, atol=0.02, rtol=0.05)


def test_state_holds_weights_only(family):
    assert {name for name, _ in family.named_parameters()} == set(family.state_dict())


def test_features_are_contiguous(family):
    """So that a loss reads them, and writes their gradients, in the order of memory."""
    for judgement in family(noise(2, 1, 2000)):
        assert all(feature.is_contiguous() for feature in judgement.features)


def test_every_layer_has_weight_norm(family):
    for member in family.members:
        for layer in [*member.hidden, member.last]:
            assert parametrize.is_parametrized(layer, "weight")


def test_no_samples_at_all(family):
    with pytest.raises(ConfigError, match="needs pieces of at least [0-9]+ samples, not 0"):
        family(torch.zeros(1, 1, 0))
