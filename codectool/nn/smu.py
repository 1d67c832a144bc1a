"""SMU, a smooth maximum with one learned sharpness per channel (arXiv 2111.04682)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Smu(nn.Module):
    """Smooth maximum unit (arXiv 2111.04682) of slopes 0.25 and 1, ``(..., C)`` to the same shape.

    The sharpness mu of each channel is learned and starts at 1; the very large start that is also
    seen in use makes it a leaky ReLU whose mu gets no gradient.
    """

    SLOPE = 0.25

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``(..., C)``."""
        rise = 1 - self.SLOPE
        bend = torch.erf(x * (self.mu * rise))
        y: Tensor = 0.5 * x * ((1 + self.SLOPE) + rise * bend)
        return y

    @torch.no_grad()
    def absorb_(self, sigma: Tensor) -> None:
        """Take over a division of the input by ``sigma``; the output grows by ``sigma``."""
        self.mu.div_(sigma)
