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
from codectool.training.metrics_log import Journal, read_journal
from codectool.training.pictures import NUM_BANDS, ZOOM, color_map, log_mel, spectrogram_pair


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
    (sound,), (picture,) = seen.Audio("clip"), seen.Images("clip")
    assert (sound.sample_rate, sound.length_frames) == (16000, 8000)
    height, width, _ = spectrogram_pair(tone(0.5), tone(0.5), 16000).shape
    assert (picture.width, picture.height) == (width, height)


def mel(hertz: float) -> float:
    """Slaney's scale: 3 mel per 200 Hz up to 1 kHz, then 27 steps per factor 6.4."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 5000.0])
@pytest.mark.parametrize("rate", [16000, 24000])
def test_a_tone_lies_in_its_mel_band_at_0_db(frequency: float, rate: int) -> None:
    level = log_mel(tone(1.0, frequency, rate), rate)
    assert level.shape == (NUM_BANDS, 101)
    middle = level[:, 50]
    expected = mel(frequency) / mel(rate / 2) * (NUM_BANDS + 1) - 1
    assert abs(int(middle.argmax()) - expected) <= 1
    assert abs(float(middle.max())) < 3  # the tone may lie between two bands


def test_both_spectrograms_have_one_scale() -> None:
    loud, faint = tone(0.5), tone(0.5) * 0.01
    picture = spectrogram_pair(loud, faint, 16000)
    height = NUM_BANDS * ZOOM
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * height + 4, 51 * ZOOM, 3)
    colors = {tuple(c): i for i, c in enumerate(color_map().tolist())}
    above, below = (
        np.array([colors[tuple(c)] for c in part[:, 50].tolist()])
        for part in (picture[:height], picture[-height:])
    )
    assert above.max() == 255
    assert below.max() == pytest.approx((1 - 40 / 80) * 255, abs=1)
    assert above.argmax() == below.argmax()
    # low tones are at the bottom
    assert above.argmax() > height / 2


@pytest.mark.parametrize("length", [1, 10, 399, 400_000])
def test_spectrograms_of_any_length(length: int) -> None:
    picture = spectrogram_pair(torch.zeros(length), torch.randn(length // 2 + 1), 16000)
    assert 0 < picture.shape[1] <= 1200
    assert spectrogram_pair(torch.ones(length), torch.zeros(0), 16000).shape == picture.shape


def test_colors_get_steadily_lighter() -> None:
    lightness = color_map().astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).mean() > 0.95
    assert (np.diff(lightness) >= -0.5).all()
