"""Energy distance: least for noise of the right level."""

import pytest
import torch

from codectool.codecs.trainable import Reconstruction
from codectool.errors import ConfigError
from codectool.schema import from_json
from codectool.training.losses.base import ReconstructionLoss
from codectool.training.losses.energy_distance import EnergyDistanceLossConfig

VALUES = {"kind": "energy_distance", "weight": 1, "windows": [512, 256], "bands": [40, 20]}
CONFIG = from_json(EnergyDistanceLossConfig, VALUES)
LOSS = CONFIG.build(24000)


def noise(seed, level=0.1, batch=4, length=24000):
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(batch, 1, length, generator=generator)


def compare(outputs, target):
    first, *others = outputs
    return LOSS.compare(Reconstruction(first, target, {}, tuple(others)))


LEAST = compare([noise(1), noise(2)], noise(3))


def test_draws_of_the_same_noise_cost_half_their_distance():
    half = LOSS(noise(1), noise(3)).item() / 2
    assert pytest.approx(half, rel=0.02) == LEAST.item()


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_noise_of_another_level_costs_more(level):
    assert compare([noise(1, level), noise(2, level)], noise(3)) > 1.3 * LEAST


def test_a_fixed_signal_costs_more_than_noise():
    fixed = noise(1)
    assert compare([fixed, fixed], noise(3)) > 1.9 * LEAST


def test_one_output_gives_the_distance():
    signals = noise(1), noise(3)
    assert compare([signals[0]], signals[1]) == LOSS(*signals)
    assert LOSS(noise(3), noise(3)) == 0


def test_both_outputs_get_a_gradient_and_the_target_none():
    outputs, target = (
        [noise(1).requires_grad_(), noise(2).requires_grad_()],
        noise(3).requires_grad_(),
    )
    compare(outputs, target).backward()
    assert all(output.grad is not None and output.grad.any() for output in outputs)
    assert target.grad is None


def test_sum_of_losses_passes_other_outputs_on():
    loss = ReconstructionLoss([CONFIG], 24000)
    plain, _ = loss(Reconstruction(noise(1), noise(3), {}, (noise(2),)))
    assert plain["energy_distance"] == compare([noise(1), noise(2)], noise(3))


def test_windows_and_bands_must_match():
    with pytest.raises(ConfigError, match="windows and bands differ in length"):
        from_json(EnergyDistanceLossConfig, VALUES | {"bands": [40]})
