"""HAC in training."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace

from codectool.codecs.hac.config import HacConfig
from codectool.codecs.hac.trainable import (
    BITS_SLOW,
    BITS_SLOW_WEIGHT,
    BITS_WEIGHT,
    ENTROPY_BOOST,
    SCALES_EVERY_STEP,
    SCALES_FREEZE,
    TrainableHac,
)
from codectool.errors import CheckpointError
from tests.batches import decode_batch, encode_batch
from tests.training.one_batch import SAMPLE_RATE, overfit, voice

TINY = HacConfig(
    sample_rate=SAMPLE_RATE,
    num_bits=12,
    lookahead=1,
    strides=(8, 5),
    taps=4,
    kernel=5,
    token_kernel=3,
    encoder_channels=(24, 48),
    encoder_hidden=(24, 96),
    encoder_dilations=((1,), (1, 3)),
    decoder_channels=(64, 32),
    decoder_hidden=(128, 32),
    decoder_dilations=((1, 3), (1,)),
)


def tiny() -> TrainableHac:
    torch.manual_seed(0)
    return TrainableHac(TINY).train()


def test_model_overfits_one_crop() -> None:
    distances = overfit(
        tiny(), {"commitment": 0.25, "entropy": 0.36, "decorrelation": 0.2}, (0.8, 0.99), 100
    )
    assert sum(distances[-5:]) / 5 < 0.5 * distances[0]


def test_every_parameter_gets_a_gradient() -> None:
    model = tiny()
    output = model(voice())
    (output.audio.square().mean() + sum(output.auxiliary_losses.values())).backward()
    assert set(output.auxiliary_losses) == set(model.auxiliary_loss_names)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_inference_model_matches_training_model() -> None:
    model = tiny()
    for _ in range(3):
        model(voice())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    output = model.eval()(voice())
    codec = model.inference_model()
    audio = decode_batch(codec, encode_batch(codec, voice()))[..., : output.audio.shape[-1]]
    torch.testing.assert_close(audio, output.audio, rtol=1e-4, atol=1e-5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_running_statistics_slow_down_and_freeze() -> None:
    model = tiny()
    bottleneck = model.network.bottleneck
    norm = model.network.norm

    def moves(step: int, progress: float) -> bool:
        model.prepare_step(step, progress)
        return norm.updating

    assert moves(SCALES_EVERY_STEP - 1, 0.1)
    assert [moves(SCALES_EVERY_STEP + n, 0.1) for n in range(4)] == [True, False, False, False]
    assert not moves(SCALES_EVERY_STEP, SCALES_FREEZE)
    assert bottleneck.updating, "the statistics of the bits are never frozen"
    model.prepare_step(0, BITS_SLOW - 0.01)
    assert bottleneck.min_weight == BITS_WEIGHT
    model.prepare_step(0, BITS_SLOW)
    assert bottleneck.min_weight == BITS_SLOW_WEIGHT


def test_entropy_loss_is_doubled_at_the_start() -> None:
    model = tiny().eval()
    values = []
    for progress in (0.0, 0.05, 0.5):
        model.prepare_step(0, progress)
        values.append(float(model(voice()).auxiliary_losses["entropy"].detach()))
    plain = values[-1]
    assert values == pytest.approx([ENTROPY_BOOST * plain, 1.5 * plain, plain])


def test_folded_weights_can_be_trained_again() -> None:
    trained = tiny()
    for _ in range(3):
        trained(voice())
    codec = trained.eval().inference_model()
    torch.manual_seed(1)
    model = TrainableHac(TINY).train()
    parameters = list(model.parameters())
    model.load_weights(codec.state_dict())
    model.calibrate(lambda: (voice(), None))
    assert model.training
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    again = model.inference_model()
    codes = encode_batch(codec, voice())
    assert torch.equal(encode_batch(again, voice()), codes)
    torch.testing.assert_close(
        decode_batch(again, codes), decode_batch(codec, codes), rtol=1e-4, atol=1e-5
    )
    # training continues at the same loss
    loss = float((decode_batch(codec, codes)[..., :-40] - voice()[..., :-40]).abs().mean())
    output = model(voice())
    assert float((output.audio - output.target).abs().mean().detach()) == pytest.approx(
        loss, rel=0.2
    )


def test_weights_of_another_shape_are_refused() -> None:
    wider = TrainableHac(replace(TINY, encoder_channels=(24, 56)))
    with pytest.raises(CheckpointError, match="of the wrong shape"):
        tiny().load_weights(wider.inference_model().state_dict())
