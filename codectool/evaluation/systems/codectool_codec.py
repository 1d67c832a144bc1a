"""A codectool codec as a system under test."""

from __future__ import annotations

import io
import time

import numpy as np
from typing_extensions import override

from codectool.codec import Codec
from codectool.container import read, write
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.systems.system import CodecCost, Coded, System


class CodectoolSystem(System):
    """A codectool codec: audio to the bytes of a `.hcd` file and back.

    Args:
        codec: the codec.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        # processor time does not include the work of a GPU
        self._clock = time.process_time if codec.runner.device_type == "cpu" else time.perf_counter
        silence = np.zeros(codec.sample_rate // 2, np.float32)
        codec.decode(codec.encode(silence, codec.sample_rate))  # warm-up

    @override
    def code(self, wave: Wave, rate: int) -> Coded:
        started = self._clock()
        tokens = self.codec.encode_chunks([wave], rate, 1, checked=True)
        encode_seconds = self._clock() - started
        file = io.BytesIO()
        write(file, tokens)
        file.seek(0)
        tokens = read(file)
        started = self._clock()
        audio = self.codec.decode(tokens)
        decode_seconds = self._clock() - started
        bits = tokens.num_frames * tokens.layout.bits_per_frame
        cost = CodecCost(bits, len(file.getvalue()), encode_seconds, decode_seconds)
        return Coded(audio[0], rate, cost)
