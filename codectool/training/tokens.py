"""Tokens of the training clips for runs with a fixed encoder: computed once, read crop by crop.

The cache is a folder of `.hcd` files that `pipeline` writes and keeps current: a file is encoded
again if the clip, the encoder or the file itself has changed. Several runs can share it::

    CACHE/<token fingerprint>/<absolute path of the clip>.hcd
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from codectool.codec import Codec
from codectool.container import Reader
from codectool.errors import ContainerError
from codectool.pipeline.executor import Engine, LocalEngine
from codectool.pipeline.operations import AnyOperation, EncodeOperation, EncodeOptions
from codectool.pipeline.report import Report, Result
from codectool.pipeline.run import Callbacks, RunOptions, model_threads, run
from codectool.tokens import TokenLayout
from codectool.training import parallel
from codectool.training.filelist import Clip

SUFFIX = ".hcd"
WAIT_SECONDS = 60.0  # between messages to processes that wait for the tokens

Array = npt.NDArray[np.integer[Any] | np.bool_]


@dataclass(frozen=True, eq=False)
class TokenCrop:
    """Tokens of a crop; see `codectool.codecs.trainable.CropTokens`.

    Attributes:
        codes: int64 ``(K, before + F + after)``; zeros outside the signal.
        starts: whether the signal begins with the crop.
        num_frames: frames of the signal from the start of the crop on, at most ``F + after``.
    """

    codes: npt.NDArray[np.int64]
    starts: bool
    num_frames: int


def stack_tokens(crops: Sequence[TokenCrop]) -> tuple[Array, Array, Array]:
    """Return codes ``(B, K, N)``, starts ``(B,)`` and numbers of frames ``(B,)``."""
    return (
        np.stack([crop.codes for crop in crops]),
        np.array([crop.starts for crop in crops]),
        np.array([crop.num_frames for crop in crops], np.int64),
    )


@dataclass(frozen=True)
class ClipTokens:
    """The tokens of clips in a cache.

    Attributes:
        folder: folder of a token fingerprint in a cache.
        layout: layout of the tokens.
        before: frames before a crop that the decoder needs.
        after: frames after a crop that the decoder needs.
    """

    folder: Path
    layout: TokenLayout
    before: int
    after: int

    def draw(
        self, clip: Path, num_samples: int, rng: np.random.Generator
    ) -> tuple[TokenCrop, int, int | None]:
        """Draw a crop of ``num_samples``, a multiple of the hop, that starts with a frame.

        A crop lies in one segment. A crop that would lack a part of the frames before it starts
        with its segment instead.

        Returns:
            The tokens, the first sample at the model's rate, and the channel; None if there is
            only one.

        Raises:
            ContainerError: The tokens are damaged or not of this encoder.
            OSError: They cannot be read.
        """
        frames = num_samples // self.layout.hop_length
        path = self.folder / token_name(clip)
        with path.open("rb") as file:
            reader = Reader(cast(BinaryIO, file), str(path))
            if reader.header.layout != self.layout:
                raise ContainerError(f"{path}: holds tokens of another layout; delete this file")
            total, channels = reader.scan(), reader.header.channels
            channel = int(rng.integers(channels)) if channels > 1 else None
            start = int(rng.integers(max(0, total - frames), endpoint=True))
            segment = reader.header.segment_frames or max(total, 1)
            begin = start // segment * segment
            end = min(begin + segment, total)
            start = max(begin, min(start, end - frames))
            if start - begin < self.before:
                start = begin
            first = max(begin, start - self.before)
            stop = min(start + frames + self.after, end)
            codes = reader.read_frames(first, stop - first)[channel or 0]
        padded = np.zeros((len(codes), self.before + frames + self.after), np.int64)
        offset = self.before - (start - first)
        padded[:, offset : offset + codes.shape[1]] = codes
        crop = TokenCrop(padded, start == begin, stop - start)
        return crop, start * self.layout.hop_length, channel

    def nothing(self, num_samples: int) -> TokenCrop:
        """Return the tokens of a crop outside any signal."""
        width = self.before + num_samples // self.layout.hop_length + self.after
        return TokenCrop(np.zeros((self.layout.num_codebooks, width), np.int64), True, 0)


def token_name(clip: Path) -> str:
    """Return the name of a clip's file in `ClipTokens.folder`."""
    path = PurePath(os.path.abspath(clip))
    return path.relative_to(path.anchor).as_posix() + SUFFIX


class _CacheTokens(EncodeOperation):
    """Encode to files that keep the suffix of the clip."""

    @override
    def target_name(self, source_name: str) -> str:
        return source_name + self.output_suffix


@dataclass(frozen=True)
class TokenProgress:
    """Progress of `cache_tokens`: files and seconds of audio, done and in all."""

    num_done: int
    num_files: int
    seconds_done: float
    seconds: float


def cache_tokens(
    codec: Codec,
    clips: Sequence[Clip],
    cache: Path,
    threads: int | None = None,
    on_progress: Callable[[TokenProgress], object] = lambda _: None,
) -> tuple[Path, Report]:
    """Encode the clips whose tokens are not in the cache.

    In a run of several processes all of them call this; the main process encodes, the others wait.

    Args:
        codec: the codec, in fp32.
        clips: the clips.
        cache: folder of the cache.
        threads: clips that are encoded at a time; None for one per core.
        on_progress: called after each file.

    Returns:
        The folder of its token fingerprint in the cache, and totals and failures.

    Raises:
        UsageError: The cache cannot be written, or another run is writing to it.
    """
    folder = cache / codec.token_fingerprint
    if not parallel.is_main_process():
        while not parallel.largest(0.0)[0]:
            pass
        return folder, Report()
    num_files, seconds = len(clips), sum(clip.seconds for clip in clips)
    num_done, seconds_done, told = 0, 0.0, time.monotonic()

    def add(result: Result) -> None:
        nonlocal num_done, seconds_done, told
        num_done, seconds_done = num_done + 1, seconds_done + result.seconds
        on_progress(TokenProgress(num_done, num_files, seconds_done, seconds))
        if time.monotonic() - told > WAIT_SECONDS:  # the others wait for an hour only
            parallel.largest(0.0)
            told = time.monotonic()

    @contextmanager
    def engine(operation: AnyOperation) -> Iterator[Engine]:
        width = threads or model_threads(operation.device_type)
        yield LocalEngine(operation, width, width)

    paths = [os.path.abspath(clip.path) for clip in clips]
    report = run(
        _CacheTokens(codec, EncodeOptions()),
        *(PurePath(paths[0]).anchor, folder, RunOptions(files=paths)),
        Callbacks(on_result=add),
        engine,
    )
    parallel.largest(1.0)
    return folder, report
