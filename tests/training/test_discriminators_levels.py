"""Discriminator on log levels of mel bands."""

import numpy as np
import pytest
import torch

from codectool.errors import ConfigError
from codectool.training.discriminators.levels import LogMelConfig, LogMelImage
from codectool.training.losses.adversarial import discriminator_loss


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_image_has_one_row_per_hop_and_one_column_per_band():
    image = LogMelImage(LogMelConfig())(0.1 * noise(2, 1, 24000))
    assert image.shape == (2, (24000 - 320) // 80 + 1, 80, 1)
    assert image.dtype == torch.float32


def test_levels_of_noise_follow_its_power():
    config = LogMelConfig()
    quiet, loud = (LogMelImage(config)(gain * noise(1, 1, 48000)) for gain in (0.01, 0.1))
    # ten times the amplitude is a hundred times the power
    assert (loud - quiet).mean().item() == pytest.approx(0.25 * np.log(100), abs=0.01)
    assert LogMelImage(config)(torch.zeros(1, 1, 4000)).mean().item() == pytest.approx(
        0.25 * np.log(1e-8) + 3, abs=1e-5
    )


def test_tone_is_loudest_in_its_band():
    time = torch.arange(4000.0) / 24000
    for frequency in (500.0, 2000.0, 6000.0):
        image = LogMelImage(LogMelConfig())(torch.sin(2 * torch.pi * frequency * time)[None, None])
        bands = LogMelImage(LogMelConfig()).bands
        nearest = bands[round(frequency / 24000 * 512)].argmax()
        assert abs(int(image.mean((0, 1, 3)).argmax()) - int(nearest)) <= 1


def test_layers_halve_time_and_bands():
    (output,) = LogMelConfig().build()(0.1 * noise(1, 1, 24000))
    shapes = [tuple(features.shape[1:]) for features in output.features]
    assert shapes == [(297, 80, 24), (149, 40, 32), (75, 20, 48), (38, 10, 64), (38, 10, 64)]
    assert output.logits.shape == (1, 380)


def test_it_learns_to_tell_smooth_spectra_from_peaked_ones():
    torch.manual_seed(0)
    discriminator = LogMelConfig(bands=40, channels=(8, 8, 16)).build()
    optimizer = torch.optim.AdamW(discriminator.parameters(), 2e-3)
    losses = []
    for step in range(60):
        white = 0.1 * noise(4, 1, 6000, seed=step)
        delayed = torch.nn.functional.pad(white, (12, 0))[..., :6000]  # a comb of 1 kHz bands
        real, fake = discriminator(white + delayed), discriminator(2**0.5 * white)
        loss = discriminator_loss([real[0].logits], [fake[0].logits], "hinge")
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 1.8
    assert losses[-1] < 0.5


def test_gradients_are_finite_in_bfloat16():
    torch.manual_seed(0)
    discriminator = LogMelConfig().build()
    wave = (0.1 * noise(2, 1, 8000)).requires_grad_()
    silence = torch.zeros(2, 1, 8000, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [*discriminator(wave), *discriminator(silence)]
    sum(output.logits.square().sum() for output in outputs).backward()
    tensors = [wave, silence, *discriminator.parameters()]
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in tensors)


def test_window_longer_than_the_fft_is_refused():
    with pytest.raises(ConfigError, match="fft_size 256 .* less than its window of 320"):
        LogMelConfig(fft_size=256)


def test_short_crops_are_refused():
    with pytest.raises(ConfigError, match="log-mel discriminator .* at least 320 samples, not 300"):
        LogMelConfig().build()(noise(1, 1, 300))
