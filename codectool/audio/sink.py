"""Audio that is written piece by piece: WAV to files and pipes, FLAC to files.

Letters used in shapes: C channels, N samples.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, Protocol, TypeVar

import numpy as np
import soundfile

from codectool.audio.files import check_format
from codectool.audio.samples import Samples
from codectool.audio.wav import SUBTYPES, wav_header
from codectool.errors import AudioError

Value = TypeVar("Value")
MAX_WAV_RATE = 0xFFFF_FFFF // 8192  # a second of 1024 channels of 8 bytes has to fit into 32 bits


class AudioSink(Protocol):
    """Takes samples in order."""

    def write(self, samples: Samples) -> None:
        """Take ``(C, N)`` in [-1, 1]; integer formats are rounded down and clipped."""

    def close(self) -> None:
        """Write what is left; the file object stays open."""


def open_sink(
    file: BinaryIO,
    rate: int,
    channels: int,
    num_samples: int | None,
    container: str = "wav",
    subtype: str | None = None,
) -> AudioSink:
    """Begin an audio file.

    Args:
        file: where to write. FLAC needs one that can seek.
        rate: sampling rate in Hz.
        channels: number of channels C.
        num_samples: per channel, as many as will be written; None if nobody knows yet.
        container: ``"wav"`` or ``"flac"``.
        subtype: libsndfile's name of the sample format; None is 16 bit.

    Raises:
        AudioError: this container cannot hold so many channels or such a rate.
        UsageError: this container cannot hold the subtype.
    """
    subtype = check_format(container, subtype)
    if container == "wav":
        return _WavSink(file, rate, channels, num_samples, subtype)
    return _FlacSink(file, rate, channels, subtype)


def audio_bytes(
    samples: Samples, rate: int, container: str = "wav", subtype: str | None = None
) -> memoryview:
    """A whole audio file in memory; takes and raises what `open_sink` does.

    Args:
        samples: ``(C, N)`` in [-1, 1].
        rate: sampling rate in Hz.
        container: ``"wav"`` or ``"flac"``.
        subtype: libsndfile's name of the sample format; None is 16 bit.
    """
    buffer = io.BytesIO()
    channels, length = samples.shape
    sink = open_sink(buffer, rate, channels, length, container, subtype)
    sink.write(samples)
    sink.close()
    return buffer.getbuffer()


class _WavSink:
    """The header is ours, since libsndfile wants to go back to it; the samples are libsndfile's."""

    def __init__(
        self, file: BinaryIO, rate: int, channels: int, num_samples: int | None, subtype: str
    ) -> None:
        if rate > MAX_WAV_RATE:
            raise _unfit(rate, channels, "wav", subtype, "more than its header can say")
        self._file = file
        self._facts = SUBTYPES[subtype], rate, channels
        self._subtype = subtype
        self._promised = num_samples
        self._written = 0
        self._begin = file.tell() if file.seekable() else None
        put(file, wav_header(*self._facts, num_samples))

    def write(self, samples: Samples) -> None:
        form, rate, channels = self._facts
        packed = io.BytesIO()
        with soundfile.SoundFile(
            packed, "w", rate, channels, self._subtype, endian="LITTLE", format="RAW"
        ) as sound:
            sound.write(samples.T)
        data = packed.getbuffer()
        assert len(data) == samples.size * form.num_bytes
        put(self._file, data)
        self._written += samples.shape[1]

    def close(self) -> None:
        form, _, channels = self._facts
        if self._written * form.num_bytes * channels % 2:
            put(self._file, b"\0")
        if self._promised != self._written and self._begin is not None:
            end = self._file.tell()
            header = wav_header(*self._facts, self._written)
            if len(header) == len(wav_header(*self._facts, self._promised)):  # else beyond 4 GiB
                self._file.seek(self._begin)
                put(self._file, header)
                self._file.seek(end)


class _FlacSink:
    def __init__(self, file: BinaryIO, rate: int, channels: int, subtype: str) -> None:
        self._file = _Watched(file)
        try:
            self._sound = soundfile.SoundFile(
                self._file, "w", rate, channels, subtype, format="FLAC"
            )
        except soundfile.LibsndfileError as error:
            self._file.check()
            raise _unfit(rate, channels, "flac", subtype, error.error_string) from error

    def write(self, samples: Samples) -> None:
        self._sound.write(np.ascontiguousarray(samples.T))
        self._file.check()

    def close(self) -> None:
        self._sound.close()
        self._file.check()


class _Watched:
    """A file object that remembers its first error, which libsndfile's calls to us would lose."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: Exception | None = None

    def write(self, data: bytes) -> int:
        self._try(lambda: put(self._file, data))
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self._try(lambda: self._file.read(size)) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._try(lambda: self._file.seek(offset, whence)) or 0

    def tell(self) -> int:
        return self._try(self._file.tell) or 0

    def _try(self, call: Callable[[], Value]) -> Value | None:
        try:
            return call()
        except (OSError, ValueError) as error:  # a value error is what a closed file answers
            self._error = self._error or error
            return None

    def check(self) -> None:
        if self._error is not None:
            raise self._error


def put(file: BinaryIO, data: bytes | memoryview) -> int:
    """Write all of ``data``: an unbuffered pipe may take less than it is given."""
    left = memoryview(data)
    while left:
        taken = file.write(left)
        left = left[len(left) if taken is None else taken :]
    return len(data)


def _unfit(rate: int, channels: int, container: str, subtype: str, why: str) -> AudioError:
    return AudioError(
        f"cannot write {channels} channels at {rate} Hz as {container} {subtype}: {why}"
    )
