"""Losses and discriminators of the bundled configs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codectool.codecs.trainable import Reconstruction
from codectool.schema import from_json
from codectool.training.config import load
from codectool.training.losses import AnyLossConfig
from codectool.training.losses.base import ReconstructionLoss
from tests.training import small

OUTPUT, TARGET = small.batch(2, 16000, seed=1), small.batch(2, 16000, seed=2)
HAC_WINDOWS = [2048, 1024, 512, 256, 128]


def losses_of(name: str) -> tuple[dict[str, float], dict[str, float]]:
    """Plain and weighted losses of a bundled config."""
    config = load(name)
    loss = ReconstructionLoss(config.training.losses, config.crop_spec().sample_rate)
    plain, weighted = loss(Reconstruction(OUTPUT, TARGET, {}))
    return {k: v.item() for k, v in plain.items()}, {k: v.item() for k, v in weighted.items()}


def value(sample_rate: int, kind: str, **config: Any) -> float:
    loss = from_json(AnyLossConfig, {"kind": kind, "weight": 1, **config})
    return float(loss.build(sample_rate)(OUTPUT, TARGET))


def test_losses_of_hac_match_its_design() -> None:
    plain, weighted = losses_of("hac-v01")
    mel = value(
        24000,
        "mel",
        windows=HAC_WINDOWS,
        bands=[128, 80, 48, 24, 12],
        unit_sum=True,
        full_scale=True,
        floor=1e-4,
        mean=True,
    )
    waveform = value(24000, "waveform", relative=True)
    assert plain == pytest.approx({"mel": mel, "waveform": waveform})
    assert weighted == pytest.approx({"mel": 10 * mel, "waveform": waveform})
    plain, _ = losses_of("hac-v02")
    assert plain["stft"] == pytest.approx(value(24000, "stft", windows=HAC_WINDOWS))


def test_hac_continue_compares_phases_below_1_khz() -> None:
    plain, weighted = losses_of("hac-continue")
    expected = value(24000, "phase_coherence", windows=[1024], f_min=60, f_max=1000)
    assert plain["phase_coherence"] == weighted["phase_coherence"] == pytest.approx(expected)


def test_hac_continue_compares_envelopes_like_stoi_and_estoi() -> None:
    plain, weighted = losses_of("hac-continue")
    expected = sum(value(24000, "envelope", spectra=spectra) for spectra in (False, True))
    assert plain["envelope"] == pytest.approx(expected)
    assert weighted["envelope"] == pytest.approx(2 * expected)


def test_losses_of_bigcodec_match_its_paper() -> None:
    plain, weighted = losses_of("bigcodec")
    windows = [32 * n for n in (1, 2, 4, 8, 16, 32, 64)]
    bands = [5 * n for n in (1, 2, 4, 8, 16, 32, 64)]
    mel = value(16000, "mel", windows=windows, bands=bands, padding="centre")
    assert plain == pytest.approx({"mel": mel})
    assert weighted == pytest.approx({"mel": 15 * mel})


def test_losses_of_supercodec_match_its_paper() -> None:
    """Two losses of a kind are summed."""
    plain, weighted = losses_of("supercodec")
    mel = value(
        16000,
        "mel",
        windows=[640],
        hops=[160],
        bands=[80],
        fft_size=1024,
        padding="same",
        epsilon=1e-9,
        natural_log=True,
    )
    power = value(
        16000,
        "mel",
        windows=[32, 64, 128, 256, 512, 1024],
        bands=[64] * 6,
        fft_size=1024,
        f_max=8000,
        power=2,
        padding="same",
        squared=1,
    )
    waveform = value(16000, "waveform")
    assert plain == pytest.approx({"mel": mel + power, "waveform": waveform}, rel=1e-5)
    assert weighted == pytest.approx(
        {"mel": 15 * mel + power, "waveform": 0.1 * waveform}, rel=1e-5
    )


def num_parameters(name: str) -> list[int]:
    """Number of parameters of each discriminator of a bundled config."""
    adversarial = load(name).training.adversarial
    assert adversarial is not None
    with torch.device("meta"):
        discriminators = [config.build() for config in adversarial.discriminators]
    return [sum(p.numel() for p in each.parameters()) for each in discriminators]


def weight_normed(*layers: tuple[int, int, int]) -> int:
    """Parameters of convolutions with weight norm: kernel, bias and length per output channel."""
    return sum(wide * narrow * kernel + 2 * wide for narrow, wide, kernel in layers)


def test_discriminators_have_the_published_number_of_parameters() -> None:
    stft, bands = num_parameters("hac-v01")
    assert (round(stft / 1e6, 2), round(bands / 1e6)) == (0.61, 49)

    periods = weight_normed((1, 16, 5), (16, 64, 5), (64, 256, 5), (256, 512, 5), (512, 512, 5))
    periods += weight_normed((512, 1, 2))
    stft = weight_normed((1, 32, 25), (32, 64, 25), (64, 128, 25), (128, 256, 25), (256, 512, 9))
    stft += weight_normed((512, 1, 9))
    assert num_parameters("bigcodec") == [5 * periods, 5 * stft]

    stft = 2 * 32 * 27 + 32  # the first layer has no weight norm
    stft += 3 * weight_normed((32, 32, 27)) + weight_normed((32, 32, 9), (32, 1, 9))
    assert num_parameters("supercodec") == [3 * stft]
