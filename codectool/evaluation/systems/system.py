"""A system under test: it takes a clip and gives it back, and says what that cost.

Letters used in shapes: N samples.
"""

from __future__ import annotations

import io
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from codectool.audio.files import read_audio
from codectool.audio.sink import audio_bytes
from codectool.evaluation.metrics.base import Wave

Result = TypeVar("Result")


@dataclass(frozen=True)
class Coded:
    """One clip, coded and decoded.

    Attributes:
        wave: float32 ``(N',)``, as late as the codec makes it.
        rate: of ``wave``, in Hz.
        payload_bits: what the decoder needs besides the order of the packets.
        file_bytes: what lies on the disk.
        encode_seconds: processor time of all threads; of programs with their start and files.
        decode_seconds: the same for the way back.
    """

    wave: Wave
    rate: int
    payload_bits: float
    file_bytes: int
    encode_seconds: float
    decode_seconds: float


class System(ABC):
    """A codec with its settings, ready to work."""

    @abstractmethod
    def code(self, wave: Wave, rate: int) -> Coded:
        """Code one clip and decode it.

        Args:
            wave: float32 ``(N,)`` in [-1, 1], N > 0.
            rate: in Hz.

        Raises:
            CodectoolError: it cannot be done.
        """


def to_16_bits(wave: Wave, rate: int) -> Wave:
    """What is left of ``(N,)`` after a 16-bit file, which is what programs read and write."""
    samples, _ = read_audio(io.BytesIO(audio_bytes(wave[None], rate)), "16-bit audio")
    return np.asarray(samples[0])


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What ``work`` returns, and the seconds of processor time that it takes in this process."""
    before = time.process_time()
    result = work()
    return result, time.process_time() - before
