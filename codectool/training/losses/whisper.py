"""A perceptual distance: what the first layers of Whisper's encoder make of two signals.

The encoder is that of "Robust Speech Recognition via Large-Scale Weak Supervision"
(arXiv 2212.04356). Its weights come from a local folder; nothing is ever downloaded.

Letters used in shapes: B batch, N samples, T mel frames, M bands, P positions, D width.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
import torchaudio.functional as audio_functional
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.errors import CheckpointError, ConfigError, UsageError
from codectool.training.losses.adversarial import feature_matching
from codectool.training.losses.spectral import MelScale, MelSpectrum

WHISPER_RATE = 16000
FFT_SIZE, HOP = 400, 160


class WhisperDistance(nn.Module):
    """Mean over blocks of ``mean |h_l(y) - h_l(x)| / mean |h_l(x)|``, h_l the l-th block's output.

    The signals go through Whisper's own log-mel, the two convolutions and the first blocks. The
    table of positions is cut to the length of the signal, instead of filling the signal up to 30 s
    as Whisper does: a crop of 1 s has 50 positions. HAC ver. 01's perceptual loss.

    The encoder's weights get no gradient and stay in evaluation mode.

    Args:
        folder: of a Whisper model in the format of `transformers`: ``config.json`` and weights as
            safetensors.
        sample_rate: of the signals, in Hz.
        num_blocks: how many blocks take part.

    Raises:
        UsageError: `transformers` is not installed.
        CheckpointError: the folder holds no Whisper model that can be read.
        ConfigError: the model has fewer blocks; in `forward`, signals too short or too long.
    """

    def __init__(self, folder: Path, sample_rate: int, num_blocks: int = 4) -> None:
        super().__init__()
        encoder = _load_encoder(folder)
        if not 1 <= num_blocks <= len(encoder.layers):
            raise ConfigError(
                f"Whisper loss: {num_blocks} blocks were asked for; the model in {folder} has 1 to "
                f"{len(encoder.layers)}"
            )
        self.sample_rate = sample_rate
        self.conv1: nn.Module = encoder.conv1
        self.conv2: nn.Module = encoder.conv2
        self.positions: nn.Embedding = encoder.embed_positions
        self.blocks = nn.ModuleList(encoder.layers[:num_blocks])
        self.mel = LogMel(encoder.conv1.in_channels)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> WhisperDistance:
        """Stay in evaluation mode: a measure must not change while it is used."""
        return super().train(False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of ``(B, 1, N)`` from ``(B, 1, N)``, a scalar; no gradient to the target."""
        with torch.autocast(output.device.type, enabled=False):
            with torch.no_grad():
                real = self.hidden_states(target)
            return feature_matching([real], [self.hidden_states(output)], relative=True, mean=True)

    def hidden_states(self, wave: Tensor) -> list[Tensor]:
        """Outputs ``(B, P, D)`` of each block for ``(B, 1, N)``, one position for 20 ms."""
        signal = audio_functional.resample(wave.squeeze(1).float(), self.sample_rate, WHISPER_RATE)
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(self.mel(signal))))).mT
        length, longest = hidden.shape[1], self.positions.num_embeddings
        if length > longest:
            raise ConfigError(
                f"Whisper loss: crops of {length / 50:g} s are longer than the {longest / 50:g} s "
                "that the model knows; use shorter crops"
            )
        hidden = hidden + self.positions.weight[:length]
        states = []
        for block in self.blocks:
            hidden = block(hidden, None)
            states.append(hidden)
        return states


class LogMel(nn.Module):
    """Whisper's input: signals ``(B, N)`` at 16 kHz to ``(B, M, T)`` with ``T = N // 160``.

    Decimal logarithms of the power in the bands, at most 80 dB below each signal's loudest value,
    then ``(x + 4) / 4``.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        scale = MelScale(FFT_SIZE, FFT_SIZE, HOP, bands, power=2, padding=FFT_SIZE // 2)
        self.mel = MelSpectrum(scale, WHISPER_RATE)

    def forward(self, signal: Tensor) -> Tensor:
        """Analyse ``(B, N)``."""
        mel: Tensor = self.mel(signal)
        mel = mel[:, : signal.shape[-1] // HOP].mT  # the last frame is centred on the end
        level = mel.clamp(min=1e-10).log10()
        level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - 8)
        return (level + 4) / 4


def _load_encoder(folder: Path) -> Any:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError(
            "the Whisper loss needs `transformers`: pip install 'codectool[whisper]'"
        ) from error
    # Asked first, since `transformers` takes a folder that is not there for a name on the web and
    # fills the weights of a model of another kind with random numbers.
    config = folder / "config.json"
    try:
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
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
    except Exception as error:  # there is no end to what it raises for files that do not fit
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{folder}: the Whisper model cannot be read: {reason[0] if reason else error!r}"
        ) from error
    missing = sorted(name for name in report["missing_keys"] if name.startswith("encoder."))
    if missing:
        raise CheckpointError(
            f"{folder}: the Whisper model lacks {len(missing)} weights of its encoder, such as "
            f"{missing[0]}; get the folder anew"
        )
    return model.encoder
