"""BigCodec in training: the published tokens, gradients everywhere, and back to inference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codectool.checkpoints.load import load_model
from codectool.checkpoints.native import write_model
from codectool.checkpoints.published import read_published
from codectool.codecs.bigcodec.config import BigCodecConfig, DecoderConfig, EncoderConfig
from codectool.codecs.bigcodec.model import BigCodec
from codectool.errors import CheckpointError
from codectool.training.models.bigcodec import BigCodecTrainee
from tests.conftest import GOLDEN
from tests.training.one_batch import learn

TINY = BigCodecConfig(
    sample_rate=8000,
    codec_encoder=EncoderConfig(
        ngf=4,
        up_ratios=(4, 4, 5),
        dilations=(1,),
        use_rnn=True,
        rnn_bidirectional=False,
        rnn_num_layers=1,
        out_channels=16,
    ),
    codec_decoder=DecoderConfig(
        upsample_initial_channel=32,
        up_ratios=(5, 4, 4),
        dilations=(1,),
        use_rnn=True,
        rnn_bidirectional=False,
        rnn_num_layers=1,
        in_channels=16,
        vq_dim=16,
        vq_num_quantizers=2,
        codebook_size=64,
        codebook_dim=8,
    ),
)


def tiny(seed: int = 0) -> BigCodecTrainee:
    torch.manual_seed(seed)
    return BigCodecTrainee(TINY)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(trainee: BigCodecTrainee, wave: Tensor) -> None:
    """One step of plain gradient descent."""
    made = trainee(wave)
    loss = (made.audio - made.target).abs().mean() + sum(made.penalties.values())
    loss.backward()
    with torch.no_grad():
        for parameter in trainee.parameters():
            assert parameter.grad is not None
            parameter -= 0.01 * parameter.grad
            parameter.grad = None


@pytest.fixture
def published() -> BigCodecTrainee:
    """The published layout's weights in a model for training."""
    config = json.loads((GOLDEN / "bigcodec_micro.json").read_text())
    trainee = BigCodecTrainee(BigCodecConfig.from_published(config))
    _, state, _ = read_published(GOLDEN / "bigcodec_micro.pt")
    trainee.load_codec_state(state)
    return trainee


def test_published_weights_give_the_published_tokens_and_audio(published: BigCodecTrainee) -> None:
    codec = published.codec()
    with np.load(GOLDEN / "bigcodec_micro.npz") as golden:
        for name in golden["names"]:
            wave = torch.zeros(int(golden[f"{name}/padded_len"]))
            wave[: len(golden[f"{name}/wav"])] = torch.from_numpy(golden[f"{name}/wav"])
            with torch.no_grad():
                made = published(wave.view(1, 1, -1))
                codes = codec.encode(wave.view(1, 1, -1))
            np.testing.assert_array_equal(made.codes[0].numpy(), golden[f"{name}/codes"])
            np.testing.assert_array_equal(codes[0].numpy(), golden[f"{name}/codes"])
            np.testing.assert_allclose(
                made.audio[0, 0], golden[f"{name}/rec_from_codes"], atol=1e-5
            )
            assert torch.equal(made.target[0, 0], wave)


def test_loaded_weights_can_be_trained(published: BigCodecTrainee) -> None:
    before = {name: p.detach().clone() for name, p in published.named_parameters()}
    step(published, noise(2, 1, 2000))
    still = [p for name, p in published.named_parameters() if torch.equal(p, before[name])]
    assert all(p[0].numel() == 1 for p in still)  # a direction of one number cannot turn
    assert len(still) < 5


def test_weights_of_another_model_are_refused_by_their_names() -> None:
    _, state, _ = read_published(GOLDEN / "bigcodec_micro.pt")
    trainee = tiny()
    before = {name: value.clone() for name, value in trainee.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"CodecEnc\.block\.\d.* `model` in the config"):
        trainee.load_codec_state(state)
    assert all(torch.equal(value, before[name]) for name, value in trainee.state_dict().items())


def test_codec_has_the_tokens_of_the_same_weights() -> None:
    trainee, wave = tiny(), noise(1, 1, 2000, seed=1)
    for seed in range(3):
        step(trainee, noise(2, 1, 2000, seed=seed))
    state = {name: value.clone() for name, value in trainee.state_dict().items()}
    codec = trainee.codec()
    again = BigCodec.from_state(dict(trainee.model.state_dict()), codec.hyper_parameters)
    with torch.no_grad():
        made = trainee.eval()(wave)
        codes = codec.encode(wave)
        assert torch.equal(codes, made.codes)
        assert torch.equal(codes, again.encode(wave))
        torch.testing.assert_close(codec.decode(codes), made.audio, atol=1e-5, rtol=0)
    assert not codec.training
    # neither model has anything of the other
    with torch.no_grad():
        for tensor in codec.state_dict().values():
            tensor.zero_()
    assert trainee.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in trainee.state_dict().items())
    step(trainee.train(), wave)


def test_stored_weights_are_those_of_the_codec(tmp_path: Path) -> None:
    trainee, wave = tiny(), noise(1, 1, 2000)
    step(trainee, noise(2, 1, 2000))
    write_model(tmp_path / "tiny.safetensors", trainee.stored_codec())
    loaded = load_model(tmp_path / "tiny.safetensors").model
    with torch.no_grad():
        assert torch.equal(loaded.encode(wave), trainee.codec().encode(wave))
    step(trainee, wave)


def test_every_parameter_gets_a_gradient() -> None:
    trainee = tiny()
    made = trainee(noise(2, 1, 2000))
    assert made.audio.shape == made.target.shape == (2, 1, 2000)
    assert made.codes.shape == (2, 2, 25)
    assert tuple(made.penalties) == trainee.penalty_names
    (made.audio - made.target).abs().mean().backward()
    # the reconstruction alone teaches all but the codewords, whose own loss does
    idle = {name for name, p in trainee.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == {f"model.quantizer.layers.{stage}.codebook.weight" for stage in range(2)}
    sum(trainee(noise(2, 1, 2000)).penalties.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in trainee.parameters())


def test_beginning_is_pytorchs_but_for_the_biases_of_convolutions() -> None:
    torch.manual_seed(0)
    plain = BigCodec(TINY).state_dict()
    convolutions = {
        f"{name}.bias"
        for name, module in BigCodec(TINY).named_modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
    }
    assert len(convolutions) == 22
    for name, value in tiny().model.state_dict().items():
        expected = torch.zeros_like(value) if name in convolutions else plain[name]
        assert torch.equal(value, expected), name


def test_everything_decays() -> None:
    trainee = tiny()
    assert all(trainee.decayed(name, p) for name, p in trainee.named_parameters())


def test_trains_under_autocast() -> None:
    trainee = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = trainee(noise(1, 1, 2000))
    assert made.audio.dtype == made.penalties["codebook"].dtype == torch.float32
    made.audio.square().mean().backward()
    grads = [p.grad for p in trainee.parameters() if p.grad is not None]
    assert len(grads) > 70
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_learns_one_crop() -> None:
    distances = learn(tiny(), {"commitment": 0.25, "codebook": 1.0}, (0.8, 0.9), steps=30)
    assert min(distances[-5:]) < 0.6 * distances[0]
