"""Single layers against what the published code gives for the same parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from codectool.checkpoints.published import model_name
from codectool.codecs import supercodec_blocks as supercodec
from codectool.codecs.bigcodec.alias_free import AliasFreeSnake, kaiser_lowpass
from codectool.codecs.bigcodec.model import model as bigcodec
from codectool.nn.loading import load_tensors
from codectool.nn.quantize import EuclideanCodebook, FactorizedQuantizer
from codectool.nn.weight_norm import fold_weight_norm, weight_normed
from tests.conftest import shared

DILATIONS = (1, 3, 9)
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def big() -> Arrays:
    with np.load(shared("golden", "bigcodec_layers.npz")) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def small() -> Arrays:
    with np.load(shared("golden", "supercodec_layers.npz")) as file:
        return {key: file[key] for key in file.files}


def parameters(
    arrays: Arrays, prefix: str, family: str, within: str = ""
) -> dict[str, torch.Tensor]:
    """Tensors under ``prefix`` by our names; ``within`` is the layer that holds this one."""
    return {
        # the name tables look for whole components of a path, hence the leading one
        model_name(family, f"x.{within}{key.removeprefix(prefix)}").removeprefix("x."): (
            torch.from_numpy(value)
        )
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def run(layer: nn.Module, arrays: Arrays, name: str, family: str) -> None:
    """Load ``name/param/*``, run ``name/in`` and compare with ``name/out``."""
    load_tensors(layer, parameters(arrays, f"{name}/param/", family))
    fold_weight_norm(layer)
    with torch.inference_mode():
        out = layer(torch.from_numpy(arrays[f"{name}/in"])).numpy()
    np.testing.assert_allclose(out, arrays[f"{name}/out"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["d1", "d9", "d9_short"])
def test_residual_unit(big: Arrays, case: str) -> None:
    unit = bigcodec.ResidualUnit(8, 1 if case == "d1" else 9)
    run(unit, big, f"residual_unit_{case}", "bigcodec")


@pytest.mark.parametrize("stride", [2, 5])
def test_blocks_of_bigcodec(big: Arrays, stride: int) -> None:
    run(bigcodec.DownBlock(6, stride, DILATIONS), big, f"encoder_block_s{stride}", "bigcodec")
    run(bigcodec.UpBlock(10, stride, DILATIONS), big, f"decoder_block_s{stride}", "bigcodec")


def test_blocks_of_bigcodec_with_two_units(big: Arrays) -> None:
    run(bigcodec.DownBlock(6, 3, (1, 3)), big, "encoder_block_s3", "bigcodec")
    run(bigcodec.UpBlock(10, 4, (1, 3)), big, "decoder_block_s4", "bigcodec")


@pytest.mark.parametrize(
    ("case", "layers", "both"), [("1", 1, False), ("2", 2, False), ("bi", 2, True)]
)
def test_residual_lstm(big: Arrays, case: str, layers: int, both: bool) -> None:
    run(bigcodec.ResidualLSTM(8, layers, both), big, f"res_lstm_{case}", "bigcodec")


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 12, 37])
def test_alias_free_activation(big: Arrays, length: int) -> None:
    layer = AliasFreeSnake(6)
    load_tensors(layer, parameters(big, "alias_free/param/", "bigcodec"))
    with torch.inference_mode():
        out = layer(torch.from_numpy(big[f"alias_free/in_{length}"])).numpy()
    np.testing.assert_allclose(out, big[f"alias_free/out_{length}"], atol=2e-6)


def test_kaiser_designs(big: Arrays) -> None:
    names = [key for key in big if key.startswith("kaiser/")]
    assert len(names) == 5
    for name in names:
        cutoff, half_width, taps = name.removeprefix("kaiser/").split("_")
        cutoff_value = 1 / 6 if cutoff == "0.166667" else float(cutoff)
        found = kaiser_lowpass(cutoff_value, float(half_width), int(taps))
        np.testing.assert_allclose(found.numpy(), big[name], atol=3e-7)


@pytest.mark.parametrize("kind", ["conv", "convtr", "linear"])
def test_weight_norm_is_folded_over_the_right_axis(big: Arrays, kind: str) -> None:
    params = parameters(big, f"weight_norm/{kind}/param/", "bigcodec")
    shape = big[f"weight_norm/{kind}/param/weight_v"].shape
    layer: nn.Module = {
        "conv": lambda: nn.Conv1d(shape[1], shape[0], shape[-1]),
        "convtr": lambda: nn.ConvTranspose1d(shape[0], shape[1], shape[-1]),
        "linear": lambda: nn.Linear(shape[1], shape[0]),
    }[kind]()
    weight_normed(layer)
    load_tensors(layer, params)
    fold_weight_norm(layer)
    assert set(layer.state_dict()) == {"weight", "bias"}  # a parameter, which moves with the model
    np.testing.assert_allclose(layer.weight.numpy(), big[f"weight_norm/{kind}/folded"], atol=1e-6)


@pytest.mark.parametrize("case", ["fvq_proj", "fvq_noproj"])
def test_factorized_quantizer(big: Arrays, case: str) -> None:
    wave = torch.from_numpy(big[f"{case}/in"])
    quantizer = FactorizedQuantizer(wave.shape[1], 8, 64)
    load_tensors(quantizer, parameters(big, f"{case}/param/", "bigcodec"))
    with torch.inference_mode():
        codes, quantized = quantizer(wave)
        looked_up = quantizer.lookup(codes)
    np.testing.assert_array_equal(codes.numpy(), big[f"{case}/codes"])
    np.testing.assert_allclose(quantized.numpy(), big[f"{case}/out"], atol=1e-5)
    emb = big[f"{case}/emb_from_codes"].transpose(0, 2, 1)
    np.testing.assert_allclose(looked_up.numpy(), emb, atol=1e-5)


def test_factorized_quantizer_takes_the_first_of_ties(big: Arrays) -> None:
    codebook = torch.from_numpy(big["fvq_ties/codebook"])
    quantizer = FactorizedQuantizer(codebook.shape[1], codebook.shape[1], len(codebook))
    load_tensors(quantizer, {"codebook.weight": codebook})
    with torch.inference_mode():
        codes, _ = quantizer(torch.from_numpy(big["fvq_ties/in"]))
        zero, _ = quantizer(torch.zeros(1, codebook.shape[1], 1))
    np.testing.assert_array_equal(codes.numpy(), big["fvq_ties/codes"])
    np.testing.assert_array_equal(zero.numpy(), big["fvq_ties/zero_codes"])


@pytest.mark.parametrize(
    ("case", "kernel", "stride"),
    [("k7", 7, 1), ("k3_min", 3, 1), ("k8_s4", 8, 4), ("k10_s5", 10, 5), ("k10_s5_ragged", 10, 5)],
)
def test_causal_convolution(small: Arrays, case: str, kernel: int, stride: int) -> None:
    run(supercodec.CausalConv(3, 4, kernel, stride), small, f"causal_{case}", "supercodec")


@pytest.mark.parametrize(("case", "stride"), [("s4", 4), ("s5", 5), ("s5_one", 5)])
def test_causal_transposed_convolution(small: Arrays, case: str, stride: int) -> None:
    layer = supercodec.CausalTransposedConv(5, 4, stride)
    run(layer, small, f"causal_tr_{case}", "supercodec")


@pytest.mark.parametrize("case", ["resblock1", "resblock1_one", "resblock2"])
def test_residual_stack(small: Arrays, case: str) -> None:
    if case == "resblock2":
        run(supercodec.ResidualStack(6, (1, 3)), small, case, "supercodec")
    else:
        # `res_four` stores its layers under another name than `res_one`
        holder = nn.ModuleDict({"res_four": supercodec.ResidualStack(6, (1, 3, 5))})
        holder.forward = holder["res_four"].forward  # type: ignore[method-assign]
        renamed = {key.replace("/param/", "/param/res_four."): small[key] for key in small}
        run(holder, renamed, case, "supercodec")


@pytest.mark.parametrize("stride", [2, 4, 5, 8])
def test_blocks_of_supercodec(small: Arrays, stride: int) -> None:
    for kind, name in ((supercodec.DownBlock, "sdbp"), (supercodec.UpBlock, "subp")):
        weight = small[f"{name}_s{stride}/param/downs_one.conv.weight"]
        wide, narrow = weight.shape[:2]
        c_in, c_out = (narrow, wide) if kind is supercodec.DownBlock else (wide, narrow)
        run(kind(c_in, c_out, stride), small, f"{name}_s{stride}", "supercodec")


def test_selective_fusion_treats_each_item_alone(small: Arrays) -> None:
    fusion = supercodec.SelectiveFusion(6)
    state = parameters(small, "selectnet/param/", "supercodec", within="skn.")
    load_tensors(fusion, {key.removeprefix("fuse."): value for key, value in state.items()})
    with torch.inference_mode():
        out = fusion(torch.from_numpy(small["selectnet/s"]), torch.from_numpy(small["selectnet/n"]))
    np.testing.assert_allclose(out.numpy(), small["selectnet/out_single"], atol=1e-5)


def test_euclidean_codebook(small: Arrays) -> None:
    codebook = EuclideanCodebook(8, 16)
    load_tensors(codebook, parameters(small, "ecb/before/param/", "supercodec"))
    with torch.inference_mode():
        codes, quantized = codebook(torch.from_numpy(small["ecb/in"]))
    np.testing.assert_array_equal(codes.numpy(), small["ecb/codes"])
    np.testing.assert_array_equal(quantized.numpy(), small["ecb/out"])


def test_euclidean_codebook_takes_the_first_of_ties(small: Arrays) -> None:
    codebook = EuclideanCodebook(4, 6)
    codebook.embed = torch.from_numpy(small["ecb_ties/embed"])
    with torch.inference_mode():
        codes, _ = codebook(torch.from_numpy(small["ecb_ties/in"]))
    np.testing.assert_array_equal(codes.numpy(), small["ecb_ties/codes"])
