"""What a run writes down, and what is left of it after a crash."""

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
from codectool.training.metrics_log import Journal, read_journal


def strict(line: str) -> dict[str, object]:
    """Parse JSON that has no NaN and no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(line, parse_constant=refuse)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard is not installed."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)


def tone(seconds: float, frequency: float = 1000.0, rate: int = 16000) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(int(seconds * rate)) / rate)


@pytest.mark.usefixtures("bare")
def test_each_entry_is_a_line_of_strict_json_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with Journal(folder) as journal:
        journal.train(20, {"loss": 1.25, "gradient": math.nan, "count": 3})
        journal.valid(40, {"mel_db": np.float32(4.5), "si_sdr": -math.inf, "x": torch.tensor(2.0)})
        journal.event(40, "saved “best”\nand more")
        text = (folder / "metrics.jsonl").read_text("utf-8")  # before it is closed
    entries = [strict(line) for line in text.splitlines()]
    times = [entry.pop("time") for entry in entries]
    assert entries == [
        {"kind": "train", "step": 20, "loss": 1.25, "gradient": None, "count": 3},
        {"kind": "valid", "step": 40, "mel_db": 4.5, "si_sdr": None, "x": 2.0},
        {"kind": "event", "step": 40, "message": "saved “best”\nand more"},
    ]
    assert times == sorted(times)
    assert [r | {"time": 0} for r in read_journal(folder / "metrics.jsonl")] == [
        e | {"time": 0} for e in entries
    ]


@pytest.mark.usefixtures("bare")
def test_resuming_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(tmp_path) as journal:
        for step in (10, 20, 30, 40):
            journal.train(step, {"loss": 1 / step})
        journal.valid(20, {"mel_db": 5.0})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + b'{"kind": "train", "st')  # the crash
    with Journal(tmp_path, resume_step=20) as journal:
        assert path.read_bytes() == lines[0] + lines[1] + lines[4]
        journal.train(30, {"loss": 7.0})
    assert [(r["step"], r.get("loss")) for r in read_journal(path)] == [
        (10, 0.1),
        (20, 0.05),
        (20, None),
        (30, 7.0),
    ]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("bare")
def test_a_new_run_begins_an_empty_journal(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.event(0, "started")
        journal.train(10, {"loss": 1.0})
    with Journal(tmp_path) as journal:
        journal.event(0, "started again")
    assert [r["message"] for r in read_journal(tmp_path / "metrics.jsonl")] == ["started again"]


@pytest.mark.parametrize("torn", [b"{", b'{"kind": "train", "step": 3', b"\0\0\0\0\n", b"{}\n"])
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = b'{"kind": "train", "step": 2, "time": 0, "loss": 1}\n'
    path.write_bytes(whole + torn)
    assert [r["step"] for r in read_journal(path)] == [2]


@pytest.mark.parametrize("bad", [b"loss 3\n", b"{}\n", b"[1]\n", b'{"kind": "x", "step": 1}\n'])
@pytest.mark.usefixtures("bare")
def test_what_is_no_journal_is_named_and_kept(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    content = bad + b'{"kind": "train", "step": 2, "time": 0}\n'
    path.write_bytes(content)
    for use in (
        lambda: read_journal(path),
        lambda: Journal(tmp_path),
        lambda: Journal(tmp_path, 5),
    ):
        with pytest.raises(UsageError, match=r"metrics\.jsonl: line 1 is no entry"):
            use()
    assert path.read_bytes() == content
    with pytest.raises(UsageError, match="nowhere: cannot be read"):
        read_journal(tmp_path / "nowhere")


@pytest.mark.usefixtures("bare")
def test_a_figure_cannot_take_the_name_of_a_field(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal, pytest.raises(ValueError, match="step"):
        journal.train(1, {"step": 2.0})


@pytest.mark.usefixtures("bare")
def test_without_tensorboard_there_is_one_notice_and_no_harm(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert journal.notice is not None
        assert "pip install 'codectool[train]'" in journal.notice
        journal.train(1, {"loss": 1.0})
        journal.audio(1, "clip", tone(0.1), 16000)
        journal.spectrogram(1, "clip", tone(0.1), tone(0.1), 16000)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_shows_the_same_and_forgets_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Journal(tmp_path) as journal:
        assert journal.notice is None
        for step in (10, 20, 30):
            journal.train(step, {"loss": 1 / step})
        journal.valid(20, {"mel_db": 4.5})
        journal.event(20, "saved")
        journal.audio(20, "clip", tone(0.5), 16000)
        journal.spectrogram(20, "clip", tone(0.5), tone(0.5), 16000)
    with Journal(tmp_path, resume_step=20) as journal:
        journal.train(30, {"loss": 7.0})

    seen = EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    points = [(s.step, s.value) for s in seen.Scalars("train/loss")]
    assert points == [(10, pytest.approx(0.1)), (20, pytest.approx(0.05)), (30, 7.0)]
    assert [(s.step, s.value) for s in seen.Scalars("valid/mel_db")] == [(20, 4.5)]
    (sound,), (image,) = seen.Audio("clip"), seen.Images("clip")
    assert (sound.sample_rate, sound.length_frames) == (16000, 8000)
    height, width, _ = spectrogram_pair(tone(0.5).numpy(), tone(0.5).numpy(), 16000).shape
    assert (image.width, image.height) == (width, height)
