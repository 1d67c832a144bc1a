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
import shutil
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


def keep_snapshot(folder: Path, step: int, count: int) -> None:
    """Keep the newest snapshot under the number of its step, and delete all but ``count`` of those.

    It is a second name of the same file, or a copy where the file system has no such names.
    """
    newest, kept = folder / LAST, folder / f"step_{step:08d}.ckpt"
    kept.unlink(missing_ok=True)
    try:
        kept.hardlink_to(newest)
    except OSError:
        with atomic_output(kept) as file, newest.open("rb") as source:
            shutil.copyfileobj(source, file)
    snapshots = sorted(folder.glob("step_????????.ckpt"))
    for path in snapshots[: max(0, len(snapshots) - count)]:
        path.unlink(missing_ok=True)
