"""How far two signals swing together at low frequencies, where a voice has its fundamental.

Distances of magnitudes do not say by which phase a decoder shall swing, and one without recurrence
cannot keep a phase by itself: it has to be told by the tokens. Until an encoder has found that out,
voiced sounds come out as noise in the shape of the vowel. This loss tells it.

Letters used in shapes: B batch, N samples, T frames, K bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codectool.errors import ConfigError

SILENCE = 1e-4  # amplitude of a sine, as the floor of the other spectral losses


class CoherenceDistance(nn.Module):
    """One minus the mean cosine of the phase differences, weighted by magnitudes.

        1 - sum w cos(arg Y - arg X) / sum w,   w = sqrt(|Y| |X|)

    with the sums over the frames and bins of each item, and the mean over items and windows: 0 for
    signals in phase, 1 for signals that know nothing of each other, 2 for opposite ones. Levels do
    not matter, which other losses are for. The root lets the weaker harmonics have a say beside
    the strongest one. Source: our own design.

    Args:
        sample_rate: in Hz.
        windows: lengths of the Hann windows in samples, even; a hop is a quarter of them.
        f_min: the lowest frequency that counts, in Hz.
        f_max: the highest, in Hz.

    Raises:
        ConfigError: no window, or one without a bin in that range; in `forward`, signals shorter
            than a window.
    """

    def __init__(
        self, sample_rate: int, windows: Sequence[int], f_min: float = 60.0, f_max: float = 1000.0
    ) -> None:
        super().__init__()
        if not windows:
            raise ConfigError("a coherence loss needs at least one window")
        self.bins = []
        for number, window in enumerate(windows):
            shape = torch.hann_window(window)
            self.register_buffer(f"window{number}", 2 * shape / shape.sum(), persistent=False)
            first, last = (round(edge / sample_rate * window) for edge in (f_min, f_max))
            last = min(last, window // 2)
            if last < first:
                raise ConfigError(f"no bin of a window of {window} lies in {f_min} to {f_max} Hz")
            self.bins.append((first, last + 1))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of ``(B, 1, N)`` from ``(B, 1, N)``, a scalar."""
        with torch.autocast(output.device.type, enabled=False):
            y, x = output.squeeze(1).float(), target.detach().squeeze(1).float()
            total = y.new_zeros(())
            for window, bins in zip(self.buffers(), self.bins, strict=True):
                total = total + 1 - _agreement(*(_spectrum(s, window, bins) for s in (y, x)))
            return total / len(self.bins)


def _spectrum(signal: Tensor, window: Tensor, bins: tuple[int, int]) -> Tensor:
    """Complex ``(B, T, K)`` of ``(B, N)``; a full-scale sine is 1."""
    length = len(window)
    if signal.shape[-1] < length:
        raise ConfigError(
            f"{signal.shape[-1]} samples are too few for a coherence loss with windows of {length}"
            ": use longer crops or shorter windows"
        )
    frames = signal.unfold(-1, length, length // 4) * window
    spectrum: Tensor = torch.fft.rfft(frames)[..., slice(*bins)]
    return spectrum


def _agreement(y: Tensor, x: Tensor) -> Tensor:
    """Mean cosine of the phase differences, a scalar."""
    # the root of a plain 0 has no derivative
    sizes = [torch.view_as_real(s).square().sum(-1).add(SILENCE**2).sqrt() for s in (y, x)]
    dots = (torch.view_as_real(y) * torch.view_as_real(x)).sum(-1)
    weights = (sizes[0] * sizes[1]).sqrt()
    ratio: Tensor = (dots / weights).sum((1, 2)) / weights.sum((1, 2))
    return ratio.mean()
