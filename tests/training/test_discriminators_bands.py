import numpy as np
import pytest
import torch

from codectool.errors import ConfigError
from codectool.training.discriminators.bands import (
    CUTOFFS,
    FilterBandConfig,
    FilterBank,
    analysis_filters,
    design_cutoff,
    ripple,
)

SEVERAL = (2, 3, 5, 7, 11)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def decibels(gain):
    return 20 * np.log10(np.abs(gain))


def spectra_of(filters, points):
    """Frequency responses of filters whose middle is time 0."""
    half = filters.shape[1] // 2
    padded = np.zeros((len(filters), points))
    padded[:, : half + 1] = filters[:, half:]
    padded[:, -half:] = filters[:, :half]
    return np.fft.fft(padded)


@pytest.fixture(scope="module")
def responses():
    """Responses (M, frequencies) of the analysis filters and of the synthesis filters."""
    found = {}
    for bands in SEVERAL:
        analysis = analysis_filters(bands).numpy()
        points = 4096 * bands  # every shift by 2 pi / M is a whole number of points
        found[bands] = spectra_of(analysis, points), spectra_of(bands * analysis[:, ::-1], points)
    return found


@pytest.mark.parametrize("bands", SEVERAL)
def test_analysis_and_synthesis_have_flat_gain(responses, bands):
    analysis, synthesis = responses[bands]
    gain = (analysis * synthesis).sum(0) / bands
    assert np.abs(gain.imag).max() < 1e-12  # no phase distortion
    level = decibels(gain)
    assert (level.max() - level.min()) / 2 < 0.01
    assert np.abs(level).max() < 0.02


@pytest.mark.parametrize("bands", SEVERAL)
def test_aliasing_is_below_85_decibels(responses, bands):
    analysis, synthesis = responses[bands]
    step = analysis.shape[1] // bands
    for shift in range(1, bands):
        alias = (np.roll(analysis, shift * step, axis=1) * synthesis).sum(0) / bands
        assert decibels(np.abs(alias).max()) < -85


@pytest.mark.parametrize("bands", SEVERAL)
def test_synthesis_reconstructs_the_wave(bands):
    wave = noise(1, 1, 1500)
    split = FilterBank(bands)(wave)[0, :, :, 0].double()
    spread = torch.zeros(bands, split.shape[1] * bands, dtype=torch.float64)
    spread[:, ::bands] = split
    mirrored = bands * analysis_filters(bands).flip(1)
    parts = [np.convolve(s, f, mode="same") for s, f in zip(spread, mirrored, strict=True)]
    inner = slice(256, 1500 - 256)  # the filters reach beyond the ends
    error = np.sum(parts, axis=0)[:1500][inner] - wave.flatten().numpy()[inner]
    assert np.sqrt(np.mean(error**2)) < 10 ** (-60 / 20)  # the noise has power 1


@pytest.mark.parametrize("bands", SEVERAL)
@pytest.mark.parametrize("length", [1, 77, 1000])
def test_filter_bank_matches_numpy_convolution(bands, length):
    wave = noise(2, 1, length)
    split = FilterBank(bands)(wave)
    assert split.shape == (2, bands, -(-length // bands), 1)
    filters = analysis_filters(bands).numpy()
    for item in range(2):
        for band in range(bands):
            full = np.convolve(wave[item, 0].double(), filters[band])
            expected = full[128 : 128 + length : bands]
            np.testing.assert_allclose(split[item, band, :, 0], expected, atol=1e-5)


def test_filter_bank_of_one_band_is_the_wave():
    wave = noise(2, 1, 100)
    assert torch.equal(FilterBank(1)(wave).flatten(1), wave.flatten(1))
    assert analysis_filters(1).nonzero().tolist() == [[0, 128]]


@pytest.mark.parametrize("bands", SEVERAL)
def test_sine_keeps_its_amplitude_in_its_band_only(bands):
    time = torch.arange(3000.0, dtype=torch.float64)
    for band in range(bands):
        frequency = (band + 0.4) / (2 * bands)  # of the sampling rate; 0.5 would alias to itself
        wave = 0.3 * torch.sin(2 * torch.pi * frequency * time)
        edge = 128 // bands + 1
        inner = FilterBank(bands)(wave.reshape(1, 1, -1))[0, :, edge : 3000 // bands - edge, 0]
        power = 2 * inner.square().mean(1)
        assert power[band].sqrt().item() == pytest.approx(0.3, rel=0.02)
        others = torch.cat([power[:band], power[band + 1 :]])
        assert others.max().sqrt() < 0.3 * 10 ** (-75 / 20)


def test_stored_cutoffs_match_the_search():
    for bands in SEVERAL:
        assert design_cutoff(bands) == pytest.approx(CUTOFFS[bands], abs=6e-8)


@pytest.mark.parametrize("bands", SEVERAL)
def test_stored_cutoff_is_optimal_on_a_grid(bands):
    grid = CUTOFFS[bands] + np.arange(-1000, 1001, 4) * 1e-6
    assert (
        min(ripple(bands, float(cutoff)) for cutoff in grid) > ripple(bands, CUTOFFS[bands]) - 1e-4
    )
    assert ripple(bands, CUTOFFS[bands]) < 0.01


def test_cutoffs_match_published_values():
    published = {2: 0.253881, 3: 0.170546, 5: 0.103881, 7: 0.075310, 11: 0.049338}  # HILCodec
    for bands, cutoff in published.items():
        assert CUTOFFS[bands] == pytest.approx(cutoff, abs=5e-6)


def test_cutoff_of_other_banks_is_searched():
    assert ripple(4, design_cutoff(4)) < 0.01
    assert FilterBank(4)(noise(1, 1, 100)).shape == (1, 4, 25, 1)


def test_too_many_bands_are_refused():
    with pytest.raises(ConfigError, match="21 filter bands are not possible; use 1 to 20"):
        FilterBandConfig((21,), (4,) * 5)


def test_number_of_parameters():
    every = (1, *SEVERAL)
    full = FilterBandConfig(every, (32, 128, 512, 1024, 1024)).build()
    small = FilterBandConfig(every, (16, 32, 64, 128, 128)).build()
    assert round(sum(w.numel() for w in full.parameters()) / 1e6) == 49
    assert round(sum(w.numel() for w in small.parameters()) / 1e6, 2) == 0.82


@pytest.mark.parametrize("length", [1, 500, 12_000])
def test_discriminator_has_expected_shapes(length):
    outputs = FilterBandConfig((1, 3, 11), (2, 3, 4, 5, 6)).build()(noise(2, 1, length))
    for bands, output in zip((1, 3, 11), outputs, strict=True):
        width, expected = -(-length // bands), []
        for channels, stride in zip((2, 3, 4, 5, 6), (3, 3, 3, 3, 1), strict=True):
            width = -(-width // stride)
            expected.append((2, bands, width, channels))
        assert [tuple(feature.shape) for feature in output.features] == expected
        assert output.logits.shape == (2, bands * width)


def test_bands_are_independent_and_share_weights():
    torch.manual_seed(0)
    member = FilterBandConfig((5,), (4,) * 5).build().members[0]
    member.image = torch.nn.Identity()
    image, order = noise(1, 5, 300, 1), [3, 0, 4, 1, 2]
    straight, shuffled = member(image), member(image[:, order])
    for a, b in zip(straight.features, shuffled.features, strict=True):
        torch.testing.assert_close(a[:, order], b)


def test_wrong_number_of_widths_is_refused():
    with pytest.raises(ConfigError, match="channels has 6 widths; .* 5 hidden layers"):
        FilterBandConfig((2,), (4,) * 6)
