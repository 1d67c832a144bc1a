"""The layers of SuperCodec in their plain form: for training and for batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.nn.weight_norm import weight_normed

SLOPE = 0.1  # of the leaky ReLU for negative values
RES_ONE = (1, 3)
RES_FOUR = (1, 3, 5)

Layer = tuple[Tensor, Tensor]  # weight and bias


class LengthMask:
    """Where the items of a padded batch are valid, at any time scale inside the network.

    The items have ``frames`` valid frames each; the batch is as long as the longest.
    """

    def __init__(self, frames: Sequence[int], device: torch.device) -> None:
        self._longest = max(frames)
        lengths = torch.tensor(frames, device="cpu")
        if device.type == "cuda":  # a copy from pinned memory does not wait for the device
            lengths = lengths.pin_memory()
        self._frames = lengths.to(device, non_blocking=True)[:, None, None]

    def valid(self, x: Tensor) -> Tensor:
        """Return where ``(B, C, T)`` is valid: bool ``(B, 1, T)``, T a multiple of the frames."""
        time = torch.arange(x.shape[-1], device=x.device)
        return time < self._frames * (x.shape[-1] // self._longest)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over the valid time steps of ``(B, C, T)``: ``(B, C)``."""
        length = self._frames[..., 0] * (x.shape[-1] // self._longest)
        return x.where(self.valid(x), 0).sum(-1) / length


class CausalConv(nn.Module):
    """Convolution ``(B, C, T)`` -> ``(B, C', T // stride)`` over the past, T > kernel - stride.

    Before its start the signal is mirrored.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.past = kernel - stride
        self.conv = nn.Conv1d(c_in, c_out, kernel, stride)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(F.pad(x, (self.past, 0), mode="reflect")))


class CausalTransposedConv(nn.Module):
    """Upsampling ``(B, C, T)`` -> ``(B, C', T * stride)``.

    The last samples of the transposed convolution, which depend on the future, are dropped.
    """

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv = nn.ConvTranspose1d(c_in, c_out, 2 * stride, stride)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x))[..., : x.shape[-1] * self.stride]


Resampler = CausalConv | CausalTransposedConv


class ResidualStack(nn.Module):
    """For each dilation: leaky ReLU and dilated convolution of width 3, added to the input.

    The signal ``(B, C, T)`` is zero beyond its ends.
    """

    def __init__(self, channels: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs = nn.ModuleList(
            weight_normed(nn.Conv1d(channels, channels, 3, padding=d, dilation=d))
            for d in dilations
        )

    @override
    def forward(self, x: Tensor, mask: LengthMask | None = None) -> Tensor:
        valid = mask.valid(x) if mask else None
        for conv in self.convs:
            active = F.leaky_relu(x, SLOPE)
            x = x + conv(active if valid is None else active.where(valid, 0))
        return x


class SelectiveFusion(nn.Module):
    """Weighted sum of two signals; the weights depend on the mean of their sum over time.

    Selective kernels (arXiv 1903.06586, section 3.1). Each item of a batch has its own weights.
    The layers are stored as convolutions of width 3 that run on a signal of length one with zero
    padding: only the middle tap has an effect.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Conv1d(channels, channels, 3)
        self.select_a = nn.Conv1d(channels, channels, 3)
        self.select_b = nn.Conv1d(channels, channels, 3)

    def matrices(self) -> tuple[Layer, Layer, Layer]:
        """Return the weights and biases that have an effect, of all layers."""
        return _middle_tap(self.squeeze), _middle_tap(self.select_a), _middle_tap(self.select_b)

    @override
    def forward(self, a: Tensor, b: Tensor, mask: LengthMask | None = None) -> Tensor:
        total = a + b
        pooled = mask.mean(total) if mask else total.mean(-1)
        weight_a, weight_b = fusion_weights(pooled, *self.matrices())
        fused: Tensor = weight_a.unsqueeze(-1) * a + weight_b.unsqueeze(-1) * b
        return fused


def fusion_weights(pooled: Tensor, squeeze: Layer, select_a: Layer, select_b: Layer) -> Tensor:
    """Return the weights ``(2, B, C)`` of two signals, given the mean over time of their sum."""
    hidden = F.relu(F.linear(pooled, *squeeze))
    logits = [F.linear(hidden, *layer) for layer in (select_a, select_b)]
    return torch.stack(logits).softmax(0)


def _middle_tap(conv: nn.Conv1d) -> Layer:
    return conv.weight[:, :, 1], cast(Tensor, conv.bias)


class BackProjectionBlock(nn.Module):
    """Selective resampling with back-projection (paper, section 2.2).

    The resampled signal is projected back to the input. The difference, which is what resampling
    loses, is refined, resampled as well and fused with the first result.

    The resamplers are of the input, back to it, and of the difference.
    """

    downs_one: CausalConv
    ups_one: CausalTransposedConv
    res_one: ResidualStack
    fuse: SelectiveFusion
    res_four: ResidualStack
    resamplers: tuple[Resampler, Resampler, Resampler]

    @override
    def forward(self, x: Tensor, mask: LengthMask | None = None) -> Tensor:
        resample, project_back, resample_difference = self.resamplers
        a = resample(x)
        b = resample_difference(self.res_one(x - project_back(a), mask))
        return cast(Tensor, self.res_four(self.fuse(a, b, mask), mask))


class DownBlock(BackProjectionBlock):
    """Downsampling ``(B, C, T)`` -> ``(B, C', T / stride)``, T a multiple of the stride."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.downs_one = CausalConv(c_in, c_out, 2 * stride, stride)
        self.ups_one = CausalTransposedConv(c_out, c_in, stride)
        self.res_one = ResidualStack(c_in, RES_ONE)
        self.downs_two = CausalConv(c_in, c_out, 2 * stride, stride)
        self.fuse = SelectiveFusion(c_out)
        self.res_four = ResidualStack(c_out, RES_FOUR)
        self.resamplers = self.downs_one, self.ups_one, self.downs_two


class UpBlock(BackProjectionBlock):
    """Upsampling ``(B, C, T)`` -> ``(B, C', T * stride)``, T >= 2."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.ups_one = CausalTransposedConv(c_in, c_out, stride)
        self.downs_one = CausalConv(c_out, c_in, 2 * stride, stride)
        self.res_one = ResidualStack(c_in, RES_ONE)
        self.ups_two = CausalTransposedConv(c_in, c_out, stride)
        self.fuse = SelectiveFusion(c_out)
        self.res_four = ResidualStack(c_out, RES_FOUR)
        self.resamplers = self.ups_one, self.downs_one, self.ups_two


class MaskedSequential(nn.Sequential):
    """The encoder or the decoder; the mask, for padded batches, concerns only the blocks."""

    @override
    def forward(self, x: Tensor, mask: LengthMask | None = None) -> Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, CausalConv) else layer(x, mask)
        return x
