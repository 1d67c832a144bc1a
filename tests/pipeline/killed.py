"""Run a folder in a separate process that kills itself at a chosen moment."""

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
# Audit events, which Python raises before it touches a file.
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}


def run_and_die(
    operation: str, checkpoint: Path, in_dir: Path, out_dir: Path, moment: int | None
) -> None:
    """Kill this process before event number ``moment`` in the output folder; None: never."""
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
    report = RUNS[operation](codec, in_dir, out_dir, run_options=RunOptions(None, 2, 0.5))
    sys.exit(report.exit_code)
