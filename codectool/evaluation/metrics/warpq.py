"""WARP-Q: a distance of speech that forgives another timing.

Letters used in shapes: N samples, T frames of 4 ms, C cepstral coefficients, M mel bands,
P patches, S phases, J every third frame.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from codectool.audio.mel import mel_frequencies, triangular_filters
from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import no_warnings

# The authors' defaults, in samples at 16 kHz.
RATE = 16000
WINDOW, FFT, HOP = 512, 1024, 64
BANDS, COEFFICIENTS, TOP_HERTZ = 128, 13, 5000
LIFTER = 3
SPAN = 80.0  # dB below the loudest band, where spectra end
# In frames. Their 0.836, 0.4 and 0.2 s, less half an FFT each, as librosa counts frames.
NORMALIZED, PATCH, STEP = 201, 92, 42
STRIDE = 3  # frames of the reference that one step of a path may take
VOICE_FRAME = 480
LEAST_SECONDS = 0.4
LONGEST_PIECE = 30.0  # in seconds: every patch is looked for everywhere, so that time is squared

Array = npt.NDArray[np.float64]


class WarpQ(Metric):
    """Cost of finding short patches of the degraded clip again in the reference.

    Jassim, Skoglund, Chinen and Hines, "Speech quality assessment with WARP-Q: From similarity to
    subsequence dynamic time warp cost", IET Signal Processing 2022, sec. 3: silence is taken out of
    both clips; cepstra are made, and normalised around each frame; each patch of 0.4 s is warped
    onto the stretch of the reference that it fits best; the median cost is the score.

    Written anew, since the authors' package (`warpq` 1.5.2) does not run with numpy 2; the scores
    are the same within its three decimals. Clips of more than 30 s are cut into pieces of
    equal length, of which patches never leave their own. Pieces of the reference with too little
    speech do not count.
    """

    rate: ClassVar[int] = RATE
    packages: ClassVar[tuple[str, ...]] = ("webrtcvad",)
    metrics: ClassVar[tuple[MetricInfo, ...]] = (
        MetricInfo(
            name="warpq",
            title="WARP-Q",
            unit="",
            better="lower",
            digits=2,
            range=(0.0, None),
            about="WARP-Q (Jassim et al. 2022), raw: median cost of warping patches of cepstra "
            "onto the reference, from about 0.4 for the reference itself to 3.5.",
        ),
    )

    def __init__(self) -> None:
        with no_warnings():
            import webrtcvad
        self._webrtcvad: Any = webrtcvad

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """It wants 0.4 s in which WebRTC's detector finds speech, in each of the two."""
        pieces = math.ceil(len(reference) / (LONGEST_PIECE * RATE))
        pairs = (np.array_split(wave, pieces) for wave in (reference, degraded))
        speech = [tuple(map(self._speech, pair)) for pair in zip(*pairs, strict=True)]
        least = LEAST_SECONDS * RATE
        speech = [(before, after) for before, after in speech if len(before) >= least]
        if not speech:
            raise MetricUndefinedError(f"less than {LEAST_SECONDS} s of speech")
        if any(len(after) < least for _, after in speech):
            raise MetricUndefinedError(f"less than {LEAST_SECONDS} s of speech came back")
        costs = [
            patch_costs(normalize(cepstra(before)), normalize(cepstra(after)))
            for before, after in speech
        ]
        return {"warpq": float(np.median(np.concatenate(costs)))}

    def _speech(self, wave: Wave) -> Wave:
        """What is within 30 ms of speech, joined: ``(N',)``."""
        scaled = np.clip(wave * np.float32(32768), -32768, 32767).astype("<i2")
        frames = len(wave) // VOICE_FRAME + 1
        padded = np.pad(scaled, (0, frames * VOICE_FRAME - len(wave)))
        detector = self._webrtcvad.Vad(0)  # remembers the frames before
        found = [detector.is_speech(frame.tobytes(), RATE) for frame in padded.reshape(frames, -1)]
        near = np.convolve(found, [1, 1, 1])[1:-1] > 0
        return wave[np.repeat(near, VOICE_FRAME)[: len(wave)]]


