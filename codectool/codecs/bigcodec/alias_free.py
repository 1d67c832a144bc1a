"""SnakeBeta between a two-fold up- and a two-fold downsampling, so that its harmonics do not alias.

Sources: SnakeBeta from BigVGAN (arXiv 2206.04658, section 3.2); the alias-free activation from
StyleGAN3 (arXiv 2106.12423, section 3). Letters used in shapes: B batch, C channels, T time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.codecs.bigcodec.packed import PackedConv
from codectool.codecs.bigcodec.streaming import Chain, Flow, Growing, Layer, Sliding

TAPS = 12
REACH = 3  # columns of either polyphase filter on each side of the current one


class AliasFreeSnake(nn.Module):
    """Upsample x2, ``x + sin^2(e^alpha x) / (e^beta + 1e-9)``, downsample x2.

    Done in polyphase form: the doubled signal u[n] is never interleaved but kept as two phases,
    u[2t] and u[2t + 1], so no zero is ever multiplied. With taps f[0..11] and edges repeated,

        u[2t + p] = 2 * sum_j f[p + 5 - 2j] x[t + j]               up,   j = -3..3
        y[t]      = sum_p sum_j f[2j + p + 5] u[2(t + j) + p]      down, j = -3..3

    where taps outside 0..11 count as zero: two ordinary convolutions of 7 columns.

    Shape: ``(B, C, T)`` -> ``(B, C, T)`` for any T >= 1.
    """

    up_taps: Tensor
    down_taps: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        taps = kaiser_lowpass(cutoff=0.25, half_width=0.3, num_taps=TAPS)
        self.register_buffer("up_taps", taps.view(1, 1, TAPS))
        self.register_buffer("down_taps", taps.view(1, 1, TAPS).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to ``(B, C, T)``."""
        batch, channels, time = x.shape
        phases = F.conv1d(
            F.pad(x, (REACH, REACH), mode="replicate"),
            self.up_kernel().repeat(channels, 1, 1).to(x.dtype),
            groups=channels,
        ).view(batch, channels, 2, time)
        alpha, inverse_beta = (f.to(x.dtype).view(channels, 1, 1) for f in self.factors())
        phases = phases + inverse_beta * torch.sin(alpha * phases).square()
        # The edges of the doubled signal are its very first and very last sample.
        first = phases[..., :1, :1].expand(-1, -1, 2, REACH)
        last = phases[..., 1:, -1:].expand(-1, -1, 2, REACH)
        padded = torch.cat((first, phases, last), dim=-1)
        return F.conv1d(
            padded.view(batch, 2 * channels, time + 2 * REACH),
            self._down_kernel().repeat(channels, 1, 1).to(x.dtype),
            groups=channels,
        )

    def factors(self) -> tuple[Tensor, Tensor]:
        """What multiplies the sine's argument and its square, ``(C,)`` each."""
        return self.alpha.exp(), 1.0 / (self.beta.exp() + 1e-9)

    def up_kernel(self) -> Tensor:
        """Polyphase form of the upsampling taps, ``(2, 1, 7)``."""
        flipped = self.up_taps.view(TAPS).flip(0)
        even = F.pad(flipped[0::2], (0, 1))
        odd = F.pad(flipped[1::2], (1, 0))
        return 2 * torch.stack((even, odd)).unsqueeze(1)

    def _down_kernel(self) -> Tensor:
        """Polyphase form of the downsampling taps, ``(1, 2, 7)``."""
        taps = self.down_taps.view(TAPS)
        even = F.pad(taps[1::2], (1, 0))
        odd = F.pad(taps[0::2], (0, 1))
        return torch.stack((even, odd)).unsqueeze(0)


