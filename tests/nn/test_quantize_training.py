"""Training steps of the quantizers: the published code's numbers, gradients, two processes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from codectool.checkpoints.published import model_name
from codectool.nn.quantize import (
    EuclideanCodebook,
    FactorizedQuantizer,
    QuantizedOutput,
    ResidualQuantizer,
)
from tests.conftest import shared

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def big() -> Iterator[Arrays]:
    with np.load(shared("golden", "bigcodec_layers.npz")) as file:
        yield {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def small() -> Iterator[Arrays]:
    with np.load(shared("golden", "supercodec_layers.npz")) as file:
        yield {key: file[key] for key in file.files}


def tensors(arrays: Arrays, prefix: str, family: str) -> dict[str, Tensor]:
    return {
        model_name(family, f"x.{key.removeprefix(prefix)}").removeprefix("x."): (
            torch.from_numpy(value)
        )
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# BigCodec's quantizer


def factorized(big: Arrays, case: str) -> FactorizedQuantizer:
    size, narrow = big[f"{case}/param/_codebook.weight"].shape
    quantizer = FactorizedQuantizer(big[f"{case}/in"].shape[1], narrow, size)
    quantizer.load_state_dict(tensors(big, f"{case}/param/", "bigcodec"))
    return quantizer


@pytest.mark.parametrize("case", ["fvq_proj", "fvq_noproj"])
def test_factorized_losses(big: Arrays, case: str) -> None:
    quantizer, latent = factorized(big, case), torch.from_numpy(big[f"{case}/in"])
    output = quantizer.learn(latent)
    np.testing.assert_array_equal(output.codes.numpy(), big[f"{case}/codes"])
    np.testing.assert_allclose(output.quantized.detach().numpy(), big[f"{case}/out"], atol=1e-5)
    # the published code has a loss for each item; ours is their mean
    for item, expected in enumerate(big[f"{case}/train_loss"]):
        assert bigcodec_loss(quantizer.learn(latent[item : item + 1])).item() == pytest.approx(
            expected, rel=1e-6
        )
    mean = big[f"{case}/train_loss"].mean()
    assert bigcodec_loss(output).item() == pytest.approx(mean, rel=1e-6)


def bigcodec_loss(output: QuantizedOutput) -> Tensor:
    return 0.25 * output.losses["commitment"] + output.losses["codebook"]


def test_factorized_gradients(big: Arrays) -> None:
    quantizer = factorized(big, "fvq_grad")
    latent = torch.from_numpy(big["fvq_grad/in"]).requires_grad_()
    output = quantizer.learn(latent)
    objective = output.quantized.square().sum() + bigcodec_loss(output)
    assert objective.item() == pytest.approx(float(big["fvq_grad/objective"]), rel=1e-6)
    objective.backward()
    np.testing.assert_allclose(latent.grad, big["fvq_grad/grad_in"], rtol=1e-5, atol=1e-5)
    expected = tensors(big, "fvq_grad/grad/", "bigcodec")
    assert len(expected) == len(list(quantizer.parameters())) == 7
    for name, parameter in quantizer.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-5)


def test_later_factorized_stages_teach_earlier_ones() -> None:
    torch.manual_seed(0)
    stage, latent = FactorizedQuantizer(6, 3, 5), noise(2, 6, 4)
    output = stage.learn(latent)
    assert torch.equal(output.remainder, latent - output.quantized)
    output.remainder.sum().backward()
    torch.testing.assert_close(stage.out_proj.bias.grad, torch.full((6,), -8.0))


def test_losses_of_stages_add_up() -> None:
    torch.manual_seed(0)
    stages = [FactorizedQuantizer(6, 3, 5) for _ in range(3)]
    rest, latent = noise(2, 6, 4), noise(2, 6, 4)
    output = ResidualQuantizer(stages).learn(latent)
    expected = {"commitment": torch.zeros(()), "codebook": torch.zeros(())}
    for number, stage in enumerate(stages):
        alone = stage.learn(rest)
        assert torch.equal(output.codes[:, number], alone.codes)
        rest = alone.remainder
        expected = {name: expected[name] + alone.losses[name] for name in expected}
    torch.testing.assert_close(output.losses, expected)
    torch.testing.assert_close(output.quantized, latent - rest)


# SuperCodec's codebook


def codebook_of(small: Arrays, prefix: str) -> EuclideanCodebook:
    state = {
        name.removeprefix("_codebook."): value
        for name, value in tensors(small, prefix, "none").items()
    }
    codebook = EuclideanCodebook(state["embed"].shape[2], state["embed"].shape[1])
    codebook.load_state_dict(state)
    return codebook


def assert_same_buffers(found: EuclideanCodebook, expected: EuclideanCodebook, atol: float) -> None:
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), atol=atol, rtol=1e-6)


def test_a_step_of_the_codebook(small: Arrays) -> None:
    codebook = codebook_of(small, "ecb/before/param/")
    output = codebook.learn(torch.from_numpy(small["ecb/in"]))
    np.testing.assert_array_equal(output.codes.numpy(), small["ecb/codes"])
    np.testing.assert_allclose(output.quantized.numpy(), small["ecb/train_out"], atol=1e-6)
    assert_same_buffers(codebook, codebook_of(small, "ecb/after_train_step/param/"), atol=1e-6)


def test_gradients_around_the_codebook(small: Arrays) -> None:
    codebook = codebook_of(small, "vqtrain/before/param/")
    latent = torch.from_numpy(small["vqtrain/in"]).requires_grad_()
    output = codebook.learn(latent)
    np.testing.assert_array_equal(output.codes.numpy(), small["vqtrain/codes"])
    np.testing.assert_allclose(output.quantized.detach(), small["vqtrain/out"], atol=1e-6)
    assert output.losses["commitment"].item() == pytest.approx(small["vqtrain/loss"][0], rel=1e-6)
    (output.quantized.square().sum() + output.losses["commitment"]).backward()
    np.testing.assert_allclose(latent.grad, small["vqtrain/grad_in"], rtol=1e-5, atol=1e-6)
    assert_same_buffers(codebook, codebook_of(small, "vqtrain/after/param/"), atol=1e-6)


def begun(width: int, size: int, batch: Tensor) -> EuclideanCodebook:
    """A codebook that k-means has started on a batch."""
    codebook = EuclideanCodebook(width, size)
    codebook.learn(batch)
    return codebook


def test_commitment_of_later_stages_reaches_the_latent() -> None:
    torch.manual_seed(0)
    stages = [begun(4, 8, noise(2, 30, 4)).eval() for _ in range(2)]
    latent = noise(2, 30, 4).requires_grad_()
    output = ResidualQuantizer(stages).learn(latent)
    output.losses["commitment"].backward()
    # d/dr of mean (q1 - r)^2 + mean (q2 - (r - q1))^2 with q1, q2 held; q1 + q2 is the output
    _, first = stages[0](latent)
    expected = 2 * ((latent - first) + (latent - output.quantized)) / latent.numel()
    torch.testing.assert_close(latent.grad, expected.detach())


def test_the_first_batch_starts_the_codebook_at_its_clusters() -> None:
    torch.manual_seed(0)
    centres = 10 * noise(6, 4)
    batch = centres.repeat(1, 20, 1).view(4, 30, 4) + 0.01 * noise(4, 30, 4)
    codebook = EuclideanCodebook(4, 60)
    output = codebook.learn(batch)
    assert codebook.initted.item() == 1
    assert (output.quantized - batch).abs().max() < 0.05
    # every codeword, drawn from the batch, stays near it, with members or without
    nearest = torch.cdist(codebook.embed[0], centres).amin(-1)
    assert nearest.max() < 0.1
    assert codebook.cluster_size.min() >= 0.8


def test_stages_start_one_after_another() -> None:
    torch.manual_seed(0)
    stages = [EuclideanCodebook(4, 32) for _ in range(3)]
    batch = noise(4, 100, 4)
    losses = []
    for count in (1, 2, 3):
        output = ResidualQuantizer(stages[:count]).learn(batch)
        losses.append((output.quantized - batch).square().mean().item())
        assert all(stage.initted.item() == (n < count) for n, stage in enumerate(stages))
    assert losses[0] > 1.5 * losses[1] > 2.25 * losses[2]


def test_nothing_moves_in_evaluation() -> None:
    torch.manual_seed(0)
    codebook = begun(4, 16, noise(2, 50, 4)).eval()
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook.learn(noise(2, 50, 4, seed=1))
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


def test_buffers_stay_the_same_tensors() -> None:
    """A running average of the weights follows them where they are."""
    codebook = EuclideanCodebook(4, 16)
    codebook.dead_code_threshold = 0.5
    places = {name: value.data_ptr() for name, value in codebook.named_buffers()}
    for seed in range(3):
        codebook.learn(noise(2, 50, 4, seed=seed))
    assert {name: value.data_ptr() for name, value in codebook.named_buffers()} == places


@pytest.mark.parametrize(("threshold", "alive"), [(0.0, 8), (0.5, 16)])
def test_dead_codewords_are_revived_if_wanted(threshold: float, alive: int) -> None:
    torch.manual_seed(0)
    codebook = EuclideanCodebook(4, 16)
    codebook.dead_code_threshold = threshold
    codebook.initted.fill_(1)
    start = torch.cat([noise(8, 4), noise(8, 4) + 1000])  # half of them out of reach
    codebook.embed[0] = start
    codebook.embed_avg[0] = start
    codebook.cluster_size.fill_(1)
    for seed in range(60):
        codebook.learn(noise(4, 50, 4, seed=seed))
    used = codebook(noise(40, 50, 4, seed=1000))[0].unique()
    assert len(used) == alive


def test_a_replaced_codeword_is_a_latent_of_the_batch() -> None:
    codebook = EuclideanCodebook(2, 2)
    codebook.dead_code_threshold = 0.75
    codebook.initted.fill_(1)
    codebook.embed[0] = codebook.embed_avg[0] = torch.tensor([[0.0, 0.0], [100.0, 100.0]])
    codebook.cluster_size.fill_(0.9)
    batch = noise(1, 5, 2)
    codebook.learn(batch)
    assert codebook.cluster_size[0].tolist() == pytest.approx([0.8 * 0.9 + 0.2 * 5, 0.75])
    assert (batch[0] == codebook.embed[0, 1]).all(-1).any()
    torch.testing.assert_close(codebook.embed_avg[0, 1], 0.75 * codebook.embed[0, 1])


def test_training_stays_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    for quantizer, latent in (
        (FactorizedQuantizer(6, 3, 5), noise(2, 6, 4)),
        (EuclideanCodebook(4, 16), noise(2, 50, 4)),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = ResidualQuantizer([quantizer]).learn(latent.bfloat16())
        assert output.quantized.dtype == output.losses["commitment"].dtype == torch.float32
        assert all(value.dtype == torch.float32 for value in quantizer.state_dict().values())


# Two processes

STEPS, SHARE, WIDTH, SIZE = 6, 3, 4, 24


def two_stages() -> ResidualQuantizer:
    stages = [EuclideanCodebook(WIDTH, SIZE) for _ in range(2)]
    for stage in stages:
        stage.dead_code_threshold = 0.37
    return ResidualQuantizer(stages)


def whole_batch(step: int) -> Tensor:
    return noise(2 * SHARE, 5, WIDTH, seed=step) * (1 + step)


def train_a_share(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),  # ranks that disagree wait for each other
    )
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # ranks need not draw alike
    quantizer = two_stages()
    for step in range(STEPS):
        quantizer.learn(whole_batch(step)[rank * SHARE : (rank + 1) * SHARE])
    torch.save(quantizer.state_dict(), f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_learn_what_one_learns_from_both_shares(tmp_path: Path) -> None:
    multiprocessing.spawn(train_a_share, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    torch.manual_seed(0)
    quantizer, replaced = two_stages(), 0
    for step in range(STEPS):
        quantizer.learn(whole_batch(step))
        replaced += sum(int((s.cluster_size == 0.37).sum()) for s in quantizer.layers)  # type: ignore[operator,misc]
    assert replaced > 10  # or this would say nothing about them
    for name, expected in quantizer.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], expected, atol=1e-5, rtol=1e-5)
