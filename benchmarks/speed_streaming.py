"""Speech that comes in pushes of 20 ms: how late, how fast, and whether the codes are the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed_models import Contender, Wave
from benchmarks.speed_pairs import Comparison

PUSH_SECONDS = 0.02
# Frames worked on at once; None is the model's own choice, which gives the codes of whole files.
BLOCKS: dict[str, tuple[int | None, ...]] = {
    "bigcodec": (1, 20, None),
    "supercodec": (50, None),
    "hac": (1, 15, None),
}


class Pushes:
    """Feeds a stream piece by piece, for a limited time.

    Attributes:
        made: what came out, piece after piece.
        waited: how much was pushed before anything came out, in the units of the input.
        pushed: how much was pushed in all.
        seconds: that all pushes took, the end included if it was reached.
        slowest: seconds of the slowest push.
        ended: whether time was enough for all of it.
    """

    def __init__(self, stream: Any, x: Tensor, sizes: Callable[[int], int], limit: float) -> None:
        self.made: list[Tensor] = []
        self.waited: int | None = None
        self.pushed, self.seconds, self.slowest, count = 0, 0.0, 0.0, 0
        while self.pushed < x.shape[-1] and self.seconds < limit:
            last = min(x.shape[-1], self.pushed + sizes(count))
            self._time(lambda piece=x[..., self.pushed : last]: stream.push(piece))
            self.pushed, count = last, count + 1
            if self.waited is None and self.made[-1].shape[-1]:
                self.waited = self.pushed
        self.ended = self.pushed == x.shape[-1]
        if self.ended:
            self._time(stream.flush)

    def _time(self, work: Callable[[], Tensor]) -> None:
        start = time.perf_counter()
        self.made.append(work())
        taken = time.perf_counter() - start
        self.seconds += taken
        self.slowest = max(self.slowest, taken)


@torch.inference_mode()
def stream(contender: Contender, wave: Wave, block: int | None, limit: float) -> dict[str, Any]:
    """Encode and decode as it comes, for at most ``limit`` seconds each."""
    codec, model = contender.codec, contender.codec.model
    x = contender.whole_frames(wave)
    rate, hop = codec.sample_rate, codec.hop_length
    encoding = Pushes(model.stream_encoder(block), x, lambda _: round(PUSH_SECONDS * rate), limit)
    codes = torch.cat(encoding.made, -1)
    frames = max(1, round(PUSH_SECONDS * codec.frame_rate))
    decoding = Pushes(model.stream_decoder(block), codes, lambda _: frames, limit)
    decoded = decoding.pushed * hop / rate
    same = Comparison(contender)
    if encoding.ended and (block is None or model.segment_frames is None):
        same.add(x, codes, torch.stack(model.encode(list(x))))
    latency = model.latency
    return {
        "block_frames": block,
        "waits_for": {  # seconds after the end of a frame, by design
            "encoder": None if latency.encoder is None else latency.encoder / rate,
            "decoder": None if latency.decoder is None else latency.decoder / rate,
        },
        "first_code_after": None if encoding.waited is None else encoding.waited / rate,
        "first_sample_after": None if decoding.waited is None else decoding.waited * hop / rate,
        "encode": encoding.seconds * rate / encoding.pushed,
        "decode": decoding.seconds / decoded if decoded else None,
        "slowest_push": encoding.slowest,
        "seconds": encoding.pushed / rate,
        "ended": encoding.ended,
        "offline": same.row() if same.tokens else None,
    }
