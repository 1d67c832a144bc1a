"""Spectrograms as arrays of pixels, without a plotting library."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

WINDOW_SECONDS = 0.04
HOP_SECONDS = 0.01
NUM_BANDS = 80
RANGE_DB = 80.0  # from the loudest point of the reference down to black
LARGEST_WIDTH = 1200  # in pixels, of which one is a hop or several
ZOOM = 2
GAP = 4  # white rows between the two pictures

# Dark to light, evenly spaced; lightness grows steadily, so that it also reads without colour.
ANCHORS = (
    (0, 0, 4),
    (28, 16, 68),
    (79, 18, 123),
    (129, 37, 129),
    (181, 54, 122),
    (229, 80, 100),
    (251, 135, 97),
    (254, 194, 135),
    (252, 253, 191),
)


def color_map() -> npt.NDArray[np.uint8]:
    """256 colours ``(256, 3)`` between the anchors."""
    places = np.linspace(0, 255, len(ANCHORS))
    channels = [np.interp(np.arange(256), places, channel) for channel in np.array(ANCHORS).T]
    colors: npt.NDArray[np.uint8] = np.stack(channels, axis=-1).round().astype(np.uint8)
    return colors


def log_mel(wave: Tensor, rate: int) -> Tensor:
    """Mel spectrogram in dB for looking at: 40 ms Hann windows every 10 ms, 80 bands.

    Args:
        wave: float ``(N,)``.
        rate: sampling rate in Hz.

    Returns:
        ``(80, 1 + N // hop)``, low bands first.
    """
    window, hop = 2 * round(rate * WINDOW_SECONDS / 2), max(1, round(rate * HOP_SECONDS))
    wave = wave.detach().float().cpu()
    spectrum = torch.stft(
        F.pad(
            wave, (window // 2, window // 2)
        ),  # zeros: a reflection needs half a window of signal
        window,
        hop,
        window=torch.hann_window(window),
        center=False,
        return_complex=True,
    )
    # 0 dB is a sine of full scale
    power = (spectrum * 2 / (window / 2)).abs().square()
    bands = melscale_fbanks(
        window // 2 + 1, 0.0, rate / 2, NUM_BANDS, rate, norm=None, mel_scale="slaney"
    )
    return 10 * torch.log10((bands.T @ power).clamp(min=1e-10))


def spectrogram_pair(reference: Tensor, output: Tensor, rate: int) -> npt.NDArray[np.uint8]:
    """Log-mel spectrograms of a signal and of what became of it, one above the other.

    Both have one scale: white is the loudest point of the reference, black 80 dB below it.

    Args:
        reference: float ``(N,)``, shown above.
        output: float ``(N',)``, shown below; cut or filled up with silence to N.
        rate: sampling rate in Hz.

    Returns:
        uint8 ``(height, width, 3)``.
    """
    length = len(reference)
    output = F.pad(output[:length], (0, max(0, length - len(output))))
    spectra = torch.stack([log_mel(reference, rate), log_mel(output, rate)])
    step = math.ceil(spectra.shape[-1] * ZOOM / LARGEST_WIDTH)
    if step > 1:
        spectra = F.avg_pool1d(spectra, step, ceil_mode=True)
    top = spectra[0].max()
    shade = ((spectra - top) / RANGE_DB + 1).nan_to_num(0.0).clamp(0, 1)
    colors = color_map()
    pixels = colors[(shade * 255).round().to(torch.int64).numpy()]  # (2, bands, hops, 3)
    pixels = pixels[:, ::-1].repeat(ZOOM, axis=1).repeat(ZOOM, axis=2)  # low bands at the bottom
    gap = np.full((GAP, pixels.shape[2], 3), 255, np.uint8)
    return np.concatenate([pixels[0], gap, pixels[1]])
