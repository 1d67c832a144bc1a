"""Ours and the upstream way in turns: one file, and a folder of short ones.

Rows are plain dictionaries, as they go to JSON. Letters used in shapes: K codebooks, F frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed_models import Contender, Wave, batches, cut
from benchmarks.speed_timing import Turns, threads
from codectool.codec import PreparedClip

TIE = 1e-5  # of the length of what is quantized: rounding of a deep float32 network
AUDIO_AT_ONCE = 40.0  # seconds of a batch


class Comparison:
    """Counts tokens of two ways that differ, and by how much one choice is worse."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.tokens = self.differing = 0
        self.gaps: list[float] = []

    def add(self, wave: Tensor, ours: Tensor, theirs: Tensor) -> None:
        """Compare codes ``(1, K, F)`` of ``(1, 1, F * hop_length)``."""
        assert ours.shape == theirs.shape, f"{ours.shape} and {theirs.shape}"
        self.tokens += ours.numel()
        self.differing += int((ours != theirs).sum())
        upstream = self.contender.upstream
        if upstream is not None and not torch.equal(ours, theirs):
            with torch.inference_mode():
                gaps = upstream.gaps(upstream.latent(wave), ours, theirs)
            self.gaps += gaps[(ours != theirs).any(1)].tolist()

    def row(self) -> dict[str, Any]:
        """Numbers of tokens; ``ties`` says whether every difference is one, None if unknown."""
        known = not self.differing or bool(self.gaps)
        return {
            "tokens": self.tokens,
            "differing": self.differing,
            "largest_gap": max(self.gaps, default=None),
            "ties": max(self.gaps, default=0.0) < TIE if known else None,
        }


@torch.inference_mode()
def one_file(contender: Contender, wave: Wave, turns: int) -> dict[str, Any]:
    """Encode and decode one piece of speech as a whole, ``turns`` times each."""
    model, upstream = contender.codec.model, contender.upstream
    x = contender.whole_frames(wave)
    seconds = x.shape[-1] / contender.codec.sample_rate
    encoding, decoding, comparison = Turns(), Turns(), Comparison(contender)
    for _ in range(turns):
        codes, theirs = encoding.take(
            lambda: torch.stack(model.encode(list(x))), upstream and _on(upstream.encode, x)
        )
    if upstream is not None:
        comparison.add(x, codes, theirs)
    for _ in range(turns):
        made, other = decoding.take(
            lambda: torch.stack(model.decode(list(codes))), upstream and _on(upstream.decode, codes)
        )
    error = None if other is None else float((made - other).abs().max() / other.abs().max())
    return {
        "seconds": seconds,
        "encode": encoding.row(seconds),
        "decode": decoding.row(seconds),
        "tokens": comparison.row(),
        "wave_error": error,
    }


def _on(work: Any, x: Tensor) -> Any:
    return lambda: work(x)


def short_files(contender: Contender, wave: Wave, lengths: Sequence[float]) -> dict[str, Any]:
    """Encode and decode short clips: ours as folders are worked on, the upstream way one by one.

    For us there is a batch on every core; the upstream way has all cores for every clip. A turn is
    as many batches as there are cores; times are added up.
    """
    clips = cut(contender.codec, wave, lengths)
    seconds = sum(clip.seconds for clip in clips)
    encoding, decoding, comparison = Turns(), Turns(), Comparison(contender)
    cores = os.cpu_count() or 1
    parts = batches(clips, AUDIO_AT_ONCE / cores)
    for first in range(0, len(parts), cores):
        _turn(contender, parts[first : first + cores], encoding, decoding, comparison)
    return {
        "clips": len(clips),
        "batches": len(parts),
        "seconds": seconds,
        "encode": encoding.row(seconds, together=True),
        "decode": decoding.row(seconds, together=True),
        "tokens": comparison.row(),
    }


def _turn(
    contender: Contender,
    parts: Sequence[Sequence[PreparedClip]],
    encoding: Turns,
    decoding: Turns,
    comparison: Comparison,
) -> None:
    codec, upstream = contender.codec, contender.upstream
    waves = [contender.padded(clip) for part in parts for clip in part]
    made, theirs = encoding.take(
        lambda: on_all_cores(codec.encode_clips, parts),
        upstream and (lambda: [upstream.encode(wave) for wave in waves]),
    )
    codes = [as_tensor(tokens.codes) for part in made for tokens in part]
    for wave, ours, other in zip(waves, codes, theirs or [], strict=upstream is not None):
        comparison.add(wave, ours, other)
    decoding.take(
        lambda: on_all_cores(codec.decode_clips, made),
        upstream and (lambda: [upstream.decode(clip) for clip in codes]),
    )


def on_all_cores(work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """Do each part in a thread of its own, which has one core."""
    with threads(1), ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))


def as_tensor(codes: np.ndarray) -> Tensor:
    """Codes as a model takes them, int64."""
    return torch.from_numpy(codes.astype(np.int64))
