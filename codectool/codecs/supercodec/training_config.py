"""Translate SuperCodec's published ``config_v1.json`` to a training config of codectool.

What the published config does not hold is taken from the bundled config, which follows the paper
(arXiv 2407.20530) and the reference training, except for what contradicts its own intention: an
adversarial loss divided twice by the number of discriminators, mel bands for 16 kHz at any rate,
crops that are always the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from codectool.schema import Config, from_json, to_json


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
    bundled = files("codectool") / "configs" / "supercodec.json"
    training = json.loads(bundled.read_bytes())["training"]
    training |= {
        "segment_size": config.segment_size,
        "batch_size": config.batch_size,
        "max_epochs": config.max_epoch,
        "seed": config.seed,
        "num_workers": config.num_workers,
    }
    training["generator"]["learning_rate"] = config.lr
    training["discriminator"]["learning_rate"] = config.disc_lr
    training["schedule"]["warmup_epochs"] = config.warmup_epoch
    training["losses"][0] |= {
        "windows": [config.win_size],
        "bands": [config.num_mels],
        "fft_size": config.n_fft,
        "hops": [config.hop_size],
        "f_min": config.fmin,
        "f_max": config.fmax_for_loss,
    }
    training["adversarial"]["discriminators"][0]["channels"] = [config.filters] * 5
    return {
        "family": "supercodec",
        "description": "SuperCodec, from a published config",
        "model": {key: to_json(getattr(config, key)) for key in MODEL_KEYS},
        "training": training,
    }
