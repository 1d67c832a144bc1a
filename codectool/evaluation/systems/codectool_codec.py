"""A codec of codectool as a system under test."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from codectool.codec import Codec
from codectool.container import io as hcd
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.systems.system import Coded, System, timed, to_16_bits

Result = TypeVar("Result")


class Ours(System):
    """A codec of codectool: to the bytes of a `.hcd` file, and back.

    Args:
        codec: the codec.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        # processor time says nothing of a device; there the clock on the wall counts
        self._timed = timed if codec.device.type == "cpu" else _on_the_wall
        silence = np.zeros(codec.sample_rate // 2, np.float32)
        codec.decode(codec.encode(silence, codec.sample_rate))  # the first call sets things up

    def code(self, wave: Wave, rate: int) -> Coded:
        """Encode, write, read and decode."""
        tokens, encode_seconds = self._timed(lambda: self.codec.encode(wave, rate))
        file = io.BytesIO()
        hcd.write(file, tokens)
        file.seek(0)
        packed = hcd.read(file)
        audio, decode_seconds = self._timed(lambda: self.codec.decode(packed))
        return Coded(
            wave=to_16_bits(audio[0], rate),
            rate=rate,
            payload_bits=tokens.num_frames * tokens.layout.bits_per_frame,
            file_bytes=len(file.getvalue()),
            encode_seconds=encode_seconds,
            decode_seconds=decode_seconds,
        )


def _on_the_wall(work: Callable[[], Result]) -> tuple[Result, float]:
    before = time.perf_counter()
    result = work()
    return result, time.perf_counter() - before
