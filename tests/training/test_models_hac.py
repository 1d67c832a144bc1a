"""HAC as it is trained."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace

from codectool.codecs.hac.config import HacConfig
from codectool.errors import CheckpointError
from codectool.training.models.hac import (
    BITS_SLOW,
    BITS_SLOW_WEIGHT,
    BITS_WEIGHT,
    ENTROPY_BOOST,
    SCALES_EVERY_STEP,
    SCALES_FREEZE,
    HacTrainee,
)
from tests.batches import decode_batch, encode_batch
from tests.training.one_batch import SAMPLE_RATE, learn, voice

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


def tiny() -> HacTrainee:
    torch.manual_seed(0)
    return HacTrainee(TINY).train()


def test_learns_one_batch_by_heart() -> None:
    distances = learn(
        tiny(), {"commitment": 0.25, "entropy": 0.36, "whiteness": 0.2}, (0.8, 0.99), 100
    )
    assert sum(distances[-5:]) / 5 < 0.5 * distances[0]


def test_every_weight_gets_a_gradient() -> None:
    trainee = tiny()
    made = trainee(voice())
    (made.audio.square().mean() + sum(made.penalties.values())).backward()
    assert set(made.penalties) == set(trainee.penalty_names)
    for name, parameter in trainee.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_inference_copy_makes_the_same() -> None:
    trainee = tiny()
    for _ in range(3):
        trainee(voice())
    before = {name: tensor.clone() for name, tensor in trainee.state_dict().items()}
    made = trainee.eval()(voice())
    codec = trainee.codec()
    assert torch.equal(encode_batch(codec, voice()), made.codes)
    audio = decode_batch(codec, made.codes)[..., : made.audio.shape[-1]]
    torch.testing.assert_close(audio, made.audio, rtol=1e-4, atol=1e-5)
    for name, tensor in trainee.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_running_statistics_follow_less_and_less() -> None:
    trainee = tiny()
    bottleneck = trainee.network.bottleneck
    norm = trainee.network.norm

    def moves(step: int, progress: float) -> bool:
        trainee.prepare(step, progress)
        return norm.updating

    assert moves(SCALES_EVERY_STEP - 1, 0.1)
    assert [moves(SCALES_EVERY_STEP + n, 0.1) for n in range(4)] == [True, False, False, False]
    assert not moves(SCALES_EVERY_STEP, SCALES_FREEZE)
    assert bottleneck.updating, "the bits' own statistics are never frozen"
    trainee.prepare(0, BITS_SLOW - 0.01)
    assert bottleneck.min_weight == BITS_WEIGHT
    trainee.prepare(0, BITS_SLOW)
    assert bottleneck.min_weight == BITS_SLOW_WEIGHT


def test_entropy_counts_double_at_the_start() -> None:
    trainee = tiny().eval()
    values = []
    for progress in (0.0, 0.05, 0.5):
        trainee.prepare(0, progress)
        values.append(float(trainee(voice()).penalties["entropy"].detach()))
    plain = values[-1]
    assert values == pytest.approx([ENTROPY_BOOST * plain, 1.5 * plain, plain])


def test_weights_for_inference_can_be_trained_further() -> None:
    trained = tiny()
    for _ in range(3):
        trained(voice())
    codec = trained.eval().codec()
    torch.manual_seed(1)
    trainee = HacTrainee(TINY).train()
    parameters = list(trainee.parameters())
    trainee.load_codec_state(codec.state_dict())
    trainee.settle(voice)
    assert trainee.training
    assert all(a is b for a, b in zip(trainee.parameters(), parameters, strict=True))
    again = trainee.codec()
    codes = encode_batch(codec, voice())
    assert torch.equal(encode_batch(again, voice()), codes)
    torch.testing.assert_close(
        decode_batch(again, codes), decode_batch(codec, codes), rtol=1e-4, atol=1e-5
    )
    # it learns on from where it stood
    loss = float((decode_batch(codec, codes)[..., :-40] - voice()[..., :-40]).abs().mean())
    made = trainee(voice())
    assert float((made.audio - made.target).abs().mean().detach()) == pytest.approx(loss, rel=0.2)


def test_weights_of_another_shape_are_refused() -> None:
    wider = HacTrainee(replace(TINY, encoder_channels=(24, 56)))
    with pytest.raises(CheckpointError, match="of the wrong shape"):
        tiny().load_codec_state(wider.codec().state_dict())
