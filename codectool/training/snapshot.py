"""Everything a run needs to go on as if it had never stopped, in one file.

Files of a run::

    last.ckpt            the newest
    best.ckpt            the best by validation
    step_00012000.ckpt   the newest few
    model.safetensors    weights for `encode --checkpoint RUN_DIR`
    config.json          what was asked for

A snapshot holds tensors and plain values only, and is read like the checkpoint of a stranger.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from codectool.checkpoints.pickles import read_torch_file
from codectool.errors import CheckpointError
from codectool.files import atomic_output

FORMAT = 1
LAST, BEST = "last.ckpt", "best.ckpt"


def write_snapshot(path: Path, state: dict[str, Any]) -> None:
    """Write atomically, over what was there."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    with atomic_output(path, overwrite=True) as file:
        file.write(buffer.getbuffer())


def read_snapshot(path: Path) -> dict[str, Any]:
    """Read what `write_snapshot` wrote, onto the CPU.

    Raises:
        CheckpointError: missing, damaged, or no snapshot of a run.
    """
    state = read_torch_file(path)
    if not isinstance(state.get("trainer"), dict):
        raise CheckpointError(f"{path}: not a snapshot of a training run")
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: a snapshot of format {state.get('format')!r:.20}; "
            f"this codectool knows format {FORMAT}"
        )
    return state


def numbered(folder: Path, step: int) -> Path:
    """Name of the snapshot of a step."""
    return folder / f"step_{step:08d}.ckpt"


def forget_old(folder: Path, keep: int) -> None:
    """Delete all numbered snapshots but the newest."""
    snapshots = sorted(folder.glob("step_????????.ckpt"))
    for path in snapshots[: max(0, len(snapshots) - keep)]:
        path.unlink(missing_ok=True)
