"""Translate SuperCodec's published ``config_v1.json`` to a training config of codectool.

Values of the paper (arXiv 2407.20530) and of the reference training that the published config does
not hold are constants here. Deviations of the reference implementation from its own intention are
left out: an adversarial loss divided twice by the number of discriminators, mel bands for 16 kHz at
any rate, crops that are always the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codectool.schema import Config, from_json, to_json

SPECTRAL_WINDOWS = (32, 64, 128, 256, 512, 1024)


class PublishedConfig(Config, frozen=True):
    """The published keys; keys of type Any have no effect there or here."""

    sampling_rate: int
    strides: tuple[int, ...]
    channel_mults: tuple[int, ...]
    codebook_size: int
    codebook_dim: int
    rq_num_quantizers: int
    batch_size: int
    lr: float
    disc_lr: float
    max_epoch: int
    warmup_epoch: int
    filters: int
    segment_size: int
    num_mels: int
    n_fft: int
    hop_size: int
    win_size: int
    fmin: float
    fmax_for_loss: float | None
    seed: int
    num_workers: int = 4
    resblock: Any = None
    num_gpus: Any = None
    learning_rate: Any = None
    adam_b1: Any = None
    adam_b2: Any = None
    lr_decay: Any = None
    hop_length: Any = None
    num_freq: Any = None
    fmax: Any = None
    dist_config: Any = None


MODEL_KEYS = (
    "sampling_rate",
    "strides",
    "channel_mults",
    "codebook_size",
    "codebook_dim",
    "rq_num_quantizers",
)


def translate(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Translate the published keys; return None for another layout.

    Raises:
        ConfigError: A key is missing, unknown or of the wrong type.
    """
    if not any(key in values for key in MODEL_KEYS):
        return None
    config = from_json(PublishedConfig, values)
    adam = {"kind": "adam", "betas": [0.5, 0.9], "eps": 1e-8}
    return {
        "family": "supercodec",
        "description": "SuperCodec, from a published config",
        "model": {key: to_json(getattr(config, key)) for key in MODEL_KEYS},
        "training": {
            "segment_size": config.segment_size,
            "batch_size": config.batch_size,
            "max_epochs": config.max_epoch,
            "generator": {**adam, "learning_rate": config.lr},
            "discriminator": {**adam, "learning_rate": config.disc_lr},
            "schedule": {
                "decay": "cosine",
                "final": 0.1,
                "warmup_epochs": config.warmup_epoch,
            },
            "losses": [
                {
                    "kind": "mel",
                    "weight": 15,
                    "windows": [config.win_size],
                    "bands": [config.num_mels],
                    "fft_size": config.n_fft,
                    "hops": [config.hop_size],
                    "f_min": config.fmin,
                    "f_max": config.fmax_for_loss,
                    "padding": "same",
                    "epsilon": 1e-9,
                    "natural_log": True,
                },
                {
                    "kind": "mel",
                    "weight": 1,
                    "windows": list(SPECTRAL_WINDOWS),
                    "bands": [64] * len(SPECTRAL_WINDOWS),
                    "fft_size": 1024,
                    "power": 2,
                    "padding": "same",
                    "squared": 1,
                },
                {"kind": "waveform", "weight": 0.1},
            ],
            "auxiliary_losses": {"commitment": 1},
            "adversarial": {
                "discriminators": [
                    {
                        "kind": "complex_stft",
                        "windows": [1024, 2048, 512],
                        "channels": [config.filters] * 5,
                        "norm_first": False,
                    }
                ],
                "loss": "hinge",
                "mean": True,
                "weight": 3,
                "feature_weight": 3,
                "relative_features": True,
            },
            "sampling": "clips",
            "seed": config.seed,
            "num_workers": config.num_workers,
        },
    }
