"""Audio that is read piece by piece to a `.hcd` file, in memory that does not grow with it.

Letters used in shapes: C channels, K codebooks, F frames, N samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from codectool.audio.source import AudioSource, open_audio
from codectool.codec import Codec
from codectool.container import Header, Writer, write_tokens
from codectool.errors import UsageError
from codectool.exact import encode_exact
from codectool.files import atomic_output
from codectool.streaming import StreamEncoder
from codectool.tokens import Tokens

Codes = npt.NDArray[np.int32]
LIVE_BLOCK_SECONDS = 0.1
LIVE_SEGMENT_SECONDS = 1.0


@dataclass(frozen=True)
class Encoded:
    """What was encoded.

    Attributes:
        num_samples: samples per channel.
        sample_rate: in Hz.
        num_bytes: size of the `.hcd` file.
    """

    num_samples: int
    sample_rate: int
    num_bytes: int

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return self.num_samples / self.sample_rate


def encode_file(
    codec: Codec,
    source: Path,
    target: Path,
    *,
    tags: Mapping[str, str] | None = None,
    block_frames: int | None = None,
    exact: bool = False,
    overwrite: bool = False,
) -> Encoded:
    """Encode an audio file to a `.hcd` file, in memory that does not grow with it.

    Args:
        codec: what encodes.
        source: audio of any format that libsndfile knows.
        target: the `.hcd` file.
        tags: text to go with it.
        block_frames: frames per checked block; None is about 24 s.
        exact: encode as one whole, however long; see `encode_source`.
        overwrite: replace a file that has the target's name.

    Raises:
        AudioError: the source cannot be read, or a sample is NaN or infinite.
        UsageError: the target exists or cannot be made.
    """
    with open_audio(source, str(source)) as audio, atomic_output(target, overwrite) as file:
        tokens = encode_source(codec, audio, tags=tags, exact=exact)
        write_tokens(file, tokens, block_frames)
        return Encoded(tokens.num_samples, tokens.sample_rate, file.tell())


def encode_source(
    codec: Codec,
    audio: AudioSource,
    *,
    tags: Mapping[str, str] | None = None,
    exact: bool = False,
) -> Tokens:
    """Encode all that a source gives; only its tokens are kept.

    Args:
        codec: what encodes.
        audio: where samples come from.
        tags: text to go with the tokens.
        exact: encode as one whole, however long, where the model would cut it into segments. The
            source is then read several times.

    Raises:
        AudioError: the source cannot be read, or a sample is NaN or infinite.
        UsageError: ``exact`` with a source that can be read only once.
    """
    codec.check_rate(audio.sample_rate)
    if codec.padding == "reference":
        pieces = [np.zeros((audio.channels, 0), np.float32), *audio.chunks()]
        return codec.encode(np.concatenate(pieces, axis=1), audio.sample_rate, tags)
    if exact and codec.model.segment_frames is not None:
        if not audio.seekable:
            raise UsageError(
                f"{audio.name}: `--exact` reads its input several times, which a pipe cannot do; "
                "give a file"
            )
        codes, num_samples = encode_exact(codec, audio.chunks, audio.sample_rate, audio.channels)
        segment_frames = None
    else:
        stream = codec.stream_encoder(audio.sample_rate, audio.channels)
        codes = np.concatenate(list(_codes(stream, audio)), axis=2)
        num_samples, segment_frames = stream.num_samples, stream.segment_frames
    return codec.label(codes, audio.sample_rate, num_samples, segment_frames, tags)


def encode_live(
    codec: Codec,
    audio: AudioSource,
    file: BinaryIO,
    *,
    tags: Mapping[str, str] | None = None,
    block_frames: int | None = None,
    work_frames: int | None = None,
) -> Encoded:
    """Write a `.hcd` stream while audio arrives: a block leaves as soon as it is whole.

    Args:
        codec: what encodes.
        audio: where samples come from.
        file: where to write; a pipe will do.
        tags: text to go with it.
        block_frames: frames per checked block of the file; None is about 24 s.
        work_frames: frames encoded at once; see `Codec.stream_encoder`.

    Raises:
        AudioError: the source cannot be read, or a sample is NaN or infinite.
    """
    codec.check_rate(audio.sample_rate)
    stream = codec.stream_encoder(audio.sample_rate, audio.channels, block_frames=work_frames)
    counted = _Counted(file)
    writer: Writer | None = None
    for codes in _codes(stream, audio):
        if writer is None and (codes.shape[2] or stream.ended):
            header = Header(
                layout=codec.layout,
                fingerprint=codec.fingerprint,
                sample_rate=audio.sample_rate,
                channels=audio.channels,
                segment_frames=stream.segment_frames,
                block_frames=block_frames or 0,
            )
            writer = Writer(counted, header, tags)  # type: ignore[arg-type]
        if writer is not None:
            writer.write(codes)
    assert writer is not None, "the last codes are those of the end"
    extra = stream.num_frames - writer.header.frames_for(stream.num_samples)
    writer.close(stream.num_samples, extra)
    return Encoded(stream.num_samples, audio.sample_rate, counted.num_bytes)


def live_seconds(codec: Codec) -> float:
    """Audio per block that is short enough for talking, and not all framing.

    A model that looks at all of a segment needs segments that say something.
    """
    return LIVE_SEGMENT_SECONDS if codec.model.segment_frames is not None else LIVE_BLOCK_SECONDS


def _codes(stream: StreamEncoder, audio: AudioSource) -> Iterator[Codes]:
    for chunk in audio.chunks():
        yield stream.push(chunk)
    yield stream.flush()


class _Counted:
    """Counts what is written to a file that may be a pipe."""

    def __init__(self, file: BinaryIO) -> None:
        self.num_bytes = 0
        self._file = file

    def write(self, data: memoryview) -> int | None:
        taken = self._file.write(data)
        self.num_bytes += len(data) if taken is None else taken
        return taken

    def flush(self) -> None:
        self._file.flush()
