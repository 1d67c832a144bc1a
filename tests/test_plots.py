"""The figure style, spectrograms and PNG files that all figures share."""

from __future__ import annotations

import io
import math
import zlib

import numpy as np
import numpy.typing as npt
import pytest

from codectool import plots
from codectool.audio.mel import RATE, hz_to_mel
from codectool.errors import UsageError
from codectool.plots import (
    BANDS,
    draw_png,
    num_frames,
    palette,
    png_bytes,
    shorten,
    spectrogram,
    spectrogram_pair,
    spectrogram_pixels,
)
from tests.cli.test_start import modules_after
from tests.figures import without_matplotlib

Wave = npt.NDArray[np.float32]


def tone(samples: int, hertz: float = 3000, level: float = 0.5, rate: int = RATE) -> Wave:
    time = np.arange(samples) / rate
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def noise(samples: int, level: float = 0.1) -> Wave:
    return np.random.default_rng(0).normal(0, level, samples).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (1, 1), (128, 1), (129, 2), (384, 2), (385, 3), (24000, 95)]
)
def test_num_frames_leaves_no_sample_further_than_half_a_hop(samples: int, frames: int) -> None:
    assert num_frames(samples) == frames


@pytest.mark.parametrize("per_column", [1, 2, 7])
@pytest.mark.parametrize("samples", [0, 1, 128, 129, 5000])
def test_spectrogram_columns_hold_all_frames(samples: int, per_column: int) -> None:
    columns = -(-num_frames(samples) // per_column)
    assert spectrogram(tone(samples), per_column).shape == (columns, BANDS)


def test_spectrogram_of_silence_is_the_lowest_level() -> None:
    assert (spectrogram(np.zeros(5000, np.float32), 3) == -80).all()


@pytest.mark.parametrize("hertz", [500, 1500, 6000])
def test_spectrogram_of_a_tone_peaks_in_its_band(hertz: int) -> None:
    """Bands are equally wide in mel; the two bands nearest to the tone are the loudest."""
    levels = spectrogram(tone(RATE // 2, hertz))[4:-4]
    centre = hz_to_mel(hertz) / hz_to_mel(RATE / 2) * (BANDS + 1) - 1
    assert set(levels.argmax(axis=1)) <= {int(centre), int(centre) + 1}


def test_spectrogram_rises_by_6_db_for_twice_the_amplitude() -> None:
    quiet, loud = (spectrogram(noise(5000, level)) for level in (0.1, 0.2))
    assert np.allclose(loud - quiet, 20 * np.log10(2))


def test_spectrogram_column_is_the_mean_of_its_frames() -> None:
    """Six frames: samples 0 to 1408 are within half a hop of their centres."""
    wave = noise(1408)
    frames = spectrogram(wave)
    assert spectrogram(wave, 3) == pytest.approx(frames.reshape(2, 3, BANDS).mean(axis=1))


@pytest.mark.parametrize("per_column", [1, 3])
def test_spectrogram_does_not_depend_on_batches(
    monkeypatch: pytest.MonkeyPatch, per_column: int
) -> None:
    expected = spectrogram(noise(20000), per_column)
    monkeypatch.setattr(plots, "BATCH_FRAMES", 7)
    assert spectrogram(noise(20000), per_column) == pytest.approx(expected)


def test_spectrogram_pixels_of_a_tone() -> None:
    pixels = spectrogram_pixels(tone(RATE, 1000, 1.0), 1000)
    assert pixels.shape == (96, num_frames(RATE))
    row = pixels[:, 40].argmax()
    assert row == pytest.approx(96 - 96 * 15 / 51.2, abs=2)  # 1 kHz is 15 mel, 12 kHz is 51.2
    assert pixels[5, 40] == 0
    assert not spectrogram_pixels(np.zeros(100, np.float32), 1000).any()


def test_spectrogram_pixels_of_a_long_signal_are_limited() -> None:
    pixels = spectrogram_pixels(np.zeros(24000 * 60, np.float32), 1000)
    assert 500 < pixels.shape[1] <= 1000


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 5000.0])
@pytest.mark.parametrize("rate", [16000, 24000])
def test_spectrogram_pair_shows_a_tone_at_the_same_place_for_any_rate(
    frequency: float, rate: int
) -> None:
    wave = tone(rate, frequency, 1.0, rate)
    image = spectrogram_pair(wave, wave, rate)
    height = BANDS * plots.PAIR_ZOOM
    assert image.shape == (2 * height + plots.PAIR_GAP, num_frames(RATE) * plots.PAIR_ZOOM, 3)
    brightness = image[:height, image.shape[1] // 2].astype(int).sum(axis=1)
    band = BANDS - 1 - brightness.argmax() // plots.PAIR_ZOOM
    assert abs(band - (hz_to_mel(frequency) / hz_to_mel(RATE / 2) * (BANDS + 1) - 1)) <= 1


def test_spectrogram_pair_has_one_scale() -> None:
    loud = tone(8000, 1000, 0.25, 16000)
    image = spectrogram_pair(loud, loud * 0.01, 16000)
    height = BANDS * plots.PAIR_ZOOM
    colors = {tuple(color): index for index, color in enumerate(palette().tolist())}
    above, below = (
        np.array([colors[tuple(color)] for color in part[:, 50].tolist()])
        for part in (image[:height], image[-height:])
    )
    steps_per_db = (plots.PALETTE_SIZE - 1) / (plots.MAX_DB - plots.MIN_DB)
    assert 0 < below.max() < above.max() < plots.PALETTE_SIZE - 1
    assert above.max() - below.max() == pytest.approx(40 * steps_per_db, abs=1)
    assert above.argmax() == below.argmax()
    assert above.argmax() > height / 2  # low frequencies are at the bottom


@pytest.mark.parametrize("length", [1, 10, 399, 400_000])
def test_spectrogram_pair_of_any_length(length: int) -> None:
    image = spectrogram_pair(np.zeros(length, np.float32), noise(length // 2 + 1), 16000)
    assert 0 < image.shape[1] <= 1200
    empty = np.zeros(0, np.float32)
    assert spectrogram_pair(np.ones(length, np.float32), empty, 16000).shape == image.shape


def test_spectrogram_pair_draws_values_that_are_not_finite_as_silence_or_full_scale() -> None:
    output = np.full(8000, math.nan, np.float32)
    image = spectrogram_pair(noise(8000), output, 16000)
    assert (image[-BANDS * plots.PAIR_ZOOM :] == palette()[0]).all()
    spectrogram_pair(noise(8000), np.full(8000, math.inf, np.float32), 16000)


def test_palette_lightness_rises() -> None:
    lightness = palette() @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()


def test_png_bytes() -> None:
    pixels = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    data = png_bytes(pixels, np.array([[0, 0, 0], [255, 0, 0], [1, 2, 3]], np.uint8))
    assert data[:16] == b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    assert data[16:29] == bytes([0, 0, 0, 3, 0, 0, 0, 2, 8, 3, 0, 0, 0])
    start = data.index(b"IDAT") + 4
    assert zlib.decompressobj().decompress(data[start:]) == bytes([0, 0, 1, 2, 0, 2, 1, 0])
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(data))
    assert image.convert("RGB").getpixel((2, 0)) == (1, 2, 3)


def test_shorten_keeps_the_end() -> None:
    assert [shorten("abc", length) for length in (4, 3, 2)] == ["abc", "abc", "…c"]


@pytest.mark.parametrize("extra", ["eval", "train"])
def test_draw_png_without_matplotlib_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    without_matplotlib(monkeypatch)
    with pytest.raises(
        UsageError, match=rf"needs matplotlib: run `pip install 'codectool\[{extra}\]'`"
    ):
        draw_png((1, 1), lambda figure: None, extra)


def test_plots_imports_neither_matplotlib_nor_torch() -> None:
    loaded = modules_after("import codectool.plots")
    assert not loaded & {"matplotlib", "torch"}
