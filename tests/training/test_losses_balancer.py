import pytest
import torch

from codectool.training.losses import balancer as module
from codectool.training.losses.balancer import GradientBalancer


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def output(seed=0):
    """An output within a graph."""
    weight = noise(2, 1, 100, seed=seed).requires_grad_()
    return 2 * weight


def test_combined_gradient_has_the_given_norms():
    balancer = GradientBalancer({"mel": 3.0, "wave": 0.5})
    y = output()
    directions = {"mel": noise(2, 1, 100, seed=1), "wave": 1e-4 * noise(2, 1, 100, seed=2)}
    losses = {name: (y * direction).sum() for name, direction in directions.items()}
    combined = balancer.combine(losses, y)
    expected = 3 * directions["mel"] / directions["mel"].norm()
    expected += 0.5 * directions["wave"] / directions["wave"].norm()
    torch.testing.assert_close(combined, expected)
    assert not combined.requires_grad
    assert balancer.combine({"mel": losses["mel"]}, y).norm().item() == pytest.approx(3)


def test_combined_gradient_reaches_the_codec():
    weight = noise(2, 1, 100).requires_grad_()
    y = 2 * weight
    combined = GradientBalancer({"wave": 1.0}).combine({"wave": y.square().sum()}, y)
    y.backward(combined)
    assert weight.grad.norm().item() == pytest.approx(2)  # a slope of 2, a gradient of norm 1
    torch.testing.assert_close(weight.grad / weight.grad.norm(), weight / weight.norm())


def test_running_norm_is_a_corrected_moving_average():
    balancer = GradientBalancer({"wave": 1.0})
    y = output()
    direction = noise(2, 1, 100, seed=1)
    direction /= direction.norm()
    sizes = [1.0, 5.0, 2.0]
    for size in sizes:
        combined = balancer.combine({"wave": (size * y * direction).sum()}, y)
    weights = [0.99**2, 0.99, 1]
    mean = sum(w * s for w, s in zip(weights, sizes, strict=True)) / sum(weights)
    assert balancer.norms["wave"].value().item() == pytest.approx(mean, rel=1e-4)
    assert combined.norm().item() == pytest.approx(2 / mean, rel=1e-4)


def test_absent_loss_keeps_its_norm():
    balancer = GradientBalancer({"mel": 1.0, "adv": 1.0})
    y = output()
    balancer.combine({"mel": y.square().sum()}, y)
    assert balancer.norms["adv"].value() == 0
    balancer.combine({"adv": 3 * y.sum()}, y)
    assert balancer.norms["adv"].value().item() == pytest.approx(3 * 200**0.5)
    balancer.combine({"mel": y.square().sum()}, y)
    assert balancer.norms["adv"].weight.item() == pytest.approx(0.01)
    assert balancer.norms["mel"].weight.item() == pytest.approx(1 - 0.99**2)
    assert torch.equal(balancer.combine({}, y), torch.zeros_like(y))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("at_first", [True, False])
def test_non_finite_gradient_is_returned_but_not_averaged(bad, at_first):
    balancer = GradientBalancer({"mel": 1.0, "wave": 1.0})
    y = output()
    good = {"mel": y.square().sum(), "wave": y.sum()}
    if not at_first:
        balancer.combine(good, y)
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    combined = balancer.combine({"mel": bad * y.square().sum()}, y)
    assert not torch.isfinite(combined).all()
    for name, value in balancer.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.isfinite(balancer.combine(good, y)).all()


def test_zero_gradient_is_not_averaged():
    balancer = GradientBalancer({"adv": 1.0})
    y = output()
    assert torch.equal(balancer.combine({"adv": 0 * y.sum()}, y), torch.zeros_like(y))
    for _ in range(3):
        balancer.combine({"adv": y.sum()}, y)
        balancer.combine({"adv": 0 * y.sum()}, y)
    assert balancer.combine({"adv": y.sum()}, y).norm().item() == pytest.approx(1, rel=1e-4)


def test_state_dict_restores_the_norms():
    balancer, copy = (GradientBalancer({"mel": 1.0, "adv_stft": 2.0}) for _ in range(2))
    y = output()
    for size in (1, 10):
        balancer.combine({"mel": size * y.square().sum(), "adv_stft": size * y.sum()}, y)
    copy.load_state_dict(balancer.state_dict())
    losses = {"mel": y.square().sum(), "adv_stft": y.sum()}
    torch.testing.assert_close(copy.combine(losses, y), balancer.combine(losses, y))
    with pytest.raises(RuntimeError, match="adv_stft"):
        GradientBalancer({"mel": 1.0}).load_state_dict(balancer.state_dict())


def test_two_processes_match_one_with_the_whole_batch(monkeypatch):
    """The average of the gradients of both halves is the gradient of the whole batch."""
    weights = {"wave": 0.7}
    values, target = noise(4, 1, 50), noise(4, 1, 50, seed=1)

    def gradient(part, balancer):
        y = values[part].clone().requires_grad_()
        loss = (y - target[part]).square().mean()
        return balancer.combine({"wave": loss}, y)

    whole = gradient(slice(0, 4), GradientBalancer(weights))
    halves = slice(0, 2), slice(2, 4)
    squares = [(2 * (values - target)[part] / 100).square().sum() for part in halves]
    mean = torch.stack(squares).mean()
    monkeypatch.setattr(module, "world_size", lambda: 2)
    monkeypatch.setattr(module, "all_reduce_mean", lambda value: mean.expand(1))
    ranks = torch.cat([gradient(part, GradientBalancer(weights)) for part in halves])
    torch.testing.assert_close(ranks / 2, whole)


def test_loss_without_weight_is_refused():
    y = output()
    with pytest.raises(KeyError, match="stft"):
        GradientBalancer({"mel": 1.0}).combine({"stft": y.sum()}, y)
