"""From folded weights back to a network that can be trained: the inverse of `HacNetwork.fold`.

Folding forgets by what features were divided, but any divisor will do, as long as the weights make
up for it. So the folded weights are first computed with as they are, with divisors and gains of 1;
then every divisor is measured on speech, as training would, and the weights next to it are scaled
so that the network stays the same function:

    act(x)                           = sigma act'(x / sigma)      act' at 1 / sigma the frequency
    DW x                             = (sigma DW) (x / sigma)
    narrow                           = g (narrow / g)             g: norm of each row

That gives each weight the size it is trained at: an optimizer like Adam takes steps of one size for
all of them. The whitening stays in the projection, whose output is white and therefore stays as it
is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from codectool.codecs.hac.blocks import Head, Stem
from codectool.codecs.hac.codec import fold
from codectool.codecs.hac.layers import Branch, Foldable, RunningScale
from codectool.codecs.hac.network import HacNetwork, Shift, WaveNorm
from codectool.codecs.hac.spectral import BinGain, BinNorm
from codectool.nn.loading import copy_tensors

# Batches that the running statistics pretend to have seen: the next one shall not replace them.
SEEN = 1000
BATCH = 8  # signals that are measured at once


@torch.no_grad()
def load_folded_(network: HacNetwork, state: Mapping[str, Tensor]) -> None:
    """Make a network the same function as the folded codec, with divisors and gains of 1.

    Args:
        network: its parameters stay what they are, only their values change.
        state: tensors of a `HacCodec` by name.

    Raises:
        TensorMismatchError: they are not those of this network. Nothing is changed then.
    """
    codec = fold(network)
    copy_tensors(codec, {name: tensor.float() for name, tensor in state.items()})
    for mine, theirs in ((network.encoder, codec.encoder), (network.decoder, codec.decoder)):
        own = dict(mine.named_parameters())
        for name, parameter in theirs.named_parameters():
            own[name].copy_(parameter)
    for module in network.modules():
        if isinstance(module, RunningScale):
            module.mean_square.fill_(1)
            module.count.fill_(SEEN)
        elif isinstance(module, Branch) and module.gain is not None:
            module.gain.fill_(1)
    _load_norm(network.norm, dict(codec.decoder.named_blocks())["restore"])
    bits = network.bottleneck
    bits.mean.zero_()
    for matrix in (bits.covariance, bits.whitening):
        matrix.copy_(torch.eye(bits.num_bits))
    bits.count.fill_(SEEN)


def _load_norm(norm: WaveNorm | BinNorm, restore: nn.Module) -> None:
    if isinstance(norm, WaveNorm):
        assert isinstance(restore, Shift)
        norm.mean.copy_(restore.offset)
        norm.variance.fill_(1)
    else:
        assert isinstance(restore, BinGain)
        norm.mean_square.copy_(restore.gain[:, 0].square())
    norm.count.fill_(SEEN)


@torch.no_grad()
def settle_(network: HacNetwork, waves: Tensor) -> None:
    """Measure the divisors on speech and scale the weights so that nothing else changes.

    Args:
        network: as `load_folded_` left it.
        waves: ``(B, 1, N)`` of such as it will be trained on.
    """
    training = network.training
    network.eval()
    powers: dict[RunningScale, list[Tensor]] = {}
    # what is compiled for training shall not be compiled once more for this
    with _inputs_of_scales(network, powers), torch.compiler.set_stance("force_eager"):
        for first in range(0, len(waves), BATCH):
            network(waves[first : first + BATCH])
    network.train(training)
    for scale, values in powers.items():
        power = torch.stack(values).mean()
        scale.mean_square.copy_(torch.where(power > 1e-8, power, 1.0))
    for module in network.modules():
        if isinstance(module, Foldable):
            module.unfold_()
    if isinstance(network.norm, WaveNorm):
        _settle_wave_norm(network, network.norm, waves)


def _settle_wave_norm(network: HacNetwork, norm: WaveNorm, waves: Tensor) -> None:
    stem = next(network.encoder.named_blocks())[1]
    head = list(network.decoder.named_blocks())[-1][1]
    assert isinstance(stem, Stem)
    assert isinstance(head, Head)
    variance = (waves - norm.mean).square().mean()
    norm.variance.copy_(torch.where(variance > 1e-8, variance, 1.0))
    stem.transform.weight.mul_(norm.deviation())
    head.entry.pointwise.weight.div_(norm.deviation())


@contextmanager
def _inputs_of_scales(
    network: HacNetwork, powers: dict[RunningScale, list[Tensor]]
) -> Iterator[None]:
    """Inside, note the mean square of whatever comes to a running scale."""

    def note(scale: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(scale, RunningScale)
        powers.setdefault(scale, []).append(inputs[0].float().square().mean())

    scales = [module for module in network.modules() if isinstance(module, RunningScale)]
    hooks = [scale.register_forward_pre_hook(note) for scale in scales]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
