"""Train a model on one crop of a synthetic voice."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from codectool.codecs.trainable import TrainableCodec
from codectool.training.losses.mel import MelLossConfig

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
