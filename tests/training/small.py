"""Small configs and speech, so that a run takes a moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from msgspec.structs import replace

from codectool.training.config import RunConfig, override, parse

HAC: dict[str, Any] = {
    "family": "hac",
    "model": {
        "kind": "waveform",
        "sample_rate": 8000,
        "num_bits": 6,
        "lookahead": 1,
        "strides": [8, 5],
        "taps": 2,
        "kernel": 3,
        "token_kernel": 3,
        "encoder_channels": [6, 8],
        "encoder_hidden": [8, 12],
        "encoder_dilations": [[1], [1]],
        "decoder_channels": [8, 6],
        "decoder_hidden": [12, 8],
        "decoder_dilations": [[1], [1]],
    },
    "training": {
        "segment_size": 800,
        "batch_size": 4,
        "max_steps": 12,
        "generator": {
            "kind": "adamw",
            "learning_rate": 1e-3,
            "betas": [0.8, 0.99],
            "weight_decay": 0.01,
        },
        "schedule": {"decay": "cosine", "final": 0.05, "warmup_steps": 3},
        "losses": [
            {"kind": "mel", "weight": 10, "windows": [256, 64], "bands": [16, 8], "mean": True},
            {"kind": "waveform", "weight": 1, "relative": True},
        ],
        "auxiliary_losses": {"commitment": 0.25, "entropy": 1.44},
        "clip_norm": 5.0,
        "ema": 0.99,
        "gain_db": [-6, 3],
        "start_padding_prob": 0.2,
        "seed": 7,
        "num_workers": 0,
        "log_every": 2,
        "validate_every": 1000,
        "save_every": 1000,
        "valid_clips": 2,
        "keep": 2,
    },
}

# A source for the decoder of HAC, controlled by its first stage (frames of 40 samples).
SOURCE: dict[str, Any] = {
    "stage": 0,
    "cutoff": 500.0,
    "pitch_hidden": 8,
    "pitch_kernel": 3,
    "pitch_bins": 76,
    "hidden": 8,
    "bands": 12,
    "fft_size": 64,
    "filter_delay": 16,
    "context": 4,
}

# All discriminators, balanced, from the second half of a run.
ADVERSARIAL: dict[str, Any] = {
    "discriminators": [
        {"kind": "complex_stft", "windows": [64, 128], "channels": [2, 2, 2, 2, 2]},
        {"kind": "filter_bands", "bands": [1, 2], "channels": [2, 2, 2, 2, 2]},
        {"kind": "periods", "periods": [2, 3], "channels": 2, "factor": 1},
        {"kind": "magnitude_stft", "fft_sizes": [64], "channels": 2, "max_channels": 4},
    ],
    "loss": "hinge",
    "start": 0.5,
    "segment_size": 400,
    "mean": True,
    "balance": {"mel": 0.5, "waveform": 0.05, "adversarial": 1.0, "features": 1.0},
}

# The same with one discriminator.
ONE_DISCRIMINATOR: dict[str, Any] = {
    **ADVERSARIAL,
    "discriminators": ADVERSARIAL["discriminators"][:1],
}

SUPERCODEC: dict[str, Any] = {
    "family": "supercodec",
    "model": {
        "sampling_rate": 8000,
        "strides": [4, 5],
        "channel_mults": [1, 1],
        "codebook_size": 16,
        "codebook_dim": 8,
        "rq_num_quantizers": 2,
    },
    "training": {
        **HAC["training"],
        "segment_size": 400,
        "batch_size": 2,
        "auxiliary_losses": {"commitment": 1},
        # 40 vectors per batch over 16 codewords: some codewords die in every run
        "dead_code_threshold": 0.5,
        "ema": None,
    },
}

BIGCODEC: dict[str, Any] = {
    "family": "bigcodec",
    "model": {
        "sample_rate": 8000,
        "codec_encoder": {
            "ngf": 2,
            "up_ratios": [4, 5],
            "dilations": [1],
            "use_rnn": False,
            "rnn_bidirectional": False,
            "rnn_num_layers": 1,
            "out_channels": 8,
        },
        "codec_decoder": {
            "upsample_initial_channel": 8,
            "up_ratios": [5, 4],
            "dilations": [1],
            "use_rnn": False,
            "rnn_bidirectional": False,
            "rnn_num_layers": 1,
            "in_channels": 8,
            "vq_dim": 8,
            "vq_num_quantizers": 1,
            "codebook_size": 16,
            "codebook_dim": 4,
        },
    },
    "training": {
        **HAC["training"],
        "segment_size": 400,
        "auxiliary_losses": {"commitment": 0.25, "codebook": 1},
    },
}


def config(values: Mapping[str, Any] = HAC, *settings: str, **training: Any) -> RunConfig:
    """A config with other values of ``training``, or with ``key=value`` settings."""
    changed = {**values, "training": {**values["training"], **training}}
    return parse(override(changed, settings))


def with_data(config: RunConfig, train: Path, valid: Path | None = None) -> RunConfig:
    from codectool.training.config import DataConfig

    return replace(config, data=DataConfig(str(train), None if valid is None else str(valid)))


def speech(folder: Path, count: int = 6, rate: int = 8000, seconds: float = 0.8) -> Path:
    """Write clips of a voice-like signal to a new folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    for number in range(count):
        time = np.arange(int(rate * seconds * (1 + number / count))) / rate
        soundfile.write(folder / f"{number}.wav", _voice(time, rng).astype(np.float32), rate)
    return folder


def _voice(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Harmonics of a gliding pitch under syllables, and a little noise."""
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 3) * time))
    phase = 2 * np.pi * np.cumsum(pitch) * (time[1] - time[0])
    tones = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 9))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * time), 0, None)
    return 0.15 * syllables * tones + 0.003 * rng.normal(size=len(time))


def write(path: Path, values: RunConfig | Mapping[str, Any]) -> Path:
    """Write a config as JSON."""
    content = values.to_json() if isinstance(values, RunConfig) else values
    path.write_text(json.dumps(content))
    return path


def batch(count: int = 4, length: int = 800, seed: int = 0) -> torch.Tensor:
    """Crops ``(B, 1, N)`` at 8 kHz."""
    rng = np.random.default_rng(seed)
    time = np.arange(length + 400) / 8000
    waves = np.stack([_voice(time, rng)[400:] for _ in range(count)])
    return torch.from_numpy(waves.astype(np.float32))[:, None]


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Return the paths at which two nests of tensors and values differ, bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return [] if same and torch.equal(_bytes(one), _bytes(other)) else [path]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return [f"{path}: keys"]
        return [bad for key in one for bad in differing(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [f"{path}: length"]
        pairs = enumerate(zip(one, other, strict=True))
        return [bad for i, (a, b) in pairs for bad in differing(a, b, f"{path}[{i}]")]
    return [] if one == other else [f"{path}: {one!r} != {other!r}"]


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)
