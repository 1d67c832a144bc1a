"""CPU form of the source of harmonics and noise; the modules in `source` say what is computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from codectool.codecs.hac.cpu_operations import (
    Array,
    Bind,
    Buffer,
    DepthwiseConv,
    History,
    JoinedMemory,
    Operation,
    Product,
    StateArrays,
    Workspace,
    affine,
    half_period,
    residual_unit,
    snake_,
)
from codectool.codecs.hac.layers import Pointwise
from codectool.codecs.hac.source import (
    BINS_PER_OCTAVE,
    GAIN_LIMITS,
    HIGHEST_HARMONIC,
    LOWEST_PITCH,
    NOISE_FACTORS,
    NOISE_SPREAD,
    HarmonicNoise,
    LowPass,
    PitchTracker,
    SegmentFilter,
    lock_phase,
)

NEIGHBOURS = np.arange(-2, 3)
FILTER_BLOCK = 64  # samples that one product of the low-pass computes
FEW_ROWS = 16  # rows of products that BLAS libraries round by the number of threads


def pitch_tracker(block: PitchTracker) -> Callable[[Buffer, Workspace], Operation]:
    """Return a function that allocates the operation from features to tracks ``(T, 3)``."""
    entry, out = affine(block.entry), affine(block.out)
    convolutions = [DepthwiseConv(kernel) for kernel in block.kernels]
    mixes = [affine(cast(Pointwise, mix)) for mix in block.mix]
    hidden, bins, reach = len(block.entry.weight), block.bins, block.reach
    frame, period = block.lock.frame, block.lock.period
    lowest = np.float32(LOWEST_PITCH / block.sample_rate)

    def bind(x: Buffer, workspace: Workspace) -> Operation:
        frames = len(x.array)
        histories = [History((reach, hidden), frames) for _ in convolutions]
        convolve = [
            convolution.bind(history)
            for convolution, history in zip(convolutions, histories, strict=True)
        ]
        convolved, mixed, last = (
            workspace.take(name, frames, hidden) for name in ("convolved", "angle", "cosine")
        )
        inputs = [history.chunk for history in histories] + [last]
        logits = Buffer(torch.empty(frames, bins + 3, dtype=torch.float32, device="cpu"))
        locked = np.zeros(3, np.float32)

        def run(track: Buffer) -> None:
            entry(x, inputs[0])
            torch.nn.functional.silu(inputs[0].tensor, inplace=True)
            for number, mix in enumerate(mixes):
                mix(convolve[number](convolved), mixed)
                torch.nn.functional.silu(mixed.tensor, inplace=True)
                np.add(inputs[number].array, mixed.array, out=inputs[number + 1].array)
            out(last, logits)
            values = np.empty((frames, 4))
            values[:, 0] = lowest * np.exp2(mean_bin(logits.array[:, :bins]) / BINS_PER_OCTAVE)
            values[:, 1:] = logits.array[:, bins:]
            track.array[:], locked[:] = lock_phase(values, locked.tolist(), frame, period)

        return Operation(x, run, JoinedMemory([*histories, StateArrays(locked, locked)]))

    return bind


def mean_bin(logits: Array) -> Array:
    """Return the mean number of the bins around the likeliest one, ``(T,)``."""
    best = logits.argmax(1)[:, None]
    near = best + NEIGHBOURS
    inside = (near >= 0) & (near < logits.shape[1])
    values = np.take_along_axis(logits, near.clip(0, logits.shape[1] - 1), 1)
    share = np.exp(values - np.take_along_axis(logits, best, 1)) * inside
    mean: Array = (share * near).sum(1, dtype=np.float32) / share.sum(1)
    return mean


def harmonic_noise(block: HarmonicNoise) -> Callable[[Buffer, Buffer, Workspace], Operation]:
    """Return a function that allocates the operation from features and tracks to samples."""
    half = half_period(block.activation)
    factor: Array = half.float().numpy()
    widen, gains = affine(block.widen, after=half), affine(block.gains)
    context = None
    if (unit := block.context) is not None:
        context = residual_unit(unit.kernel, unit.widen, unit.activation, unit.narrow)
    sharpening = None if block.sharpening is None else Product(block.sharpening.T)
    noise_limit: Array | None = None
    if block.noise_limit is not None:
        noise_limit = block.noise_limit.numpy().copy()
    make_filter = segment_filter(block.filter)
    up, bands, period = block.up, block.bands, block.period
    offsets: Array = np.arange(up, dtype=np.float32) + np.float32(block.advance)

    def bind(x: Buffer, track: Buffer, workspace: Workspace) -> Operation:
        frames, channels = len(x.array), len(half)
        rows = 2 * frames
        counter = np.zeros(1, np.float32)
        hidden, combined = (workspace.take(name, frames, channels) for name in ("angle", "hidden"))
        operation = None if context is None else context(frames, workspace)
        if operation is not None:
            hidden = operation.input_buffer
        cosine = workspace.take("cosine", frames, channels)
        logs = workspace.take("logs", frames, 4 * bands)
        change = workspace.take("change", rows, bands)
        angle, sine = (workspace.take(name, frames, up).array for name in ("angle", "cosine"))
        run_filter, sources, filter_memories = make_filter(rows, workspace)
        pulses, noise = sources[0].reshape(frames, up), sources[1]
        memories = [
            StateArrays(counter, counter),
            *filter_memories,
            None if operation is None else operation.memory,
        ]

        def predict_gains() -> None:
            widen(x, hidden)
            snake_(hidden.array, cosine.array)
            np.multiply(hidden.array, factor, out=hidden.array)
            np.add(hidden.array, factor, out=hidden.array)
            if operation is not None:
                operation.run(combined)
            gains(hidden if operation is None else combined, logs)

        def sharpen(sharpening: Product) -> None:
            parts = logs.array.reshape(rows, 2, bands)
            voicing = np.log(np.maximum(track.array[:, 2], np.float32(1e-3))).repeat(2)
            levels = log_add(2 * (parts[:, 0] + voicing[:, None]), 2 * parts[:, 1])
            sharpening(Buffer(torch.from_numpy(levels)), change)
            parts += 0.5 * change.array[:, None]

        def run(out: Buffer) -> None:
            predict_gains()
            if sharpening is not None:
                sharpen(sharpening)
            if noise_limit is not None:
                voicing = track.array[:, 2].repeat(2)[:, None]
                noise_logs = logs.array.reshape(rows, 2, bands)[:, 1]
                noise_logs += np.log(np.maximum(1 - voicing * noise_limit, np.float32(1e-3)))
            make_pulses(track.array, offsets, pulses, angle, sine)
            make_noise(int(counter[0]) * up, period * up, noise)
            run_filter(logs, out)
            counter[0] = (counter[0] + frames) % period

        return Operation(x, run, JoinedMemory(memories))

    return bind


def log_add(a: Array, b: Array) -> Array:
    """Compute `numpy.logaddexp` with functions that NumPy vectorizes."""
    ratio: Array = np.exp(-np.abs(a - b))
    np.log(ratio + np.float32(1), out=ratio)
    return np.add(ratio, np.maximum(a, b), out=ratio)


def make_pulses(track: Array, offsets: Array, pulses: Array, angle: Array, sine: Array) -> None:
    """Compute ``pulses`` ``(T, frame)`` as `HarmonicNoise.pulses`; the last two are overwritten."""
    phase, frequency, voicing = track.T[:, :, None]
    count = np.floor(np.float32(HIGHEST_HARMONIC) / frequency)
    np.multiply(frequency, offsets, out=angle)
    np.add(angle, phase, out=angle)
    np.subtract(angle, np.floor(angle, out=sine), out=angle)
    np.multiply(angle, np.float32(math.pi), out=angle)
    np.sin(angle, out=sine)
    near = np.abs(sine) < 1e-3
    np.copyto(sine, np.float32(1), where=near)
    np.multiply(angle, 2 * count + 1, out=angle)
    np.sin(angle, out=angle)
    np.divide(angle, sine, out=angle)
    np.subtract(angle, np.float32(1), out=angle)
    np.copyto(angle, 2 * count, where=near)
    np.multiply(angle, np.sqrt(1 / (2 * count)) * voicing, out=pulses)


def make_noise(first: int, period: int, noise: Array) -> None:
    """Compute ``noise`` ``(N,)`` from a sample on as `HarmonicNoise.noise`."""
    last = first + len(noise)
    x = np.arange(first, last, dtype=np.uint32)
    if last > period:
        x %= np.uint32(period)
    x *= np.uint32(NOISE_SPREAD)
    for shift, factor in NOISE_FACTORS:
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    np.copyto(noise, x, casting="unsafe")
    np.multiply(noise, np.float32(2.0**-31), out=noise)
    np.subtract(noise, np.float32(1), out=noise)
    np.multiply(noise, np.float32(math.sqrt(3)), out=noise)


RunFilter = Callable[[Buffer, Buffer], None]


def segment_filter(
    block: SegmentFilter,
) -> Callable[[int, Workspace], tuple[RunFilter, Array, list[StateArrays]]]:
    """Return a function that allocates the filter of a number of segments.

    It returns a function from logarithms of gains to samples ``(N, 1)``, the sources that the
    function filters, ``(2, N)``, and their memories.
    """
    matrix, delay = Product(block.matrix.T), block.delay % block.fft
    window: Array = block.window.numpy().copy()
    hop, fft, bins, tail = block.hop, block.fft, block.matrix.shape[1], block.tail // block.hop
    cuts = sorted({*range(0, fft, hop), delay, fft})  # parts that stay within a hop

    def bind(rows: int, workspace: Workspace) -> tuple[RunFilter, Array, list[StateArrays]]:
        extended = np.zeros((2, (rows + 1) * hop), np.float32)
        segments = sliding_window_view(extended, 2 * hop, 1)[:, ::hop].transpose(1, 0, 2)
        padded = torch.zeros(rows, 2, fft, dtype=torch.float32, device="cpu")
        windowed: Array = padded.numpy()[:, :, : 2 * hop]
        weights = workspace.take("weights", 2 * rows, bins)
        total = np.zeros((rows + tail, hop), np.float32)
        memories = [
            StateArrays(extended[:, :hop], extended[:, -hop:]),
            StateArrays(total[:tail], total[rows:]),
        ]

        def run(logs: Buffer, out: Buffer) -> None:
            np.multiply(segments, window, out=windowed)
            gains = matrix.compute(Buffer(logs.tensor.view(2 * rows, -1)), weights).array
            np.clip(gains, *GAIN_LIMITS, out=gains)
            np.exp(gains, out=gains)
            spectra = torch.fft.rfft(padded)
            # in NumPy, since complex products of PyTorch are rounded by the number of threads
            values = spectra.numpy()
            for component in (values.real, values.imag):
                component *= gains.reshape(rows, 2, bins)
            filtered: Array = torch.fft.irfft(spectra[:, 0].add_(spectra[:, 1]), fft).numpy()
            total[tail:] = 0
            for first, last in pairwise(cuts):  # the response is delayed in a circle
                part, start = divmod(first, hop)
                hops = filtered[:, (first - delay) % fft :][:, : last - first]
                total[part : part + rows, start : start + last - first] += hops
            np.copyto(out.array.reshape(rows, hop), total[:rows])

        return run, extended[:, hop:], memories

    return bind


def low_pass(block: LowPass) -> Bind:
    """Return a function that allocates the filter as a product of blocks with a Toeplitz matrix."""
    taps: Array = block.taps.numpy().copy()
    reach = len(taps) - 1

    @cache
    def toeplitz(size: int) -> Product:
        matrix = torch.zeros(size, reach + size, dtype=torch.float32, device="cpu")
        for row in range(size):
            matrix[row, row : row + reach + 1] = torch.from_numpy(taps[::-1].copy())
        return Product(matrix)

    def bind(frames: int, workspace: Workspace) -> Operation:
        size = math.gcd(frames, FILTER_BLOCK)
        product = toeplitz(size)
        history = History(block.state_shape, frames)
        windows = history.windows(reach + size, stride=size).array[:, :, 0]
        unfolded = workspace.take("unfolded", *windows.shape)

        def run(out: Buffer) -> None:
            blocks = Buffer(out.tensor.view(-1, size))
            if len(windows) <= FEW_ROWS:
                np.einsum("tk,kc->tc", windows, product.weight.numpy(), out=blocks.array)
                return
            np.copyto(unfolded.array, windows)
            product(unfolded, blocks)

        return Operation(history.chunk, run, history)

    return bind