def kaiser_lowpass(cutoff: float, half_width: float, num_taps: int) -> Tensor:
    """Kaiser-windowed sinc low-pass whose taps sum to one.

    Kaiser's formulas for the attenuation and the window's shape (Oppenheim and Schafer,
    Discrete-Time Signal Processing, section 7.5.3).

    Args:
        cutoff: cut-off frequency as a share of the sampling rate, in 0..0.5.
        half_width: half of the transition band as a share of the sampling rate.
        num_taps: length of the filter.

    Returns:
        float32 ``(num_taps,)``.
    """
    attenuation = 2.285 * (num_taps // 2 - 1) * torch.pi * 4 * half_width + 7.95
    if attenuation > 50:
        shape = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        shape = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        shape = 0.0
    window = torch.kaiser_window(num_taps, periodic=False, beta=shape, dtype=torch.float64)
    center = (num_taps - 1) / 2
    time = torch.arange(num_taps, dtype=torch.float64) - center
    taps = 2 * cutoff * window * torch.sinc(2 * cutoff * time)
    return (taps / taps.sum()).float()


BLOCK = 16  # input columns that one matrix doubles


def alias_free(module: AliasFreeSnake, rate: int) -> Layer:
    """The activation at ``rate`` columns per frame."""
    return Chain([_Double(module, rate), _Snake(module), _Halve(module, 2 * rate)])


class _Double(Growing):
    """Twice the rate. The filter is a banded matrix, applied to blocks of columns.

    All channels have the same taps: so this is a matrix product over time, not a convolution of
    each channel on its own, which is several times slower. The columns u[2t - 1] and u[2t] come
    from the same six of the input.
    """

    def __init__(self, module: AliasFreeSnake, rate: int) -> None:
        super().__init__(TAPS // 2, REACH, REACH, edge=True, rate=rate, times=2, cut=1)
        self._module = module
        self._matrix: Tensor | None = None

    @property
    def out_channels(self) -> int:
        return len(self._module.alpha)

    def apply(self, columns: Tensor) -> Tensor:
        if self._matrix is None:
            self._matrix = self._make_matrix()
        count = columns.shape[1] - self.span + 1
        whole = count // BLOCK * BLOCK
        parts = []
        if whole:
            blocks = columns.unfold(1, self._matrix.shape[1], BLOCK).mT
            parts.append((self._matrix @ blocks).flatten(1, 2))
        if count > whole:
            rest = count - whole
            matrix = self._matrix[: 2 * rest, : rest + self.span - 1]
            parts.append(matrix @ columns[:, whole:])
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _make_matrix(self) -> Tensor:
        even, odd = self._module.up_kernel()[:, 0]
        taps = torch.stack((odd[1:], even[:-1]))
        matrix = taps.new_zeros(BLOCK, 2, BLOCK + self.span - 1)
        for column in range(BLOCK):
            matrix[column, :, column : column + self.span] = taps
        return matrix.flatten(0, 1)


class _Snake(Layer):
    """SnakeBeta, column by column, in place."""

    def __init__(self, module: AliasFreeSnake) -> None:
        self._module = module
        self._factors: tuple[Tensor, Tensor] | None = None

    def push(self, x: Tensor, flow: Flow, last: bool) -> Tensor:
        if self._factors is None or self._factors[0].dtype != x.dtype:
            alpha, inverse_beta = self._module.factors()
            self._factors = alpha.to(x.dtype), inverse_beta.to(x.dtype)
        alpha, inverse_beta = self._factors
        sine = (x * alpha).sin_()
        return x.addcmul_(sine.mul_(sine), inverse_beta)

    def needs(self, columns: int) -> int:
        return columns


class _Halve(Sliding):
    """Half the rate again."""

    def __init__(self, module: AliasFreeSnake, rate: int) -> None:
        super().__init__(TAPS, 2, TAPS // 2 - 1, TAPS // 2 - 1, edge=True, rate=rate)
        self._module = module
        self._filter: PackedConv | None = None

    @property
    def out_channels(self) -> int:
        return len(self._module.alpha)

    def apply(self, columns: Tensor) -> Tensor:
        if self._filter is None:
            taps = self._module.down_taps.expand(self.out_channels, 1, TAPS)
            self._filter = PackedConv(taps, None, stride=2, groups=self.out_channels)
        return self._filter(columns)
