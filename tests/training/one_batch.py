"""Can a model learn one crop by heart? A synthetic voice, a loss, and the loop around them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from codectool.training.losses.spectral import LogMelDistance, MelScale
from codectool.training.trainee import Trainee

SAMPLE_RATE = 8000


def voice(num_samples: int = 4000) -> Tensor:
    """Harmonics of a wavering pitch under two formants, rising and falling: ``(1, 1, N)``."""
    time = torch.arange(num_samples) / SAMPLE_RATE
    pitch = 120 + 30 * torch.sin(2 * math.pi * 1.5 * time)
    phase = 2 * math.pi * torch.cumsum(pitch, 0) / SAMPLE_RATE
    wave = torch.zeros(num_samples)
    for k in range(1, 25):
        formants = math.exp(-(((k * 120 - 500) / 400) ** 2))
        formants += 0.3 * math.exp(-(((k * 120 - 1500) / 300) ** 2))
        wave += 0.1 * formants * torch.cos(k * phase)
    return (wave * (0.55 + 0.45 * torch.sin(2 * math.pi * 3 * time - 1))).view(1, 1, -1)


def learn(
    trainee: Trainee, penalties: dict[str, float], betas: tuple[float, float], steps: int
) -> list[float]:
    """Train on the voice alone; the mel distance of every step."""
    scales = [
        MelScale(fft_size=128, window=128, hop=32, bands=20),
        MelScale(fft_size=512, window=512, hop=128, bands=40),
    ]
    mel = LogMelDistance(SAMPLE_RATE, scales, mean=True)
    optimizer = torch.optim.Adam(trainee.parameters(), lr=3e-3, betas=betas)
    wave, distances = voice(), []
    for _ in range(steps):
        made = trainee(wave)
        distance = mel(made.audio, made.target)
        loss = 15 * distance + (made.audio - made.target).abs().mean()
        for name, weight in penalties.items():
            loss = loss + weight * made.penalties[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distances.append(distance.item())
    return distances
