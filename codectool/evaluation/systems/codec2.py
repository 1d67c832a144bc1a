"""Codec2, a parametric codec at 8 kHz: `c2enc` and `c2dec`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typing_extensions import override

from codectool.errors import UsageError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.systems.external import ExternalCodec

RATE = 8000
# Bits and milliseconds per frame; in a file each frame is padded to whole bytes.
FRAMES = {
    "3200": (64, 20),
    "2400": (48, 20),
    "1600": (64, 40),
    "1400": (56, 40),
    "1300": (52, 40),
    "1200": (48, 40),
    "700C": (28, 40),
}


class Codec2(ExternalCodec):
    """Codec2 in one of its modes; its programs read and write raw 16-bit samples.

    Args:
        mode: bits per second, as `c2enc` names it.
    """

    source = "in.raw"
    decoded = "out.raw"

    def __init__(self, mode: str) -> None:
        if mode not in FRAMES:
            raise UsageError(
                f"codec2 has no mode `{mode}`; write codec2@MODE with one of {', '.join(FRAMES)}"
            )
        bits, milliseconds = FRAMES[mode]
        self._frame_samples = RATE // 1000 * milliseconds
        super().__init__(
            "codec2",
            f"c2enc {mode} in.raw coded.c2",
            f"c2dec {mode} coded.c2 out.raw",
            "coded.c2",
            lambda coded: len(coded) // -(-bits // 8) * bits,
            RATE,
        )

    @override
    def to_file(self, samples: Wave, rate: int) -> bytes:
        # c2enc drops an incomplete frame, and c2dec keeps the last frame to itself
        missing = -len(samples) % self._frame_samples + self._frame_samples
        scaled = np.rint(np.pad(samples, (0, missing)) * 32768)
        return np.clip(scaled, -32768, 32767).astype("<i2").tobytes()

    @override
    def from_file(self, path: Path, rate: int) -> tuple[Wave, int]:
        return np.fromfile(path, "<i2").astype(np.float32) / np.float32(32768), rate
