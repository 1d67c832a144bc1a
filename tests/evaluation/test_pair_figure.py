"""The picture of two recordings and their difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codectool.audio.mel import RATE, hz_to_mel
from codectool.errors import UsageError
from codectool.evaluation import pair_figure as pair_picture
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.pair_figure import BANDS, draw_pair, num_frames, spectrogram
from codectool.plots import DPI, shortened
from tests.evaluation.test_token_plot import (
    Pixels,
    figure_of,
    read_png,
    share_of,
    without_matplotlib,
)

ABSENT, SAME = (221, 221, 221), (246, 246, 246)


def tone(samples: int, hertz: float = 3000, level: float = 0.5) -> Wave:
    time = np.arange(samples) / RATE
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def noise(samples: int, level: float = 0.1) -> Wave:
    return np.random.default_rng(0).normal(0, level, samples).astype(np.float32)


def panel_of(pixels: Pixels, row: int) -> Pixels:
    """The inside of one of the three panels."""
    top = round((pair_picture.TOP + row * pair_picture.STEP) * DPI)
    left = round(pair_picture.LEFT * DPI)
    width, height = round(pair_picture.WIDTH * DPI), round(pair_picture.PANEL * DPI)
    return pixels[top + 2 : top + height - 2, left + 2 : left + width - 2]


def panels(first: Wave, second: Wave) -> tuple[Pixels, Pixels, Pixels]:
    pytest.importorskip("matplotlib")
    pixels = read_png(draw_pair(first, second, ("a.wav", "b.wav")))
    assert pixels.shape == (915, 1500, 3)
    return panel_of(pixels, 0), panel_of(pixels, 1), panel_of(pixels, 2)


def pair_figure(
    monkeypatch: pytest.MonkeyPatch,
    first: Wave,
    second: Wave,
    names: tuple[str, str] = ("a", "b"),
    note: str = "b minus a",
) -> Any:
    module = "codectool.evaluation.pair_figure"
    return figure_of(monkeypatch, module, lambda: draw_pair(first, second, names, note))


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (1, 1), (128, 1), (129, 2), (384, 2), (385, 3), (24000, 95)]
)
def test_no_sample_is_further_from_a_frame_than_half_a_hop(samples: int, frames: int) -> None:
    assert num_frames(samples) == frames


@pytest.mark.parametrize("per_column", [1, 2, 7])
@pytest.mark.parametrize("samples", [0, 1, 128, 129, 5000])
def test_columns_hold_all_frames(samples: int, per_column: int) -> None:
    columns = -(-num_frames(samples) // per_column)
    assert spectrogram(tone(samples), per_column).shape == (columns, BANDS)


def test_silence_is_the_lowest_level() -> None:
    assert (spectrogram(np.zeros(5000, np.float32), 3) == -80).all()


def test_a_tone_lies_in_its_band() -> None:
    """Bands are equally wide in mel: the one whose centre is nearest to the tone is the loudest."""
    for hertz in (500, 1500, 6000):
        levels = spectrogram(tone(RATE // 2, hertz), 1)[4:-4]
        centre = hz_to_mel(hertz) / hz_to_mel(RATE / 2) * (BANDS + 1) - 1
        assert set(levels.argmax(axis=1)) <= {int(centre), int(centre) + 1}


def test_twice_as_loud_is_6_db_more() -> None:
    quiet, loud = (spectrogram(noise(5000, level), 1) for level in (0.1, 0.2))
    assert np.allclose(loud - quiet, 20 * np.log10(2))


def test_a_column_is_the_mean_of_its_frames() -> None:
    """Six frames: samples 0 to 1408 are within half a hop of their centres."""
    wave = noise(1408)
    frames = spectrogram(wave, 1)
    assert spectrogram(wave, 3) == pytest.approx(frames.reshape(2, 3, BANDS).mean(axis=1))


@pytest.mark.parametrize("per_column", [1, 3])
def test_pieces_make_the_same_picture(monkeypatch: pytest.MonkeyPatch, per_column: int) -> None:
    whole = spectrogram(noise(20000), per_column)
    monkeypatch.setattr(pair_picture, "ROWS_AT_ONCE", 7)
    assert spectrogram(noise(20000), per_column) == pytest.approx(whole)


def test_signals_that_are_alike_differ_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, difference = panels(noise(12000), noise(12000))
    assert share_of(SAME, difference) > 0.99
    figure = pair_figure(monkeypatch, noise(12000), noise(12000))
    first, second, changes = (axes.images[0].get_array() for axes in figure.axes[:3])
    assert (first == second).all()
    assert (changes == 0).all()


def test_red_is_more_and_blue_is_less() -> None:
    *_, more = panels(noise(12000, 0.05), noise(12000, 0.1))
    *_, less = panels(noise(12000, 0.1), noise(12000, 0.05))
    assert (more[..., 0] > more[..., 2] + 10).mean() > 0.95
    assert (less[..., 2] > less[..., 0] + 10).mean() > 0.95


def test_where_one_has_ended_there_is_nothing() -> None:
    first, second, difference = panels(noise(24000), noise(12000))
    assert share_of(ABSENT, first) == 0
    for panel in (second, difference):
        half = panel.shape[1] // 2
        assert share_of(ABSENT, panel[:, : half - 20]) == 0
        assert share_of(ABSENT, panel[:, half + 30 :]) > 0.99


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 500), (500, 0)])
def test_an_empty_signal_leaves_its_panel_and_the_difference_empty(first: int, second: int) -> None:
    above, below, difference = panels(noise(first), noise(second))
    assert share_of(ABSENT, above) == (first == 0)
    assert share_of(ABSENT, below) == (second == 0)
    assert share_of(ABSENT, difference) == 1


def test_a_single_sample_is_drawn() -> None:
    above, below, _ = panels(np.ones(1, np.float32), np.ones(1, np.float32))
    assert share_of(ABSENT, above) == share_of(ABSENT, below) == 0


def test_titles_and_units(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("talk.wav", "$decoded_1$.wav"), "b minus a; b was 3 ms late"
    figure = pair_figure(monkeypatch, noise(24000), noise(24000), *words)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == ["a: talk.wav", "b: $decoded_1$.wav", "b minus a; b was 3 ms late"]
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == ["kHz"] * 3
    assert figure.axes[2].get_xlabel() == "seconds"
    assert [axes.get_ylabel() for axes in figure.axes[3:]] == [
        "dB; a sine at full scale is 0",
        "dB; red: b has more",
    ]
    assert [axes.get_xlim() for axes in figure.axes[:3]] == [(0, 1)] * 3


def test_a_dollar_sign_begins_no_formula() -> None:
    """As a formula it could not be read, and would be an error."""
    pytest.importorskip("matplotlib")
    assert draw_pair(tone(500), tone(500), (r"$\frac{$", "$_$")).startswith(b"\x89PNG")


def test_of_a_long_name_the_end_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pair_figure(monkeypatch, tone(500), tone(500), ("x" * 200 + "/a.wav", "b.wav"))
    title = figure.axes[0].get_title(loc="left")
    assert title.startswith("a: …x")
    assert title.endswith("x/a.wav")
    assert len(title) == 3 + pair_picture.NAME_LENGTH
    assert [shortened("abc", length) for length in (4, 3, 2)] == ["abc", "abc", "…c"]


def test_long_signals_have_no_more_columns_than_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """95 frames in ten columns at most: ten frames a column, and the last one is not full."""
    monkeypatch.setattr(pair_picture, "MOST_COLUMNS", 10)
    figure = pair_figure(monkeypatch, noise(24000), noise(12000))
    images = [axes.images[0] for axes in figure.axes[:3]]
    assert [image.get_array().shape[1] for image in images] == [10, 5, 5]
    hop = 256 / RATE
    left, right, *_ = images[0].get_extent()
    assert (left, right) == pytest.approx((-hop / 2, 99.5 * hop))


def test_without_matplotlib_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    without_matplotlib(monkeypatch)
    with pytest.raises(
        UsageError, match=r"needs matplotlib: run `pip install 'codectool\[eval\]'`"
    ):
        draw_pair(tone(500), tone(500), ("a", "b"))
