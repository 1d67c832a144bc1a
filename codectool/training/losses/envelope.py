"""Whether bands of the output rise and fall as those of the target do.

Listeners follow speech by the envelopes of its bands, weak ones too. A band that is right on the
average but flat, or that rises at the wrong time, carries nothing; log-spectral distances, which
count every frame for itself, hardly mind.

Letters used in shapes: B batch, N samples, K bins, F bands, S segments, L frames of a segment.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codectool.errors import ConfigError
from codectool.training.losses.magnitude import magnitudes

SILENCE = 1e-4  # amplitude of a sine, as the floor of the other spectral losses


class EnvelopeDistance(nn.Module):
    """One minus the mean correlation of the envelopes of third-octave bands.

    In segments of some tenths of a second the amplitudes of each band are freed of their mean and
    scaled to unit norm (rows); for ``spectra``, then those of each frame across the bands
    (columns). The mean product is STOI's correlation without its clipping (Taal et al., IEEE TASLP
    19(7), 2011, section II), and with ``spectra`` ESTOI's (Jensen and Taal, IEEE/ACM TASLP 24(11),
    2016, section III); pauses are not cut out, but segments whose target is silent do not count.
    0 for equal envelopes, 1 for unrelated ones.

    Args:
        sample_rate: in Hz.
        window: length of the Hann window in samples, even; a hop is a half of it.
        frames: of a segment.
        f_min: centre of the lowest band, in Hz.
        f_max: no band reaches above it, in Hz.
        spectra: compare spectra freed of the bands' levels, instead of each band's course.

    Raises:
        ConfigError: no band, or one without a bin; in `forward`, signals shorter than a
            segment.
    """

    window: Tensor
    bands: Tensor

    def __init__(
        self,
        sample_rate: int,
        window: int = 640,
        frames: int = 30,
        f_min: float = 150.0,
        f_max: float = 5000.0,
        spectra: bool = False,
    ) -> None:
        super().__init__()
        self.frames, self.spectra = frames, spectra
        shape = torch.hann_window(window)
        self.register_buffer("window", 2 * shape / shape.sum(), persistent=False)
        self.register_buffer(
            "bands", third_octaves(sample_rate, 2 * window, f_min, f_max), persistent=False
        )

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of ``(B, 1, N)`` from ``(B, 1, N)``, a scalar."""
        with torch.autocast(output.device.type, enabled=False):
            y, x = (self._segments(s.squeeze(1).float()) for s in (output, target.detach()))
            loud = (x.square().sum(2).amax(-1) > (10 * SILENCE) ** 2).float()
            products = self._normalised(y) * self._normalised(x)
            agreement = products.sum((2, 3)) / products.shape[3 if self.spectra else 2]
            return 1 - (agreement * loud).sum() / loud.sum().clamp(min=1)

    def _segments(self, signal: Tensor) -> Tensor:
        """Amplitudes ``(B, S, F, L)`` of ``(B, N)``."""
        length = len(self.window)
        least = (self.frames + 1) * length // 2
        if signal.shape[-1] < least:
            raise ConfigError(
                f"{signal.shape[-1]} samples are too few for an envelope loss, which needs {least}"
                ": use longer crops, or fewer frames"
            )
        power = magnitudes(signal, self.window, 2 * length, length // 2, power=2) @ self.bands
        # the root of a plain 0 has no derivative
        return (power + SILENCE**2).sqrt().unfold(1, self.frames, 1)

    def _normalised(self, segments: Tensor) -> Tensor:
        rows = _unit(segments, -1, SILENCE)
        return _unit(rows, -2, 1e-3) if self.spectra else rows


def third_octaves(sample_rate: int, fft_size: int, f_min: float, f_max: float) -> Tensor:
    """Which of the ``fft_size // 2 + 1`` bins belong to which band: ``(K, F)`` of zeros and ones.

    Centres are a third of an octave apart, edges half of that from them.
    """
    half = 2 ** (1 / 6)
    edges = [f_min / half]
    while edges[-1] * half * half <= min(f_max, sample_rate / 2):
        edges.append(edges[-1] * half * half)
    bins = torch.arange(fft_size // 2 + 1) * (sample_rate / fft_size)
    lower, upper = (torch.tensor(e) for e in (edges[:-1], edges[1:]))
    bands = ((bins[:, None] >= lower) & (bins[:, None] < upper)).float()
    if bands.shape[1] == 0:
        raise ConfigError(
            f"no third of an octave around f_min, {f_min} Hz, ends below f_max, {f_max} Hz, and "
            "half the sampling rate: set them farther apart"
        )
    if not bands.sum(0).all():
        raise ConfigError(
            f"bands of {f_min} to {f_max} Hz need longer windows than {fft_size // 2}"
        )
    return bands


def _unit(values: Tensor, axis: int, least: float) -> Tensor:
    """Without mean and of norm 1 along an axis; what hardly varies stays near 0."""
    values = values - values.mean(axis, keepdim=True)
    return values / (values.square().sum(axis, keepdim=True) + least**2).sqrt()
