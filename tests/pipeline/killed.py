"""A run in a process of its own that kills itself, as a loss of power would, at a chosen moment."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from codectool.loading import load
from codectool.pipeline.run import RunOptions, encode_tree, reconstruct_tree

RUNS = {"encode": encode_tree, "reconstruct": reconstruct_tree}
# What happens to files, as Python tells it before it does it.
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}


def run_and_die(
    verb: str, checkpoint: Path, in_dir: Path, out_dir: Path, moment: int | None
) -> None:
    """Die before event number ``moment`` in the folder of outputs; None lives to the end."""
    torch.set_num_threads(1)
    codec = load(None, checkpoint, device="cpu")
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in EVENTS and str(arguments[0]).startswith(str(out_dir)):
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    report = RUNS[verb](codec, in_dir, out_dir, how=RunOptions(None, 2, 0.5))
    sys.exit(report.exit_code)
