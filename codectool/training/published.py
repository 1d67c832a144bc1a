"""SuperCodec's released ``config_v1.json`` as a recipe of ours.

Facts of the paper (arXiv 2407.20530) and of the authors' training that their config does not hold
stand here as numbers. Left out on purpose is what their code does against its own intention: the
adversarial loss divided twice by the number of discriminators, mel bands for 16 kHz at any rate,
crops that are always the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codectool.schema import Config, from_json, to_json

SPECTRAL_WINDOWS = (32, 64, 128, 256, 512, 1024)


class PublishedConfig(Config, frozen=True):
    """The authors' keys. Those without a type are in the released file and without effect there.

    How many processes there are is what torchrun is told.
    """

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


def is_supercodec(values: Mapping[str, Any]) -> bool:
    """Whether a config has the authors' flat layout."""
    return "family" not in values and any(key in values for key in MODEL_KEYS)


def translate_supercodec(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put the authors' keys where ours are.

    Raises:
        ConfigError: a key is missing, unknown or of the wrong type.
    """
    given = from_json(PublishedConfig, values)
    adam = {"kind": "adam", "betas": [0.5, 0.9], "eps": 1e-8}
    return {
        "family": "supercodec",
        "description": "SuperCodec, from the authors' config",
        "model": {key: to_json(getattr(given, key)) for key in MODEL_KEYS},
        "training": {
            "segment_size": given.segment_size,
            "batch_size": given.batch_size,
            "max_epochs": given.max_epoch,
            "generator": {**adam, "learning_rate": given.lr},
            "discriminator": {**adam, "learning_rate": given.disc_lr},
            "schedule": {
                "decay": "cosine",
                "final": 0.1,
                "warmup_epochs": given.warmup_epoch,
            },
            "losses": [
                {
                    "kind": "mel",
                    "weight": 15,
                    "windows": [given.win_size],
                    "bands": [given.num_mels],
                    "fft_size": given.n_fft,
                    "hops": [given.hop_size],
                    "f_min": given.fmin,
                    "f_max": given.fmax_for_loss,
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
            "penalties": {"commitment": 1},
            "adversarial": {
                "discriminators": [
                    {
                        "kind": "complex_stft",
                        "windows": [1024, 2048, 512],
                        "channels": [given.filters] * 5,
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
            "seed": given.seed,
            "num_workers": given.num_workers,
        },
    }
