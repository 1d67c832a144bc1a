"""BigCodec's quantizer: golden codes, losses and gradients of the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from codectool.codecs.bigcodec.quantizer import FactorizedQuantizer
from codectool.nn.loading import load_tensors
from codectool.nn.quantize import QuantizerOutput, ResidualQuantizer
from tests.golden_layers import Arrays, load_layers, parameters


@pytest.fixture(scope="module")
def golden() -> Arrays:
    return load_layers("bigcodec")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def load_quantizer(golden: Arrays, case: str) -> FactorizedQuantizer:
    size, narrow = golden[f"{case}/param/_codebook.weight"].shape
    quantizer = FactorizedQuantizer(golden[f"{case}/in"].shape[1], narrow, size)
    quantizer.load_state_dict(parameters(golden, f"{case}/param/", "bigcodec"))
    return quantizer


def weighted_loss(output: QuantizerOutput) -> Tensor:
    return 0.25 * output.losses["commitment"] + output.losses["codebook"]


@pytest.mark.parametrize("case", ["fvq_proj", "fvq_noproj"])
def test_factorized_quantizer_matches_golden_output(golden: Arrays, case: str) -> None:
    latent = torch.from_numpy(golden[f"{case}/in"]).mT
    quantizer = FactorizedQuantizer(latent.shape[2], 8, 64)
    load_tensors(quantizer, parameters(golden, f"{case}/param/", "bigcodec"))
    with torch.inference_mode():
        codes, quantized = quantizer(latent)
        looked_up = quantizer.lookup(codes)
    np.testing.assert_array_equal(codes.numpy(), golden[f"{case}/codes"])
    np.testing.assert_allclose(quantized.mT.numpy(), golden[f"{case}/out"], atol=1e-5)
    np.testing.assert_allclose(looked_up.numpy(), golden[f"{case}/emb_from_codes"], atol=1e-5)


def test_factorized_quantizer_takes_the_first_of_ties(golden: Arrays) -> None:
    codebook = torch.from_numpy(golden["fvq_ties/codebook"])
    quantizer = FactorizedQuantizer(codebook.shape[1], codebook.shape[1], len(codebook))
    load_tensors(quantizer, {"codebook.weight": codebook})
    with torch.inference_mode():
        codes, _ = quantizer(torch.from_numpy(golden["fvq_ties/in"]).mT)
        zero, _ = quantizer(torch.zeros(1, 1, codebook.shape[1]))
    np.testing.assert_array_equal(codes.numpy(), golden["fvq_ties/codes"])
    np.testing.assert_array_equal(zero.numpy(), golden["fvq_ties/zero_codes"])


@pytest.mark.parametrize("case", ["fvq_proj", "fvq_noproj"])
def test_factorized_quantizer_losses_match_golden(golden: Arrays, case: str) -> None:
    quantizer, latent = load_quantizer(golden, case), torch.from_numpy(golden[f"{case}/in"]).mT
    output = quantizer.forward_train(latent)
    np.testing.assert_array_equal(output.codes.numpy(), golden[f"{case}/codes"])
    np.testing.assert_allclose(
        output.quantized.detach().mT.numpy(), golden[f"{case}/out"], atol=1e-5
    )
    # the reference implementation has a loss per item; codectool takes their mean
    for item, expected in enumerate(golden[f"{case}/train_loss"]):
        loss = weighted_loss(quantizer.forward_train(latent[item : item + 1]))
        assert loss.item() == pytest.approx(expected, rel=1e-6)
    mean = golden[f"{case}/train_loss"].mean()
    assert weighted_loss(output).item() == pytest.approx(mean, rel=1e-6)


def test_factorized_quantizer_gradients_match_golden(golden: Arrays) -> None:
    quantizer = load_quantizer(golden, "fvq_grad")
    latent = torch.from_numpy(golden["fvq_grad/in"]).requires_grad_()
    output = quantizer.forward_train(latent.mT)
    objective = output.quantized.square().sum() + weighted_loss(output)
    assert objective.item() == pytest.approx(float(golden["fvq_grad/objective"]), rel=1e-6)
    objective.backward()
    np.testing.assert_allclose(latent.grad, golden["fvq_grad/grad_in"], rtol=1e-5, atol=1e-5)
    expected = parameters(golden, "fvq_grad/grad/", "bigcodec")
    assert len(expected) == len(list(quantizer.parameters())) == 7
    for name, parameter in quantizer.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-5)


def test_residual_has_a_gradient_for_earlier_stages() -> None:
    torch.manual_seed(0)
    stage, latent = FactorizedQuantizer(6, 3, 5), noise(2, 4, 6)
    output = stage.forward_train(latent)
    assert torch.equal(output.residual, latent - output.quantized)
    output.residual.sum().backward()
    torch.testing.assert_close(stage.out_proj.bias.grad, torch.full((6,), -8.0))


def test_residual_quantizer_adds_up_losses_of_its_stages() -> None:
    torch.manual_seed(0)
    stages = [FactorizedQuantizer(6, 3, 5) for _ in range(3)]
    residual, latent = noise(2, 4, 6), noise(2, 4, 6)
    output = ResidualQuantizer(stages).forward_train(latent)
    expected = {"commitment": torch.zeros(()), "codebook": torch.zeros(())}
    for number, stage in enumerate(stages):
        alone = stage.forward_train(residual)
        assert torch.equal(output.codes[:, number], alone.codes)
        residual = alone.residual
        expected = {name: expected[name] + alone.losses[name] for name in expected}
    torch.testing.assert_close(output.losses, expected)
    torch.testing.assert_close(output.quantized, latent - residual)


def test_forward_train_stays_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    quantizer = FactorizedQuantizer(6, 3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = ResidualQuantizer([quantizer]).forward_train(noise(2, 4, 6).bfloat16())
    assert output.quantized.dtype == output.losses["commitment"].dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in quantizer.state_dict().values())
