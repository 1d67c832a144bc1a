"""Magnitude and power spectra of frames, with a hand-written backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from codectool.errors import ConfigError

SMALLEST = 1e-15  # magnitude below which a gradient is 0: squares would leave float32's range


class Spectrum(nn.Module):
    """Magnitude or power spectra of all frames that lie in the signal, after padding.

    Args:
        fft_size: in samples, even.
        window: length in samples of the periodic Hann window in the middle of the FFT.
        hop: samples from one frame to the next.
        padding: samples of reflection at both ends.
        full_scale: scale magnitudes by ``2 / sum(window)``, so that a sine from -1 to 1 has a peak
            of 1.
        epsilon: added under the root, ``sqrt(re^2 + im^2 + epsilon)``.
        power: 1 for magnitudes, 2 for their squares.
    """

    def __init__(
        self,
        fft_size: int,
        window: int,
        hop: int,
        *,
        padding: int = 0,
        full_scale: bool = False,
        epsilon: float = 0.0,
        power: int = 1,
    ) -> None:
        super().__init__()
        self.fft_size, self.hop = fft_size, hop
        self.padding, self.epsilon, self.power = padding, epsilon, power
        shape = torch.hann_window(window, dtype=torch.float64)
        if full_scale:
            shape = shape * 2 / shape.sum()
        self.window: Tensor
        self.register_buffer("window", shape.float(), persistent=False)

    def forward(self, signal: Tensor, shortened: bool = False) -> Tensor:
        """Return the spectra ``(B, T, fft_size / 2 + 1)`` of ``(B, N)``.

        Args:
            signal: float ``(B, N)``.
            shortened: transform the same frames by an FFT of twice the window, in float64.

        Raises:
            ConfigError: The signal is shorter than an FFT.
        """
        num_samples = signal.shape[-1]
        needed = max(self.fft_size - 2 * self.padding, self.padding + 1)
        if num_samples < needed:
            raise ConfigError(
                f"{num_samples} samples are too few for a spectral loss with an FFT of "
                f"{self.fft_size}: use crops of at least {needed} samples or a smaller FFT"
            )
        if self.padding:
            signal = F.pad(signal, (self.padding, self.padding), mode="reflect")
        # A window in the middle of its FFT has the magnitudes of one at its start: only the
        # frames move. Samples that the windows of the first and last FFT do not cover are cut.
        length = len(self.window)
        first = (self.fft_size - length) // 2
        num_frames = (signal.shape[-1] - self.fft_size) // self.hop + 1
        signal = signal[:, first : first + (num_frames - 1) * self.hop + length]
        window, fft_size = self.window, self.fft_size
        if shortened:
            signal, window, fft_size = signal.double(), window.double(), 2 * length
        return magnitudes(signal, window, fft_size, self.hop, self.epsilon, self.power)


def magnitudes(
    signal: Tensor,
    window: Tensor,
    fft_size: int,
    hop: int,
    epsilon: float = 0.0,
    power: int = 1,
) -> Tensor:
    """Return spectra ``(B, T, fft_size / 2 + 1)`` of ``(B, N)``, differentiable once.

    The arguments are the same as for `Spectrum`, but for the values ``(W,)`` of the window; frames
    are padded with zeros to the size of the FFT. ``T = (N - W) // hop + 1``.
    """
    result: Tensor = _Magnitudes.apply(signal, window, fft_size, hop, epsilon, power)
    return result


class _Magnitudes(torch.autograd.Function):
    """``sqrt(re^2 + im^2 + epsilon)`` of windowed frames, and its derivative.

    With the spectrum Y, the magnitude m and the incoming gradient g, all of ``fft / 2 + 1`` bins:

        d loss / d frame_n = window_n sum_k g_k Re(Y_k / m_k exp(2 pi i k n / fft))

    which is an inverse real transform, except that this one counts the bins between the two ends
    twice. For powers, where no root is taken, ``2 Y_k`` replaces ``Y_k / m_k``.

    On a CPU this takes less than half the time of autograd through `torch.stft` and `abs`: autograd
    uses a complex transform for it and scatters the frames back sample by sample, and `abs` calls
    the slow, overflow-proof `hypot`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        signal: Tensor,
        window: Tensor,
        fft_size: int,
        hop: int,
        epsilon: float,
        power: int,
    ) -> Tensor:
        frames = signal.unfold(-1, len(window), hop) * window
        spectrum = torch.fft.rfft(frames, fft_size)
        size: Tensor = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        if epsilon > 0:
            size += epsilon
        if power == 1:
            size.sqrt_()
        ctx.save_for_backward(spectrum, window, *([size] if power == 1 else []))
        ctx.signal_shape, ctx.fft_size, ctx.hop = signal.shape, fft_size, hop
        return size

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        spectrum, window, *magnitude = ctx.saved_tensors
        weight = grads[0] / magnitude[0].clamp(min=SMALLEST) if magnitude else 2 * grads[0]
        weight[..., 1 : (ctx.fft_size + 1) // 2] *= 0.5
        frames = torch.fft.irfft(spectrum * weight, ctx.fft_size, norm="forward")
        frames = frames[..., : len(window)] * window
        return _overlap_add(frames, ctx.hop, ctx.signal_shape), None, None, None, None, None


def _overlap_add(frames: Tensor, hop: int, shape: torch.Size) -> Tensor:
    """Add frames ``(B, T, W)`` at their places into zeros of ``shape`` = ``(B, N)``.

    The j-th hop of all frames is added at once: ceil(W / hop) additions in all.
    """
    _, num_frames, length = frames.shape
    hops_per_frame = -(-length // hop)
    hops = frames.new_zeros(len(frames), num_frames + hops_per_frame - 1, hop)
    for j in range(hops_per_frame):
        part = frames[..., j * hop : (j + 1) * hop]
        hops[:, j : j + num_frames, : part.shape[-1]] += part
    signal = hops.flatten(1)
    if signal.shape[-1] >= shape[-1]:
        return signal[:, : shape[-1]]
    return F.pad(signal, (0, shape[-1] - signal.shape[-1]))
