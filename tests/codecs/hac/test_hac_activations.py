import pytest
import torch

from codectool.codecs.hac.activations import Smu, Snake, snake


def test_snake_matches_the_definition_of_the_paper():
    x = torch.linspace(-3, 3, 31).view(-1, 1).expand(-1, 2)
    log_alpha = torch.tensor([0.0, 1.2])
    alpha = log_alpha.exp()
    torch.testing.assert_close(snake(x, log_alpha), x + torch.sin(alpha * x) ** 2 / alpha)


def test_snake_gradient_matches_numerical_differences():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    log_alpha = torch.randn(4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(snake, (x, log_alpha), eps=1e-6, atol=1e-6)


def test_snake_keeps_bfloat16():
    x = torch.randn(2, 3, 4, dtype=torch.bfloat16, requires_grad=True)
    layer = Snake(4)
    y = layer(x)
    y.float().sum().backward()
    assert (y.dtype, x.grad.dtype, layer.log_alpha.grad.dtype) == (
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
    )


def test_smu_with_a_large_mu_is_a_leaky_relu():
    layer = Smu(1)
    layer.mu.data.fill_(1e4)
    x = torch.tensor([[-2.0], [-0.5], [0.5], [2.0]])
    torch.testing.assert_close(layer(x), torch.where(x > 0, x, 0.25 * x))


@pytest.mark.parametrize("activation", [Snake, Smu])
def test_activation_absorbs_a_division(activation):
    x, divisor = torch.linspace(-4, 4, 20).view(-1, 1), torch.tensor(2.5)
    layer = activation(1)
    before = layer(x / divisor)
    layer.absorb_division_(divisor)
    torch.testing.assert_close(layer(x) / divisor, before)
