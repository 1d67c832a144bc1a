"""BigCodec in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from codectool.checkpoints.published import read_published
from codectool.codecs.bigcodec.config import BigCodecConfig
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.bigcodec.trainable import TrainableBigCodec
from codectool.errors import CheckpointError
from codectool.training.checkpoint import load_weights
from tests.batches import encode_batch
from tests.bigcodec_configs import mirrored_config
from tests.conftest import GOLDEN
from tests.training.one_batch import (
    check_inference_model,
    check_stored_model,
    noise,
    overfit,
    step,
)

TINY = mirrored_config(
    sample_rate=8000,
    ngf=4,
    initial_channel=32,
    up_ratios=(4, 4, 5),
    dilations=(1,),
    latent_dim=16,
    rnn_layers=(1, 1),
    codebooks=(2, 64, 8),
)


def tiny(seed: int = 0) -> TrainableBigCodec:
    torch.manual_seed(seed)
    return TrainableBigCodec(TINY)


@pytest.fixture
def published() -> TrainableBigCodec:
    """A model with weights in the published layout."""
    config = json.loads((GOLDEN / "bigcodec_micro.json").read_text())
    model = TrainableBigCodec(BigCodecConfig.from_published(config))
    _, state, _ = read_published(GOLDEN / "bigcodec_micro.pt")
    load_weights(model, "bigcodec", state)
    return model


def test_published_weights_reproduce_golden_tokens_and_audio(published: TrainableBigCodec) -> None:
    codec = published.inference_model()
    with np.load(GOLDEN / "bigcodec_micro.npz") as golden:
        for name in golden["names"]:
            wave = torch.zeros(int(golden[f"{name}/padded_len"]))
            wave[: len(golden[f"{name}/wav"])] = torch.from_numpy(golden[f"{name}/wav"])
            with torch.no_grad():
                output = published(wave.view(1, 1, -1))
                codes = encode_batch(codec, wave.view(1, 1, -1))
            np.testing.assert_array_equal(codes[0].numpy(), golden[f"{name}/codes"])
            np.testing.assert_allclose(
                output.audio[0, 0], golden[f"{name}/rec_from_codes"], atol=1e-5
            )
            assert torch.equal(output.target[0, 0], wave)


def test_loaded_weights_can_be_trained(published: TrainableBigCodec) -> None:
    before = {name: p.detach().clone() for name, p in published.named_parameters()}
    step(published, noise(2, 1, 2000))
    unchanged = [p for name, p in published.named_parameters() if torch.equal(p, before[name])]
    assert all(p[0].numel() == 1 for p in unchanged)  # a direction of one value
    assert len(unchanged) < 5


def test_weights_of_another_model_are_refused_by_name() -> None:
    _, state, _ = read_published(GOLDEN / "bigcodec_micro.pt")
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"CodecEnc\.block\.\d.* `model` in the config"):
        load_weights(model, "bigcodec", state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_inference_model_matches_training_model() -> None:
    check_inference_model(tiny())


def test_stored_model_matches_inference_model(tmp_path: Path) -> None:
    check_stored_model(tiny(), tmp_path)


def test_every_parameter_gets_a_gradient() -> None:
    model = tiny()
    output = model(noise(2, 1, 2000))
    assert output.audio.shape == output.target.shape == (2, 1, 2000)
    assert tuple(output.auxiliary_losses) == model.auxiliary_loss_names
    (output.audio - output.target).abs().mean().backward()
    # the codewords get no gradient from the reconstruction, but from their own loss
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == {f"model.quantizer.layers.{stage}.codebook.weight" for stage in range(2)}
    sum(model(noise(2, 1, 2000)).auxiliary_losses.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_weights_are_initialised_like_pytorch_except_for_zero_biases() -> None:
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


def test_all_parameters_have_weight_decay() -> None:
    model = tiny()
    assert all(model.has_weight_decay(name, p) for name, p in model.named_parameters())


def test_training_under_autocast_is_float32_where_needed() -> None:
    model = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(noise(1, 1, 2000))
    assert output.audio.dtype == output.auxiliary_losses["codebook"].dtype == torch.float32
    output.audio.square().mean().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(grads) > 70
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_model_overfits_one_crop() -> None:
    distances = overfit(tiny(), {"commitment": 0.25, "codebook": 1.0}, (0.8, 0.9), steps=30)
    assert min(distances[-5:]) < 0.6 * distances[0]