def cepstra(wave: Wave) -> Array:
    """Mel-frequency cepstral coefficients, as librosa computes them.

    Args:
        wave: ``(N,)`` at 16 kHz.

    Returns:
        ``(T, C)`` with ``T = 1 + N // HOP``.
    """
    padded = np.pad(wave.astype(float), FFT // 2)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    hann = np.pad(np.hanning(WINDOW + 1)[:-1], (FFT - WINDOW) // 2)
    power = np.abs(np.fft.rfft(pieces * hann, axis=-1)) ** 2
    level = 10 * np.log10(np.maximum(power @ _bands().T, 1e-10))
    return np.asarray(np.maximum(level, level.max() - SPAN) @ _cosines().T)


@cache
def _bands() -> Array:
    """Slaney's mel bands ``(M, FFT / 2 + 1)`` up to 5 kHz, each of area 1."""
    corners = mel_frequencies(TOP_HERTZ, BANDS)
    width = (corners[2:] - corners[:-2]) / 2
    bins = np.arange(FFT // 2 + 1) * RATE / FFT
    return np.asarray(triangular_filters(bins, corners) / width[:, None])


@cache
def _cosines() -> Array:
    """Orthonormal cosine transform with the lifter ``(C, M)``."""
    order = np.arange(COEFFICIENTS)[:, None]
    cosines = np.cos(np.pi / BANDS * (np.arange(BANDS) + 0.5) * order) * math.sqrt(2 / BANDS)
    cosines[0] /= math.sqrt(2)
    return np.asarray(cosines * (1 + LIFTER / 2 * np.sin(np.pi * (order + 1) / LIFTER)))


def normalize(features: Array) -> Array:
    """Take off the mean of 0.8 s around each frame, then divide by the deviation there.

    Args:
        features: ``(T, C)``.

    Returns:
        ``(T, C)``; beyond the ends, the signal goes back and forth.
    """
    centred = features - _local_mean(features)
    mean = _local_mean(centred)
    variance = np.maximum(_local_mean(centred**2) - mean**2, 0)
    return np.asarray(centred / (np.sqrt(variance) + 2**-30))


def _local_mean(features: Array) -> Array:
    padded = np.pad(features, ((NORMALIZED // 2, NORMALIZED // 2), (0, 0)), mode="symmetric")
    sums = np.cumsum(np.pad(padded, ((1, 0), (0, 0))), axis=0)
    return np.asarray((sums[NORMALIZED:] - sums[:-NORMALIZED]) / NORMALIZED)


def patch_costs(reference: Array, degraded: Array) -> Array:
    """Cost per frame of the cheapest path of each patch through the reference: ``(P,)``.

    A path goes from the first frame of a patch to its last, and begins and ends wherever it likes
    in the reference. Its steps are one frame of the patch, three of the reference, or both. So it
    never leaves the phase of three in which it began, and in each phase, where ``j`` counts every
    third frame, the least cost ``D`` of a path to row ``n`` follows from the row above::

        D[n, j] = cost[n, j] + min(D[n - 1, j], D[n - 1, j - 1], D[n, j - 1])

    Let ``a[j]`` be that without its last term, and ``s[j]`` the sum of ``cost[n, :j + 1]``: a path
    that comes down at ``k`` and then goes right costs ``a[k] + s[j] - s[k]``. A running minimum
    finds the best ``k`` for a whole row at once.

    Args:
        reference: ``(T, C)``.
        degraded: ``(T', C)`` with ``T' >= PATCH``.
    """
    starts = np.arange(0, len(degraded) - PATCH + 1, STEP)
    columns = -(-len(reference) // STRIDE)
    phases = np.pad(reference, ((0, columns * STRIDE - len(reference)), (0, 0)))
    phases = phases.reshape(columns, STRIDE, -1).swapaxes(0, 1)  # (S, J, C)
    total = _distances(degraded[starts], phases)  # (P, S, J)
    for row in range(1, PATCH):
        cost = _distances(degraded[starts + row], phases)
        sums = np.cumsum(cost, axis=-1)
        down = total.copy()
        np.minimum(down[..., 1:], total[..., :-1], out=down[..., 1:])
        down += cost
        down -= sums
        total = np.minimum.accumulate(down, axis=-1, out=down)
        total += sums
    # in the order of the reference again, and without what fills up the last column
    ends = total.swapaxes(1, 2).reshape(len(starts), -1)[:, : len(reference)]
    return np.asarray(ends.min(axis=1) / PATCH)


def _distances(frames: Array, phases: Array) -> Array:
    """Euclidean, of ``(P, C)`` to ``(S, J, C)``: ``(P, S, J)``."""
    result = np.tensordot(frames, phases, axes=(1, 2))
    result *= -2
    result += (frames**2).sum(-1)[:, None, None]
    result += (phases**2).sum(-1)
    np.maximum(result, 0, out=result)
    return np.asarray(np.sqrt(result, out=result))
