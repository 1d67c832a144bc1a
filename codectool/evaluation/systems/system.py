"""The interface of a system under test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from codectool.evaluation.metrics.base import Wave


@dataclass(frozen=True)
class CodecCost:
    """Size and processing time of one coded clip.

    Attributes:
        payload_bits: bits that the decoder needs, without container.
        file_bytes: size of the coded file.
        encode_seconds: processor time of all threads; of external programs including start-up and
            file access.
        decode_seconds: the same for decoding.
    """

    payload_bits: float
    file_bytes: int
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Coded:
    """One clip, encoded and decoded.

    Attributes:
        wave: float32 ``(N',)``, with the delay of the codec.
        rate: sampling rate of ``wave``, in Hz.
        cost: size and processing time.
    """

    wave: Wave
    rate: int
    cost: CodecCost


class System(ABC):
    """A codec with its settings, loaded.

    Attributes:
        version: name and version of the program or library that decodes; empty if unknown.
    """

    version: str = ""

    @abstractmethod
    def code(self, wave: Wave, rate: int) -> Coded:
        """Encode and decode one clip.

        Args:
            wave: float32 ``(N,)`` in [-1, 1], N > 0.
            rate: sampling rate in Hz.

        Raises:
            CodectoolError: the system failed.
        """
