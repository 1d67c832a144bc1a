"""Multi-filter-band discriminator (HILCodec, arXiv 2405.04752) and its filter banks.

The wave is split into M bands, each at 1 / M of the rate; prime M put the band edges at different
frequencies. The banks are cosine-modulated pseudo-QMF banks (Nguyen, IEEE Transactions on
Signal Processing 42(1), 1994; the cutoff as the only free parameter: Lin and Vaidyanathan, IEEE
Signal Processing Letters 5(6), 1998):

    h_k[n] = 2 p[n] cos((2k + 1) pi n / (2M) + (-1)^k pi / 4),    f_k[n] = M h_k[-n],  n = -128..128

with p a windowed sinc. The phases cancel the aliasing between neighbouring bands for any p and make
analysis (h, keep every M-th sample) followed by synthesis (f) linear in phase, with gain

    T(w) = sum over odd j of P(w - j pi / (2M))^2 = 2M (r[0] + 2 sum_{n>0} (-1)^n r[2Mn] cos(2Mnw)),

r being the autocorrelation of p. T is flat if r vanishes at all multiples of 2M but 0, and as flat
as Kaiser's window allows at one cutoff, a little above half a band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.errors import ConfigError
from codectool.schema import Sizes
from codectool.training.discriminators.base import (
    Discriminator,
    DiscriminatorConfig,
    SubDiscriminator,
    require_samples,
)

STRIDES = (3, 3, 3, 3, 1)
SLOPE = 0.1

# "256 taps" is the order of the filters: 257 coefficients, odd for every M, so that each band is
# delayed by whole samples. With them our search finds HILCodec's cutoffs to 4e-6; with 256
# coefficients it would miss them by 2e-5.
DELAYS = 256
HALF = DELAYS // 2
BETA = 8.0

# From `design_cutoff`.
CUTOFFS = {2: 0.2538836, 3: 0.1705503, 5: 0.1038837, 7: 0.0753122, 11: 0.0493384}
MAX_BANDS = 20  # more bands alias beyond their neighbours, which the phases do not cancel


class FilterBandConfig(DiscriminatorConfig, tag="filter_bands", frozen=True):
    """Multi-filter-band discriminator (HILCodec, arXiv 2405.04752).

    Attributes:
        bands: numbers of bands, one network each; 1 is the wave itself, 20 is the largest.
        channels: widths of the five hidden layers.
    """

    bands: Sizes = (1, 2, 3, 5, 7, 11)
    channels: Sizes = (16, 32, 64, 128, 128)

    def __post_init__(self) -> None:
        for number in self.bands:
            if number > MAX_BANDS:
                raise ConfigError(f"{number} filter bands are not possible; use 1 to {MAX_BANDS}")
        if len(self.channels) != len(STRIDES):
            raise ConfigError(
                f"channels has {len(self.channels)} widths; the filter-band discriminator has "
                f"{len(STRIDES)} hidden layers"
            )

    @override
    def build(self) -> Discriminator:
        return Discriminator([_member(number, self.channels) for number in self.bands])


def _member(num_bands: int, channels: Sequence[int]) -> SubDiscriminator:
    hidden = [
        nn.Conv2d(before, width, (1, 5), stride=(1, stride), padding=(0, 2))
        for before, width, stride in zip([1, *channels], channels, STRIDES, strict=False)
    ]
    last = nn.Conv2d(channels[-1], 1, (1, 3), padding=(0, 1))
    return SubDiscriminator(FilterBank(num_bands), hidden, last, SLOPE)


class FilterBank(nn.Module):
    """Split waves ``(B, 1, N)`` into bands ``(B, M, ceil(N / M), 1)``, the lowest first.

    Sample t of a band is centred on sample ``t M`` of the wave, the wave is padded with zeros, and
    a sine keeps its amplitude in its band.
    """

    def __init__(self, num_bands: int) -> None:
        super().__init__()
        self.num_bands = num_bands
        self.rows: Tensor
        self.register_buffer("rows", _as_rows(analysis_filters(num_bands)), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Return the band signals in float32, also under autocast.

        They are computed on rows of M samples, as a convolution with M channels and stride 1: three
        times faster on a CPU than one with stride M.
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
    """Return the filters h_k above, float64 ``(M, 257)``; for M = 1 a single 1 in the middle."""
    if num_bands == 1:
        return F.pad(torch.ones(1, 1, dtype=torch.float64), (HALF, HALF))
    cutoff = CUTOFFS[num_bands] if num_bands in CUTOFFS else design_cutoff(num_bands)
    band = torch.arange(num_bands, dtype=torch.float64)[:, None]
    centre = (2 * band + 1) * math.pi / (2 * num_bands)
    phase = (1 - 2 * (band % 2)) * math.pi / 4
    return 2 * prototype(num_bands, cutoff) * torch.cos(centre * _times() + phase)


def prototype(num_bands: int, cutoff: float) -> Tensor:
    """Return the low-pass p, float64 ``(257,)``, scaled so that the mean of T is 1.

    Its gain is one half at the cutoff, a fraction of half the sampling rate.
    """
    window = torch.kaiser_window(DELAYS + 1, periodic=False, beta=BETA, dtype=torch.float64)
    taps = torch.sinc(cutoff * _times()) * window
    return taps * (2 * num_bands * taps.square().sum()).rsqrt()


def ripple(num_bands: int, cutoff: float) -> float:
    """Return the largest deviation in dB of the overall gain T from its middle value."""
    taps = prototype(num_bands, cutoff)
    later = range(2 * num_bands, DELAYS + 1, 2 * num_bands)
    kept = torch.stack([taps[shift:] @ taps[:-shift] for shift in later])
    order = torch.arange(1, len(later) + 1, dtype=torch.float64)
    angles = torch.linspace(0, math.pi, 1025, dtype=torch.float64)[:, None]  # 2Mw + pi
    gain = 1 + 4 * num_bands * torch.cos(angles * order) @ kept
    return float(10 * (gain.max() / gain.min()).log10())  # half of the range


def design_cutoff(num_bands: int) -> float:
    """Find the cutoff of least ripple by golden-section search above half a band.

    The ripple left, 0.0088 to 0.0093 dB, is the ripple of the window; it cannot fall further.
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
    """Reshape ``(M, 257)`` to float32 ``(M, M, K)``: weight r, q acts on sample r of row q."""
    bands, length = filters.shape
    filled = F.pad(filters.flip(-1), (0, -length % bands))  # PyTorch does not flip
    return filled.reshape(bands, -1, bands).mT.float().contiguous()
