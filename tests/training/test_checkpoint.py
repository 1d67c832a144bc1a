"""Checkpoint files; how a run treats damaged ones is tested in `test_run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from codectool.errors import CheckpointError
from codectool.training.checkpoint import LAST, keep_checkpoint, read_checkpoint, write_checkpoint
from tests.training import small

STATE: dict[str, Any] = {
    "trainer": {
        "steps": 12,
        "random": {"cpu": torch.arange(9, dtype=torch.uint8)},
        "weights": {"a": torch.randn(3, 2), "half": torch.ones(2, dtype=torch.bfloat16)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}},
            "param_groups": [{"betas": (0, 1)}],
        },
        "average": None,
        "balancer": None,
    },
    "best": 3.25,
    "valid": {"mel_db": float("inf")},
}


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    path = tmp_path / LAST
    write_checkpoint(path, STATE)
    assert not small.differing(read_checkpoint(path), {"format": 2, **STATE})
    write_checkpoint(path, {**STATE, "best": 1.5})
    assert read_checkpoint(path)["best"] == 1.5
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


def test_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "whole", STATE)
    raw = (tmp_path / "whole").read_bytes()
    for length in range(0, len(raw), 97):
        (tmp_path / LAST).write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=LAST):
            read_checkpoint(tmp_path / LAST)


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=LAST):
        read_checkpoint(tmp_path / LAST)


@pytest.mark.parametrize("links", [True, False])
def test_newest_numbered_checkpoints_are_kept(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without hard links; the newest may exist already."""
    if not links:

        def refuse(self: Path, target: Path) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    for step in (5, 10, 10, 15, 100):
        (tmp_path / LAST).unlink(missing_ok=True)
        (tmp_path / LAST).write_text(str(step))
        keep_checkpoint(tmp_path, step, 2)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {LAST: "100", "step_00000015.ckpt": "15", "step_00000100.ckpt": "100"}
    assert (tmp_path / LAST).stat().st_nlink == (2 if links else 1)


def test_checkpoint_of_format_1_is_read_under_new_names(tmp_path: Path) -> None:
    old = {"steps": 3, "trainee": 1, "judges": 2, "judge_optimizer": 3}
    norms = {"norms.coherence.total": 4, "norms.mel.total": 5}
    torch.save({"format": 1, "trainer": {**old, "balancer": norms}}, tmp_path / LAST)
    assert read_checkpoint(tmp_path / LAST)["trainer"] == {
        "steps": 3,
        "model": 1,
        "discriminators": 2,
        "discriminator_optimizer": 3,
        "balancer": {"norms.phase_coherence.total": 4, "norms.mel.total": 5},
    }
