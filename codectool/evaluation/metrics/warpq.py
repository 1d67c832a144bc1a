"""WARP-Q: a distance of speech that tolerates different timing."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from codectool.audio.mel import mel_frequencies, triangular_filters
from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import split_pair

# The authors' defaults, in samples at 16 kHz.
RATE = 16000
WINDOW, FFT, HOP = 512, 1024, 64
BANDS, COEFFICIENTS, FREQUENCY_MAX = 128, 13, 5000
LIFTER = 3
DYNAMIC_RANGE = 80.0  # dB below the loudest band
# In frames: the authors' 0.836, 0.4 and 0.2 s, less half an FFT each, as librosa counts frames.
NORMALIZATION, PATCH, PATCH_HOP = 201, 92, 42
STRIDE = 3  # frames of the reference per step of a path
VAD_FRAME = 480
MIN_SECONDS = 0.4
MAX_SECONDS = 30.0  # every patch is compared with the whole reference: time grows quadratically

Array = npt.NDArray[np.float64]


class WarpQ(Metric):
    """Median cost of warping short patches of the degraded clip onto the reference.

    Jassim, Skoglund, Chinen and Hines, "Speech quality assessment with WARP-Q: From similarity to
    subsequence dynamic time warp cost", IET Signal Processing 2022, sec. 3: silence is removed from
    both clips; cepstra are computed and normalised around each frame; each patch of 0.4 s is warped
    onto the best matching section of the reference; the score is the median cost. Scores agree with
    the authors' package to three decimals.

    Clips longer than 30 s are split into equal parts. Parts whose reference has less than 0.4 s of
    speech (by WebRTC's detector) are skipped; undefined if all are, or if the degraded clip has
    less than 0.4 s in one of the others.
    """

    rate = RATE
    packages = ("webrtcvad",)
    outputs = (
        MetricInfo(
            name="warpq",
            title="WARP-Q",
            unit="",
            better="lower",
            digits=2,
            range=(0.0, None),
            about="Raw WARP-Q score (Jassim et al. 2022): median cost of warping patches of "
            "cepstra onto the reference, from about 0.4 for identical clips to 3.5.",
            needs_speech=True,
        ),
    )

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        parts = split_pair(reference, degraded, MAX_SECONDS * RATE)
        speech = [(self._speech(before), self._speech(after)) for before, after in parts]
        least = MIN_SECONDS * RATE
        speech = [(before, after) for before, after in speech if len(before) >= least]
        if not speech:
            raise MetricUndefinedError(f"less than {MIN_SECONDS} s of speech")
        if any(len(after) < least for _, after in speech):
            raise MetricUndefinedError(f"less than {MIN_SECONDS} s of speech in the degraded clip")
        costs = [
            patch_costs(normalize(cepstra(before)), normalize(cepstra(after)))
            for before, after in speech
        ]
        return {"warpq": float(np.median(np.concatenate(costs)))}

    def _speech(self, wave: Wave) -> Wave:
        """Return the samples within 30 ms of speech, concatenated, ``(N',)``."""
        import webrtcvad

        scaled = np.clip(wave * np.float32(32768), -32768, 32767).astype("<i2")
        frames = len(wave) // VAD_FRAME + 1
        padded = np.pad(scaled, (0, frames * VAD_FRAME - len(wave)))
        detector = webrtcvad.Vad(0)  # keeps state from frame to frame
        found = [detector.is_speech(frame.tobytes(), RATE) for frame in padded.reshape(frames, -1)]
        near = np.convolve(found, [1, 1, 1])[1:-1] > 0
        return wave[np.repeat(near, VAD_FRAME)[: len(wave)]]


def cepstra(wave: Wave) -> Array:
    """Compute MFCCs of ``(N,)`` as librosa does: ``(1 + N // HOP, COEFFICIENTS)``."""
    padded = np.pad(wave.astype(float), FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    hann = np.pad(np.hanning(WINDOW + 1)[:-1], (FFT - WINDOW) // 2)
    power = np.abs(np.fft.rfft(frames * hann, axis=-1)) ** 2
    level = 10 * np.log10(np.maximum(power @ _mel_filters().T, 1e-10))
    return np.asarray(np.maximum(level, level.max() - DYNAMIC_RANGE) @ _liftered_dct().T)


@cache
def _mel_filters() -> Array:
    """Return Slaney's mel filters ``(BANDS, FFT / 2 + 1)`` up to 5 kHz, each of area 1."""
    corners = mel_frequencies(FREQUENCY_MAX, BANDS)
    width = (corners[2:] - corners[:-2]) / 2
    bins = np.arange(FFT // 2 + 1) * RATE / FFT
    return np.asarray(triangular_filters(bins, corners) / width[:, None])


@cache
def _liftered_dct() -> Array:
    """Return the orthonormal cosine transform and lifter ``(COEFFICIENTS, BANDS)``."""
    order = np.arange(COEFFICIENTS)[:, None]
    cosines = np.cos(np.pi / BANDS * (np.arange(BANDS) + 0.5) * order) * math.sqrt(2 / BANDS)
    cosines[0] /= math.sqrt(2)
    return np.asarray(cosines * (1 + LIFTER / 2 * np.sin(np.pi * (order + 1) / LIFTER)))


def normalize(features: Array) -> Array:
    """Normalise features ``(F, C)`` to zero mean and unit variance over 0.8 s around each frame."""
    centred = features - _local_mean(features)
    mean = _local_mean(centred)
    variance = np.maximum(_local_mean(centred**2) - mean**2, 0)
    return np.asarray(centred / (np.sqrt(variance) + 2**-30))


def _local_mean(features: Array) -> Array:
    margin = (NORMALIZATION // 2, NORMALIZATION // 2)
    padded = np.pad(features, (margin, (0, 0)), mode="symmetric")
    sums = np.cumsum(np.pad(padded, ((1, 0), (0, 0))), axis=0)
    return np.asarray((sums[NORMALIZATION:] - sums[:-NORMALIZATION]) / NORMALIZATION)


def patch_costs(reference: Array, degraded: Array) -> Array:
    """Return the cost per frame of the cheapest path of each patch through the reference.

    A path covers a patch from its first to its last frame and begins and ends anywhere in the
    reference. A step is one frame of the patch, three of the reference, or both. A path therefore
    stays in the phase (frame number modulo three) in which it began. Within a phase, where ``j``
    counts every third frame, the least cost ``D`` of a path to row ``n`` is::

        D[n, j] = cost[n, j] + min(D[n - 1, j], D[n - 1, j - 1], D[n, j - 1])

    Let ``a[j]`` be the same without the last term, and ``s[j]`` the sum of ``cost[n, :j + 1]``. A
    path that enters row ``n`` at ``k`` and then goes right costs ``a[k] + s[j] - s[k]``, so that a
    running minimum over ``k`` computes a whole row.

    The shapes are ``(F, C)`` and ``(F', C)`` with ``F' >= PATCH``, and ``(P,)`` for P patches.
    """
    starts = np.arange(0, len(degraded) - PATCH + 1, PATCH_HOP)
    columns = -(-len(reference) // STRIDE)
    phases = np.pad(reference, ((0, columns * STRIDE - len(reference)), (0, 0)))
    phases = phases.reshape(columns, STRIDE, -1).swapaxes(0, 1)  # (STRIDE, columns, C)
    total = _distances(degraded[starts], phases)  # (P, STRIDE, columns)
    for row in range(1, PATCH):
        cost = _distances(degraded[starts + row], phases)
        sums = np.cumsum(cost, axis=-1)
        down = total.copy()
        np.minimum(down[..., 1:], total[..., :-1], out=down[..., 1:])
        down += cost
        down -= sums
        total = np.minimum.accumulate(down, axis=-1, out=down)
        total += sums
    # back to the order of the reference, without the padding of the last column
    ends = total.swapaxes(1, 2).reshape(len(starts), -1)[:, : len(reference)]
    return np.asarray(ends.min(axis=1) / PATCH)


def _distances(frames: Array, phases: Array) -> Array:
    """Return Euclidean distances ``(P, S, J)`` of ``(P, C)`` to ``(S, J, C)``."""
    result = np.tensordot(frames, phases, axes=(1, 2))
    result *= -2
    result += (frames**2).sum(-1)[:, None, None]
    result += (phases**2).sum(-1)
    np.maximum(result, 0, out=result)
    return np.asarray(np.sqrt(result, out=result))
