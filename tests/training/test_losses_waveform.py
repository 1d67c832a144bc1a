import pytest
import torch

from codectool.training.losses.waveform import WaveformLossConfig

l1 = WaveformLossConfig(weight=1).build(8000)
relative_l1 = WaveformLossConfig(weight=1, relative=True).build(8000)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_waveform_loss_worked_examples():
    target = torch.tensor([[[1.0, -1.0, 1.0, -1.0]], [[0.1, -0.1, 0.1, -0.1]]])
    output = target + torch.tensor([[[0.5]], [[-0.1]]])
    assert l1(output, target).item() == pytest.approx((0.5 + 0.1) / 2)
    expected = (0.5 / 1.001 + 0.1 / 0.101) / 2  # deviations of 1 and 0.1
    assert relative_l1(output, target).item() == pytest.approx(expected)


def test_relative_loss_does_not_depend_on_level():
    target = noise(1, 1, 1000)
    output = target + 0.1 * noise(1, 1, 1000, seed=1)
    loud = relative_l1(output, target)
    assert relative_l1(output / 10, target / 10).item() == pytest.approx(loud.item(), rel=0.02)
    both = relative_l1(torch.cat([output, output / 10]), torch.cat([target, target / 10]))
    assert both.item() == pytest.approx(loud.item(), rel=0.02)
    assert l1(output / 10, target / 10).item() == pytest.approx(l1(output, target).item() / 10)


@pytest.mark.parametrize("loss", [l1, relative_l1])
def test_loss_of_batch_is_mean_over_items(loss):
    target, output = noise(2, 1, 500), noise(2, 1, 500, seed=1)
    single = [loss(output[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(loss(output, target), (single[0] + single[1]) / 2)
    assert loss(target, target) == 0


def test_relative_loss_is_finite_for_silence():
    silence = torch.zeros(2, 1, 100)
    output = silence.clone().requires_grad_()
    loss = relative_l1(output, silence)
    loss.backward()
    assert loss == 0
    assert torch.isfinite(output.grad).all()
    assert relative_l1(silence + 0.01, silence).item() == pytest.approx(10)


def test_relative_loss_gradient():
    """``sign(y - x) / (N std)`` per item, over the number of items; none for the target."""
    target = noise(2, 1, 50).requires_grad_()
    output = noise(2, 1, 50, seed=1).requires_grad_()
    relative_l1(output, target).backward()
    with torch.no_grad():
        deviation = (target - target.mean(2, keepdim=True)).square().mean(2, keepdim=True).sqrt()
        expected = (output - target).sign() / (deviation + 1e-3) / 50 / 2
    torch.testing.assert_close(output.grad, expected)
    assert target.grad is None
