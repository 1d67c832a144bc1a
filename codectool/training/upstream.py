"""What SuperCodec's training leaves beside its weights, to go on from.

The authors' training writes ``g_XXXXXXXX`` (the weights) and ``do_XXXXXXXX`` (``discriminator``,
``optim_g``, ``optim_d``, ``steps``, ``epoch``). An Adam state numbers its parameters in the order
in which the module holds them, which is that of the tensors in a state dict. So moments are matched
by order, and a shape that does not fit says that the order is another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codectool.checkpoints.pickles import read_torch_file
from codectool.errors import CheckpointError

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
