"""SuperCodec's released ``config_v1.json`` as a recipe of ours.

Facts of the paper (arXiv 2407.20530) and of the authors' training that their config does not hold
stand here as numbers. Left out on purpose is what their code does against its own intention: the
adversarial loss divided twice by the number of discriminators, mel bands for 16 kHz at any rate,
crops that are always the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codectool.errors import ConfigError

MODEL_KEYS = (
    "sampling_rate",
    "strides",
    "channel_mults",
    "codebook_size",
    "codebook_dim",
    "rq_num_quantizers",
)
TRAINING_KEYS = (
    "batch_size",
    "lr",
    "disc_lr",
    "max_epoch",
    "warmup_epoch",
    "filters",
    "segment_size",
    "num_mels",
    "n_fft",
    "hop_size",
    "win_size",
    "fmin",
    "fmax_for_loss",
    "seed",
)
# Present in the released file and without effect there. How many processes there are is what
# torchrun is told.
UNUSED_KEYS = (
    "resblock",
    "num_gpus",
    "learning_rate",
    "adam_b1",
    "adam_b2",
    "lr_decay",
    "hop_length",
    "num_freq",
    "fmax",
    "dist_config",
)
SPECTRAL_WINDOWS = (32, 64, 128, 256, 512, 1024)


def is_supercodec(values: Mapping[str, Any]) -> bool:
    """Whether a config has the authors' flat layout."""
    return "family" not in values and "rq_num_quantizers" in values


def translate_supercodec(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put the authors' keys where ours are; their types are checked there.

    Raises:
        ConfigError: a key is missing or unknown.
    """
    known = {*MODEL_KEYS, *TRAINING_KEYS, *UNUSED_KEYS, "num_workers"}
    for key in (*MODEL_KEYS, *TRAINING_KEYS):
        if key not in values:
            raise ConfigError(f"key `{key}` is missing")
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"unknown key `{unknown[0]:.60}`")
    adam = {"kind": "adam", "betas": [0.5, 0.9], "eps": 1e-8}
    return {
        "family": "supercodec",
        "description": "SuperCodec, from the authors' config",
        "model": {key: values[key] for key in MODEL_KEYS},
        "training": {
            "segment_size": values["segment_size"],
            "batch_size": values["batch_size"],
            "max_epochs": values["max_epoch"],
            "generator": {**adam, "learning_rate": values["lr"]},
            "discriminator": {**adam, "learning_rate": values["disc_lr"]},
            "schedule": {
                "decay": "cosine",
                "final": 0.1,
                "warmup_epochs": values["warmup_epoch"],
            },
            "losses": [
                {
                    "kind": "mel",
                    "weight": 15,
                    "windows": [values["win_size"]],
                    "bands": [values["num_mels"]],
                    "fft_size": values["n_fft"],
                    "hops": [values["hop_size"]],
                    "f_min": values["fmin"],
                    "f_max": values["fmax_for_loss"],
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
                        "channels": [values["filters"]] * 5,
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
            "seed": values["seed"],
            "num_workers": values.get("num_workers", 4),
        },
    }
