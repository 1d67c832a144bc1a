"""Curves read from journals, and the picture of them."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codectool.errors import UsageError
from codectool.training.curves import (
    Curve,
    Run,
    choose,
    read_runs,
    smoothed,
    smoothing_weight,
    summary,
)
from codectool.training.plot import (
    DPI,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    arrange,
    draw,
    short_step,
    short_value,
    spread,
    value_limits,
)

BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def write_run(folder: Path, entries: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"time": 0.0, **entry}) + "\n" for entry in entries]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def train(step: int, **values: float | None) -> dict[str, Any]:
    return {"kind": "train", "step": step, **values}


def valid(step: int, **values: float | None) -> dict[str, Any]:
    return {"kind": "valid", "step": step, **values}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    entries = [
        train(10, learning_rate=3e-4, mel=3.0, loss=9.0),
        train(20, learning_rate=2e-4, mel=None, loss=7.0),
        valid(20, perplexity_0=11.0, mel_db=5.0, stoi=0.5),
        {"kind": "event", "step": 20, "message": "saved"},
        train(30, learning_rate=1e-4, mel=1.0, loss=6.0, judge_gradient=1.0),
        valid(30, perplexity_0=12.0, mel_db=4.0, stoi=0.75),
        valid(40, perplexity_0=12.0, mel_db=4.5, stoi=None),
    ]
    return write_run(tmp_path / "run", entries)


def test_a_journal_becomes_curves(folder: Path) -> None:
    (run,) = read_runs([folder])
    assert run.label == "run"
    assert run.last_step == 40
    mel = run.curves["train/mel"]
    assert mel.steps.tolist() == [10, 20, 30]
    np.testing.assert_array_equal(mel.values, [3.0, np.nan, 1.0])
    assert run.curves["train/judge_gradient"].steps.tolist() == [30]
    assert not any("message" in name for name in run.curves)


def test_a_step_that_was_done_twice_counts_once(tmp_path: Path) -> None:
    entries = [train(10, mel=1.0), train(20, mel=2.0), train(10, mel=3.0)]
    (run,) = read_runs([write_run(tmp_path, entries)])
    assert run.curves["train/mel"].steps.tolist() == [10, 20]
    assert run.curves["train/mel"].values.tolist() == [3.0, 2.0]


def test_runs_are_told_apart_by_the_ends_of_their_paths(tmp_path: Path) -> None:
    names = ["a/run", "b/run", "b/other"]
    folders = [write_run(tmp_path / name, [train(1, mel=1.0)]) for name in names]
    assert [run.label for run in read_runs(folders)] == names
    assert [run.label for run in read_runs(folders[1:])] == ["run", "other"]
    assert [run.label for run in read_runs([folders[0], folders[0]])] == ["run", "run"]


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone: no such folder"):
        read_runs([tmp_path / "gone"])
    with pytest.raises(UsageError, match=r"has no metrics\.jsonl; name the folder of a training"):
        read_runs([tmp_path])
    event = {"kind": "event", "step": 0, "message": "started"}
    with pytest.raises(UsageError, match=r"holds no figures yet"):
        read_runs([write_run(tmp_path / "young", [event])])


def test_validation_comes_first_and_the_learning_rate_last(folder: Path) -> None:
    (run,) = read_runs([folder])
    assert choose([run]) == [
        "valid/mel_db",
        "valid/stoi",
        "valid/perplexity_0",
        "train/loss",
        "train/mel",
        "train/judge_gradient",
        "train/learning_rate",
    ]


def test_curves_are_chosen_by_name(tmp_path: Path) -> None:
    entries = [train(1, mel=1.0, loss=1.0), valid(1, mel=2.0, stoi=0.5)]
    (run,) = read_runs([write_run(tmp_path, entries)])
    assert choose([run], ["stoi", "train/mel"]) == ["valid/stoi", "train/mel"]
    assert choose([run], ["mel", "train/mel"]) == ["train/mel", "valid/mel"]
    with pytest.raises(UsageError, match=r"`pesq`; there are train/mel, train/loss, valid/mel"):
        choose([run], ["pesq"])


def test_smoothing_is_a_weighted_mean_of_what_came() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(5, 1, 50)
    values[[0, 7, 8]] = np.nan
    result = smoothed(values, 0.8)
    assert math.isnan(result[0])
    for n in range(1, 50):
        weights = 0.8 ** (n - np.arange(n + 1))
        known = np.isfinite(values[: n + 1])
        expected = (weights * values[: n + 1])[known].sum() / weights[known].sum()
        assert result[n] == pytest.approx(expected)
    np.testing.assert_array_equal(smoothed(values[1:5], 0.0), values[1:5])
    np.testing.assert_allclose(smoothed(np.full(9, 3.0), 0.99), 3.0)


def test_a_short_run_is_not_smoothed_and_a_long_one_not_without_limit() -> None:
    weights = [smoothing_weight(n) for n in (0, 1, 25, 50, 250, 10**6)]
    assert weights == pytest.approx([0, 0, 0, 0.5, 0.9, 0.98])


def test_what_was_set_is_shown_as_it_was() -> None:
    """Smoothing must not move the learning rate: two runs of one rate are one line."""
    steps = np.arange(100)
    rate = curve(steps, np.where(steps < 50, 1e-3, 1e-4))
    run = Run("run", Path("run"), {"train/learning_rate": rate})
    draws = [read_png(draw([run], ["train/learning_rate"], smooth=s)) for s in (0.0, 0.99)]
    np.testing.assert_array_equal(*draws)


def test_summary_of_known_curves(folder: Path) -> None:
    (run,) = read_runs([folder])
    figures = summary(run, ["valid/mel_db", "valid/stoi", "train/mel", "train/none"])["figures"]
    assert list(figures) == ["valid/mel_db", "valid/stoi", "train/mel"]
    assert figures["valid/mel_db"] == {
        "points": 3,
        "finite": 3,
        "last": 4.5,
        "last_step": 40,
        "min": 4.0,
        "min_step": 30,
        "max": 5.0,
        "max_step": 20,
        "best": 4.0,
        "best_step": 30,
    }
    assert (figures["valid/stoi"]["best"], figures["valid/stoi"]["best_step"]) == (0.75, 30)
    assert figures["valid/stoi"]["last_step"] == 30
    assert "best" not in figures["train/mel"]
    json.dumps(figures, allow_nan=False)


def test_a_curve_of_nothing_but_nan(tmp_path: Path) -> None:
    (run,) = read_runs([write_run(tmp_path, [valid(1, mel_db=None), valid(2, mel_db=None)])])
    assert run.curves["valid/mel_db"].best("valid/mel_db") is None
    assert summary(run, ["valid/mel_db"])["figures"]["valid/mel_db"] == {"points": 2, "finite": 0}
    assert read_png(draw([run], ["valid/mel_db"])).shape[2] == 4


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.5], [0.5]),
        ([0.1, 0.9], [0.1, 0.9]),
        ([0.9, 0.1, 0.5], [0.9, 0.1, 0.5]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.52, 0.5, 0.48], [0.6, 0.5, 0.4]),
        ([0.0, 0.0, 0.1, 0.9], [-1 / 15, 1 / 30, 2 / 15, 0.9]),
        ([], []),
    ],
)
def test_labels_are_moved_apart_around_where_they_belong(
    places: list[float], expected: list[float]
) -> None:
    assert spread(places, 0.1) == pytest.approx(expected)


def test_labels_keep_order_and_distance() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = rng.uniform(0, 1, 8)
        moved = np.array(spread(places.tolist(), 0.08))
        order = places.argsort()
        assert (np.diff(moved[order]) >= 0.08 - 1e-9).all()


def test_value_limits_leave_a_little_room() -> None:
    assert value_limits([np.array([0.0, np.nan, 1.0]), np.array([2.0])]) == pytest.approx(
        (-0.12, 2.12)
    )
    assert value_limits([np.array([4.0, 4.0])]) == pytest.approx((3.8, 4.2))
    assert value_limits([np.array([0.0])]) == (-0.5, 0.5)
    assert value_limits([np.array([np.nan])]) == (0.0, 1.0)


def test_short_numbers() -> None:
    steps = [short_step(s) for s in (0, 950, 12000, 12500, 1_200_000)]
    assert steps == ["0", "950", "12k", "12.5k", "1.2M"]
    values = [short_value(v) for v in (4.9312, 0.0, -0.02, 8.123e-5, 81920.0)]
    assert values == ["4.931", "0", "−0.02", "8.1e−5", "81.92k"]


# The picture


def curve(steps: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> Curve:
    return Curve(steps.astype(np.int64), values.astype(np.float64))


def sample_run(label: str, offset: float = 0.0) -> Run:
    steps = np.arange(1, 201) * 10
    rng = np.random.default_rng(0)
    curves = {f"train/t{i}": curve(steps, offset + rng.normal(0, 1, 200)) for i in range(2)}
    curves |= {
        f"valid/{name}": curve(steps[::20], offset + np.linspace(0, 1, 10))
        for name in ("mel_db", "stoi", "estoi", "si_sdr")
    }
    return Run(label, Path(label), curves)


def read_png(data: bytes) -> np.ndarray[Any, Any]:
    """Pixels 0 to 255: ``(height, width, 4)``."""
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return np.round(imread(io.BytesIO(data), format="png") * 255).astype(int)


def share_of(color: tuple[int, int, int], pixels: np.ndarray[Any, Any]) -> float:
    return float((np.abs(pixels[..., :3] - color).max(-1) <= 3).mean())


def test_the_grid() -> None:
    names = ["valid/a", "valid/b", "valid/c", "valid/d", "train/e", "train/f"]
    layout = arrange(names)
    assert [place.name for place in layout.places] == names
    assert [place.lowest for place in layout.places] == [False, True, True, True, True, True]
    rows = [round(place.top, 6) for place in layout.places]
    assert rows[0] == rows[1] == rows[2] < rows[3] < rows[4] == rows[5]
    lefts = [round(place.left, 6) for place in layout.places]
    assert lefts[0] == lefts[3] == lefts[4] < lefts[1] == lefts[5] < lefts[2]
    for place in layout.places:
        assert place.left + PANEL_WIDTH < layout.width
        assert place.top + PANEL_HEIGHT < layout.height
    assert [heading for heading, _ in layout.sections] == ["VALIDATION", "TRAINING"]
    assert arrange(["train/a"]).width < layout.width
    assert arrange(names, 3).height > layout.height
    assert arrange(names, 9).height > arrange(names, 3).height


@pytest.mark.parametrize("log_x", [False, True])
def test_every_panel_shows_every_run(log_x: bool) -> None:
    runs = [sample_run("first"), sample_run("$other_一", offset=0.5)]
    names = choose(runs)
    pixels = read_png(draw(runs, names, log_x=log_x))
    layout = arrange(names, 2)
    width, height = layout.pixels
    assert pixels.shape == (height, width, 4)
    assert share_of((255, 255, 255), pixels) > 0.7
    assert (pixels[..., 3] == 255).all()
    for place in layout.places:
        left, top = round(place.left * DPI), round(place.top * DPI)
        right, bottom = left + round(PANEL_WIDTH * DPI), top + round(PANEL_HEIGHT * DPI)
        panel, beside = pixels[top:bottom, left:right], pixels[top:bottom, right + 8 : right + 75]
        for color in (BLUE, VERMILLION):
            assert 0.0008 < share_of(color, panel) < 0.2, (place.name, color)
            assert share_of(color, beside) > 0.001, (place.name, "last value")


def test_a_run_that_lacks_a_curve_is_not_in_its_panel() -> None:
    first, other = sample_run("first"), sample_run("other", offset=0.5)
    del other.curves["train/t1"]
    names = ["train/t0", "train/t1"]
    pixels = read_png(draw([first, other], names))
    places = {place.name: round(place.left * DPI) for place in arrange(names, 2).places}
    middle = places["train/t1"] - 90  # left of its tick labels
    assert share_of(VERMILLION, pixels[150:, :middle]) > 0
    assert share_of(VERMILLION, pixels[150:, middle:]) == 0


def test_smoothing_calms_the_strong_curve() -> None:
    """The strong curve of noise covers less ink the smoother it is."""
    run = sample_run("run")
    rough, calm = (
        share_of(BLUE, read_png(draw([run], ["train/t0"], smooth=s))) for s in (0.0, 0.98)
    )
    assert 0 < calm < 0.7 * rough


@pytest.mark.parametrize("steps", [[0], [7], [0, 1]])
def test_runs_that_have_just_begun(steps: list[int]) -> None:
    curves = {"train/mel": curve(np.array(steps), np.ones(len(steps)))}
    run = Run("young", Path("young"), curves)
    for log_x in (False, True):
        assert read_png(draw([run], ["train/mel"], log_x=log_x)).size > 0


def test_without_matplotlib_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'codectool\[train\]'"):
        draw([sample_run("run")], ["train/t0"])
