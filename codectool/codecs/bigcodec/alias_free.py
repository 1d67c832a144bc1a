"""SnakeBeta at twice the sampling rate, so that its harmonics do not alias.

SnakeBeta: BigVGAN (arXiv 2206.04658, section 3.2). Alias-free activations: StyleGAN3
(arXiv 2106.12423, section 3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.codecs.bigcodec.streaming import (
    Kernel,
    Pointwise,
    Sequential,
    StreamingConv,
    StreamingModule,
)
from codectool.nn.packed import PackedConv

TAPS = 12
REACH = 3  # columns that either polyphase filter sees on each side of the current one
MIN_ALPHA = 1e-12  # below, sin^2 is less than the rounding of x


class AliasFreeSnake(nn.Module):
    """Upsample x2, ``x + sin^2(e^alpha x) / (e^beta + 1e-9)``, downsample x2.

    Computed in polyphase form: the upsampled signal u[n] is kept as two phases, u[2t] and
    u[2t + 1], and never interleaved, so nothing is multiplied by inserted zeros. With taps f[0..11]
    and replicated edges,

        u[2t + p] = 2 * sum_j f[p + 5 - 2j] x[t + j]               up,   j = -3..3
        y[t]      = sum_p sum_j f[2j + p + 5] u[2(t + j) + p]      down, j = -3..3

    where taps outside 0..11 are zero: two ordinary convolutions of width 7.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.up_taps = nn.Buffer(lowpass_taps().view(1, 1, TAPS))
        self.down_taps = nn.Buffer(lowpass_taps().view(1, 1, TAPS))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C, T)`` for any T >= 1."""
        batch, channels, time = x.shape
        phases = F.conv1d(
            F.pad(x, (REACH, REACH), mode="replicate"),
            self.up_kernel().repeat(channels, 1, 1).to(x.dtype),
            groups=channels,
        ).view(batch, channels, 2, time)
        alpha, inverse_beta = (f.to(x.dtype).view(channels, 1, 1) for f in self.factors())
        phases = phases + inverse_beta * torch.sin(alpha * phases).square()
        # The edges of the upsampled signal are its first and its last sample.
        first = phases[..., :1, :1].expand(-1, -1, 2, REACH)
        last = phases[..., 1:, -1:].expand(-1, -1, 2, REACH)
        padded = torch.cat((first, phases, last), dim=-1)
        return F.conv1d(
            padded.view(batch, 2 * channels, time + 2 * REACH),
            self.down_kernel().repeat(channels, 1, 1).to(x.dtype),
            groups=channels,
        )

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the factors of the sine's argument and of its square, ``(C,)`` each."""
        return self.alpha.exp(), 1.0 / (self.beta.exp() + 1e-9)

    def up_kernel(self) -> Tensor:
        """Return the polyphase form of the upsampling taps, ``(2, 1, 7)``."""
        flipped = self.up_taps.view(TAPS).flip(0)
        phases = (F.pad(flipped[0::2], (0, 1)), F.pad(flipped[1::2], (1, 0)))
        return 2 * torch.stack(phases).unsqueeze(1)

    def down_kernel(self) -> Tensor:
        """Return the polyphase form of the downsampling taps, ``(2, 7)``."""
        taps = self.down_taps.view(TAPS)
        return torch.stack((F.pad(taps[1::2], (1, 0)), F.pad(taps[0::2], (0, 1))))


def streaming_snake(module: AliasFreeSnake) -> StreamingModule:
    """Return the streaming form of the activation."""
    channels = len(module.alpha)
    # A factor in the taps is cheaper than one for the signal: the upsampled signal is scaled to the
    # argument of the sine.
    alpha, inverse_beta = (factor.detach() for factor in module.factors())
    scale = alpha.clamp(min=MIN_ALPHA).view(channels, 1, 1)
    upsample = StreamingConv(
        lambda: _Upsample(module, scale),
        channels,
        span=TAPS // 2,
        stride=1,
        left=REACH,
        replicate=True,
        upsampling=2,
        trim=1,
    )
    downsample = StreamingConv(
        lambda: PackedConv(module.down_taps / scale, None, 2, groups=channels),
        channels,
        span=TAPS,
        stride=2,
        left=TAPS // 2 - 1,
        replicate=True,
    )
    snake = _scaled_snake(alpha * inverse_beta)
    return Sequential([upsample, Pointwise(snake), downsample])


class _Upsample:
    """Upsampling x2 and multiplication by ``scale``, ``(C, 1, 1)``.

    The columns u[2t - 1] and u[2t] depend on the same six input columns. So this is a convolution
    of each channel of the input beside itself, whose two results are adjacent columns.
    """

    def __init__(self, module: AliasFreeSnake, scale: Tensor) -> None:
        self._channels = len(scale)
        even, odd = module.up_kernel().detach()
        taps = torch.cat((odd[:, 1:] * scale, even[:, :-1] * scale))
        self._conv = PackedConv(taps, None, groups=2 * self._channels)

    def __call__(self, columns: Tensor) -> Tensor:
        twice = torch.cat((columns, columns), 2)
        return self._conv(twice).view(len(columns), -1, self._channels)


def _scaled_snake(factor: Tensor) -> Kernel:
    """Return ``v -> v + factor * sin^2(v)``, in place."""

    def apply(v: Tensor) -> Tensor:
        sine = _sine(v)
        return v.addcmul_(sine.mul_(sine), factor.to(v.dtype))

    return apply


def _sine(x: Tensor) -> Tensor:
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return torch.sin(x)
    with np.errstate(invalid="ignore"):  # NumPy's is about three times as fast as PyTorch's
        return torch.from_numpy(np.sin(x.numpy()))


def lowpass_taps() -> Tensor:
    """Return a Kaiser-windowed sinc filter whose taps ``(TAPS,)`` sum to one.

    The cut-off is 0.25, half the transition band 0.3, as fractions of the sampling rate. Kaiser's
    formulas: Oppenheim and Schafer, Discrete-Time Signal Processing, section 7.5.3.
    """
    attenuation = 2.285 * (TAPS // 2 - 1) * torch.pi * 4 * 0.3 + 7.95
    beta = 0.1102 * (attenuation - 8.7)
    options: Any = {"dtype": torch.float64, "device": "cpu"}
    window = torch.kaiser_window(TAPS, periodic=False, beta=beta, **options)
    time = torch.arange(TAPS, **options) - (TAPS - 1) / 2
    taps = 0.5 * window * torch.sinc(0.5 * time)
    return (taps / taps.sum()).float()
