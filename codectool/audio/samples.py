"""What samples are, wherever they come from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codectool.errors import AudioError

Samples = npt.NDArray[np.float32]  # (C, N) in [-1, 1]


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
