"""From terms of a config to losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codectool.training.config import load
from codectool.training.losses import spectral
from codectool.training.losses.coherence import CoherenceDistance
from codectool.training.losses.envelope import EnvelopeDistance
from codectool.training.losses.waveform import l1, relative_l1
from codectool.training.objective import Distances, build_discriminator, penalty_sum
from tests.training import small

OUTPUT, TARGET = small.batch(2, 16000, seed=1), small.batch(2, 16000, seed=2)


def distances_of(name: str) -> tuple[dict[str, float], dict[str, float]]:
    config = load(name)
    rate: Any = config.model.get("sample_rate") or config.model["sampling_rate"]
    plain, weighted = Distances(config.training.losses, rate)(OUTPUT, TARGET)
    return {k: v.item() for k, v in plain.items()}, {k: v.item() for k, v in weighted.items()}


def test_terms_of_hac_are_those_of_its_design() -> None:
    plain, weighted = distances_of("hac-v01")
    mel = spectral.hac_mel(24000)(OUTPUT, TARGET).item()
    waveform = relative_l1(OUTPUT, TARGET).item()
    assert plain == pytest.approx({"mel": mel, "waveform": waveform})
    assert weighted == pytest.approx({"mel": 10 * mel, "waveform": waveform})
    plain, _ = distances_of("hac-v02")
    assert plain["stft"] == pytest.approx(spectral.StftDistance()(OUTPUT, TARGET).item())


def test_the_second_recipe_of_hac_looks_at_phases_below_1_khz() -> None:
    plain, weighted = distances_of("hac-continue")
    distance = CoherenceDistance(24000, [1024], f_min=60, f_max=1000)(OUTPUT, TARGET).item()
    assert plain["coherence"] == weighted["coherence"] == pytest.approx(distance)


def test_and_at_courses_and_spectra_of_bands_as_stoi_and_estoi_do() -> None:
    plain, weighted = distances_of("hac-continue")
    distance = sum(
        EnvelopeDistance(24000, spectra=spectra)(OUTPUT, TARGET).item() for spectra in (False, True)
    )
    assert plain["envelope"] == pytest.approx(distance)
    assert weighted["envelope"] == pytest.approx(2 * distance)


def test_terms_of_bigcodec_are_those_of_its_paper() -> None:
    plain, weighted = distances_of("bigcodec")
    mel = spectral.bigcodec_mel(16000)(OUTPUT, TARGET).item()
    assert plain == pytest.approx({"mel": mel})
    assert weighted == pytest.approx({"mel": 15 * mel})


def test_terms_of_supercodec_are_those_of_its_paper() -> None:
    """Two terms of one kind are added up."""
    plain, weighted = distances_of("supercodec")
    mel = spectral.supercodec_mel(16000)(OUTPUT, TARGET).item()
    power = spectral.supercodec_spectral(16000)(OUTPUT, TARGET).item()
    waveform = l1(OUTPUT, TARGET).item()
    assert plain == pytest.approx({"mel": mel + power, "waveform": waveform}, rel=1e-5)
    assert weighted == pytest.approx(
        {"mel": 15 * mel + power, "waveform": 0.1 * waveform}, rel=1e-5
    )


def numbers(name: str) -> list[int]:
    """Learned numbers of each family of discriminators."""
    adversarial = load(name).training.adversarial
    assert adversarial is not None
    with torch.device("meta"):
        families = [build_discriminator(each) for each in adversarial.discriminators]
    return [sum(p.numel() for p in family.parameters()) for family in families]


def normed(*layers: tuple[int, int, int]) -> int:
    """Of weight-normed convolutions: kernel, bias, and a length for each channel put out."""
    return sum(wide * narrow * kernel + 2 * wide for narrow, wide, kernel in layers)


def test_discriminators_have_the_published_sizes() -> None:
    """HAC's in millions, as its design counts them; the others by their layers."""
    stft, bands = numbers("hac-v01")
    assert (round(stft / 1e6, 2), round(bands / 1e6)) == (0.61, 49)

    periods = normed((1, 16, 5), (16, 64, 5), (64, 256, 5), (256, 512, 5), (512, 512, 5))
    periods += normed((512, 1, 2))
    stft = normed((1, 32, 25), (32, 64, 25), (64, 128, 25), (128, 256, 25), (256, 512, 9))
    stft += normed((512, 1, 9))
    assert numbers("bigcodec") == [5 * periods, 5 * stft]

    stft = 2 * 32 * 27 + 32  # the first layer has no weight norm
    stft += 3 * normed((32, 32, 27)) + normed((32, 32, 9)) + normed((32, 1, 9))
    assert numbers("supercodec") == [3 * stft]


def test_penalties_without_weight_do_not_count() -> None:
    penalties = {"commitment": torch.tensor(2.0), "entropy": torch.tensor(5.0)}
    assert penalty_sum(penalties, {"commitment": 0.25}).item() == 0.5
    assert penalty_sum(penalties, {"entropy": 2, "commitment": 1}).item() == 12
