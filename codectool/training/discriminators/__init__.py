"""Discriminators, one file each: a config and the networks that it describes.

A new discriminator takes one file and one member of `AnyDiscriminatorConfig`.
"""

from codectool.training.discriminators.bands import FilterBandConfig
from codectool.training.discriminators.levels import LogMelConfig
from codectool.training.discriminators.periods import MultiPeriodConfig
from codectool.training.discriminators.stft import ComplexStftConfig, MagnitudeStftConfig

AnyDiscriminatorConfig = (
    MultiPeriodConfig | MagnitudeStftConfig | ComplexStftConfig | FilterBandConfig | LogMelConfig
)
