"""Multi-filter-band discriminator (HILCodec, arXiv 2405.04752) and its filter banks.

The wave is split into M bands, each at 1 / M of the rate; primes M put the edges of the bands at
ever different frequencies. The bank is the cosine-modulated pseudo-QMF one (Nguyen, IEEE
Transactions on Signal Processing 42(1), 1994; the cutoff as the one free parameter: Lin and
Vaidyanathan, IEEE Signal Processing Letters 5(6), 1998):

    h_k[n] = 2 p[n] cos((2k + 1) pi n / (2M) + (-1)^k pi / 4),    f_k[n] = M h_k[-n],  n = -128..128

with p a windowed sinc. The phases cancel the aliasing between neighbouring bands, whatever p is,
and make analysis (h, keep every M-th sample) and synthesis (f) together linear in phase, with gain

    T(w) = sum over odd j of P(w - j pi / (2M))^2 = 2M (r[0] + 2 sum_{n>0} (-1)^n r[2Mn] cos(2Mnw)),

r being p's autocorrelation. So T is flat where r vanishes at all multiples of 2M but 0, and as
flat as Kaiser's window allows at one cutoff, a little above half a band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.errors import ConfigError
from codectool.nn.weight_norm import weight_normed
from codectool.training.discriminators.base import (
    Discriminator,
    SubDiscriminator,
    require_samples,
)

STRIDES = (3, 3, 3, 3, 1)
SLOPE = 0.1

# "256 taps" count the delays, as an order does: 257 coefficients, odd for every M, so that each
# band is delayed by whole samples. With them our search finds HILCodec's cutoffs to 4e-6; with 256
# coefficients it would miss them by 2e-5.
DELAYS = 256
HALF = DELAYS // 2
BETA = 8.0

CUTOFFS = {2: 0.2538836, 3: 0.1705503, 5: 0.1038837, 7: 0.0753122, 11: 0.0493384}  # as designed
MAX_BANDS = 20  # of more, each reaches into the one after the next: nothing cancels that aliasing


class FilterBandDiscriminator(Discriminator):
    """One network for each filter bank; its convolutions run along time, the same in each band.

    Args:
        bands: numbers of bands; 1 is the wave itself.
        channels: widths of the five hidden layers.
    """

    def __init__(self, bands: Sequence[int], channels: Sequence[int]) -> None:
        if len(channels) != len(STRIDES):
            raise ConfigError(
                f"the filter-band discriminator has {len(STRIDES)} hidden layers, channels gives "
                f"{len(channels)} widths"
            )
        super().__init__([_member(number, channels) for number in bands])


class FilterBank(nn.Module):
    """Waves ``(B, 1, N)`` as pictures ``(B, M, ceil(N / M), 1)``, the lowest band on top.

    Sample t of a band is centred on sample ``t M`` of the wave, zeros stand before and after the
    wave, and a sine keeps its amplitude in its band.
    """

    def __init__(self, num_bands: int) -> None:
        super().__init__()
        self.num_bands = num_bands
        self.rows: Tensor
        self.register_buffer("rows", _as_rows(analysis_filters(num_bands)), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Band signals in float32, also under autocast.

        Computed on rows of M samples, M of which a filter advances by at each step: a plain
        convolution with M channels, three times faster on a CPU than one with stride M.
        """
        require_samples(wave, 1, "the filter-band discriminator")
        if self.num_bands == 1:
            return wave.float().unsqueeze(3)
        length, (bands, _, span) = wave.shape[-1], self.rows.shape
        num_rows = -(-length // bands) + span - 1
        with torch.autocast(wave.device.type, enabled=False):
            padded = F.pad(wave.float(), (HALF, num_rows * bands - HALF - length))
            rows = padded.reshape(-1, num_rows, bands).mT
            return F.conv1d(rows, self.rows).unsqueeze(3)


def analysis_filters(num_bands: int) -> Tensor:
    """The h_k above, float64 ``(M, 257)``; M = 1 is a single 1 in the middle.

    Raises:
        ConfigError: no such bank; so many bands are too narrow for filters of this length.
    """
    if not 1 <= num_bands <= MAX_BANDS:
        raise ConfigError(f"{num_bands} filter bands are not possible, 1 to {MAX_BANDS} are")
    if num_bands == 1:
        return F.pad(torch.ones(1, 1, dtype=torch.float64), (HALF, HALF))
    cutoff = CUTOFFS[num_bands] if num_bands in CUTOFFS else design_cutoff(num_bands)
    band = torch.arange(num_bands, dtype=torch.float64)[:, None]
    centre = (2 * band + 1) * math.pi / (2 * num_bands)
    phase = (1 - 2 * (band % 2)) * math.pi / 4
    return 2 * prototype(num_bands, cutoff) * torch.cos(centre * _times() + phase)


def prototype(num_bands: int, cutoff: float) -> Tensor:
    """The low-pass p, float64 ``(257,)``, scaled so that the mean of T is 1.

    Args:
        num_bands: M.
        cutoff: where the gain has fallen to a half, in half the sample rate.
    """
    window = torch.kaiser_window(DELAYS + 1, periodic=False, beta=BETA, dtype=torch.float64)
    taps = torch.sinc(cutoff * _times()) * window
    return taps * (2 * num_bands * taps.square().sum()).rsqrt()


def ripple(num_bands: int, cutoff: float) -> float:
    """Largest distance in dB of the overall gain T from its middle value, over all frequencies."""
    taps = prototype(num_bands, cutoff)
    later = range(2 * num_bands, DELAYS + 1, 2 * num_bands)
    kept = torch.stack([taps[shift:] @ taps[:-shift] for shift in later])
    order = torch.arange(1, len(later) + 1, dtype=torch.float64)
    angles = torch.linspace(0, math.pi, 1025, dtype=torch.float64)[:, None]  # 2Mw + pi
    gain = 1 + 4 * num_bands * torch.cos(angles * order) @ kept
    return float(10 * (gain.max() / gain.min()).log10())  # half of the range


def design_cutoff(num_bands: int) -> float:
    """The cutoff of least ripple, by golden-section search above half a band.

    The ripple that is left, 0.0088 to 0.0093 dB, is that of the window; it cannot fall further.
    """
    shrink = (math.sqrt(5) - 1) / 2
    low, high = 1 / (2 * num_bands), 1 / (2 * num_bands) + 0.01
    while high - low > 1e-8:
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if ripple(num_bands, left) < ripple(num_bands, right):
            high = right
        else:
            low = left
    return (low + high) / 2


def _times() -> Tensor:
    return torch.arange(-HALF, HALF + 1, dtype=torch.float64)


def _as_rows(filters: Tensor) -> Tensor:
    """``(M, 257)`` -> float32 ``(M, M, K)``: weight r, q acts on sample r of the q-th row."""
    bands, length = filters.shape
    filled = F.pad(filters.flip(-1), (0, -length % bands))  # convolutions of PyTorch do not flip
    return filled.reshape(bands, -1, bands).mT.float().contiguous()


def _member(num_bands: int, channels: Sequence[int]) -> SubDiscriminator:
    hidden = [
        weight_normed(nn.Conv2d(before, width, (1, 5), stride=(1, stride), padding=(0, 2)))
        for before, width, stride in zip([1, *channels], channels, STRIDES, strict=False)
    ]
    last = weight_normed(nn.Conv2d(channels[-1], 1, (1, 3), padding=(0, 1)))
    return SubDiscriminator(FilterBank(num_bands), hidden, last, SLOPE)
