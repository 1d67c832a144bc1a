"""SuperCodec's codebook: golden training steps, k-means, two processes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from codectool.codecs.supercodec.quantizer import (
    EuclideanCodebook,
    cluster_sums,
    draw_rows,
    k_means,
)
from codectool.nn.loading import load_tensors
from codectool.nn.quantize import ResidualQuantizer
from tests.golden_layers import Arrays, load_layers, parameters


@pytest.fixture(scope="module")
def golden() -> Arrays:
    return load_layers("supercodec")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codebook_of(golden: Arrays, prefix: str) -> EuclideanCodebook:
    state = {
        name.removeprefix("_codebook."): value
        for name, value in parameters(golden, prefix, "none").items()
    }
    codebook = EuclideanCodebook(state["embed"].shape[2], state["embed"].shape[1])
    codebook.load_state_dict(state)
    return codebook


def assert_same_buffers(found: EuclideanCodebook, expected: EuclideanCodebook, atol: float) -> None:
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), atol=atol, rtol=1e-6)


def test_codebook_matches_golden_output(golden: Arrays) -> None:
    codebook = EuclideanCodebook(8, 16)
    load_tensors(codebook, parameters(golden, "ecb/before/param/", "supercodec"))
    with torch.inference_mode():
        codes, quantized = codebook(torch.from_numpy(golden["ecb/in"]))
    np.testing.assert_array_equal(codes.numpy(), golden["ecb/codes"])
    np.testing.assert_array_equal(quantized.numpy(), golden["ecb/out"])


def test_codebook_takes_the_first_of_ties(golden: Arrays) -> None:
    codebook = EuclideanCodebook(4, 6)
    codebook.embed = torch.from_numpy(golden["ecb_ties/embed"])
    with torch.inference_mode():
        codes, _ = codebook(torch.from_numpy(golden["ecb_ties/in"]))
    np.testing.assert_array_equal(codes.numpy(), golden["ecb_ties/codes"])


def test_codebook_update_matches_golden(golden: Arrays) -> None:
    codebook = codebook_of(golden, "ecb/before/param/")
    output = codebook.forward_train(torch.from_numpy(golden["ecb/in"]))
    np.testing.assert_array_equal(output.codes.numpy(), golden["ecb/codes"])
    np.testing.assert_allclose(output.quantized.numpy(), golden["ecb/train_out"], atol=1e-6)
    assert_same_buffers(codebook, codebook_of(golden, "ecb/after_train_step/param/"), atol=1e-6)


def test_codebook_gradients_match_golden(golden: Arrays) -> None:
    codebook = codebook_of(golden, "vqtrain/before/param/")
    latent = torch.from_numpy(golden["vqtrain/in"]).requires_grad_()
    output = codebook.forward_train(latent)
    np.testing.assert_array_equal(output.codes.numpy(), golden["vqtrain/codes"])
    np.testing.assert_allclose(output.quantized.detach(), golden["vqtrain/out"], atol=1e-6)
    assert output.losses["commitment"].item() == pytest.approx(golden["vqtrain/loss"][0], rel=1e-6)
    (output.quantized.square().sum() + output.losses["commitment"]).backward()
    np.testing.assert_allclose(latent.grad, golden["vqtrain/grad_in"], rtol=1e-5, atol=1e-6)
    assert_same_buffers(codebook, codebook_of(golden, "vqtrain/after/param/"), atol=1e-6)


def initialised(width: int, size: int, batch: Tensor) -> EuclideanCodebook:
    """Return a codebook initialised by k-means on a batch."""
    codebook = EuclideanCodebook(width, size)
    codebook.forward_train(batch)
    return codebook


def test_commitment_loss_of_later_stages_has_a_gradient() -> None:
    torch.manual_seed(0)
    stages = [initialised(4, 8, noise(2, 30, 4)).eval() for _ in range(2)]
    latent = noise(2, 30, 4).requires_grad_()
    output = ResidualQuantizer(stages).forward_train(latent)
    output.losses["commitment"].backward()
    # d/dr of mean (q1 - r)^2 + mean (q2 - (r - q1))^2 with q1, q2 held; q1 + q2 is the output
    _, first = stages[0](latent)
    expected = 2 * ((latent - first) + (latent - output.quantized)) / latent.numel()
    torch.testing.assert_close(latent.grad, expected.detach())


def test_codebook_starts_at_the_clusters_of_the_first_batch() -> None:
    torch.manual_seed(0)
    centres = 10 * noise(6, 4)
    batch = centres.repeat(1, 20, 1).view(4, 30, 4) + 0.01 * noise(4, 30, 4)
    codebook = EuclideanCodebook(4, 60)
    output = codebook.forward_train(batch)
    assert codebook.initted.item() == 1
    assert (output.quantized - batch).abs().max() < 0.05
    # every codeword stays near the batch, with or without members
    nearest = torch.cdist(codebook.embed[0], centres).amin(-1)
    assert nearest.max() < 0.1
    assert codebook.cluster_size.min() >= 0.8


def test_residual_quantizer_initialises_each_stage_from_its_residual() -> None:
    torch.manual_seed(0)
    stages = [EuclideanCodebook(4, 32) for _ in range(3)]
    batch = noise(4, 100, 4)
    losses = []
    for count in (1, 2, 3):
        output = ResidualQuantizer(stages[:count]).forward_train(batch)
        losses.append((output.quantized - batch).square().mean().item())
        assert all(stage.initted.item() == (n < count) for n, stage in enumerate(stages))
    assert losses[0] > 1.5 * losses[1] > 2.25 * losses[2]


def test_codebook_is_constant_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    codebook = initialised(4, 16, noise(2, 50, 4)).eval()
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook.forward_train(noise(2, 50, 4, seed=1))
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


def test_codebook_updates_its_buffers_in_place() -> None:
    """A running average of the weights keeps references to them."""
    codebook = EuclideanCodebook(4, 16)
    codebook.dead_code_threshold = 0.5
    places = {name: value.data_ptr() for name, value in codebook.named_buffers()}
    for seed in range(3):
        codebook.forward_train(noise(2, 50, 4, seed=seed))
    assert {name: value.data_ptr() for name, value in codebook.named_buffers()} == places


@pytest.mark.parametrize(("threshold", "alive"), [(0.0, 8), (0.5, 16)])
def test_dead_codewords_are_replaced_below_the_threshold(threshold: float, alive: int) -> None:
    torch.manual_seed(0)
    codebook = EuclideanCodebook(4, 16)
    codebook.dead_code_threshold = threshold
    codebook.initted.fill_(1)
    start = torch.cat([noise(8, 4), noise(8, 4) + 1000])  # half of them far from every latent
    codebook.embed[0] = start
    codebook.embed_avg[0] = start
    codebook.cluster_size.fill_(1)
    for seed in range(60):
        codebook.forward_train(noise(4, 50, 4, seed=seed))
    used = codebook(noise(40, 50, 4, seed=1000))[0].unique()
    assert len(used) == alive


def test_replaced_codeword_is_a_latent_of_the_batch() -> None:
    codebook = EuclideanCodebook(2, 2)
    codebook.dead_code_threshold = 0.75
    codebook.initted.fill_(1)
    codebook.embed[0] = codebook.embed_avg[0] = torch.tensor([[0.0, 0.0], [100.0, 100.0]])
    codebook.cluster_size.fill_(0.9)
    batch = noise(1, 5, 2)
    codebook.forward_train(batch)
    assert codebook.cluster_size[0].tolist() == pytest.approx([0.8 * 0.9 + 0.2 * 5, 0.75])
    assert (batch[0] == codebook.embed[0, 1]).all(-1).any()
    torch.testing.assert_close(codebook.embed_avg[0, 1], 0.75 * codebook.embed[0, 1])


def test_forward_train_stays_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    quantizer = EuclideanCodebook(4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = ResidualQuantizer([quantizer]).forward_train(noise(2, 50, 4).bfloat16())
    assert output.quantized.dtype == output.losses["commitment"].dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in quantizer.state_dict().values())


# k-means


@pytest.mark.parametrize("iterations", [1, 10])
def test_k_means_matches_golden_means(golden: Arrays, iterations: int) -> None:
    rows = torch.from_numpy(golden["kmeans/data"][0])
    means, counts = k_means(rows, torch.from_numpy(golden["kmeans/start"][0]), iterations)
    np.testing.assert_allclose(means.numpy(), golden[f"kmeans/means_{iterations}"][0], atol=1e-6)
    np.testing.assert_array_equal(counts.numpy(), golden[f"kmeans/bins_{iterations}"][0])


def test_k_means_keeps_the_mean_of_an_empty_cluster() -> None:
    rows = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
    means, counts = k_means(rows, torch.tensor([[0.0], [10.0], [500.0]]))
    assert means.flatten().tolist() == [0.5, 10.0, 500.0]
    assert counts.tolist() == [2, 2, 0]


def test_cluster_sums_adds_rows_of_each_cluster() -> None:
    rows = torch.arange(10.0).view(5, 2)
    sums, counts = cluster_sums(rows, torch.tensor([2, 0, 2, 2, 0]), 4)
    assert sums.tolist() == [[10, 12], [0, 0], [10, 13], [0, 0]]
    assert counts.tolist() == [2, 0, 3, 0]


@pytest.mark.parametrize("count", [50, 100])
def test_draw_rows_draws_without_replacement_if_possible(count: int) -> None:
    torch.manual_seed(0)
    rows = torch.arange(100.0).view(100, 1)
    drawn = draw_rows(rows, count).flatten().tolist()
    assert len(set(drawn)) == len(drawn) == count
    assert set(drawn) <= set(range(100))
    assert drawn != sorted(drawn)


def test_draw_rows_repeats_rows_if_there_are_too_few() -> None:
    torch.manual_seed(0)
    drawn = draw_rows(torch.arange(100.0).view(100, 1), 300).flatten().tolist()
    assert len(drawn) == 300
    assert 80 < len(set(drawn)) <= 100


# Two processes

STEPS, RANK_BATCH, WIDTH, SIZE = 6, 3, 4, 24


def two_stages() -> ResidualQuantizer:
    stages = [EuclideanCodebook(WIDTH, SIZE) for _ in range(2)]
    for stage in stages:
        stage.dead_code_threshold = 0.37
    return ResidualQuantizer(stages)


def full_batch(step: int) -> Tensor:
    return noise(2 * RANK_BATCH, 5, WIDTH, seed=step) * (1 + step)


def train_one_rank(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/init",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),  # ranks that diverge block
    )
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # ranks draw different rows
    quantizer = two_stages()
    for step in range(STEPS):
        quantizer.forward_train(full_batch(step)[rank * RANK_BATCH : (rank + 1) * RANK_BATCH])
    torch.save(quantizer.state_dict(), f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


def test_codebook_of_two_processes_matches_one_process(tmp_path: Path) -> None:
    multiprocessing.spawn(train_one_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    torch.manual_seed(0)
    quantizer, replaced = two_stages(), 0
    for step in range(STEPS):
        quantizer.forward_train(full_batch(step))
        replaced += sum(int((s.cluster_size == 0.37).sum()) for s in quantizer.layers)  # type: ignore[operator,misc]
    assert replaced > 10  # otherwise replacement was not tested
    for name, expected in quantizer.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], expected, atol=1e-5, rtol=1e-5)
