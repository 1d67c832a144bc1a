"""Mel and STFT losses against a plain NumPy computation in float64."""

import math
import warnings

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from codectool.errors import ConfigError
from codectool.schema import from_json
from codectool.training.config import load
from codectool.training.losses.mel import MelLossConfig, MelSpectrum, mel_bands
from codectool.training.losses.spectrum import Spectrum, magnitudes
from codectool.training.losses.stft import StftLossConfig
from tests.conftest import load_torchaudio

HAC_BANDS = {2048: 128, 1024: 80, 512: 48, 256: 24, 128: 12}


def mel(rate, **config):
    return from_json(MelLossConfig, {"kind": "mel", "weight": 1, **config}).build(rate)


def bundled(name, number, rate):
    """The n-th loss of a bundled config."""
    return load(name).training.losses[number].build(rate)


def stft(windows=tuple(HAC_BANDS)):
    return StftLossConfig(weight=1, windows=windows).build(24000)


HAC_MEL = bundled("hac-v01", 0, 24000)
BIGCODEC_MEL = bundled("bigcodec", 0, 16000)
SUPERCODEC_MEL = bundled("supercodec", 0, 16000)
SUPERCODEC_SPECTRAL = bundled("supercodec", 1, 16000)
STFT = stft()


def noise(*shape, seed=0, level=0.1, dtype=torch.float32):
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair(length, batch=2):
    target = noise(batch, 1, length)
    return target + noise(batch, 1, length, seed=1, level=0.05), target


# The reference computation: loops over frames and bands, float64.


