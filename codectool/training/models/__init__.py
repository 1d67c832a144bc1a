"""The codecs as they are trained, one file each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from codectool.codecs.bigcodec.config import BigCodecConfig
from codectool.codecs.hac.config import parse_config
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.errors import ConfigError

if TYPE_CHECKING:
    from codectool.training.config import TrainingConfig
    from codectool.training.trainee import Trainee


def check_model(config: TrainingConfig) -> None:
    """Check the hyper-parameters, and that the recipe goes with them.

    Raises:
        ConfigError: a hyper-parameter is wrong, or the crops do not fit the hop.
    """
    training = config.training
    try:
        hop, rate, shortest, penalties = _facts(config)
    except ConfigError as error:
        raise ConfigError(f"`model`: {error}") from error
    if training.segment_size % hop:
        near = max(shortest, round(training.segment_size / hop)) * hop
        raise ConfigError(
            f"`training.segment_size` {training.segment_size} is not a multiple of the hop length "
            f"{hop}; {near} is"
        )
    if training.segment_size < shortest * hop:
        raise ConfigError(
            f"`training.segment_size` {training.segment_size} is too short for this model, which "
            f"needs {shortest * hop} samples ({shortest * hop / rate:.2f} s)"
        )
    for number, term in enumerate(training.losses):
        f_min, f_max = getattr(term, "f_min", 0.0), getattr(term, "f_max", None)
        if f_min >= rate / 2 or (f_max or 0) > rate / 2:
            raise ConfigError(
                f"`training.losses[{number}]`: f_min or f_max is above half the sampling rate, "
                f"{rate / 2:g} Hz"
            )
    if training.dead_code_threshold and config.family != "supercodec":
        raise ConfigError(
            f"`training.dead_code_threshold`: {config.family} learns no codebook by moving "
            "averages; leave it away"
        )
    unknown = sorted(set(training.penalties) - set(penalties))
    if unknown:
        raise ConfigError(
            f"`training.penalties`: {config.family} has no penalty {unknown[0]!r}; "
            f"it has {', '.join(penalties)}"
        )


def _facts(config: TrainingConfig) -> tuple[int, int, int, tuple[str, ...]]:
    """Hop length, sampling rate, shortest crop in frames, names of penalties."""
    if config.family == "hac":
        hac = parse_config(config.model)
        penalties = ("commitment", "entropy", "whiteness")
        return hac.hop_length, hac.sample_rate, hac.delay_frames + 1, penalties
    if config.family == "bigcodec":
        big = BigCodecConfig.from_published(config.model)
        return big.hop_length, big.sample_rate, 1, ("commitment", "codebook")
    sup = SuperCodecConfig.from_published(config.model)
    return math.prod(sup.strides), sup.sampling_rate, 7, ("commitment",)


def model_rate(config: TrainingConfig) -> int:
    """Sampling rate of the model in Hz."""
    return _facts(config)[1]


def build(config: TrainingConfig) -> Trainee:
    """Make the model, its weights drawn from torch's global random numbers.

    Raises:
        ConfigError: a hyper-parameter is wrong.
    """
    if config.family == "hac":
        from codectool.training.models.hac import HacTrainee

        return HacTrainee(parse_config(config.model))
    if config.family == "bigcodec":
        from codectool.training.models.bigcodec import BigCodecTrainee

        return BigCodecTrainee(BigCodecConfig.from_published(config.model))
    from codectool.training.models.supercodec import SuperCodecTrainee

    return SuperCodecTrainee(
        SuperCodecConfig.from_published(config.model), config.training.dead_code_threshold
    )
