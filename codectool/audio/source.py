"""Read audio chunk by chunk from files, from WAV on a pipe and from raw samples."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import soundfile

from codectool.audio.ffmpeg import open_with_ffmpeg
from codectool.audio.samples import LevelCheck, Samples
from codectool.audio.wav import SUBTYPES, read_wav_header
from codectool.errors import AudioError

CHUNK_SAMPLES = 1 << 16  # per channel
SPOOL_BYTES = 1 << 26  # of a pipe that are kept in memory; more go to a temporary file
LOSSY = {"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
# `soundfile` raises a TypeError for raw files, because their sampling rate has to be given.
UNREADABLE = (soundfile.SoundFileError, OSError, ValueError, TypeError)


class AudioSource(Protocol):
    """Audio with a known sampling rate and number of channels.

    Attributes:
        name: name in error messages.
        sample_rate: in Hz.
        channels: number of channels C.
        num_samples: samples per channel; None if the length is not known beforehand.
        seekable: whether `chunks` can be called more than once, and from any sample.
        warnings: one sentence for each fault of the audio that was read anyway; complete when
            `chunks` ended.
    """

    name: str
    sample_rate: int
    channels: int
    num_samples: int | None
    seekable: bool
    warnings: list[str]

    def chunks(self, first: int = 0, count: int | None = None) -> Iterator[Samples]:
        """Yield samples ``(C, N)`` in order, N > 0.

        Args:
            first: the first sample; only seekable sources accept another one than 0.
            count: number of samples per channel; None reads to the end. Fewer come if the audio
                ends before.

        Raises:
            AudioError: the audio is damaged, or a sample is NaN or infinite.
        """


class FileSource:
    """An open file of any format that libsndfile reads; see `AudioSource`."""

    seekable = True

    def __init__(self, sound: soundfile.SoundFile, name: str) -> None:
        self.name = name
        self.sample_rate = int(sound.samplerate)
        self.channels = int(sound.channels)
        self.num_samples: int | None = int(sound.frames)
        self.warnings: list[str] = []
        self._check = LevelCheck(name, self.warnings.append, lossy=sound.subtype in LOSSY)
        self._sound = sound

    def chunks(self, first: int = 0, count: int | None = None) -> Iterator[Samples]:
        """Yield samples; see `AudioSource.chunks`."""
        position = first
        stop = sys.maxsize if count is None else first + count
        try:
            if self._sound.tell() != first:
                self._sound.seek(first)
            while True:
                size = min(CHUNK_SAMPLES, stop - position)
                chunk = self._sound.read(size, dtype="float32", always_2d=True)
                if not len(chunk):
                    break
                samples = np.ascontiguousarray(chunk.T)
                self._check(samples, position)
                position += samples.shape[1]
                yield samples
        except UNREADABLE as error:
            raise AudioError(f"{self.name}: {error}") from error


class PcmSource:
    """PCM samples from a pipe, yielded as soon as they arrive; see `AudioSource`.

    Args:
        file: file object positioned at the first sample.
        subtype: libsndfile's name of the sample format.
        sample_rate: in Hz.
        channels: number of interleaved channels.
        name: name in error messages.
        num_bytes: size of the samples; None reads to the end of the file.
    """

    seekable = False

    def __init__(
        self,
        file: BinaryIO,
        subtype: str,
        sample_rate: int,
        channels: int,
        name: str,
        num_bytes: int | None = None,
    ) -> None:
        self.name = name
        self.sample_rate = sample_rate
        self.channels = channels
        self.num_samples: int | None = None
        self.warnings: list[str] = []
        self._check = LevelCheck(name, self.warnings.append)
        # `read1` returns what is there: a microphone delivers little at a time.
        self._read = getattr(file, "read1", file.read)
        self._subtype = subtype
        self._left = sys.maxsize if num_bytes is None else num_bytes

    def chunks(self, first: int = 0, count: int | None = None) -> Iterator[Samples]:
        """Yield samples as they arrive; an incomplete sample at the end is dropped."""
        assert (first, count) == (0, None), "a pipe is read once, from its start"
        frame = SUBTYPES[self._subtype][1] * self.channels
        rest = b""
        position = 0
        while data := self._read(min(self._left, frame * CHUNK_SAMPLES - len(rest))):
            self._left -= len(data)
            data = rest + data
            size = len(data) // frame * frame
            rest = data[size:]
            if size:
                chunk, _ = soundfile.read(
                    io.BytesIO(data[:size]),
                    dtype="float32",
                    always_2d=True,
                    samplerate=self.sample_rate,
                    channels=self.channels,
                    format="RAW",
                    subtype=self._subtype,
                    endian="LITTLE",
                )
                samples = np.ascontiguousarray(chunk.T)
                self._check(samples, position)
                position += samples.shape[1]
                yield samples


@contextmanager
def open_audio(file: Path | BinaryIO, name: str) -> Iterator[AudioSource]:
    """Open a file or a pipe with audio; its content decides the format, not its name.

    WAV on a pipe is read while it arrives. Any other format is read to its end first, into memory
    or, if it is long, into a temporary file.

    Raises:
        AudioError: not audio.
    """
    with ExitStack() as stack:
        yield _open(stack, file, name)


def _open(stack: ExitStack, file: Path | BinaryIO, name: str) -> AudioSource:
    """Choose the reader of an audio file, and open it."""
    if not isinstance(file, Path) and not file.seekable():
        head = file.read(12)
        if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
            subtype, rate, channels, num_bytes = read_wav_header(file, head, name)
            return PcmSource(file, subtype, rate, channels, name, num_bytes)
        temporary = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115
        spool = cast(BinaryIO, stack.enter_context(temporary))
        spool.write(head)
        shutil.copyfileobj(file, spool)
        spool.seek(0)
        file = spool
    try:
        return FileSource(stack.enter_context(open_sound(file, name)), name)
    except AudioError:
        if isinstance(file, Path):
            if not file.is_file():
                raise
            file = stack.enter_context(file.open("rb"))
        audio = open_with_ffmpeg(file, name)
        if audio is None:
            raise
        return audio


def check_intact(audio: AudioSource) -> None:
    """Raise an `AudioError` if reading gave a warning."""
    if audio.warnings:
        raise AudioError(audio.warnings[0])


def open_sound(file: Path | BinaryIO, name: str) -> soundfile.SoundFile:
    """Open a file with libsndfile; raise an `AudioError` with the reason if it cannot be read."""
    target: Path | BinaryIO | bytes = file
    if isinstance(file, Path) and os.name == "posix":
        target = os.fsencode(file)  # `soundfile` encodes text as UTF-8; POSIX allows any bytes
    try:
        return soundfile.SoundFile(target)
    except UNREADABLE as error:
        raise AudioError(f"{name}: {unreadable_reason(file, error)}") from error


def unreadable_reason(file: Path | BinaryIO, error: Exception) -> str:
    """Return in a few words why libsndfile cannot read a file."""
    if not isinstance(error, soundfile.LibsndfileError):
        return str(error)
    if isinstance(file, Path):
        if not file.exists():
            return "no such file"
        if file.is_dir():
            return "is a folder; `encode` takes one file"
        size = file.stat().st_size
    else:
        size = file.seek(0, io.SEEK_END)
    if size == 0:
        return "is empty (0 bytes)"
    return f"not audio that libsndfile can read ({error.error_string.rstrip('.')})"
