"""The layers of SuperCodec in their plain form: for training, and for padded batches.

Letters used in shapes: B batch, C channels, T time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.nn.weight_norm import weight_normed

SLOPE = 0.1  # of the leaky ReLU for negative values
RES_ONE = (1, 3)
RES_FOUR = (1, 3, 5)


class Ends:
    """Where the items of a padded batch end, at any of the time scales inside the network.

    Args:
        frames: length of each item; the batch is as long as the longest.
        device: where the batch is.
    """

    def __init__(self, frames: Sequence[int], device: torch.device) -> None:
        self._longest = max(frames)
        lengths = torch.tensor(frames)
        if device.type == "cuda":  # copied from locked memory, nobody waits for the device
            lengths = lengths.pin_memory()
        self._frames = lengths.to(device, non_blocking=True)[:, None, None]

    def inside(self, x: Tensor) -> Tensor:
        """True where ``(B, C, T)`` is signal, ``(B, 1, T)``; T is a multiple of the frames."""
        time = torch.arange(x.shape[-1], device=x.device)
        return time < self._frames * (x.shape[-1] // self._longest)

    def mean(self, x: Tensor) -> Tensor:
        """Mean of ``(B, C, T)`` over the signal of each item, ``(B, C)``."""
        length = self._frames[..., 0] * (x.shape[-1] // self._longest)
        return x.where(self.inside(x), 0).sum(-1) / length


class CausalConv(nn.Module):
    """Convolution that sees only the past; the missing past is the signal mirrored."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.past = kernel - stride
        self.conv = nn.Conv1d(c_in, c_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T // stride)``, T > kernel - stride."""
        return cast(Tensor, self.conv(F.pad(x, (self.past, 0), mode="reflect")))


class CausalTransposedConv(nn.Module):
    """Upsampling by ``stride`` whose last samples, which need the future, are dropped."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv = nn.ConvTranspose1d(c_in, c_out, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T * stride)``."""
        return cast(Tensor, self.conv(x))[..., : x.shape[-1] * self.stride]


class ResidualStack(nn.Module):
    """For each dilation: leaky ReLU, dilated convolution of width 3, plus the input."""

    def __init__(self, channels: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs = nn.ModuleList(
            weight_normed(nn.Conv1d(channels, channels, 3, padding=d, dilation=d))
            for d in dilations
        )

    def forward(self, x: Tensor, ends: Ends | None = None) -> Tensor:
        """``(B, C, T)`` -> ``(B, C, T)``; the signal is taken to be zero beyond its ends."""
        inside = ends.inside(x) if ends else None
        for conv in self.convs:
            active = F.leaky_relu(x, SLOPE)
            x = x + conv(active if inside is None else active.where(inside, 0))
        return x


class SelectiveFusion(nn.Module):
    """Mix two signals channel by channel, with weights told by the mean of their sum over time.

    Selective kernels (arXiv 1903.06586, section 3.1). Each item of a batch has its own weights.
    The layers are stored as convolutions of width 3 that run on a signal of length one with zero
    padding: only the middle tap ever acts.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Conv1d(channels, channels, 3)
        self.select_a = nn.Conv1d(channels, channels, 3)
        self.select_b = nn.Conv1d(channels, channels, 3)

    def weights(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Of the two signals, ``(B, C)`` each, for the mean of their sum ``(B, C)``."""
        hidden = F.relu(_middle_tap(self.squeeze, pooled))
        logits = torch.stack(
            (_middle_tap(self.select_a, hidden), _middle_tap(self.select_b, hidden))
        )
        weight_a, weight_b = logits.softmax(0).unbind(0)
        return weight_a, weight_b

    def forward(self, a: Tensor, b: Tensor, ends: Ends | None = None) -> Tensor:
        """``(B, C, T)`` twice -> ``(B, C, T)``."""
        total = a + b
        weight_a, weight_b = self.weights(ends.mean(total) if ends else total.mean(-1))
        return weight_a.unsqueeze(-1) * a + weight_b.unsqueeze(-1) * b


def _middle_tap(conv: nn.Conv1d, x: Tensor) -> Tensor:
    return F.linear(x, conv.weight[:, :, 1], conv.bias)


class DownBlock(nn.Module):
    """Selective down-sampling with back-projection, SDBP (paper, section 2.2).

    What a first downsampling loses is found by going back up, refined, downsampled as well, and
    mixed in.
    """

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.downs_one = CausalConv(c_in, c_out, 2 * stride, stride)
        self.ups_one = CausalTransposedConv(c_out, c_in, stride)
        self.res_one = ResidualStack(c_in, RES_ONE)
        self.downs_two = CausalConv(c_in, c_out, 2 * stride, stride)
        self.fuse = SelectiveFusion(c_out)
        self.res_four = ResidualStack(c_out, RES_FOUR)

    def forward(self, x: Tensor, ends: Ends | None = None) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T / stride)``, T a multiple of the stride."""
        a = self.downs_one(x)
        lost = self.res_one(x - self.ups_one(a), ends)
        b = self.downs_two(lost)
        return cast(Tensor, self.res_four(self.fuse(a, b, ends), ends))


class UpBlock(nn.Module):
    """Selective up-sampling with back-projection, SUBP (paper, section 2.2)."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.ups_one = CausalTransposedConv(c_in, c_out, stride)
        self.downs_one = CausalConv(c_out, c_in, 2 * stride, stride)
        self.res_one = ResidualStack(c_in, RES_ONE)
        self.ups_two = CausalTransposedConv(c_in, c_out, stride)
        self.fuse = SelectiveFusion(c_out)
        self.res_four = ResidualStack(c_out, RES_FOUR)

    def forward(self, x: Tensor, ends: Ends | None = None) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T * stride)``, T >= 2."""
        a = self.ups_one(x)
        lost = self.res_one(x - self.downs_one(a), ends)
        b = self.ups_two(lost)
        return cast(Tensor, self.res_four(self.fuse(a, b, ends), ends))


class Half(nn.Sequential):
    """Encoder or decoder: a causal convolution, blocks, a causal convolution."""

    def forward(self, x: Tensor, ends: Ends | None = None) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T')``; ``ends`` where the batch is padded."""
        for layer in self:
            x = layer(x) if isinstance(layer, CausalConv) else layer(x, ends)
        return x
