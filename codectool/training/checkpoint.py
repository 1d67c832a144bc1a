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
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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


MAX_STEPS = 1 << 40


@dataclass(frozen=True)
class Rest:
    """What a ``do_XXXXXXXX`` holds.

    Attributes:
        path: of the file, for messages.
        steps: done so far.
        discriminator: its tensors, in order.
        optimizers: states of the generator's and of the discriminator's Adam.
    """

    path: Path
    steps: int
    discriminator: list[Tensor]
    optimizers: tuple[Mapping[str, Any], Mapping[str, Any]]


def read_rest(weights: Path) -> Rest | None:
    """Read the ``do_XXXXXXXX`` beside a ``g_XXXXXXXX``; None where there is none.

    Raises:
        CheckpointError: it is damaged, or not of this layout.
    """
    if not re.fullmatch(r"g_\d{8}", weights.name):
        return None
    path = weights.with_name("do_" + weights.name.removeprefix("g_"))
    if not path.exists():
        return None
    content = read_torch_file(path)
    steps, discriminator = content.get("steps"), content.get("discriminator")
    optimizers = content.get("optim_g"), content.get("optim_d")
    if (
        type(steps) is not int
        or not 0 <= steps < MAX_STEPS
        or not isinstance(discriminator, Mapping)
        or not all(isinstance(state, Mapping) for state in optimizers)
    ):
        raise CheckpointError(f"{path}: lacks `steps`, `discriminator`, `optim_g` or `optim_d`")
    tensors = [
        tensor
        for name, tensor in discriminator.items()
        if isinstance(tensor, Tensor) and not str(name).endswith("window")  # of a transform
    ]
    return Rest(path, steps, tensors, optimizers)  # type: ignore[arg-type]


@torch.no_grad()
def take_tensors(parameters: Sequence[nn.Parameter], tensors: Sequence[Tensor]) -> None:
    """Copy tensors into parameters of the same shapes.

    Raises:
        CheckpointError: the shapes differ, in number or in size.
    """
    if [p.shape for p in parameters] != [tensor.shape for tensor in tensors]:
        raise CheckpointError("the discriminator is of another shape than the config describes")
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.copy_(tensor)


def take_moments(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], state: Mapping[str, Any]
) -> None:
    """Give an Adam of ours the moments of another one.

    Args:
        optimizer: whose state is set.
        parameters: in the order in which the other one numbers them.
        state: the other one's state dict.

    Raises:
        CheckpointError: it does not fit.
    """
    moments = state.get("state")
    if not isinstance(moments, Mapping) or len(moments) > len(parameters):
        raise CheckpointError("an optimizer's state is of another model")
    for number, values in moments.items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise CheckpointError("an optimizer's state is of another model")
        parameter = parameters[number]
        first, second = values.get("exp_avg"), values.get("exp_avg_sq")
        for moment in (first, second):
            if not isinstance(moment, Tensor) or moment.shape != parameter.shape:
                raise CheckpointError("an optimizer's state is of another model")
        optimizer.state[parameter] = {
            "step": torch.tensor(float(values.get("step", 0)), device=parameter.device),
            "exp_avg": first.to(parameter),
            "exp_avg_sq": second.to(parameter),
        }
