"""Training of decoders with a source: two outputs, and the predictions that losses use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from codectool.codecs.hac.config import parse_config
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.source import vary
from codectool.codecs.hac.trainable import TrainableHac
from codectool.codecs.hac.voice import VoiceTail
from codectool.codecs.trainable import Reconstruction, SourcePrediction
from tests.batches import decode_batch, encode_batch
from tests.training import small


def model(**source: Any) -> TrainableHac:
    torch.manual_seed(0)
    config = parse_config(small.HAC["model"] | {"source": small.SOURCE | source})
    return TrainableHac(config).train()


def tail_of(network: HacNetwork) -> VoiceTail:
    tail = network.decoder.blocks["tail"]
    assert isinstance(tail, VoiceTail)
    return tail


def source_of(output: Reconstruction) -> SourcePrediction:
    assert output.source is not None
    return output.source


def crops() -> Tensor:
    return small.batch(2, 2000)


def test_training_gives_two_outputs_that_differ() -> None:
    output = model()(crops())
    (other,) = output.others
    assert output.audio.shape == other.shape == output.target.shape == (2, 1, 1960)
    assert (output.audio - other).abs().mean() > 1e-3


@torch.no_grad()
def test_evaluation_gives_the_output_of_the_decoder() -> None:
    network = model(sharpening=0.5).eval().network
    signs = torch.randn(2, 30, 6).sign()
    config = network.config
    expected = network.norm.restore(network.decoder(signs)[0]).mT
    delay = config.delay_frames * config.hop_length
    assert torch.equal(network.decode(signs)[0], expected[..., delay:])


def test_evaluation_gives_the_output_of_inference() -> None:
    trainable = model()
    tail = tail_of(trainable.network)
    with torch.no_grad():
        # the number of harmonics changes in steps, so that rounding is heard
        tail.pitch.out.weight[-3], tail.pitch.out.bias[-3] = 0, -20
        tail.source.gains.weight.mul_(0.1)  # far from the limits of gains
    trainable(crops())
    output = trainable.eval()(crops())
    assert output.others == ()
    codec = trainable.inference_model()
    audio = decode_batch(codec, encode_batch(codec, crops()))[..., : output.audio.shape[-1]]
    torch.testing.assert_close(audio, output.audio, rtol=1e-4, atol=1e-5)


def test_outputs_follow_the_random_generator() -> None:
    trainable, outputs = model(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(trainable.eval().train()(crops()).audio)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_every_trained_parameter_gets_a_gradient() -> None:
    trainable = model()
    torch.nn.init.normal_(tail_of(trainable.network).source.context.narrow.weight, std=0.1)
    output = trainable(crops())
    source = source_of(output)
    parts = [output.audio, *output.others, source.levels, source.pitch, source.voicing]
    losses = [part.square().mean() for part in [*parts, source.phase]]
    sum([*losses, *output.auxiliary_losses.values()]).backward()
    for name, parameter in trainable.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_only_the_low_pass_is_not_trained() -> None:
    fixed = [name for name, p in model().named_parameters() if not p.requires_grad]
    assert fixed == ["network.decoder.tail.low_pass.taps"]


def test_predictions_belong_to_the_target() -> None:
    source = source_of(model()(crops()))
    assert source.frame == 40
    assert source.pitch.shape == (2, 1960 // 40, 76)
    assert source.voicing.shape == source.phase.shape[:2] == (2, 1960 // 40)
    assert source.levels.shape == (2, 2 * 1960 // 40, 8)  # above the cutoff
    torch.testing.assert_close(source.bands.sum(0), torch.ones(8))


@torch.no_grad()
def test_levels_are_those_of_the_samples() -> None:
    """Noise of known gains has the power that the levels state, where they state it."""
    trainable = model()
    trainable(0.1 * crops())  # the scale of samples counts, too
    tail = tail_of(trainable.network)
    tail.source.gains.weight.zero_()
    tail.source.gains.bias.view(2, 2, -1)[:, 0] = -20
    tail.source.gains.bias.view(2, 2, -1)[:, 1] = -1
    tail.head.entry.pointwise.weight.zero_()
    output = trainable.eval()(crops())
    level = output.audio[..., 200:].square().mean().log() / 2
    assert level == pytest.approx(float(source_of(output).levels.mean()), abs=0.2)


def test_varied_tracks_keep_voicing_and_differ_slightly_in_pitch() -> None:
    track = torch.stack([torch.zeros(500), torch.full((500,), 0.01), torch.rand(500)], -1)[None]
    torch.manual_seed(0)
    phase, frequency, voicing = vary(track, 160).unbind(-1)
    assert torch.equal(voicing, track[..., 2])
    assert 0.005 < (frequency / 0.01 - 1).square().mean().sqrt() < 0.03
    steps = (phase[:, 1:] - phase[:, :-1] - 160 * (frequency[:, :-1] - 0.01)).remainder(1)
    torch.testing.assert_close(steps.minimum(1 - steps), torch.zeros(1, 499), atol=1e-5, rtol=0)
    assert phase.min() >= 0
    assert phase.max() < 1


@torch.no_grad()
def test_source_starts_at_the_levels_of_speech() -> None:
    """Weights without a source: its parts start with the levels of the training audio."""
    torch.manual_seed(0)
    codec = TrainableHac(parse_config(small.HAC["model"])).inference_model()
    trainable = model()
    trainable.load_weights(codec.state_dict())
    trainable.calibrate(lambda: (0.1 * small.batch(8, 4000), None))
    tail = tail_of(trainable.network)
    assert tail.pitch.scale.mean_square != 1
    tail.head.entry.pointwise.weight.zero_()  # hear the source alone
    output = trainable.eval()(0.1 * crops())
    difference = output.audio[..., 200:].std().log() - output.target.std().log()
    assert -2.5 < float(difference) < 1  # low bands are left to the network


def test_sharpening_is_for_inference_only() -> None:
    outputs = []
    for sharpening in (0.0, 2.0):
        trainable = model(sharpening=sharpening)
        torch.manual_seed(1)
        outputs.append((trainable(crops()).audio, trainable.eval()(crops()).audio))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert not torch.equal(outputs[0][1], outputs[1][1])
