"""SnakeBeta at twice the sampling rate, so that its harmonics do not alias.

SnakeBeta: BigVGAN (arXiv 2206.04658, section 3.2). Alias-free activations: StyleGAN3
(arXiv 2106.12423, section 3).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.codecs.bigcodec.packed import PackedConv
from codectool.codecs.bigcodec.streaming import (
    Kernel,
    Pointwise,
    Sequential,
    StreamingConv,
    StreamingModule,
)

TAPS = 12
REACH = 3  # columns that either polyphase filter sees on each side of the current one
BLOCK = 16  # input columns that one matrix product upsamples


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
    upsample = StreamingConv(
        lambda: _Upsample(module),
        channels,
        span=TAPS // 2,
        stride=1,
        left=REACH,
        replicate=True,
        upsampling=2,
        trim=1,
    )
    downsample = StreamingConv(
        lambda: PackedConv(module.down_taps.expand(channels, 1, TAPS), None, 2, groups=channels),
        channels,
        span=TAPS,
        stride=2,
        left=TAPS // 2 - 1,
        replicate=True,
    )
    return Sequential([upsample, Pointwise(_snake_in_place(module)), downsample])


class _Upsample:
    """Upsampling x2 as products of blocks of columns and a banded matrix.

    All channels have the same taps, so one matrix product over time replaces a convolution per
    channel, which is several times slower. The columns u[2t - 1] and u[2t] depend on the same six
    input columns.
    """

    def __init__(self, module: AliasFreeSnake) -> None:
        even, odd = module.up_kernel()[:, 0]
        taps = torch.stack((odd[1:], even[:-1]))
        self._span = taps.shape[1]
        matrix = taps.new_zeros(BLOCK, 2, BLOCK + self._span - 1)
        for column in range(BLOCK):
            matrix[column, :, column : column + self._span] = taps
        self._matrix = matrix.flatten(0, 1)

    def __call__(self, columns: Tensor) -> Tensor:
        windows = columns.shape[1] - self._span + 1
        rest = windows % BLOCK
        parts = []
        if windows > rest:
            blocks = columns.unfold(1, self._matrix.shape[1], BLOCK).mT
            parts.append((self._matrix @ blocks).flatten(1, 2))
        if rest:
            matrix = self._matrix[: 2 * rest, : rest + self._span - 1]
            parts.append(matrix @ columns[:, windows - rest :])
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _snake_in_place(module: AliasFreeSnake) -> Kernel:
    @cache
    def factors(dtype: torch.dtype) -> list[Tensor]:
        return [factor.to(dtype) for factor in module.factors()]

    def apply(x: Tensor) -> Tensor:
        alpha, inverse_beta = factors(x.dtype)
        sine = (x * alpha).sin_()
        return x.addcmul_(sine.mul_(sine), inverse_beta)

    return apply


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
