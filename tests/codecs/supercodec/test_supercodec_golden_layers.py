"""Single layers of SuperCodec against the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from codectool.codecs.supercodec import blocks
from codectool.nn.loading import load_tensors
from tests.golden_layers import Arrays, assert_golden_output, load_layers, parameters


@pytest.fixture(scope="module")
def golden() -> Arrays:
    return load_layers("supercodec")


@pytest.mark.parametrize(
    ("case", "kernel", "stride"),
    [("k7", 7, 1), ("k3_min", 3, 1), ("k8_s4", 8, 4), ("k10_s5", 10, 5), ("k10_s5_ragged", 10, 5)],
)
def test_causal_conv_matches_golden_output(
    golden: Arrays, case: str, kernel: int, stride: int
) -> None:
    conv = blocks.CausalConv(3, 4, kernel, stride)
    assert_golden_output(conv, golden, f"causal_{case}", "supercodec")


@pytest.mark.parametrize(("case", "stride"), [("s4", 4), ("s5", 5), ("s5_one", 5)])
def test_causal_transposed_conv_matches_golden_output(
    golden: Arrays, case: str, stride: int
) -> None:
    conv = blocks.CausalTransposedConv(5, 4, stride)
    assert_golden_output(conv, golden, f"causal_tr_{case}", "supercodec")


@pytest.mark.parametrize("case", ["resblock1", "resblock1_one", "resblock2"])
def test_residual_stack_matches_golden_output(golden: Arrays, case: str) -> None:
    if case == "resblock2":
        assert_golden_output(blocks.ResidualStack(6, (1, 3)), golden, case, "supercodec")
    else:
        # `res_four` stores its layers under another name than `res_one`
        holder = nn.ModuleDict({"res_four": blocks.ResidualStack(6, (1, 3, 5))})
        holder.forward = holder["res_four"].forward  # type: ignore[method-assign]
        renamed = {key.replace("/param/", "/param/res_four."): golden[key] for key in golden}
        assert_golden_output(holder, renamed, case, "supercodec")


@pytest.mark.parametrize("stride", [2, 4, 5, 8])
def test_blocks_match_golden_output(golden: Arrays, stride: int) -> None:
    for kind, name in ((blocks.DownBlock, "sdbp"), (blocks.UpBlock, "subp")):
        weight = golden[f"{name}_s{stride}/param/downs_one.conv.weight"]
        wide, narrow = weight.shape[:2]
        c_in, c_out = (narrow, wide) if kind is blocks.DownBlock else (wide, narrow)
        block = kind(c_in, c_out, stride)
        assert_golden_output(block, golden, f"{name}_s{stride}", "supercodec")


def test_selective_fusion_weighs_each_item_of_a_batch_separately(golden: Arrays) -> None:
    fusion = blocks.SelectiveFusion(6)
    state = parameters(golden, "selectnet/param/", "supercodec", within="skn.")
    load_tensors(fusion, {key.removeprefix("fuse."): value for key, value in state.items()})
    a, b = (torch.from_numpy(golden[f"selectnet/{name}"]) for name in ("s", "n"))
    with torch.inference_mode():
        out = fusion(a, b)
    np.testing.assert_allclose(out.numpy(), golden["selectnet/out_single"], atol=1e-5)
