import torch

from codectool.codecs.hac.activations import Smu


def test_a_sharp_one_is_a_leaky_relu():
    layer = Smu(1)
    layer.mu.data.fill_(1e4)
    x = torch.tensor([[-2.0], [-0.5], [0.5], [2.0]])
    torch.testing.assert_close(layer(x), torch.where(x > 0, x, 0.25 * x))


def test_absorbs_a_scale():
    x, sigma = torch.linspace(-4, 4, 20).view(-1, 1), torch.tensor(2.5)
    layer = Smu(1)
    before = layer(x / sigma)
    layer.absorb_(sigma)
    torch.testing.assert_close(layer(x) / sigma, before)
