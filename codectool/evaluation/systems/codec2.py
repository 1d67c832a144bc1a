"""Codec2: `c2enc` and `c2dec`, parametric, at 8 kHz."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from codectool.errors import UsageError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.systems.external import RawPrograms

RATE = 8000
# Bits and milliseconds of a frame. In a file each frame is filled up to whole bytes.
FRAMES = {
    "3200": (64, 20),
    "2400": (48, 20),
    "1600": (64, 40),
    "1400": (56, 40),
    "1300": (52, 40),
    "1200": (48, 40),
    "700C": (28, 40),
}


class Codec2(RawPrograms):
    """One of its modes.

    Args:
        mode: bits per second, as `c2enc` calls it.
    """

    needs: ClassVar[dict[str, str]] = {"c2enc": "codec2", "c2dec": "codec2"}
    packed: ClassVar[str] = "bits.c2"
    model_rate = RATE

    def __init__(self, mode: str) -> None:
        if mode not in FRAMES:
            raise UsageError(
                f"codec2 has no mode `{mode}`; write codec2@MODE with one of {', '.join(FRAMES)}"
            )
        super().__init__()
        self.mode = mode
        self.frame_bits, milliseconds = FRAMES[mode]
        self._frame_samples = RATE // 1000 * milliseconds

    def prepare(self, samples: Wave) -> Wave:
        """An unfinished frame would be dropped, and another one is still inside the codec."""
        missing = -len(samples) % self._frame_samples + self._frame_samples
        return np.pad(samples, (0, missing))

    def encoder(self, rate: int) -> list[str]:
        """``c2enc MODE IN OUT``."""
        return ["c2enc", self.mode, self.source, self.packed]

    def decoder(self, rate: int) -> list[str]:
        """``c2dec MODE IN OUT``."""
        return ["c2dec", self.mode, self.packed, self.back]

    def payload_bits(self, packed: bytes) -> float:
        """Without what fills up bytes."""
        return len(packed) // -(-self.frame_bits // 8) * self.frame_bits
