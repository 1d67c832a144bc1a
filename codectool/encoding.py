"""Audio files and live audio to `.hcd`, in memory that does not grow with the length."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from codectool.audio.loudness import LoudnessMeter, amplify
from codectool.audio.samples import Samples
from codectool.audio.source import AudioSource, PcmSource, check_intact, open_audio
from codectool.codec import Codec
from codectool.container import Header, Writer, write
from codectool.errors import UsageError, naming
from codectool.files import atomic_output
from codectool.runner import Codes
from codectool.streaming import StreamEncoder, channel_groups, encode_whole_signal
from codectool.tokens import Tokens

LIVE_BLOCK_SECONDS = 0.1
LIVE_SEGMENT_SECONDS = 1.0


@dataclass(frozen=True)
class Encoded:
    """Summary of an encoded file.

    Attributes:
        num_samples: samples per channel.
        sample_rate: in Hz.
        num_bytes: size of the `.hcd` file.
        warnings: one sentence for each fault of the audio that was read anyway.
        gain_db: gain that was applied; see `Tokens`.
    """

    num_samples: int
    sample_rate: int
    num_bytes: int
    warnings: tuple[str, ...] = ()
    gain_db: float = 0.0

    @property
    def seconds(self) -> float:
        """Length of the audio in seconds."""
        return self.num_samples / self.sample_rate


def encode_file(
    codec: Codec,
    source: str | Path,
    target: str | Path,
    *,
    tags: Mapping[str, str] | None = None,
    block_frames: int | None = None,
    exact: bool = False,
    normalize: float | None = None,
    overwrite: bool = False,
    strict: bool = False,
    check: Callable[[], None] | None = None,
) -> Encoded:
    """Encode an audio file to a `.hcd` file.

    Args:
        codec: the codec.
        source: audio file of any format that libsndfile reads.
        target: the `.hcd` file.
        tags: text metadata to store.
        block_frames: frames per block of the file; None is about 24 s.
        exact: encode the whole signal as one segment, whatever its length, if the model has
            segments. The source is then read several times.
        normalize: loudness in LUFS to which the audio is brought; see `Codec.encode`. The source
            is then read twice.
        overwrite: replace an existing target.
        strict: raise instead of returning warnings.
        check: called before each chunk; may raise to stop.

    Raises:
        AudioError: the source cannot be read, or a sample is NaN or infinite; with ``strict`` also
            if it is truncated or damaged.
        UsageError: the target exists or cannot be created.
    """
    source, target = Path(source), Path(target)
    with open_audio(source, str(source)) as audio, atomic_output(target, overwrite) as file:
        tokens = encode_source(
            *(codec, audio),
            tags=tags,
            exact=exact,
            normalize=normalize,
            strict=strict,
            check=check,
        )
        num_bytes = write(file, tokens, block_frames=block_frames)
        return Encoded(
            *(tokens.num_samples, tokens.sample_rate, num_bytes, tuple(audio.warnings)),
            tokens.gain_db,
        )


def encode_source(
    codec: Codec,
    audio: AudioSource,
    *,
    tags: Mapping[str, str] | None = None,
    exact: bool = False,
    normalize: float | None = None,
    strict: bool = False,
    check: Callable[[], None] | None = None,
) -> Tokens:
    """Encode everything that a source returns; see `encode_file`.

    Raises:
        AudioError: the source cannot be read, or a sample is NaN or infinite; with ``strict`` also
            if it is truncated or damaged.
        UsageError: ``exact`` with a source that can be read only once.
    """

    def read() -> Iterator[Samples]:
        if strict:
            check_intact(audio)
        for chunk in audio.chunks():
            if check is not None:
                check()
            yield chunk
        if strict:
            check_intact(audio)

    rate, channels = audio.sample_rate, audio.channels
    with naming(audio.name):
        codec.check_rate(rate)
        if exact and codec.padding == "lossless" and codec.model.segment_frames is not None:
            if not audio.seekable:
                raise UsageError(
                    f"{audio.name}: `--exact` reads its input several times, which a pipe cannot "
                    "do; give a file"
                )
            gain_db = _find_gain(audio, read, normalize)
            codes, num_samples = encode_whole_signal(
                *(codec.runner, lambda: (amplify(chunk, gain_db) for chunk in read())),
                *(rate, channels),
            )
            codes = codes[:, : codec.layout.num_codebooks]
            return codec.make_tokens(codes, rate, num_samples, tags=tags, gain_db=gain_db)
        groups = channel_groups(codec.model, channels)
        times = len(groups) + (normalize is not None)
        with _rereadable(read, audio, times) as reread:
            gain_db = _find_gain(audio, reread, normalize)
            parts = [
                codec.encode_chunks(
                    (amplify(chunk[group], gain_db) for chunk in reread()),
                    *(rate, group.stop - group.start, tags),
                    checked=True,
                    gain_db=gain_db,
                )
                for group in groups
            ]
        return replace(parts[0], codes=np.concatenate([part.codes for part in parts]))


def _find_gain(
    audio: AudioSource, read: Callable[[], Iterator[Samples]], normalize: float | None
) -> float:
    """Return the gain in dB that brings a source to a loudness in LUFS; None changes nothing."""
    if normalize is None:
        return 0.0
    meter = LoudnessMeter(audio.sample_rate, audio.channels)
    for chunk in read():
        meter.push(chunk)
    return meter.gain_to(normalize)


@contextmanager
def _rereadable(
    read: Callable[[], Iterator[Samples]], audio: AudioSource, times: int
) -> Iterator[Callable[[], Iterator[Samples]]]:
    """Return a function like ``read`` that can be called several times; for a pipe, spool it."""
    if times == 1 or audio.seekable:
        yield read
        return
    with tempfile.TemporaryFile() as spool:
        for chunk in read():
            spool.write(chunk.T.tobytes())
        pcm = "FLOAT", audio.sample_rate, audio.channels, audio.name

        def reread() -> Iterator[Samples]:
            spool.seek(0)
            return PcmSource(cast(BinaryIO, spool), *pcm).chunks()

        yield reread


def encode_live(
    codec: Codec,
    audio: AudioSource,
    file: BinaryIO,
    *,
    tags: Mapping[str, str] | None = None,
    block_frames: int | None = None,
    chunk_frames: int | None = None,
    strict: bool = False,
) -> Encoded:
    """Write a `.hcd` stream while audio arrives: each block as soon as it is complete.

    The file may be a pipe. Its blocks have ``block_frames`` frames (None: about 24 s), and
    ``chunk_frames`` frames are computed at once (see `Codec.stream_encoder`). With ``strict``, a
    truncated or damaged source raises an error, after the blocks before it are written.

    Raises:
        AudioError: the source cannot be read, or a sample is NaN or infinite.
    """
    with naming(audio.name):
        encoder = codec.stream_encoder(
            audio.sample_rate, audio.channels, chunk_frames=chunk_frames, checked=True
        )
    writer: Writer | None = None
    for codes in _encode(encoder, audio):
        if writer is None and (codes.shape[2] or encoder.ended):
            header = Header(
                layout=codec.layout,
                fingerprint=codec.token_fingerprint,
                sample_rate=audio.sample_rate,
                channels=audio.channels,
                segment_frames=encoder.segment_frames,
                block_frames=block_frames or 0,
            )
            writer = Writer(file, header, tags)
        if writer is not None:
            writer.write(codes)
    if strict:
        check_intact(audio)
    assert writer is not None, "`flush` ends the stream"
    extra = encoder.num_frames - writer.header.frames_for(encoder.num_samples)
    writer.close(encoder.num_samples, extra)
    return Encoded(encoder.num_samples, audio.sample_rate, writer.num_bytes, tuple(audio.warnings))


def live_seconds(codec: Codec) -> float:
    """Return the length of the blocks of a live stream in seconds; segments need longer ones."""
    return LIVE_BLOCK_SECONDS if codec.model.segment_frames is None else LIVE_SEGMENT_SECONDS


def _encode(encoder: StreamEncoder, audio: AudioSource) -> Iterator[Codes]:
    for chunk in audio.chunks():
        yield encoder.push(chunk)
    yield encoder.flush()
