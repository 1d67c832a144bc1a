"""A source of harmonics and noise beside the decoder's network.

Tokens code the phase of a voice up to about 1 kHz. Above it, a network without a source repeats the
same samples for each token: every sound is a comb of lines at multiples of the token rate. Here the
upper band is a pulse train and noise instead, filtered by gains that a small network predicts:

    features -> pitch, voicing, phase -> accumulated phase -> pulses  -> gains in bands -+-> samples
             |                                                noise   -> gains in bands -+
             +--------------------------------------------------------------^

The phase accumulates at the predicted frequency and is drawn to the predicted phase. The noise is a
function of the number of the sample, so that decoding is deterministic.

Decoding may start at any multiple of a period (`RESTART_TOKENS`); one period later, the samples are
those of the whole signal bit for bit. For this, the noise repeats after a period, and the phase
starts again where there is no voice. Where a voice has lasted for half a period, which speech never
does, it starts again at the next multiple of the period.

After the source-filter models of DDSP (arXiv 2001.04643) and NSF (arXiv 1904.12088).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.codecs.hac.activations import Snake
from codectool.codecs.hac.blocks import Block, append
from codectool.codecs.hac.config import SourceConfig
from codectool.codecs.hac.layers import Pointwise, RunningScale, ScaledLayer, depthwise_conv

Array = npt.NDArray[np.floating[Any]]

LOWEST_PITCH, BINS_PER_OCTAVE = 60.0, 24
LOCK_GAIN = 0.25  # share of the phase error that a frame corrects
MAX_DETUNING = 0.25  # largest relative change of the frequency by the correction
START_GAIN = -3.0  # logarithm; from much less, harmonics do not rise, as their gradient is small
DETUNING = 0.015  # standard deviation of the relative change of the pitch in training
HIGHEST_HARMONIC = 0.49  # times the sampling rate
GAIN_LIMITS = -16.0, 3.0  # natural logarithms
RESTART_TOKENS = 600  # period of the noise: 8 seconds of the presets; whole chunks of tokens
NOISE_SPREAD = 0x9E3779B1  # without this factor, distant samples of the noise correlate
NOISE_FACTORS = (16, 0x7FEB352D), (15, 0x846CA68B)  # shifts and factors of the hash of a sample
SILENT = 0.1  # voicing below which the phase starts again
PHASE_STEPS = 2**20  # phases are rounded to whole steps of a turn, which float32 holds exactly


class PitchTracker(ScaledLayer, Block):
    """Features ``(B, T, C)`` to ``(B, T, 3)``: phase, frequency, voicing.

    The phase, in turns, and the frequency, in turns per sample, belong to the first sample of a
    frame; voicing is 0 to 1.
    """

    def __init__(
        self, config: SourceConfig, channels: int, frame: int, sample_rate: int, period: int
    ) -> None:
        super().__init__()
        hidden, kernel = config.pitch_hidden, config.pitch_kernel
        self.frame, self.sample_rate, self.bins = frame, sample_rate, config.pitch_bins
        self.reach = kernel - 1
        self.sizes = [2 * self.reach * hidden, 3]  # past of the convolutions, state of the lock
        self.state_shape = (sum(self.sizes),)
        self.macs = hidden * (channels + 2 * kernel + 2 * hidden + config.pitch_bins + 3)
        self.scale = RunningScale()
        self.entry = Pointwise(channels, hidden)
        self.kernels = nn.ParameterList(
            nn.Parameter(torch.randn(hidden, kernel) * kernel**-0.5) for _ in range(2)
        )
        self.mix = nn.ModuleList(Pointwise(hidden, hidden) for _ in range(2))
        self.out = Pointwise(hidden, config.pitch_bins + 3)
        self.lock = PhaseLock(frame, period)

    def predict(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of pitch, logit of voicing, cosine and sine of the phase, and the state."""
        past = state.reshape(len(state), 2, self.reach, -1).unbind(1)
        x, after = F.silu(self.entry(self.scale(x))), []
        for kernel, mix, before in zip(self.kernels, self.mix, past, strict=True):
            extended, kept = append(before, x)
            x = x + F.silu(mix(depthwise_conv(extended, kernel)))
            after.append(kept)
        return self.out(x), torch.stack(after, 1).flatten(1)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            past, locked = torch.split(state, self.sizes, 1)
            out, past = self.predict(x.float(), past)
            values = self.values(out)
        track, locked = self.lock(values, locked)
        return track, torch.cat([past, locked], 1)

    @override
    def absorb_division_(self, divisor: Tensor) -> None:
        self.entry.weight.div_(divisor)

    def values(self, out: Tensor) -> Tensor:
        """Return what `PhaseLock` takes, ``(B, T, 4)``, from the output of `predict`."""
        return torch.cat([self.frequency(out), out[..., -3:]], -1)

    def frequency(self, out: Tensor) -> Tensor:
        """Return the mean frequency around the likeliest bin, ``(B, T, 1)``, turns per sample."""
        share = torch.softmax(out[..., : self.bins], -1)
        number = torch.arange(self.bins, device=out.device)
        near = (number - share.argmax(-1, keepdim=True)).abs() <= 2
        share = share * near
        centre = (share * number).sum(-1, keepdim=True) / share.sum(-1, keepdim=True)
        return LOWEST_PITCH / self.sample_rate * torch.exp2(centre / BINS_PER_OCTAVE)


