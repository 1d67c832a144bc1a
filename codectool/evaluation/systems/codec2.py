"""Codec2, a parametric codec at 8 kHz: `c2enc` and `c2dec`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

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

    programs: ClassVar[dict[str, str]] = {"c2enc": "codec2", "c2dec": "codec2"}
    source = "in.raw"
    packed = "bits.c2"
    decoded = "out.raw"
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

    @override
    def prepare(self, samples: Wave) -> Wave:
        # c2enc drops an incomplete frame, and c2dec keeps the last frame to itself
        missing = -len(samples) % self._frame_samples + self._frame_samples
        return np.pad(samples, (0, missing))

    @override
    def write(self, samples: Wave, rate: int) -> bytes:
        return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()

    @override
    def read(self, path: Path, rate: int) -> tuple[Wave, int]:
        return np.fromfile(path, "<i2").astype(np.float32) / np.float32(32768), rate

    @override
    def encoder(self, rate: int) -> list[str]:
        return ["c2enc", self.mode, self.source, self.packed]

    @override
    def decoder(self, rate: int) -> list[str]:
        return ["c2dec", self.mode, self.packed, self.decoded]

    @override
    def payload_bits(self, packed: bytes) -> float:
        return len(packed) // -(-self.frame_bits // 8) * self.frame_bits
