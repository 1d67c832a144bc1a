import math

import pytest
import torch

from codectool.codecs.hac.layers import Pointwise
from codectool.codecs.hac.quantizer import (
    BinaryBottleneck,
    bit_entropy,
    decorrelation,
    group_entropy,
    index_to_signs,
    signs_to_index,
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated_noise(seed):
    """Unbalanced, mixed channels of very different size, as from an untrained projection."""
    mixing = noise(18, 18, seed=100) * torch.logspace(-2, 1, 18)
    return noise(4, 75, 18, seed=seed) @ mixing + 5


def test_channel_0_is_the_most_significant_bit():
    signs = -torch.ones(18)
    signs[0] = 1
    assert signs_to_index(signs) == 131072


def test_zero_is_bit_0():
    assert signs_to_index(torch.zeros(18)) == 0


def test_index_and_signs_are_inverse():
    index = torch.arange(2**18)
    assert torch.equal(signs_to_index(index_to_signs(index, 18)), index)


def test_bits_are_balanced_and_uncorrelated_after_50_steps():
    bottleneck = BinaryBottleneck(18).train()
    for step in range(50):
        bottleneck(correlated_noise(step))
    values = bottleneck.eval()(correlated_noise(1000)).values.flatten(0, 1)
    bits = (values > 0).double()
    assert bits.mean(0).min() > 0.2
    assert bits.mean(0).max() < 0.8
    correlation = torch.corrcoef(bits.T) - torch.eye(18)
    assert correlation.abs().sum() / (18 * 17) < 0.25


def test_bits_of_the_same_data_without_whitening_are_constant():
    bits = (correlated_noise(1000).flatten(0, 1) > 0).double().mean(0)
    assert bits.max() > 0.95


def test_signs_have_a_straight_through_gradient():
    projected = noise(2, 5, 6).requires_grad_()
    bottleneck = BinaryBottleneck(6).eval()
    output = bottleneck(projected)
    assert set(output.signs.detach().unique().tolist()) <= {-1.0, 1.0}
    output.signs.sum().backward()
    torch.testing.assert_close(projected.grad, torch.ones(2, 5, 6))


def test_averages_move_only_in_training_and_only_if_updating():
    bottleneck = BinaryBottleneck(6)
    for training, updating, moved in ((False, True, 0), (True, False, 0), (True, True, 1)):
        bottleneck.train(training).updating = updating
        bottleneck(noise(2, 50, 6))
        assert bottleneck.count == moved


def test_first_batch_is_whitened():
    bottleneck = BinaryBottleneck(6).train()
    mixing = torch.eye(6) + 0.3 * noise(6, 6, seed=3)
    values = bottleneck(noise(4, 500, 6) @ mixing + 2).values.flatten(0, 1)
    torch.testing.assert_close(values.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    assert (torch.cov(values.T) - torch.eye(6)).abs().max() < 0.1  # not 0: the floor


def test_projection_absorbs_the_whitening():
    bottleneck = BinaryBottleneck(6).train()
    bottleneck(noise(4, 100, 6) @ noise(6, 6, seed=3) + 2)
    bottleneck.eval()
    projection, x = Pointwise(10, 6), noise(3, 7, 10, seed=6)
    torch.nn.init.normal_(projection.weight)
    torch.nn.init.normal_(projection.bias)
    expected = bottleneck(projection(x)).values
    bottleneck.whiten_projection_(projection)
    torch.testing.assert_close(projection(x), expected, atol=1e-4, rtol=1e-4)


def test_bottleneck_computes_in_float32_under_autocast():
    bottleneck = BinaryBottleneck(6).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = bottleneck(noise(2, 5, 6).bfloat16())
    assert output.values.dtype == torch.float32
    assert bottleneck.whitening.dtype == torch.float32


def test_bit_entropy_of_known_logits():
    torch.testing.assert_close(bit_entropy(torch.tensor([0.0])), torch.tensor([math.log(2)]))
    assert bit_entropy(torch.tensor([-200.0, 200.0])).max() < 1e-6


@pytest.mark.parametrize("group_bits", [2, 3, 5, 6])
def test_group_entropy_of_known_codes(group_bits):
    everything = index_to_signs(torch.arange(64), 6) * 50
    torch.testing.assert_close(group_entropy(everything, group_bits), torch.tensor(math.log(2)))
    assert group_entropy(everything[:1], group_bits) < 1e-6


def test_group_entropy_detects_dependent_bits():
    twins = torch.tensor([[50.0, 50.0], [-50.0, -50.0]])
    torch.testing.assert_close(group_entropy(twins, 1), torch.tensor(math.log(2)))
    torch.testing.assert_close(group_entropy(twins, 2), torch.tensor(math.log(2) / 2))


def test_decorrelation_is_zero_for_white_rows_only() -> None:
    rows = torch.linalg.qr(torch.randn(600, 4, generator=torch.Generator().manual_seed(0)))[0]
    rows = rows - rows.mean(0)
    covariance = rows.T @ rows / len(rows)
    white = rows @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    assert float(decorrelation(white)) == pytest.approx(0, abs=1e-8)
    assert float(decorrelation(white + 2)) == pytest.approx(
        4.0, rel=1e-4
    )  # |mean|^2 / K = 4 * 4 / 4
    # twice the size: covariance 4 I, so |3 I|^2 / 4 = 4 * 9 / 4
    assert float(decorrelation(2 * white)) == pytest.approx(9.0, rel=1e-4)


def test_one_strong_direction_leaves_the_bits_independent() -> None:
    """With a floor relative to the strongest direction, all bits would depend on it."""
    torch.manual_seed(0)
    bottleneck = BinaryBottleneck(6).train()
    bottleneck.min_weight = 0.05
    scale = torch.tensor([100.0, 1, 1, 1, 1, 1])
    rotation = torch.linalg.qr(torch.randn(6, 6))[0]
    for _ in range(60):
        bottleneck(torch.randn(8, 75, 6) * scale @ rotation)
    output = bottleneck.eval()(torch.randn(8, 75, 6) * scale @ rotation)
    bits = (output.values.flatten(0, 1) > 0).float()
    correlation = torch.corrcoef(bits.T).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 0.2