class PhaseLock(nn.Module):
    """`lock_phase` for a batch; exported graphs have another form of it."""

    def __init__(self, frame: int, period: int) -> None:
        super().__init__()
        self.frame, self.period = frame, period

    @override
    def forward(self, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return phase, frequency and voicing ``(B, T, 3)``, and the next state ``(B, 3)``."""
        items = zip(values.detach().double().cpu().numpy(), state.tolist(), strict=True)
        tracks, after = zip(
            *(lock_phase(item, before, self.frame, self.period) for item, before in items),
            strict=True,
        )
        options: Any = {"dtype": torch.float32, "device": values.device}
        return torch.tensor(np.stack(tracks), **options), torch.tensor(after, **options)


LockState = Sequence[float]


def lock_phase(
    values: Array, state: LockState, frame: int, period: int
) -> tuple[npt.NDArray[np.float32], LockState]:
    """Accumulate the phase over frames, drawn to the predicted phase.

    It starts from 0 in frames without voice, and at multiples of the period if it has not done so
    for half a period.

    Args:
        values: ``(T, 4)``: frequency in turns per sample, logit of voicing, cosine and sine of the
            phase, whose size says how sure it is.
        state: phase in turns, number of the frame in its period, frames since the phase started;
            float32 holds all of them exactly.
        frame: samples per frame.
        period: frames per period.

    Returns:
        Phase, frequency and voicing ``(T, 3)``, and the next state.
    """
    phase, number, since = state
    frequency, logit, cosine, sine = values.T
    voicing = 1 / (1 + np.exp(-logit))
    strength = LOCK_GAIN / frame * voicing * np.minimum(np.hypot(cosine, sine), 1)
    aim = np.arctan2(sine, cosine) / (2 * math.pi)
    limits = np.outer((1 - MAX_DETUNING, 1 + MAX_DETUNING), frequency)
    columns = (aim, strength, voicing < SILENT, frequency, *limits)
    phases, frequencies = [], []
    for target, pull, silent, plain, low, high in zip(*(c.tolist() for c in columns), strict=True):
        if silent or (number == 0 and since >= period // 2):
            phase, since = 0.0, 0
        error = target - phase
        locked = min(max(plain + pull * (error - math.floor(error + 0.5)), low), high)
        phases.append(phase)
        frequencies.append(locked)
        phase = math.floor((phase + frame * locked) % 1 * PHASE_STEPS) / PHASE_STEPS
        number, since = (number + 1) % period, min(since + 1, period)
    track = np.stack([phases, frequencies, voicing], 1).astype(np.float32)
    return track, (phase, number, since)


def vary(track: Tensor, frame: int) -> Tensor:
    """Return tracks ``(B, T, 3)`` with a random phase and a slightly different pitch.

    Outputs of the same tokens have to differ in all that the tokens leave open. If they differed in
    their noise only, the energy distance would punish errors of the pitch but not noise, and the
    harmonics would vanish.
    """
    phase, frequency, voicing = track.unbind(-1)
    count, frames = phase.shape
    slow = torch.randn(count, 1, frames // 8 + 2, device=track.device)
    slow = F.interpolate(slow, frames, mode="linear")[:, 0]
    detuning = DETUNING * (0.6 * torch.randn(count, 1, device=track.device) + 0.8 * slow)
    steps = frame * frequency * detuning
    moved = torch.cumsum(steps, 1) - steps + torch.rand(count, 1, device=track.device)
    return torch.stack([(phase + moved) % 1, frequency * (1 + detuning), voicing], -1)


class HarmonicNoise(ScaledLayer, Block):
    """Features and pitch ``(B, T, C + 3)`` to samples ``(B, T frame, 1)``.

    Both sources are cut into overlapping segments of half a frame, which are filtered in the
    frequency domain: the gains change twice per frame.
    """

    def __init__(
        self, config: SourceConfig, channels: int, frame: int, sample_rate: int, period: int
    ) -> None:
        super().__init__()
        self.up, self.hop, self.bands = frame, frame // 2, config.bands
        self.period = period
        self.advance = config.phase_advance
        self.delay = self.hop + config.filter_delay  # samples from the sources to the output
        spacing = sample_rate / config.fft_size
        self.filter = SegmentFilter(
            self.hop, config.fft_size, config.filter_delay, config.bands, spacing
        )
        self.context = GainContext(config) if config.context else None
        reach = self.context.reach * config.hidden if self.context is not None else 0
        # number of the frame in its period, half a frame of both sources, the samples of earlier
        # segments, and the past of the context
        self.sizes = [1, 2 * self.hop, self.filter.tail, reach]
        self.state_shape = (sum(self.sizes),)
        self.macs = config.hidden * (channels + 4 * config.bands)
        if self.context is not None:
            self.macs += config.hidden * (2 * config.context + config.context_kernel)
        self.scale = RunningScale()
        self.widen = Pointwise(channels, config.hidden)
        self.activation = Snake(config.hidden)
        self.gains = Pointwise(config.hidden, 4 * config.bands)
        self.gains.bias = nn.Parameter(torch.full((4 * config.bands,), START_GAIN))
        # the first band that the source makes alone
        self.first_band = int((_band_centres(config.bands, sample_rate) < config.cutoff).sum())
        limit = _noise_limit(config, sample_rate) if config.voiced_noise_from else None
        self.register_buffer("noise_limit", limit, persistent=False)
        self.noise_limit: Tensor | None
        sharpening = _sharpening(config, sample_rate) if config.sharpening else None
        self.register_buffer("sharpening", sharpening, persistent=False)
        self.sharpening: Tensor | None

    def scale_output_(self, factor: Tensor) -> None:
        """Multiply all samples by a factor."""
        assert self.gains.bias is not None
        self.gains.bias.add_(factor.log())

    @torch.no_grad()
    def start_gains_(self, waves: Tensor) -> None:
        """Start the gains near the mean levels of the loud half of normalised waves ``(B, N)``.

        The weights are made small, so that all frames start alike. Noise is weaker than harmonics
        at first, since harmonics that are too weak vanish; bands of the network are left to it.
        """
        window, matrix, bias = self.filter.window, self.filter.matrix, self.gains.bias
        assert bias is not None
        frames = waves.unfold(-1, 2 * self.hop, self.hop).flatten(0, 1) * window
        power = torch.fft.rfft(frames, self.filter.fft).abs().square() / window.square().sum()
        levels = 0.5 * (power @ matrix.T / matrix.sum(1)).clamp(min=1e-8).log()
        total = levels.mean(1)
        harmonics = levels[total >= total.median()].mean(0)
        harmonics[: self.first_band] -= 4
        low = torch.arange(self.bands, device=waves.device) < self.bands * 0.75  # up to 5 kHz
        gains = torch.stack([harmonics, harmonics - low.float()])
        bias.copy_(gains.flatten().repeat(2))
        self.gains.weight.mul_(0.1)

    @override
    def absorb_division_(self, divisor: Tensor) -> None:
        self.widen.weight.div_(divisor)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            counter, before, rest, past = torch.split(state, self.sizes, 1)
            track = x[..., -3:].float()
            gains, past = self.predict_gains(x[..., :-3].float(), past)
            gains = self.sharpen(gains, track)
            noise = self.noise(counter, x.shape[1])
            samples, kept, rest = self.render(gains, track, noise, before, rest)
            count = torch.remainder(counter + x.shape[1], self.period)
            return samples[..., None], torch.cat([count, kept, rest, past], 1)

    def predict_gains(self, features: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return logarithms of the gains of harmonics and noise, ``(B, 2 T, 2, bands)``."""
        hidden = self.activation(self.widen(self.scale(features)))
        if self.context is not None:
            hidden, past = self.context(hidden, past)
        return self.gains(hidden).unflatten(-1, (2, 2, self.bands)).flatten(1, 2), past

    def sharpen(self, gains: Tensor, track: Tensor) -> Tensor:
        """Add a share of the deviations of the levels from smoothed levels, if the config asks."""
        if self.sharpening is None:
            return gains
        return gains + (self.levels(gains, track) @ self.sharpening)[:, :, None]

    def levels(self, gains: Tensor, track: Tensor) -> Tensor:
        """Return log levels ``(B, 2 T, bands)`` of harmonics and noise together."""
        voicing = track[..., 2].clamp(1e-3).log().repeat_interleave(2, 1)[..., None]
        return 0.5 * torch.logaddexp(2 * (gains[:, :, 0] + voicing), 2 * gains[:, :, 1])

    def render(
        self, gains: Tensor, track: Tensor, noise: Tensor, before: Tensor, rest: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return samples ``(B, T frame)``, and what the next frames need of sources and samples."""
        if self.noise_limit is not None:
            voicing = track[..., 2].repeat_interleave(2, 1)[..., None]
            less = (1 - voicing * self.noise_limit).clamp(min=1e-3).log()
            gains = torch.stack([gains[:, :, 0], gains[:, :, 1] + less], 2)
        sources = torch.stack([self.pulses(*track.unbind(-1)), noise], 1)
        extended = torch.cat([before.reshape(-1, 2, self.hop), sources], 2)
        samples = self.filter(extended, gains, rest)
        split = sources.shape[2]
        return samples[:, :split], extended[:, :, -self.hop :].flatten(1), samples[:, split:]

    def pulses(self, phase: Tensor, frequency: Tensor, voicing: Tensor) -> Tensor:
        """Return band-limited pulses of unit power times voicing, ``(B, T frame)``.

        The sum of K cosines is ``sin((2 K + 1) pi phase) / (2 sin(pi phase)) - 1 / 2``.
        """
        offsets = torch.arange(self.up, device=phase.device) + self.advance
        angle = phase[..., None] + frequency[..., None] * offsets
        angle = math.pi * (angle - torch.floor(angle))
        count = torch.floor(HIGHEST_HARMONIC / frequency)[..., None]
        half = torch.sin(angle)
        near = half.abs() < 1e-3
        total = torch.sin((2 * count + 1) * angle) / (2 * torch.where(near, 1.0, half)) - 0.5
        pulses = torch.where(near, count, total) * (2 / count).sqrt() * voicing[..., None]
        return pulses.flatten(1)

    def noise(self, counter: Tensor, frames: int) -> Tensor:
        """Return uniform white noise of unit power, ``(B, T frame)``, a hash of sample numbers."""
        first = counter.to(torch.int64) * self.up
        x = first + torch.arange(frames * self.up, device=counter.device)
        x = x % (self.period * self.up)
        x = (x * NOISE_SPREAD) & 0xFFFFFFFF
        for shift, factor in NOISE_FACTORS:
            x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
        x = x ^ (x >> 16)
        return (x.to(torch.float32) * 2.0**-31 - 1) * math.sqrt(3)


class SegmentFilter(nn.Module):
    """Filter of overlapping segments in the frequency domain; exported graphs have their own form.

    Attributes:
        tail: samples that the last segment reaches beyond its hop.
    """

    def __init__(self, hop: int, fft: int, delay: int, bands: int, spacing: float) -> None:
        super().__init__()
        self.hop, self.fft, self.delay, self.bands = hop, fft, delay, bands
        self.spacing = spacing
        self.tail = -(-fft // hop) * hop - hop
        self.matrix = nn.Buffer(band_weights(bands, self.positions()), persistent=False)
        self.window = nn.Buffer(
            torch.hann_window(2 * hop, dtype=torch.float32, device="cpu"), persistent=False
        )
        # filters have no phase, so segments are delayed: their responses begin before them
        turns = torch.arange(fft // 2 + 1, dtype=torch.float64, device="cpu") * delay / fft
        self.phases = nn.Buffer(
            torch.exp(-2j * math.pi * turns).to(torch.complex64), persistent=False
        )

    @override
    def forward(self, sources: Tensor, gains: Tensor, rest: Tensor) -> Tensor:
        """Return the sum of both sources, ``(B, S hop + tail)``.

        Args:
            sources: ``(B, 2, (S + 1) hop)``.
            gains: natural logarithms of the factors of the bands, ``(B, S, 2, bands)``.
            rest: samples of earlier segments, ``(B, tail)``.
        """
        segments = sources.unfold(2, 2 * self.hop, self.hop) * self.window
        spectra = torch.fft.rfft(segments, self.fft).transpose(1, 2)
        weights = torch.exp((gains @ self.matrix).clamp(*GAIN_LIMITS))
        rows = torch.fft.irfft((spectra * weights).sum(2) * self.phases, self.fft)
        hops = F.pad(rows, (0, -self.fft % self.hop)).reshape(*rows.shape[:2], -1, self.hop)
        count, parts = hops.shape[1:3]
        total: Tensor = hops.new_zeros(len(rows), count + parts - 1, self.hop)
        total[:, : parts - 1] = rest.reshape(len(rest), -1, self.hop)
        for part in range(parts):
            total[:, part : part + count] += hops[:, :, part]
        return total.flatten(1)

    def positions(self) -> Tensor:
        """Return the position of each bin among the bands, which a mel-like scale spaces evenly."""
        bins = torch.arange(self.fft // 2 + 1, dtype=torch.float64, device="cpu")
        scale = torch.log1p(bins * (self.spacing / 700.0))
        return (scale / scale[-1] * (self.bands - 1)).float()


class GainContext(nn.Module):
    """Residual unit that lets the gains depend on the last frames, at first zero."""

    def __init__(self, config: SourceConfig) -> None:
        super().__init__()
        self.reach = config.context_kernel - 1
        self.kernel = nn.Parameter(
            torch.randn(config.hidden, config.context_kernel) * config.context_kernel**-0.5
        )
        self.widen = Pointwise(config.hidden, config.context)
        self.activation = Snake(config.context)
        self.narrow = Pointwise(config.context, config.hidden, bias=False)
        nn.init.zeros_(self.narrow.weight)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        extended, state = append(state.reshape(len(x), self.reach, -1), x)
        moved = depthwise_conv(extended, self.kernel)
        y = x + self.narrow(self.activation(self.widen(moved)))
        return y, state.flatten(1)


def band_weights(bands: int, positions: Tensor) -> Tensor:
    """Return the weights ``(bands, bins)`` that interpolate between bands."""
    number = torch.arange(bands, device=positions.device)[:, None]
    return (1 - (positions - number).abs()).clamp(min=0)


def _band_centres(bands: int, sample_rate: int) -> Array:
    """Return the frequencies in Hz at which the gains of bands apply."""
    return 700.0 * np.expm1(np.arange(bands) / (bands - 1) * math.log1p(sample_rate / 1400.0))


def _noise_limit(config: SourceConfig, sample_rate: int) -> Tensor:
    """Return ``(bands,)``: the share of the noise that voiced sounds lose; an edge of 150 Hz."""
    above = _band_centres(config.bands, sample_rate) - config.voiced_noise_from
    return torch.from_numpy(np.clip(0.5 - above / 150.0, 0, 1)).float()


def _sharpening(config: SourceConfig, sample_rate: int) -> Tensor:
    """Return ``(bands, bands)``: the share of the levels less the smoothed ones that is added.

    Predicted levels are too smooth over frequency, since they are means. The band that the network
    makes alone is left as it is.
    """
    number = np.arange(config.bands)
    width = config.bands / 10
    smooth = np.exp(-0.5 * ((number[:, None] - number) / width) ** 2)
    smooth /= smooth.sum(0)
    centres = _band_centres(config.bands, sample_rate)
    share = config.sharpening * np.clip((centres / config.cutoff - 1) * 4, 0, 1)
    return torch.from_numpy((np.eye(config.bands) - smooth) * share).float()


class LowPass(Block):
    """Causal filter of samples ``(B, N, 1)``, a minimum-phase low-pass that is not trained."""

    def __init__(self, cutoff: float, sample_rate: int) -> None:
        super().__init__()
        taps = torch.from_numpy(minimum_phase_low_pass(cutoff / sample_rate)).float()
        self.taps = nn.Parameter(taps, requires_grad=False)
        self.state_shape = (len(taps) - 1, 1)
        self.macs = len(taps)

    @override
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            extended, state = append(state, x.float())
            return F.conv1d(extended.mT, self.taps.flip(0)[None, None]).mT, state


def minimum_phase_low_pass(cutoff: float, taps: int = 96) -> Array:
    """Design a low-pass with its energy as early as possible; ``cutoff`` in cycles per sample.

    The phase follows from the logarithm of the magnitude, by way of the real cepstrum.
    """
    size = 8192
    time = np.arange(-taps + 1, taps)
    linear = 2 * cutoff * np.sinc(2 * cutoff * time) * np.kaiser(2 * taps - 1, 6.0)
    magnitude = np.abs(np.fft.rfft(linear, size))
    cepstrum = np.fft.irfft(np.log(np.maximum(magnitude, 1e-3)))
    cepstrum[1 : size // 2] *= 2
    cepstrum[size // 2 + 1 :] = 0
    response = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[:taps]
    return cast("Array", response / response.sum())
