"""Weight norm (arXiv 1602.07868): live in training, folded for inference.

Published checkpoints name its tensors ``weight_g`` and ``weight_v``; PyTorch's parametrization has
other names. Only this file knows both.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrizations, parametrize

OLD_TO_NEW = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}

Module = TypeVar("Module", bound=nn.Module)


def weight_normed(module: Module) -> Module:
    """Replace ``module.weight`` by a magnitude g, one per slice of axis 0, and a direction v."""
    parametrizations.weight_norm(module, dim=0)
    # Last comes a hook that loads the old names, which `to_new_name` does. It cannot be pickled.
    module._load_state_dict_pre_hooks.popitem()
    return module


def fold_weight_norm(model: nn.Module) -> None:
    """Replace every g and v in ``model`` by the frozen parameter g * v / |v|, in place."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            # PyTorch turns only weights that require a gradient back into parameters; others would
            # stay behind when the model moves to another device.
            module.parametrizations["weight"].requires_grad_(True)  # type: ignore[index]
            parametrize.remove_parametrizations(module, "weight")
            module.weight.requires_grad_(False)


def to_new_name(name: str) -> str:
    """Return ``a.parametrizations.weight.original0`` for ``a.weight_g``; keep other names."""
    prefix, _, last = name.rpartition(".")
    return f"{prefix}.{OLD_TO_NEW[last]}" if last in OLD_TO_NEW else name


def to_old_name(name: str) -> str:
    """Undo `to_new_name`."""
    for old, new in OLD_TO_NEW.items():
        if name.endswith(f".{new}"):
            return name[: -len(new)] + old
    return name
