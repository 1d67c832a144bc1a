"""Metrics log and spectrogram images of a training run."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from codectool.errors import UsageError
from codectool.plots import spectrogram_pair
from codectool.training.metrics_log import MetricsLog, read_metrics


def strict(line: str) -> dict[str, object]:
    """Parse JSON without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(line, parse_constant=refuse)


@pytest.fixture
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)


def tone(seconds: float, frequency: float = 1000.0, rate: int = 16000) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(int(seconds * rate)) / rate)


@pytest.mark.usefixtures("no_tensorboard")
def test_each_entry_is_written_immediately_as_strict_json(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with MetricsLog(folder) as log:
        log.metrics("train", 20, {"loss": 1.25, "grad_norm": math.nan, "count": 3})
        log.metrics(
            "valid", 40, {"mel_db": np.float32(4.5), "si_sdr_db": -math.inf, "x": torch.tensor(2.0)}
        )
        log.event(40, "saved “best”\nand more")
        text = (folder / "metrics.jsonl").read_text("utf-8")  # before it is closed
    entries = [strict(line) for line in text.splitlines()]
    times = [entry.pop("time") for entry in entries]
    assert entries == [
        {"kind": "train", "step": 20, "loss": 1.25, "grad_norm": None, "count": 3},
        {"kind": "valid", "step": 40, "mel_db": 4.5, "si_sdr_db": None, "x": 2.0},
        {"kind": "event", "step": 40, "message": "saved “best”\nand more"},
    ]
    assert times == sorted(times)
    assert [r | {"time": 0} for r in read_metrics(folder / "metrics.jsonl")] == [
        e | {"time": 0} for e in entries
    ]


@pytest.mark.usefixtures("no_tensorboard")
def test_resuming_drops_entries_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(tmp_path) as log:
        for step in (10, 20, 30, 40):
            log.metrics("train", step, {"loss": 1 / step})
        log.metrics("valid", 20, {"mel_db": 5.0})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + b'{"kind": "train", "st')  # the crash
    with MetricsLog(tmp_path, resume_step=20) as log:
        assert path.read_bytes() == lines[0] + lines[1] + lines[4]
        log.metrics("train", 30, {"loss": 7.0})
    assert [(r["step"], r.get("loss")) for r in read_metrics(path)] == [
        (10, 0.1),
        (20, 0.05),
        (20, None),
        (30, 7.0),
    ]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("no_tensorboard")
def test_new_run_starts_an_empty_log(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.event(0, "started")
        log.metrics("train", 10, {"loss": 1.0})
    with MetricsLog(tmp_path) as log:
        log.event(0, "started again")
    assert [r["message"] for r in read_metrics(tmp_path / "metrics.jsonl")] == ["started again"]


@pytest.mark.parametrize("torn", [b"{", b'{"kind": "train", "step": 3', b"\0\0\0\0\n", b"{}\n"])
def test_incomplete_last_line_is_ignored(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = b'{"kind": "train", "step": 2, "time": 0, "loss": 1}\n'
    path.write_bytes(whole + torn)
    assert [r["step"] for r in read_metrics(path)] == [2]


@pytest.mark.parametrize("bad", [b"loss 3\n", b"{}\n", b"[1]\n", b'{"kind": "x", "step": 1}\n'])
@pytest.mark.usefixtures("no_tensorboard")
def test_other_files_are_refused_and_kept(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    content = bad + b'{"kind": "train", "step": 2, "time": 0}\n'
    path.write_bytes(content)
    for use in (
        lambda: read_metrics(path),
        lambda: MetricsLog(tmp_path),
        lambda: MetricsLog(tmp_path, 5),
    ):
        with pytest.raises(UsageError, match=r"metrics\.jsonl: line 1 is no entry"):
            use()
    assert path.read_bytes() == content
    with pytest.raises(UsageError, match="nowhere: cannot be read"):
        read_metrics(tmp_path / "nowhere")


@pytest.mark.usefixtures("no_tensorboard")
def test_reserved_metric_names_are_refused(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log, pytest.raises(ValueError, match="step"):
        log.metrics("train", 1, {"step": 2.0})


@pytest.mark.usefixtures("no_tensorboard")
def test_log_works_without_tensorboard(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        assert log.notice is not None
        assert "pip install 'codectool[train]'" in log.notice
        log.metrics("train", 1, {"loss": 1.0})
        log.audio(1, "clip", tone(0.1), 16000)
        log.spectrogram(1, "clip", tone(0.1), tone(0.1), 16000)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_has_the_same_entries_after_resuming(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path) as log:
        assert log.notice is None
        for step in (10, 20, 30):
            log.metrics("train", step, {"loss": 1 / step})
        log.metrics("valid", 20, {"mel_db": 4.5})
        log.event(20, "saved")
        log.audio(20, "clip", tone(0.5), 16000)
        log.spectrogram(20, "clip", tone(0.5), tone(0.5), 16000)
    with MetricsLog(tmp_path, resume_step=20) as log:
        log.metrics("train", 30, {"loss": 7.0})

    seen = EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    points = [(s.step, s.value) for s in seen.Scalars("train/loss")]
    assert points == [(10, pytest.approx(0.1)), (20, pytest.approx(0.05)), (30, 7.0)]
    assert [(s.step, s.value) for s in seen.Scalars("valid/mel_db")] == [(20, 4.5)]
    (sound,), (image,) = seen.Audio("clip"), seen.Images("clip")
    assert (sound.sample_rate, sound.length_frames) == (16000, 8000)
    height, width, _ = spectrogram_pair(tone(0.5).numpy(), tone(0.5).numpy(), 16000).shape
    assert (image.width, image.height) == (width, height)


def test_old_metric_names_are_read_as_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    old = {"kind": "train", "step": 1, "gradient": 2, "judge_gradient": 3, "waited": 4}
    path.write_text(json.dumps(old) + "\n")
    (record,) = read_metrics(path)
    assert record == {
        "kind": "train",
        "step": 1,
        "grad_norm": 2,
        "discriminator_grad_norm": 3,
        "data_wait_fraction": 4,
    }
