"""Train a model on one batch, and compare it with its forms for inference and storage."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from codectool.checkpoints.load import load_model
from codectool.checkpoints.native import write_model
from codectool.codecs.trainable import TrainableCodec
from codectool.training.losses.mel import MelLossConfig
from tests.batches import decode_batch, encode_batch

SAMPLE_RATE = 8000


def voice(num_samples: int = 4000) -> Tensor:
    """Harmonics of a varying pitch under two formants: ``(1, 1, N)``."""
    time = torch.arange(num_samples) / SAMPLE_RATE
    pitch = 120 + 30 * torch.sin(2 * math.pi * 1.5 * time)
    phase = 2 * math.pi * torch.cumsum(pitch, 0) / SAMPLE_RATE
    wave = torch.zeros(num_samples)
    for k in range(1, 25):
        formants = math.exp(-(((k * 120 - 500) / 400) ** 2))
        formants += 0.3 * math.exp(-(((k * 120 - 1500) / 300) ** 2))
        wave += 0.1 * formants * torch.cos(k * phase)
    return (wave * (0.55 + 0.45 * torch.sin(2 * math.pi * 3 * time - 1))).view(1, 1, -1)


def overfit(
    model: TrainableCodec, weights: dict[str, float], betas: tuple[float, float], steps: int
) -> list[float]:
    """Train on the voice; return the mel loss of each step."""
    config = MelLossConfig(weight=1, windows=(128, 512), bands=(20, 40), mean=True)
    mel = config.build(SAMPLE_RATE)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=betas)
    wave, distances = voice(), []
    for _ in range(steps):
        output = model(wave)
        distance = mel(output.audio, output.target)
        loss = 15 * distance + (output.audio - output.target).abs().mean()
        for name, weight in weights.items():
            loss = loss + weight * output.auxiliary_losses[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distances.append(distance.item())
    return distances


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(model: TrainableCodec, wave: Tensor) -> None:
    """One step of plain gradient descent."""
    output = model(wave)
    loss = (output.audio - output.target).abs().mean() + sum(output.auxiliary_losses.values())
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter -= 0.01 * parameter.grad
            parameter.grad = None


def check_inference_model(model: TrainableCodec) -> None:
    """Check that training and inference compute the same and share no tensors."""
    wave = noise(1, 1, 2000, seed=1)
    for seed in range(3):
        step(model, noise(2, 1, 2000, seed=seed))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    codec = model.inference_model()
    again = type(model.model).from_state(dict(model.model.state_dict()), codec.hyper_parameters)
    with torch.no_grad():
        output = model.eval()(wave)
        codes = encode_batch(codec, wave)
        assert torch.equal(codes, encode_batch(again, wave))
        torch.testing.assert_close(decode_batch(codec, codes), output.audio, atol=1e-5, rtol=0)
        assert not codec.training
        for tensor in codec.state_dict().values():
            tensor.zero_()
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    step(model.train(), wave)


def check_stored_model(model: TrainableCodec, folder: Path) -> None:
    """Check that a stored and loaded model has the tokens of the inference model."""
    wave = noise(1, 1, 2000)
    step(model, noise(2, 1, 2000))
    write_model(folder / "tiny.safetensors", model.stored_model())
    loaded = load_model(folder / "tiny.safetensors").model
    with torch.no_grad():
        assert torch.equal(encode_batch(loaded, wave), encode_batch(model.inference_model(), wave))
    step(model, wave)
