"""Reconstruction losses, one file each: a config and the loss that it describes.

A new loss takes one file and one member of `AnyLossConfig`.
"""

from codectool.training.losses.energy_distance import EnergyDistanceLossConfig
from codectool.training.losses.envelope import EnvelopeLossConfig
from codectool.training.losses.mel import MelLossConfig
from codectool.training.losses.modulation import ModulationLossConfig
from codectool.training.losses.phase_coherence import PhaseCoherenceLossConfig
from codectool.training.losses.pitch import PitchLossConfig
from codectool.training.losses.source_level import SourceLevelLossConfig
from codectool.training.losses.stft import StftLossConfig
from codectool.training.losses.waveform import WaveformLossConfig
from codectool.training.losses.whisper import WhisperLossConfig

AnyLossConfig = (
    MelLossConfig
    | StftLossConfig
    | PhaseCoherenceLossConfig
    | EnvelopeLossConfig
    | WaveformLossConfig
    | WhisperLossConfig
    | EnergyDistanceLossConfig
    | ModulationLossConfig
    | PitchLossConfig
    | SourceLevelLossConfig
)
