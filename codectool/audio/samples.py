"""What samples are, wherever they come from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codectool.errors import AudioError

MAX_CHANNELS = 1024  # libsndfile's own limit
Samples = npt.NDArray[np.float32]  # (C, N) in [-1, 1]


def as_channels(samples: npt.ArrayLike) -> Samples:
    """Samples ``(N,)`` or ``(C, N)`` of any float type as float32 ``(C, N)``.

    Raises:
        AudioError: another type or shape.
    """
    wave = np.asarray(samples)
    if not np.issubdtype(wave.dtype, np.floating):
        raise AudioError(f"samples must be float in [-1, 1], not {wave.dtype}")
    if wave.ndim == 1:
        wave = wave[None]
    if wave.ndim != 2 or not 1 <= wave.shape[0] <= MAX_CHANNELS:
        raise AudioError(f"samples must have the shape (n,) or (channels, n), not {wave.shape}")
    return np.ascontiguousarray(wave, dtype=np.float32)


def check_finite(samples: Samples, name: str, first: int = 0) -> None:
    """Refuse NaN and infinite samples.

    Args:
        samples: ``(C, N)``.
        name: what to call them in the message.
        first: number of the first of them within the file.

    Raises:
        AudioError: naming the first of them.
    """
    finite = np.isfinite(samples)
    if not finite.all():
        channel, sample = np.argwhere(~finite)[0]
        raise AudioError(
            f"{name}: sample {first + sample} of channel {channel} is {samples[channel, sample]}; "
            f"{int((~finite).sum())} samples are not finite numbers"
        )
