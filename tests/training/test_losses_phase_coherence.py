"""Phase coherence loss: signals with known phase differences."""

import math

import numpy as np
import pytest
import torch

from codectool.errors import ConfigError
from codectool.training.losses.phase_coherence import PhaseCoherenceLoss, PhaseCoherenceLossConfig

RATE = 24000
TIME = torch.arange(RATE) / RATE


def tone(hertz: float, phase: float = 0.0, size: float = 0.1) -> torch.Tensor:
    return size * torch.cos(2 * torch.pi * hertz * TIME + phase)[None, None]


def build(windows, **config) -> PhaseCoherenceLoss:
    return PhaseCoherenceLossConfig(weight=1, windows=windows, **config).build(RATE)


@pytest.fixture
def distance() -> PhaseCoherenceLoss:
    return build((1024,), f_min=60, f_max=400)


@pytest.mark.parametrize("phase", [0.0, 0.5, math.pi / 2, 2.0, math.pi])
def test_loss_of_shifted_tone_is_one_minus_cosine(distance, phase):
    value = distance(tone(150, phase), tone(150)).item()
    assert value == pytest.approx(1 - math.cos(phase), abs=5e-3)


def test_loss_matches_numpy():
    random = np.random.default_rng(0)
    y, x = (random.standard_normal((2, 4000)) * size for size in (0.2, 0.05))
    x += y  # partly coherent
    expected = []
    for window in (512, 1024):
        shape = np.hanning(window + 1)[:-1]
        starts = range(0, 4000 - window + 1, window // 4)
        first, last = round(100 / RATE * window), round(1000 / RATE * window)
        for a, b in zip(y, x, strict=True):
            both = [
                [np.fft.rfft(s[n : n + window] * shape)[first : last + 1] for n in starts]
                for s in (a, b)
            ]
            u, v = (np.array(s) for s in both)
            weights = np.sqrt(abs(u) * abs(v))
            cosines = np.cos(np.angle(u) - np.angle(v))
            expected.append(1 - (weights * cosines).sum() / weights.sum())
    loss = build((512, 1024), f_min=100, f_max=1000)
    got = loss(*(torch.tensor(s, dtype=torch.float32)[:, None] for s in (y, x)))
    assert got.item() == pytest.approx(np.mean(expected), abs=1e-4)


def test_loss_ignores_levels_and_other_frequencies(distance):
    output, target = tone(150, 0.7), tone(150)
    plain = distance(output, target).item()
    assert distance(0.3 * output, target).item() == pytest.approx(plain, abs=5e-3)
    assert distance(output, 5 * target).item() == pytest.approx(plain, abs=5e-3)
    beyond = tone(3000, size=0.5)
    assert distance(output + beyond, target - beyond).item() == pytest.approx(plain, abs=5e-3)


def test_loss_of_independent_noise_is_one(distance):
    torch.manual_seed(0)
    noises = torch.randn(2, 8, 1, RATE)
    assert distance(*noises).item() == pytest.approx(1, abs=0.1)


def test_silence_has_no_gradient(distance):
    silence = torch.zeros(2, 1, RATE, requires_grad=True)
    value = distance(silence, torch.zeros(2, 1, RATE))
    value.backward()
    assert value.item() == pytest.approx(1)
    assert silence.grad is not None
    assert not silence.grad.any()


def test_gradient_descent_aligns_the_phase(distance):
    target = tone(120)
    phase = torch.tensor(1.5, requires_grad=True)
    for _ in range(40):
        output = torch.cos(2 * torch.pi * 120 * TIME + phase)[None, None]
        (slope,) = torch.autograd.grad(distance(output, target), phase)
        phase = (phase - 0.3 * slope).detach().requires_grad_()
    assert abs(phase.item()) < 0.01


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="no bin"):
        build((64,), f_min=13000, f_max=14000)
    with pytest.raises(ConfigError, match="100 samples are too few"):
        build((1024,))(torch.zeros(1, 1, 100), torch.zeros(1, 1, 100))
