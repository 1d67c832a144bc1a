"""Objective measures of coded speech, on numpy arrays.

Letters used in shapes: N samples, T short-time frames, M mel bands, F frames of tokens.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.audio.resample import resample
from codectool.errors import UsageError

RATE = 24000  # of every signal that is compared here
PERCEPTUAL_RATE = 16000  # PESQ wide-band knows no other
SCALES = ((256, 20), (512, 40), (1024, 80), (2048, 128))  # window in samples, mel bands
FLOOR = 1e-4  # of full scale: what is below -80 dB counts as silence

Wave = npt.NDArray[np.float32]
Array = npt.NDArray[np.floating[Any]]


def score(reference: Wave, wave: Wave) -> dict[str, float | None]:
    """All measures of one clip; None where one cannot judge it (too short, or silent).

    Args:
        reference: ``(N,)`` at 24 kHz in [-1, 1].
        wave: ``(N,)``, aligned with it.
    """
    before, after = (
        resample(signal[None], RATE, PERCEPTUAL_RATE)[0].astype(float)
        for signal in (reference, wave)
    )
    return {
        "pesq_wb": pesq_wb(before, after),
        "stoi": stoi(before, after, extended=False),
        "estoi": stoi(before, after, extended=True),
        "mel_db": mel_distance(reference, wave),
        "si_sdr_db": si_sdr(reference, wave),
    }


def pesq_wb(reference: Array, wave: Array) -> float | None:
    """PESQ wide-band (ITU-T P.862.2) of signals at 16 kHz, from 1 to 4.64."""
    pesq = _scorer("pesq")
    try:
        return float(pesq.pesq(PERCEPTUAL_RATE, reference, wave, "wb"))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return None


def stoi(reference: Array, wave: Array, *, extended: bool) -> float | None:
    """Short-time objective intelligibility of signals at 16 kHz, up to 1.

    STOI is Taal et al. 2011, ESTOI Jensen and Taal 2016; both want 0.4 s that are not silent.
    """
    pystoi = _scorer("pystoi")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(reference, wave, PERCEPTUAL_RATE, extended=extended))
        except RuntimeWarning:  # its way to say that it returns a made-up number
            return None


def check_scorers() -> None:
    """Find out before anything is coded.

    Raises:
        UsageError: a package that only this benchmark needs is missing.
    """
    for name in ("pesq", "pystoi"):
        _scorer(name)


def _scorer(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise UsageError(
            f"the package `{name}` is missing; `pip install pesq pystoi` adds what this benchmark "
            "needs beside codectool"
        ) from error


def si_sdr(reference: Array, wave: Array) -> float | None:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., arXiv 1811.02508).

    It asks for the waveform itself. Codecs that make the phase anew score far below zero here,
    however they sound.
    """
    before, after = (np.asarray(signal, float) - np.mean(signal) for signal in (reference, wave))
    power = float(before @ before)
    if power == 0 or not after.any():
        return None
    target = (after @ before) / power * before
    error = after - target
    return 10 * math.log10((float(target @ target) + 1e-12) / (float(error @ error) + 1e-12))


def mel_distance(reference: Array, wave: Array) -> float:
    """Mean absolute difference of log-mel spectrograms in dB, the mean over the four `SCALES`."""
    return float(
        np.mean(
            [
                np.mean(np.abs(log_mel(wave, *scale) - log_mel(reference, *scale)))
                for scale in SCALES
            ]
        )
    )


