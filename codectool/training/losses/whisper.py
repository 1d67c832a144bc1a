"""Whisper loss: distance of hidden states of a frozen Whisper encoder (arXiv 2212.04356).

The weights of the encoder come from a local folder; nothing is downloaded.

In this file P are positions of the encoder, D its width.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.errors import CheckpointError, ConfigError, UsageError
from codectool.schema import Size
from codectool.training.losses.adversarial import feature_matching
from codectool.training.losses.base import Loss, LossConfig
from codectool.training.losses.mel import MelSpectrum, mel_bands
from codectool.training.losses.spectrum import Spectrum

SAMPLE_RATE = 16000  # of Whisper's input
FFT_SIZE, HOP = 400, 160


class WhisperLossConfig(LossConfig, tag="whisper", frozen=True, kw_only=True):
    """Distance of the hidden states of a frozen Whisper encoder (HAC ver. 01).

    Attributes:
        folder: local folder of a Whisper model in the layout of ``transformers``.
        blocks: number of encoder blocks whose outputs are compared.
    """

    folder: str
    blocks: Size = 4

    @override
    def build(self, sample_rate: int) -> WhisperLoss:
        return WhisperLoss(self, sample_rate)


class WhisperLoss(Loss):
    """Mean over blocks l of ``mean |h_l(y) - h_l(x)| / mean |h_l(x)|``, h_l their outputs.

    The signals pass Whisper's own log-mel, the two convolutions and the first blocks. The table of
    positions is cut to the length of the signal; Whisper pads the signal to 30 s instead. A crop of
    1 s has 50 positions.

    The encoder's weights get no gradient and stay in evaluation mode.

    Raises:
        UsageError: ``transformers`` is not installed, or torchaudio, which resamples the signals,
            does not load with this version of torch.
        CheckpointError: The folder holds no Whisper model that can be read.
        ConfigError: The model has fewer blocks; in `forward`, the signals are too short or long.
    """

    def __init__(self, config: WhisperLossConfig, sample_rate: int) -> None:
        super().__init__()
        encoder = _load_encoder(Path(config.folder))
        if config.blocks > len(encoder.layers):
            raise ConfigError(
                f"Whisper loss: {config.blocks} blocks were asked for; the model in "
                f"{config.folder} has {len(encoder.layers)}"
            )
        self._resample = _resampler(sample_rate)
        self.conv1: nn.Module = encoder.conv1
        self.conv2: nn.Module = encoder.conv2
        self.positions: nn.Embedding = encoder.embed_positions
        self.blocks = nn.ModuleList(encoder.layers[: config.blocks])
        self.mel = LogMel(encoder.conv1.in_channels)
        self.requires_grad_(False)
        self.train(False)

    @override
    def train(self, mode: bool = True) -> WhisperLoss:
        return super().train(False)  # never in training mode: the measure must not change

    @override
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            real = self.hidden_states(target)
        return feature_matching([real], [self.hidden_states(output)], relative=True, mean=True)

    def hidden_states(self, signal: Tensor) -> list[Tensor]:
        """Return the outputs ``(B, P, D)`` of each block for ``(B, N)``, a position per 20 ms."""
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(self.mel(self._resample(signal)))))).mT
        length, longest = hidden.shape[1], self.positions.num_embeddings
        if length > longest:
            raise ConfigError(
                f"Whisper loss: crops of {length / 50:g} s are longer than the {longest / 50:g} s "
                "that the model accepts; use shorter crops"
            )
        hidden = hidden + self.positions.weight[:length]
        states = []
        for block in self.blocks:
            hidden = block(hidden, None)
            states.append(hidden)
        return states


class LogMel(nn.Module):
    """Whisper's input: signals ``(B, N)`` at 16 kHz to ``(B, bands, T)`` with ``T = N // 160``.

    Decimal logarithms of the power in the bands, at most 80 dB below each signal's loudest value,
    then ``(x + 4) / 4``.
    """

    def __init__(self, num_bands: int) -> None:
        super().__init__()
        spectrum = Spectrum(FFT_SIZE, FFT_SIZE, HOP, power=2, padding=FFT_SIZE // 2)
        self.mel = MelSpectrum(spectrum, mel_bands(FFT_SIZE, num_bands, SAMPLE_RATE))

    def forward(self, signal: Tensor) -> Tensor:
        """Return the input of the encoder for ``(B, N)``."""
        mel: Tensor = self.mel(signal)
        mel = mel[:, : signal.shape[-1] // HOP].mT  # the last frame is centred on the end
        level = mel.clamp(min=1e-10).log10()
        level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - 8)
        return (level + 4) / 4


def _resampler(sample_rate: int) -> Callable[[Tensor], Tensor]:
    """Return a differentiable conversion of signals ``(B, N)`` to Whisper's sampling rate.

    torchaudio is imported only here: 2.11 is its last version, and its compiled part does not load
    with every version of torch.
    """
    if sample_rate == SAMPLE_RATE:
        return lambda signal: signal
    try:
        functional = importlib.import_module("torchaudio.functional")
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"the Whisper loss resamples with torchaudio, which does not load with torch "
            f"{torch.__version__}: {str(error).splitlines()[0]:.120}; use torch 2.14 or earlier, "
            f"or a codec at {SAMPLE_RATE} Hz"
        ) from error
    return partial(functional.resample, orig_freq=sample_rate, new_freq=SAMPLE_RATE)


def _load_encoder(folder: Path) -> Any:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError(
            "the Whisper loss needs `transformers`: pip install 'codectool[whisper]'"
        ) from error
    # Checked here because `transformers` takes a missing folder for a name on the web and fills
    # the weights of another kind of model with random numbers.
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: no Whisper model: config.json is missing or names no model type; give a "
            "folder saved by `transformers` with config.json and model.safetensors"
        ) from error
    if kind != "whisper":
        raise CheckpointError(f"{folder}: a model of type {kind}; the Whisper loss needs `whisper`")
    try:
        model, report = transformers.WhisperModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # transformers raises anything for files that do not fit
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{folder}: the Whisper model cannot be read: {reason[0] if reason else error!r}"
        ) from error
    missing = sorted(name for name in report["missing_keys"] if name.startswith("encoder."))
    if missing:
        raise CheckpointError(
            f"{folder}: the Whisper model lacks {len(missing)} weights of its encoder, such as "
            f"{missing[0]}; save or download the folder again"
        )
    return model.encoder
