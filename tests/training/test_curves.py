"""Learning curves: reading, selecting, smoothing and summarizing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codectool.errors import UsageError
from codectool.training.curves import (
    read_runs,
    select_metrics,
    smoothed,
    smoothing_weight,
    summary,
)


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
        train(30, learning_rate=1e-4, mel=1.0, loss=6.0, discriminator_grad_norm=1.0),
        valid(30, perplexity_0=12.0, mel_db=4.0, stoi=0.75),
        valid(40, perplexity_0=12.0, mel_db=4.5, stoi=None),
    ]
    return write_run(tmp_path / "run", entries)


def test_curves_are_read_from_metrics_log(folder: Path) -> None:
    (run,) = read_runs([folder])
    assert run.label == "run"
    assert run.last_step == 40
    mel = run.curves["train/mel"]
    assert mel.steps.tolist() == [10, 20, 30]
    np.testing.assert_array_equal(mel.values, [3.0, np.nan, 1.0])
    assert run.curves["train/discriminator_grad_norm"].steps.tolist() == [30]
    assert not any("message" in name for name in run.curves)


def test_last_entry_of_a_repeated_step_counts(tmp_path: Path) -> None:
    entries = [train(10, mel=1.0), train(20, mel=2.0), train(10, mel=3.0)]
    (run,) = read_runs([write_run(tmp_path, entries)])
    assert run.curves["train/mel"].steps.tolist() == [10, 20]
    assert run.curves["train/mel"].values.tolist() == [3.0, 2.0]


def test_labels_are_shortest_distinct_path_ends(tmp_path: Path) -> None:
    names = ["a/run", "b/run", "b/other"]
    folders = [write_run(tmp_path / name, [train(1, mel=1.0)]) for name in names]
    assert [run.label for run in read_runs(folders)] == names
    assert [run.label for run in read_runs(folders[1:])] == ["run", "other"]
    assert [run.label for run in read_runs([folders[0], folders[0]])] == ["run", "run"]


def test_folders_without_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone: no such folder"):
        read_runs([tmp_path / "gone"])
    with pytest.raises(UsageError, match=r"has no metrics\.jsonl; name the folder of a training"):
        read_runs([tmp_path])
    event = {"kind": "event", "step": 0, "message": "started"}
    with pytest.raises(UsageError, match=r"holds no metrics yet"):
        read_runs([write_run(tmp_path / "young", [event])])


def test_metrics_are_ordered_validation_first_learning_rate_last(folder: Path) -> None:
    (run,) = read_runs([folder])
    assert select_metrics([run]) == [
        "valid/mel_db",
        "valid/stoi",
        "valid/perplexity_0",
        "train/loss",
        "train/mel",
        "train/discriminator_grad_norm",
        "train/learning_rate",
    ]


def test_metrics_are_selected_by_name(tmp_path: Path) -> None:
    entries = [train(1, mel=1.0, loss=1.0), valid(1, mel=2.0, stoi=0.5)]
    (run,) = read_runs([write_run(tmp_path, entries)])
    assert select_metrics([run], ["stoi", "train/mel"]) == ["valid/stoi", "train/mel"]
    assert select_metrics([run], ["mel", "train/mel"]) == ["train/mel", "valid/mel"]
    with pytest.raises(UsageError, match=r"`pesq`; choose from train/mel, train/loss, valid/mel"):
        select_metrics([run], ["pesq"])


def test_old_metric_names_are_accepted(tmp_path: Path) -> None:
    entries = [train(1, judge_gradient=1.0), valid(1, si_sdr=2.0)]
    (run,) = read_runs([write_run(tmp_path, entries)])
    names = ["valid/si_sdr_db", "train/discriminator_grad_norm"]
    assert select_metrics([run], ["si_sdr", "judge_gradient"]) == names


def test_smoothed_is_weighted_mean_of_past_values() -> None:
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


def test_smoothing_weight_is_limited() -> None:
    weights = [smoothing_weight(n) for n in (0, 1, 25, 50, 250, 10**6)]
    assert weights == pytest.approx([0, 0, 0, 0.5, 0.9, 0.98])


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


def test_curve_of_nan_can_be_drawn(tmp_path: Path) -> None:
    (run,) = read_runs([write_run(tmp_path, [valid(1, mel_db=None), valid(2, mel_db=None)])])
    assert run.curves["valid/mel_db"].best("valid/mel_db") is None
    assert summary(run, ["valid/mel_db"])["figures"]["valid/mel_db"] == {"points": 2, "finite": 0}