def log_mel(wave: Array, window: int, bands: int) -> Array:
    """Log-mel spectrogram in dB, of ``(N,)`` at 24 kHz.

    Periodic Hann window, a quarter of it from frame to frame, magnitudes of which a sine at full
    scale reaches 1; frames lie wholly within the signal, which is filled up to one window at least.

    Returns:
        ``(T, M)`` with ``T = 1 + (N - window) // (window / 4)``, at least -80 dB.
    """
    wave = np.pad(np.asarray(wave, float), (0, max(0, window - len(wave))))
    hann = np.hanning(window + 1)[:-1]
    pieces = np.lib.stride_tricks.sliding_window_view(wave, window)[:: window // 4]
    magnitude = np.abs(np.fft.rfft(pieces * hann, axis=-1)) * 2 / hann.sum()
    return np.asarray(20 * np.log10(np.maximum(magnitude @ mel_bands(window, bands).T, FLOOR)))


@cache
def mel_bands(window: int, bands: int) -> Array:
    """Triangular bands ``(M, window / 2 + 1)`` from 0 to 12 kHz, each of which sums to 1.

    Their corners are equally spaced in Slaney's mel: a mel is 66.7 Hz below 1 kHz, and 27 of them
    are a factor of 6.4 above.
    """
    bins = np.arange(window // 2 + 1) * RATE / window
    corners = mel_to_hertz(np.linspace(0, hertz_to_mel(RATE / 2), bands + 2))
    triangles = []
    for low, (centre, high) in zip(corners, pairwise(corners[1:]), strict=False):
        rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
        triangles.append(np.maximum(0, np.minimum(rise, fall)))
    filters = np.stack(triangles)
    return np.asarray(filters / filters.sum(axis=1, keepdims=True))


def hertz_to_mel(hertz: float) -> float:
    """Slaney's mel."""
    if hertz < 1000:
        return hertz * 3 / 200
    return 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def mel_to_hertz(mel: Array) -> Array:
    """Undo `hertz_to_mel`."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


# ---- Delay ----------------------------------------------------------------------------------

LONGEST_DELAY = 0.1  # in seconds, either way
STEP = RATE // 1000  # of the envelopes: 1 ms


def find_delay(pairs: Sequence[tuple[Wave, Wave]]) -> int:
    """By how many samples a system is late, one number for all ``(reference, output)`` pairs.

    A parametric codec makes the phase anew, so that waveforms correlate anywhere within a pitch
    period. The log energies of eight bands (of 500 Hz) are correlated instead, which gives the
    millisecond; where the waveforms do match around it, they give the sample.
    """
    lags = round(LONGEST_DELAY * RATE) // STEP
    by_envelope = sum(correlate(envelope(before), envelope(after), lags) for before, after in pairs)
    rough = (int(np.argmax(by_envelope)) - lags) * STEP
    lags = round(LONGEST_DELAY * RATE) + 2 * STEP
    by_wave = sum(correlate(before[:, None], after[:, None], lags) for before, after in pairs)
    near = np.asarray(by_wave)[lags + rough - 2 * STEP : lags + rough + 2 * STEP + 1]
    if near.max() / len(pairs) < 0.5:
        return rough
    return rough - 2 * STEP + int(np.argmax(near))


def envelope(wave: Wave) -> Array:
    """Log energies in eight bands up to 4 kHz, one row per millisecond, without their mean."""
    width = 10 * STEP
    padded = np.pad(wave, (width // 2, width // 2))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, width)[::STEP]
    magnitude = np.abs(np.fft.rfft(pieces * np.hanning(width), axis=-1))[:, :40]
    energy = np.log(magnitude.reshape(len(magnitude), 8, 5).sum(-1) + 1e-3)
    return np.asarray(energy - energy.mean(0))


def correlate(reference: Array, wave: Array, lags: int) -> Array:
    """Normalised cross-correlation of ``(N, K)`` and ``(N', K)``, summed over K.

    Returns:
        ``(2 lags + 1,)``; entry ``lags + d`` is for a wave that is ``d`` rows late.
    """
    size = 1 << (len(reference) + len(wave)).bit_length()
    spectra = np.conj(np.fft.rfft(reference, size, axis=0)) * np.fft.rfft(wave, size, axis=0)
    product = np.fft.irfft(spectra.sum(1), size)
    scale = math.sqrt(float((reference**2).sum()) * float((wave**2).sum())) + 1e-12
    return np.concatenate([product[-lags:], product[: lags + 1]]) / scale


def advance(wave: Wave, samples: int, length: int) -> Wave:
    """Take off a delay (or a lead, if negative), and cut or fill up with zeros to ``length``."""
    wave = wave[samples:] if samples >= 0 else np.pad(wave, (-samples, 0))
    return np.pad(wave[:length], (0, max(0, length - len(wave))))


# ---- Tokens ---------------------------------------------------------------------------------


def bit_entropies(codes: npt.NDArray[np.integer[Any]], bits: int) -> list[float]:
    """Entropy of each bit in bits, most significant first, of codes ``(F,)``: 1 is a fair coin."""
    ones = [float(np.mean((codes >> place) & 1)) for place in range(bits - 1, -1, -1)]
    return [_coin(one) for one in ones]


def _coin(one: float) -> float:
    return -sum(p * math.log2(p) for p in (one, 1 - one) if p > 0)


def distinct_share(codes: npt.NDArray[np.integer[Any]]) -> float:
    """Distinct codes per code. It falls with the amount of audio, so compare at equal amounts."""
    return len(np.unique(codes)) / max(1, codes.size)
