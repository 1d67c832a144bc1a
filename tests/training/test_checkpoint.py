"""Snapshots as files. What a run does with damaged ones is in `test_run`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codectool.errors import CheckpointError
from codectool.training.checkpoint import LAST, keep_snapshot, read_snapshot, write_snapshot
from tests.training import small

STATE = {
    "trainer": {
        "steps": 12,
        "random": {"cpu": torch.arange(9, dtype=torch.uint8)},
        "weights": {"a": torch.randn(3, 2), "half": torch.ones(2, dtype=torch.bfloat16)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}},
            "param_groups": [{"betas": (0, 1)}],
        },
        "average": None,
    },
    "best": 3.25,
    "valid": {"mel_db": float("inf")},
}


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / LAST
    write_snapshot(path, STATE)
    assert not small.differing(read_snapshot(path), {"format": 1, **STATE})
    write_snapshot(path, {**STATE, "best": 1.5})
    assert read_snapshot(path)["best"] == 1.5
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


def test_every_shortened_file_is_refused(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "whole", STATE)
    raw = (tmp_path / "whole").read_bytes()
    for length in range(0, len(raw), 97):
        (tmp_path / LAST).write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=LAST):
            read_snapshot(tmp_path / LAST)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=LAST):
        read_snapshot(tmp_path / LAST)


@pytest.mark.parametrize("links", [True, False])
def test_numbered_snapshots(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file system knows no second names; the newest may have been there before."""
    if not links:

        def refuse(self: Path, target: Path) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    for step in (5, 10, 10, 15, 100):
        (tmp_path / LAST).unlink(missing_ok=True)
        (tmp_path / LAST).write_text(str(step))
        keep_snapshot(tmp_path, step, 2)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {LAST: "100", "step_00000015.ckpt": "15", "step_00000100.ckpt": "100"}
    assert (tmp_path / LAST).stat().st_nlink == (2 if links else 1)
