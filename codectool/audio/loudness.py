"""Loudness by ITU-R BS.1770-4, of signals of any length, and gains that bring it to a target.

The packages that compute it import SciPy (1.7 s) and hold the whole signal; this needs NumPy only.

BS.1770 defines its filter at 48 kHz. Here the frequency response of that filter is used at any
rate. Its impulse response is 100 ms long to -130 dB, and is applied as a finite one by FFT.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from codectool.audio.samples import Samples
from codectool.chunking import Chunker

HOPS_PER_SECOND = 10
HOPS_PER_BLOCK = 4  # blocks of 400 ms that overlap by 75 %
ABSOLUTE_GATE = -70.0  # LUFS; what is quieter is not measured
RELATIVE_GATE = -10.0  # LU
OFFSET = -0.691  # BS.1770: a sine of 997 Hz and full scale has -3.01 LUFS

# Biquads of the K-weighting at 48 kHz: a shelf for the head, and a high-pass filter.
FILTER_RATE = 48_000
BIQUADS = (
    (
        (1.53512485958697, -2.69169618940638, 1.19839281085285),
        (1.0, -1.69065929318241, 0.73248077421585),
    ),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)

DEFAULT_TARGET = -23.0  # LUFS; EBU R 128
MAX_GAIN_DB = 120.0
GAIN_DIGITS = 2  # of gains in dB, as `.hcd` files store them


class LoudnessMeter:
    """Measure the integrated loudness of a signal that arrives in chunks.

    The result does not depend on the chunks. All channels count alike: BS.1770 weights the rear
    channels of a surround mix, which files of speech do not name.

    Args:
        sample_rate: in Hz.
        channels: number of channels.

    Attributes:
        peak: largest absolute sample so far.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.peak = 0.0
        self._hop = round(sample_rate / HOPS_PER_SECOND)
        self._spectrum = k_weighting(sample_rate, self._hop)
        hops = max(1, HOPS_PER_SECOND // channels)  # at once, so that memory stays small
        self._chunker: Chunker[Samples] = Chunker(hops * self._hop, axis=1)
        self._tail = np.zeros((channels, self._hop))  # response to the hops so far
        self._energies: list[npt.NDArray[np.float64]] = []  # of hops, summed over channels
        self._rest = (0.0, 0)  # energy and samples of what fills no hop

    def push(self, samples: Samples) -> None:
        """Add samples ``(C, N)``."""
        self.peak = max(self.peak, float(np.abs(samples).max(initial=0.0)))
        for chunk in self._chunker.push(samples):
            self._add(chunk)

    def loudness(self) -> float | None:
        """End the signal; return its loudness in LUFS, or None below -70 LUFS.

        A signal of less than 400 ms is measured as one block.
        """
        rest = self._chunker.flush()
        if rest is not None and rest.shape[1]:
            self._add(rest)
        energies = np.concatenate([np.zeros(0), *self._energies])
        if len(energies) < HOPS_PER_BLOCK:
            samples = len(energies) * self._hop + self._rest[1]
            blocks = np.array([(energies.sum() + self._rest[0]) / max(1, samples)])
        else:
            windows = np.lib.stride_tricks.sliding_window_view(energies, HOPS_PER_BLOCK)
            blocks = windows.sum(-1) / (HOPS_PER_BLOCK * self._hop)
        blocks = blocks[blocks > _energy(ABSOLUTE_GATE)]
        if not len(blocks):
            return None
        blocks = blocks[blocks > blocks.mean() * 10 ** (RELATIVE_GATE / 10)]
        return OFFSET + 10 * math.log10(blocks.mean())

    def gain_to(self, target: float) -> float:
        """End the signal; return the gain in dB that brings it to ``target`` LUFS.

        The gain is limited so that no sample exceeds full scale. It is 0 below -70 LUFS: there is
        nothing to hear, or nothing but noise.
        """
        loudness = self.loudness()
        if loudness is None:
            return 0.0
        headroom = -20 * math.log10(self.peak)
        unit = 10**GAIN_DIGITS
        gain = min(round((target - loudness) * unit), math.floor(headroom * unit)) / unit
        return float(max(-MAX_GAIN_DB, min(gain, MAX_GAIN_DB)))

    def _add(self, chunk: Samples) -> None:
        """Filter the next samples: whole hops or, in the last call, any number."""
        hop, length = self._hop, chunk.shape[1]
        count, whole = -(-length // hop), length // hop
        energies, rest = np.zeros(whole), 0.0
        for row, tail in zip(chunk, self._tail, strict=True):
            padded = np.pad(row.astype(np.float64), (0, count * hop - length))
            spectra = np.fft.rfft(padded.reshape(count, hop), 2 * hop)
            responses = np.fft.irfft(spectra * self._spectrum, 2 * hop)
            filtered = responses[:, :hop]
            filtered[0] += tail
            filtered[1:] += responses[:-1, hop:]
            tail[:] = responses[-1, hop:]
            energies += np.square(filtered[:whole]).sum(1)
            rest += float(np.square(filtered.ravel()[whole * hop : length]).sum())
        self._energies.append(energies)
        self._rest = rest, length - whole * hop


def find_gain(samples: Samples, sample_rate: int, target: float) -> float:
    """Return the gain in dB that brings ``(C, N)`` to ``target`` LUFS; see `LoudnessMeter`."""
    meter = LoudnessMeter(sample_rate, len(samples))
    meter.push(samples)
    return meter.gain_to(target)


def amplify(samples: Samples, gain_db: float) -> Samples:
    """Return samples with a gain in dB."""
    return samples * np.float32(10 ** (gain_db / 20)) if gain_db else samples


@lru_cache(maxsize=8)
def k_weighting(sample_rate: int, taps: int) -> npt.NDArray[np.complex128]:
    """Return the spectrum of a filter of ``taps`` samples, for an FFT of twice this size.

    It is the minimum-phase filter with the magnitude of the one that BS.1770 defines, which has
    minimum phase, too; above 24 kHz, with the magnitude at 24 kHz.
    """
    frequency = np.linspace(0, sample_rate / 2, 8 * taps + 1).clip(max=FILTER_RATE / 2)
    delay = np.exp(-2j * np.pi * frequency / FILTER_RATE)
    magnitude = np.ones_like(frequency)
    for numerator, denominator in BIQUADS:
        magnitude *= np.abs(np.polyval(numerator[::-1], delay))
        magnitude /= np.abs(np.polyval(denominator[::-1], delay))
    cepstrum = np.fft.irfft(np.log(np.maximum(magnitude, magnitude[1])))  # it is 0 at 0 Hz
    cepstrum[1 : 8 * taps] *= 2
    cepstrum[8 * taps + 1 :] = 0
    response = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))
    return np.fft.rfft(response[:taps], 2 * taps)


def _energy(loudness: float) -> float:
    return float(10 ** ((loudness - OFFSET) / 10))
