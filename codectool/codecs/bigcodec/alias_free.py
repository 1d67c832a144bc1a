"""SnakeBeta at twice the sampling rate, so that its harmonics do not alias.

SnakeBeta: BigVGAN (arXiv 2206.04658, section 3.2). Alias-free activations: StyleGAN3
(arXiv 2106.12423, section 3).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.codecs.bigcodec.streaming import StreamingConv, StreamingModule, StreamState
from codectool.nn.packed import PackedConv

TAPS = 12
REACH = 3  # columns that either polyphase filter sees on each side of the current one
PHASE_TAPS = TAPS // 2
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
    span = 2 * PHASE_TAPS - 1
    return StreamingSnake(
        lambda: SnakeKernel(module), len(module.alpha), span, 1, left=span // 2, replicate=True
    )


class StreamingSnake(StreamingConv):
    """The activation as a function of a window: `SnakeKernel`, told where the signals end."""

    @override
    def _compute(self, columns: Tensor, windows: int, state: StreamState, last: bool) -> Tensor:
        kernel = cast(SnakeKernel, self._kernel)
        odd, even = kernel.upsample(columns)
        pairs = windows + PHASE_TAPS - 1
        first = -state.position - REACH  # this pair is u[-1] and u[0], the first sample
        if first >= 0:
            edge = even[:, first : first + 1].clone()
            odd[:, : first + 1], even[:, :first] = edge, edge
        lengths = state.lengths or (len(odd) * (state.position + pairs,) if last else ())
        for item, length in enumerate(lengths):
            end = length - state.position - REACH  # u[2L - 1], the last sample, and u[2L]
            if 0 <= end < pairs:
                edge = odd[item, end : end + 1].clone()
                odd[item, end:], even[item, end:] = edge, edge
        return kernel.downsample(odd, even)


class SnakeKernel:
    """The activation in three steps, with the upsampled signal in two phases.

    u[2s - 1] and u[2s] depend on the same six input columns, and y[t] on the pairs s = t - 2 to
    t + 3. A factor in the taps is cheaper than one for the signal, so the upsampled signal is
    scaled to the argument of the sine.
    """

    def __init__(self, module: AliasFreeSnake) -> None:
        channels = len(module.alpha)
        alpha, inverse_beta = (factor.detach() for factor in module.factors())
        scale = alpha.clamp(min=MIN_ALPHA).view(channels, 1, 1)
        self._factor = alpha * inverse_beta
        even, odd = module.up_kernel().detach()
        down = module.down_taps / scale
        self._up = [_depthwise(taps * scale) for taps in (odd[:, 1:], even[:, :-1])]
        self._down = [_depthwise(taps) for taps in (down[..., 0::2], down[..., 1::2])]

    def upsample(self, x: Tensor) -> list[Tensor]:
        """Return u[2s - 1] and u[2s], ``(B, T - 5, C)`` each, of ``(B, T, C)`` after the sine."""
        return [self._snake(conv(x)) for conv in self._up]

    def downsample(self, odd: Tensor, even: Tensor) -> Tensor:
        """Return ``(B, T - 5, C)`` for two phases ``(B, T, C)``."""
        y = self._down[0](odd)
        self._down[1].add_to(y, even)
        return y

    def _snake(self, v: Tensor) -> Tensor:
        """Add ``factor * sin^2(v)`` in place."""
        if v.device.type != "cpu" or v.dtype != torch.float32:
            return v.addcmul_(torch.sin(v).square_(), self._factor.to(v.dtype))
        with np.errstate(invalid="ignore"):
            sine = torch.from_numpy(np.sin(v.numpy()))  # three times as fast as PyTorch's
        return v.addcmul_(sine.mul_(sine), self._factor)


def _depthwise(taps: Tensor) -> PackedConv:
    return PackedConv(taps, None, groups=len(taps))


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
