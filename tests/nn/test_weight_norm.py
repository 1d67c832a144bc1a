"""Weight norm, folded, against the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from codectool.nn.loading import load_tensors
from codectool.nn.weight_norm import fold_weight_norm, weight_normed
from tests.golden_layers import load_layers, parameters


@pytest.mark.parametrize("kind", ["conv", "convtr", "linear"])
def test_weight_norm_is_folded_over_the_right_axis(kind: str) -> None:
    golden = load_layers("bigcodec")
    shape = golden[f"weight_norm/{kind}/param/weight_v"].shape
    layer: nn.Module = {
        "conv": lambda: nn.Conv1d(shape[1], shape[0], shape[-1]),
        "convtr": lambda: nn.ConvTranspose1d(shape[0], shape[1], shape[-1]),
        "linear": lambda: nn.Linear(shape[1], shape[0]),
    }[kind]()
    weight_normed(layer)
    load_tensors(layer, parameters(golden, f"weight_norm/{kind}/param/", "bigcodec"))
    fold_weight_norm(layer)
    assert set(layer.state_dict()) == {"weight", "bias"}  # a parameter moves with the model
    expected = golden[f"weight_norm/{kind}/folded"]
    np.testing.assert_allclose(layer.weight.numpy(), expected, atol=1e-6)
