"""Short-time spectra as causal blocks, and their normalisation, for the later HAC presets.

Letters used in shapes: B batch, T frames, F frequencies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.codecs.hac.blocks import Block
from codectool.codecs.hac.layers import running_weight
from codectool.nn.ranks import mean_over_ranks


def square_root_hann(length: int, device: torch.device) -> Tensor:
    """The same window for analysis and synthesis: with hop ``length / 4`` its squares sum to 2."""
    return torch.hann_window(length, dtype=torch.float64).sqrt().float().to(device)


class Spectrum(Block):
    """Samples ``(B, T hop, 1)`` to spectra ``(B, T, F, 2)``, real and imaginary part.

    Frame t sees the ``window`` samples that end with the last sample of hop t.
    """

    macs = 0  # a fast Fourier transform has no weights

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window = window
        self.down = hop
        self.state_shape = (window - hop, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T hop, 1)`` -> ``(B, T, F, 2)``."""
        seen = torch.cat([state, x], dim=1)
        frames = seen.squeeze(2).unfold(1, self.window, self.down)
        bins = torch.fft.rfft(frames * square_root_hann(self.window, x.device))[..., :-1]
        return torch.view_as_real(bins), seen[:, seen.shape[1] - self.state_shape[0] :]

    def first_input(self, frame: int) -> int:
        """The start of the window."""
        return frame * self.down - self.state_shape[0]


class Synthesis(Block):
    """Spectra ``(B, T, F, 2)`` to samples ``(B, T hop, 1)``, late by ``window - hop`` samples.

    Hop t is given out once no later frame can add to it. The Nyquist bin is zero.
    """

    macs = 0

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window = window
        self.up = hop
        self.overlap = window // hop
        self.state_shape = (self.overlap - 1, self.overlap, hop)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, 2)`` -> ``(B, T hop, 1)``."""
        bins = F.pad(torch.view_as_complex(x.float().contiguous()), (0, 1))
        shape = square_root_hann(self.window, x.device) * (2 / self.overlap)
        hops = (torch.fft.irfft(bins) * shape).reshape(*x.shape[:2], self.overlap, self.up)
        made = torch.cat([state, hops], dim=1)
        parts = [made[:, start : start + x.shape[1], -1 - start] for start in range(self.overlap)]
        wave = torch.stack(parts).sum(0)
        return wave.flatten(1).unsqueeze(2), made[:, x.shape[1] :]

    def first_input(self, frame: int) -> int:
        """The first frame that adds to it."""
        return frame // self.up - (self.overlap - 1)


class BinNorm(nn.Module):
    """Divide each frequency by its running root mean square: takes out the tilt of speech.

    Real and imaginary part of a bin share one number, the deviation of the complex value.

    Attributes:
        updating: whether training steps update the averages; they never move in evaluation.
    """

    def __init__(self, num_bins: int) -> None:
        super().__init__()
        self.updating = True
        self.mean_square: Tensor
        self.count: Tensor
        self.register_buffer("mean_square", torch.ones(num_bins))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, T, F, 2)``."""
        if self.training and self.updating:
            self._update(x.detach())
        return x / self.deviation()

    def restore(self, x: Tensor) -> Tensor:
        """Undo the normalisation."""
        return x * self.deviation()

    @torch.no_grad()
    def fold(self, first: Block, last: Block) -> tuple[Block, Block]:
        """Return what divides and what multiplies the bins.

        Unlike the scale of a waveform they cannot go into ``first`` and ``last``, which mix
        neighbouring bins by the same weights everywhere.
        """
        return BinGain(1 / self.deviation()), BinGain(self.deviation())

    @torch.no_grad()
    def _update(self, x: Tensor) -> None:
        self.count += 1
        power = x.float().square().sum(-1).mean((0, 1))
        self.mean_square.lerp_(mean_over_ranks(power), running_weight(self.count))

    def deviation(self) -> Tensor:
        """The divisor, ``(F, 1)``."""
        return torch.sqrt(self.mean_square + 1e-8)[:, None]


class BinGain(Block):
    """Multiply each frequency by a constant: what folding leaves of `BinNorm`."""

    macs = 0

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.gain: Tensor
        self.register_buffer("gain", gain.clone())

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, F, 2)`` -> the same."""
        return x * self.gain, state
