"""Single layers of BigCodec against the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codectool.codecs.bigcodec.alias_free import AliasFreeSnake
from codectool.codecs.bigcodec.model import DownBlock, ResidualLSTM, ResidualUnit, UpBlock
from codectool.nn.loading import load_tensors
from tests.golden_layers import Arrays, assert_golden_output, load_layers, parameters

DILATIONS = (1, 3, 9)


@pytest.fixture(scope="module")
def golden() -> Arrays:
    return load_layers("bigcodec")


@pytest.mark.parametrize("case", ["d1", "d9", "d9_short"])
def test_residual_unit_matches_golden_output(golden: Arrays, case: str) -> None:
    unit = ResidualUnit(8, 1 if case == "d1" else 9)
    assert_golden_output(unit, golden, f"residual_unit_{case}", "bigcodec")


@pytest.mark.parametrize("stride", [2, 5])
def test_blocks_match_golden_output(golden: Arrays, stride: int) -> None:
    down, up = DownBlock(6, stride, DILATIONS), UpBlock(10, stride, DILATIONS)
    assert_golden_output(down, golden, f"encoder_block_s{stride}", "bigcodec")
    assert_golden_output(up, golden, f"decoder_block_s{stride}", "bigcodec")


def test_blocks_with_two_units_match_golden_output(golden: Arrays) -> None:
    assert_golden_output(DownBlock(6, 3, (1, 3)), golden, "encoder_block_s3", "bigcodec")
    assert_golden_output(UpBlock(10, 4, (1, 3)), golden, "decoder_block_s4", "bigcodec")


@pytest.mark.parametrize(
    ("case", "layers", "bidirectional"), [("1", 1, False), ("2", 2, False), ("bi", 2, True)]
)
def test_residual_lstm_matches_golden_output(
    golden: Arrays, case: str, layers: int, bidirectional: bool
) -> None:
    lstm = ResidualLSTM(8, layers, bidirectional)
    assert_golden_output(lstm, golden, f"res_lstm_{case}", "bigcodec")


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 12, 37])
def test_alias_free_activation_matches_golden_output(golden: Arrays, length: int) -> None:
    layer = AliasFreeSnake(6)
    load_tensors(layer, parameters(golden, "alias_free/param/", "bigcodec"))
    with torch.inference_mode():
        out = layer(torch.from_numpy(golden[f"alias_free/in_{length}"])).numpy()
    np.testing.assert_allclose(out, golden[f"alias_free/out_{length}"], atol=2e-6)


def test_lowpass_matches_golden_taps(golden: Arrays) -> None:
    layer = AliasFreeSnake(1)
    for taps in (layer.up_taps, layer.down_taps):
        expected = golden["kaiser/0.250000_0.300000_12"]
        np.testing.assert_allclose(taps.flatten().numpy(), expected, atol=3e-7)
