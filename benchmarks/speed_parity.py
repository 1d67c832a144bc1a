"""Are tokens the same whichever way a clip goes: alone, in a batch, in pushes, the upstream way?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.speed_models import Contender, batches
from benchmarks.speed_pairs import AUDIO_AT_ONCE, Comparison, as_tensor
from benchmarks.speed_streaming import Pushes
from codectool.codec import Codec, PreparedClip

LONGEST = 8.0  # seconds of a clip; most are shorter


def parity(contender: Contender, files: Sequence[Path], count: int) -> dict[str, Any]:
    """Compare the tokens of clips of mixed length with those that each gets alone.

    Returns:
        A row of `Comparison` for each other way: ``batch``, ``stream`` and, where there is one,
        ``upstream``.
    """
    clips = mixed_clips(contender.codec, files, count)
    ways = {name: Comparison(contender) for name in ("batch", "stream", "upstream")}
    for part in batches(clips, AUDIO_AT_ONCE):
        for clip, batched in zip(part, contender.codec.encode_clips(part), strict=True):
            _compare(contender, clip, as_tensor(batched.codes), ways)
    found = {name: way.row() for name, way in ways.items() if way.tokens}
    return {"clips": len(clips), "seconds": sum(clip.seconds for clip in clips), **found}


@torch.inference_mode()
def _compare(
    contender: Contender, clip: PreparedClip, batched: torch.Tensor, ways: dict[str, Comparison]
) -> None:
    wave = contender.padded(clip)
    alone = as_tensor(contender.codec.encode_clips([clip])[0].codes)
    ways["batch"].add(wave, batched, alone)
    random = np.random.default_rng(wave.shape[-1])
    pushes = Pushes(
        contender.codec.model.stream_encoder(),
        wave,
        lambda _: int(random.integers(1, contender.codec.sample_rate)),
        limit=float("inf"),
    )
    ways["stream"].add(wave, torch.cat(pushes.made, -1), alone)
    if contender.upstream is not None:
        ways["upstream"].add(wave, alone, contender.upstream.encode(wave))


def mixed_clips(codec: Codec, files: Sequence[Path], count: int) -> list[PreparedClip]:
    """So many clips from files spread over the list, each cut at a length of its own."""
    random = np.random.default_rng(0)
    chosen = [files[number * len(files) // count] for number in range(count)]
    clips = []
    for path in chosen:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        length = round(random.uniform(0.3, LONGEST) * rate)
        clips.append(codec.prepare(samples[:length].mean(1), rate))
    return clips
