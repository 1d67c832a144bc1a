"""Turn folded weights into a trainable network: the inverse of `HacNetwork.fold`.

Folding loses the divisors of the features, but any divisors will do as long as the weights
compensate for them. So the folded weights are loaded with divisors and gains of 1 first. Then the
divisors are measured on speech, as in training, and the adjacent weights are scaled so that the
network computes the same function:

    act(x)    = d act'(x / d)          act' with frequency alpha d
    DW x      = (d DW) (x / d)
    narrow    = g (narrow / g)         g: norm of each row

This brings the weights to the sizes that they have in training, which matters because optimizers
such as Adam take steps of one size for all weights. The whitening stays in the projection.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from codectool.codecs.hac.blocks import Stack
from codectool.codecs.hac.layers import PointwiseMLP, RunningScale, ScaledLayer
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.spectral import BinGain
from codectool.codecs.hac.voice import VoiceTail
from codectool.codecs.hac.waveform import OutputBlock, Shift, Stem, WaveNorm
from codectool.nn.loading import copy_tensors

# Batches that the running averages are said to contain, so that the next one changes them little.
SEEN_BATCHES = 1000
TAIL = "decoder.tail."  # of the names of tensors of a decoder with a source
BATCH_SIZE = 8  # signals that are measured at once


@torch.no_grad()
def load_folded_(network: HacNetwork, state: Mapping[str, Tensor]) -> None:
    """Load the weights of a folded codec into a network, with divisors and gains of 1.

    A network with a source takes weights without one, too: the parts of the source keep their start
    values, and residual units of the decoder that the network does not have are left out.

    Args:
        network: its parameters stay the same objects, only their values change. It may lack the
            encoder.
        state: tensors of a `HacCodec` by name; without the encoder's if the network lacks it.

    Raises:
        TensorMismatchError: The tensors do not fit the network. Nothing is changed then.
    """
    copied = copy.deepcopy(network)
    decoder = copied.fold_decoder_()
    folded = nn.ModuleDict({"decoder": decoder})
    if len(network.encoder):
        folded["encoder"] = copied.fold_encoder_()
    floats = {name: tensor.float() for name, tensor in state.items()}
    *_, tail = network.decoder.blocks.values()
    if isinstance(tail, VoiceTail):
        tail.source_loaded = any(name.startswith(TAIL) for name in floats)
        if not tail.source_loaded:
            floats = _add_source(decoder, floats)
    copy_tensors(folded, floats)
    for part, stack in folded.items():
        parameters = dict(network.get_submodule(part).named_parameters())
        for name, parameter in stack.named_parameters():
            parameters[name].copy_(parameter)
    for module in network.modules():
        if isinstance(module, RunningScale):
            module.mean_square.fill_(1)
            module.count.fill_(SEEN_BATCHES)
        elif isinstance(module, PointwiseMLP) and module.gain is not None:
            module.gain.fill_(1)
    norm, restore = network.norm, decoder.blocks["restore"]
    if isinstance(norm, WaveNorm):
        assert isinstance(restore, Shift)
        norm.mean.copy_(restore.offset)
        norm.variance.fill_(1)
    else:
        assert isinstance(restore, BinGain)
        norm.mean_square.copy_(restore.gain[:, 0].square())
    norm.count.fill_(SEEN_BATCHES)
    bottleneck = network.bottleneck
    bottleneck.mean.zero_()
    for matrix in (bottleneck.covariance, bottleneck.whitening):
        matrix.copy_(torch.eye(len(matrix)))
    bottleneck.count.fill_(SEEN_BATCHES)


def _add_source(decoder: Stack, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of a codec without a source by the names of one whose decoder has it."""
    tail = decoder.blocks["tail"]
    assert isinstance(tail, VoiceTail)
    names = {name: f"middle.{name}" for name in tail.middle.blocks}
    names |= {name: f"last.{name}" for name in tail.last.blocks} | {"head": "head"}
    inherited = tuple(f"{name}." for name in names.values())
    found = {
        f"{TAIL}{name}": tensor
        for name, tensor in tail.state_dict().items()
        if not name.startswith(inherited)
    }
    for name, tensor in state.items():
        stack, block, rest = name.split(".", 2)
        if stack == "decoder" and block in names:
            found[f"{TAIL}{names[block]}.{rest}"] = tensor
        elif stack == "encoder" or block in decoder.blocks or not block.startswith("unit"):
            found[name] = tensor
    return found


@torch.no_grad()
def calibrate_(
    network: HacNetwork, waves: Tensor, passes: Iterable[Callable[[], object]] | None = None
) -> None:
    """Measure the divisors on speech and scale the weights to keep the function the same.

    It follows `load_folded_`.

    Args:
        network: the network.
        waves: a sample ``(B, 1, N)`` of the training data.
        passes: run the network on this sample; None encodes and decodes.
    """
    passes = passes or [partial(network, batch) for batch in torch.split(waves, BATCH_SIZE)]
    powers: dict[RunningScale, list[Tensor]] = {}

    def record(scale: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(scale, RunningScale)
        powers.setdefault(scale, []).append(inputs[0].float().square().mean())

    scales = [module for module in network.modules() if isinstance(module, RunningScale)]
    hooks = [scale.register_forward_pre_hook(record) for scale in scales]
    training = network.training
    network.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # do not compile again for this
            for run in passes:
                run()
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()

    for scale, values in powers.items():
        power = torch.stack(values).mean()
        scale.mean_square.copy_(torch.where(power > 1e-8, power, 1.0))
    *_, tail = network.decoder.blocks.values()
    new_source = isinstance(tail, VoiceTail) and not tail.source_loaded
    untrained = [tail.pitch, tail.source] if isinstance(tail, VoiceTail) and new_source else []
    for module in network.modules():
        if isinstance(module, ScaledLayer | PointwiseMLP) and module not in untrained:
            module.unfold_()
    if isinstance(network.norm, WaveNorm):
        _calibrate_wave_norm(network, network.norm, waves)
        if isinstance(tail, VoiceTail) and new_source:
            tail.source.start_gains_(network.norm.normalise(waves[:, 0]))


def _calibrate_wave_norm(network: HacNetwork, norm: WaveNorm, waves: Tensor) -> None:
    *_, last = network.decoder.blocks.values()
    assert isinstance(last, OutputBlock)
    variance = (waves - norm.mean).square().mean()
    norm.variance.copy_(torch.where(variance > 1e-8, variance, 1.0))
    for stem in network.encoder.blocks.values():
        if isinstance(stem, Stem):
            stem.transform.weight.mul_(norm.deviation())
    last.scale_output_(1 / norm.deviation())
