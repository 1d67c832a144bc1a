"""Golden inputs, parameters and outputs of single layers of the reference implementations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from codectool.checkpoints.published import model_name
from codectool.nn.loading import load_tensors
from codectool.nn.weight_norm import fold_weight_norm
from tests.conftest import shared

Arrays = dict[str, np.ndarray]


def load_layers(family: str) -> Arrays:
    """Read ``golden/FAMILY_layers.npz``; skip the test if it is not there."""
    with np.load(shared("golden", f"{family}_layers.npz")) as file:
        return {key: file[key] for key in file.files}


def parameters(arrays: Arrays, prefix: str, family: str, within: str = "") -> dict[str, Tensor]:
    """Return the tensors under ``prefix`` by codectool's names.

    Args:
        arrays: from `load_layers`.
        prefix: of the keys; removed.
        family: codec family, which decides on the names.
        within: published name of the layer that contains this one.
    """
    return {
        # the name tables match whole components of a path, hence the leading one
        model_name(family, f"x.{within}{key.removeprefix(prefix)}").removeprefix("x."): (
            torch.from_numpy(value)
        )
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def assert_golden_output(layer: nn.Module, arrays: Arrays, name: str, family: str) -> None:
    """Load ``name/param/*``, run the layer on ``name/in`` and compare with ``name/out``."""
    load_tensors(layer, parameters(arrays, f"{name}/param/", family))
    fold_weight_norm(layer)
    with torch.inference_mode():
        out = layer(torch.from_numpy(arrays[f"{name}/in"])).numpy()
    np.testing.assert_allclose(out, arrays[f"{name}/out"], atol=1e-5, rtol=1e-5)