def plain_magnitudes(signal, fft_size, window, hop, padding=0, epsilon=0.0):
    signal = np.pad(signal, padding, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    left = (fft_size - window) // 2
    placed = np.zeros(fft_size)
    placed[left : left + window] = hann
    frames = [
        np.fft.rfft(signal[start : start + fft_size] * placed)
        for start in range(0, len(signal) - fft_size + 1, hop)
    ]
    return np.sqrt(np.abs(np.array(frames)) ** 2 + epsilon)


def slaney_hz(mel):
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def slaney_mel(hz):
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def plain_bands(fft_size, bands, rate, f_max, unit_sum):
    edges = [slaney_hz(mel) for mel in np.linspace(0, slaney_mel(f_max), bands + 2)]
    weights = np.zeros((fft_size // 2 + 1, bands))
    for band, (low, peak, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for k in range(len(weights)):
            hz = k * rate / fft_size
            weights[k, band] = max(0, min((hz - low) / (peak - low), (high - hz) / (high - peak)))
        if not unit_sum:
            weights[:, band] *= 2 / (high - low)
        elif weights[:, band].sum() > 0:
            weights[:, band] /= weights[:, band].sum()
    return weights


def items(signal):
    return signal.double().numpy()[:, 0]


def plain_hac_mel(output, target, rate=24000):
    total = 0.0
    for window, bands in HAC_BANDS.items():
        weights = plain_bands(window, bands, rate, rate / 2, unit_sum=True)
        logs = []
        for batch in (output, target):
            mel = [
                plain_magnitudes(x, window, window, window // 4) * 4 / window @ weights
                for x in batch
            ]
            logs.append(np.log10(np.maximum(np.array(mel), 1e-4)))
        total += np.abs(logs[0] - logs[1]).mean() / 5
    return total


def plain_stft_distance(output, target):
    total = 0.0
    for window in HAC_BANDS:
        for y, x in zip(output, target, strict=True):
            size_y, size_x = (
                plain_magnitudes(signal, window, window, window // 4) * 4 / window
                for signal in (y, x)
            )
            logs = [np.log10(np.maximum(size, 1e-4)) for size in (size_y, size_x)]
            ratio = np.sqrt(((size_y - size_x) ** 2).sum() / (size_x**2).sum())
            total += np.abs(logs[0] - logs[1]).mean() + 0.2 * ratio
    return total / len(output) / 5


def test_hac_mel_loss_matches_numpy():
    output, target = pair(4000)
    expected = plain_hac_mel(items(output), items(target))
    assert HAC_MEL(output, target).item() == pytest.approx(expected, rel=1e-4)


def test_bigcodec_mel_loss_matches_numpy():
    output, target = pair(2500)
    expected = 0.0
    for factor in (1, 2, 4, 8, 16, 32, 64):
        window, bands = 32 * factor, 5 * factor
        weights = plain_bands(window, bands, 16000, 8000, unit_sum=False)
        logs = []
        for batch in (items(output), items(target)):
            mel = [
                plain_magnitudes(x, window, window, window // 4, window // 2) @ weights
                for x in batch
            ]
            logs.append(np.log10(np.maximum(np.array(mel), 1e-5)))
        expected += np.abs(logs[0] - logs[1]).mean()
    assert BIGCODEC_MEL(output, target).item() == pytest.approx(expected, rel=1e-4)


def test_supercodec_mel_loss_matches_numpy():
    output, target = pair(1600)
    weights = plain_bands(1024, 80, 16000, 8000, unit_sum=False)
    logs = []
    for batch in (items(output), items(target)):
        mel = [plain_magnitudes(x, 1024, 640, 160, 432, epsilon=1e-9) @ weights for x in batch]
        logs.append(np.log(np.maximum(np.array(mel), 1e-5)))
    assert logs[0].shape == (2, 10, 80)  # a frame for each hop
    expected = np.abs(logs[0] - logs[1]).mean()
    assert SUPERCODEC_MEL(output, target).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("rate", "top"), [(16000, 8000), (24000, 8000), (8000, 4000)])
def test_supercodec_spectral_loss_matches_numpy(rate, top):
    output, target = pair(1000)
    expected = 0.0
    weights = plain_bands(1024, 64, rate, top, unit_sum=False)
    for window in (32, 64, 128, 256, 512, 1024):
        hop = window // 4
        logs = []
        for batch in (items(output), items(target)):
            mel = [
                plain_magnitudes(x, 1024, window, hop, (1024 - hop) // 2) ** 2 @ weights
                for x in batch
            ]
            logs.append(np.log10(np.maximum(np.array(mel), 1e-5)))
        difference = logs[0] - logs[1]
        expected += np.abs(difference).mean() + (difference**2).mean()
    config = load("supercodec").training.losses[1]
    loss = replace(config, f_max=float(top)).build(rate)
    assert loss(output, target).item() == pytest.approx(expected, rel=1e-4)


def test_stft_loss_matches_numpy():
    output, target = pair(4000)
    expected = plain_stft_distance(items(output), items(target))
    assert STFT(output, target).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("fft_size", "window", "hop", "epsilon", "power"),
    [
        (16, 16, 4, 0.0, 1),
        (16, 10, 3, 1e-9, 1),
        (16, 6, 9, 0.0, 1),
        (8, 8, 8, 0.1, 1),
        (16, 16, 4, 0.0, 2),
        (16, 6, 4, 0.1, 2),
    ],
)
def test_magnitudes_gradient_matches_finite_differences(fft_size, window, hop, epsilon, power):
    signal = noise(2, 41, dtype=torch.float64, level=1).requires_grad_()
    shape = torch.hann_window(window, dtype=torch.float64) + 0.1
    assert torch.autograd.gradcheck(
        lambda x: magnitudes(x, shape, fft_size, hop, epsilon, power), (signal,)
    )


@pytest.mark.parametrize(("window", "epsilon"), [(32, 0.0), (64, 0.1), (150, 0.0)])
def test_shortened_mel_spectrum_matches_long_fft(window, epsilon):
    """Also if the bands of a frame are 80 dB apart, where float32 is wrong by 1 %."""
    long = Spectrum(1024, window, 40, padding=200, power=2, epsilon=epsilon)
    spectrum = MelSpectrum(long, mel_bands(1024, 30, 16000))
    assert spectrum.shortened
    loud = torch.sin(2 * math.pi * 500 / 16000 * torch.arange(2000.0))
    for signal in (noise(2000), loud + noise(2000, level=1e-3)):
        sizes = plain_magnitudes(signal.double().numpy(), 1024, window, 40, 200, epsilon)
        expected = sizes**2 @ plain_bands(1024, 30, 16000, 8000, unit_sum=False)
        np.testing.assert_allclose(spectrum(signal[None])[0], expected, rtol=1e-4)


@pytest.mark.parametrize(("loss", "plain"), [(HAC_MEL, plain_hac_mel), (STFT, plain_stft_distance)])
def test_loss_gradient_matches_finite_differences(loss, plain):
    """Derivative along one direction against differences of the NumPy computation."""
    output, target = pair(2400)
    direction = noise(2, 1, 2400, seed=2, level=1)
    output.requires_grad_()
    loss(output, target).backward()
    slope = (output.grad * direction).sum().item()
    step = 1e-6
    ahead, behind = (
        plain(items(output.detach()) + sign * step * items(direction), items(target))
        for sign in (1, -1)
    )
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-3)


LOSSES = [
    HAC_MEL,
    BIGCODEC_MEL,
    SUPERCODEC_MEL,
    SUPERCODEC_SPECTRAL,
    STFT,
]


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_zero_for_equal_signals_mean_over_batch_and_ignores_autocast(loss):
    output, target = pair(2400)
    whole = loss(output, target)
    assert whole.shape == ()
    assert loss(target, target) == 0
    single = [loss(output[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(whole, (single[0] + single[1]) / 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(output, target) == whole
    assert not loss.state_dict()


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_are_finite_for_silence(loss):
    silence, target = torch.zeros(1, 1, 2400), noise(1, 1, 2400).requires_grad_()
    for y, x in ((silence.clone(), target), (target.detach(), silence), (silence, silence)):
        y.requires_grad_()
        value = loss(y, x)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(y.grad).all()
    assert target.grad is None


def test_half_level_has_known_distance():
    target = noise(2, 1, 4800)
    two = math.log10(2)
    cases = (
        (HAC_MEL, two),
        (SUPERCODEC_MEL, math.log(2)),
        (STFT, two + 0.2 * 0.5),
    )
    for loss, expected in cases:
        assert loss(target / 2, target).item() == pytest.approx(expected, rel=5e-3)


def test_mel_loss_ignores_what_is_below_the_floor():
    below = noise(2, 1, 4800, level=1e-6)
    assert HAC_MEL(below, torch.zeros_like(below)) == 0


@pytest.mark.parametrize("window", [128, 2048])
def test_full_scale_sine_has_magnitude_one(window):
    sine = torch.sin(2 * math.pi * 12 / window * torch.arange(4096.0))[None]
    spectrum = Spectrum(window, window, window // 4, full_scale=True)(sine)
    torch.testing.assert_close(spectrum[..., 12], torch.ones_like(spectrum[..., 12]))
    assert spectrum.max() < 1 + 1e-4


def test_spectrum_matches_torch_stft():
    signal = noise(2, 1000)
    spectrum = Spectrum(256, 100, 30)(signal)
    expected = torch.stft(
        signal, 256, 30, 100, torch.hann_window(100), center=False, return_complex=True
    )
    torch.testing.assert_close(spectrum, expected.abs().mT, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("f_max", [None, 7000.0])
@pytest.mark.parametrize(("fft_size", "bands"), [*HAC_BANDS.items(), (400, 80), (64, 40)])
def test_mel_bands_equal_torchaudio_to_rounding(fft_size, bands, f_max):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty bands
        expected = load_torchaudio().melscale_fbanks(
            fft_size // 2 + 1, 50.0, f_max or 12000.0, bands, 24000, "slaney", "slaney"
        )
    ours = mel_bands(fft_size, bands, 24000, 50.0, f_max)
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)


def test_mel_bands_without_a_bin_are_empty():
    for unit_sum in (False, True):
        bands = mel_bands(256, 120, 16000, unit_sum=unit_sum)
        assert (bands.sum(0) == 0).any()
        assert (bands.sum(0) > 0).sum() > 40
        assert torch.isfinite(bands).all()


def test_mel_loss_mean_is_sum_divided_by_number_of_windows():
    output, target = pair(1000)
    sizes = {"windows": [256, 512], "bands": [20, 40]}
    total = mel(16000, **sizes)(output, target)
    torch.testing.assert_close(mel(16000, **sizes, mean=True)(output, target), total / 2)


def test_short_crops_are_refused_with_the_needed_length():
    with pytest.raises(ConfigError, match="100 samples are too few .* at least 2048"):
        HAC_MEL(noise(1, 1, 100), noise(1, 1, 100))
    with pytest.raises(ConfigError, match="at least 433"):
        SUPERCODEC_MEL(noise(1, 1, 432), noise(1, 1, 432))
