"""Envelope loss: agreement with STOI and ESTOI, and signals with known envelopes."""

import numpy as np
import pytest
import torch

from codectool.errors import ConfigError
from codectool.training.losses.envelope import EnvelopeLoss, EnvelopeLossConfig, third_octaves

RATE = 10000


def bursts(seed: int, seconds: float = 2.0) -> torch.Tensor:
    """Noise with a random envelope: ``(1, 1, N)``."""
    random = np.random.default_rng(seed)
    samples = int(RATE * seconds)
    size = np.interp(np.arange(samples), np.arange(0, samples, 500), random.random(samples // 500))
    return torch.tensor(0.1 * size * random.standard_normal(samples)).float()[None, None]


def build(rate: int = 24000, **config) -> EnvelopeLoss:
    return EnvelopeLossConfig(weight=1, **config).build(rate)


@pytest.fixture(params=[False, True], ids=["envelopes", "spectra"])
def distance(request) -> EnvelopeLoss:
    return build(RATE, window=256, frames=30, f_max=4500, spectra=request.param)


def test_loss_matches_pystoi_without_silence_and_clipping(distance):
    pystoi = pytest.importorskip("pystoi")
    target = bursts(0)
    output = target + 0.4 * bursts(1)
    expected = pystoi.stoi(
        target[0, 0].numpy(), output[0, 0].numpy(), RATE, extended=distance.spectra
    )
    assert 0.3 < expected < 0.97
    assert 1 - distance(output, target).item() == pytest.approx(expected, abs=0.01)


def test_loss_is_zero_for_equal_and_one_for_independent_signals(distance):
    target = bursts(0)
    assert distance(target, target).item() == pytest.approx(0, abs=1e-4)
    others = torch.cat([bursts(seed) for seed in range(1, 9)])
    assert distance(others, bursts(0).expand(8, -1, -1)).item() == pytest.approx(1, abs=0.2)


def test_loss_does_not_depend_on_level(distance):
    target, output = bursts(0), bursts(0) + 0.3 * bursts(1)
    plain = distance(output, target).item()
    assert distance(0.2 * output, target).item() == pytest.approx(plain, abs=0.01)
    assert distance(output, 5 * target).item() == pytest.approx(plain, abs=0.01)


def test_loss_of_flat_envelope_is_large(distance):
    torch.manual_seed(0)
    flat = 0.05 * torch.randn(1, 1, 2 * RATE)
    assert distance(flat, bursts(0)).item() > 0.8


def test_silent_segments_do_not_count(distance):
    target, output = bursts(0), bursts(0) + 0.3 * bursts(1)
    plain = distance(output, target).item()
    quiet = 1e-6 * bursts(2)
    both = distance(torch.cat([output, 0 * quiet]), torch.cat([target, quiet])).item()
    assert both == pytest.approx(plain, abs=1e-5)
    silence = torch.zeros(2, 1, RATE, requires_grad=True)
    distance(silence, torch.zeros(2, 1, RATE)).backward()
    assert silence.grad is not None
    assert not silence.grad.any()


def test_gradient_descent_finds_the_envelope(distance):
    target = bursts(0, seconds=0.5)
    carrier = torch.randn(1, 1, target.shape[-1], generator=torch.Generator().manual_seed(3))
    knots = torch.full((1, 1, 20), 0.1, requires_grad=True)
    optimizer = torch.optim.Adam([knots], 0.02)
    values = []
    for _ in range(60):
        size = torch.nn.functional.interpolate(knots, target.shape[-1], mode="linear")
        value = distance(size * carrier, target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.75 * values[0]


def test_third_octave_bands_do_not_overlap():
    bands = third_octaves(10000, 512, 150, 4500)
    assert bands.shape == (257, 15)  # as in STOI
    assert bands.sum(1).max() == 1
    hertz = torch.arange(257) * (10000 / 512)
    assert hertz[bands[:, -1] > 0].min() == pytest.approx(3810 / 2 ** (1 / 6), rel=0.02)
    assert hertz[bands.sum(1) > 0].max() < 4500


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="need longer windows than 64"):
        build(window=64)
    for f_min, f_max in [(11900, 12000), (150, 160)]:
        with pytest.raises(ConfigError, match=f"no third of an octave around f_min, {f_min} Hz"):
            build(f_min=f_min, f_max=f_max)
    with pytest.raises(ConfigError, match="100 samples are too few"):
        build()(torch.zeros(1, 1, 100), torch.zeros(1, 1, 100))
