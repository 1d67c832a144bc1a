"""Write audio chunk by chunk: WAV to files and pipes, FLAC to files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, TypeVar

import numpy as np
import soundfile

from codectool.audio.samples import Samples
from codectool.audio.wav import SUBTYPES, wav_header
from codectool.errors import AudioError, UsageError
from codectool.files import write_all

Value = TypeVar("Value")
DEFAULT_SUBTYPES = {"wav": "PCM_16", "flac": "PCM_16"}  # by container
# One code per sample. Other subtypes work in blocks and do not keep the exact length.
WRITABLE = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}
MAX_FLAC_CHANNELS = 8
MAX_WAV_RATE = 0xFFFF_FFFF // 8192  # bytes per second of 1024 channels of 8 bytes fit in 32 bits


def open_sink(
    file: BinaryIO,
    rate: int,
    channels: int,
    num_samples: int | None,
    container: str = "wav",
    subtype: str | None = None,
) -> WavSink | FlacSink:
    """Start an audio file.

    Args:
        file: file object to write to; it must be seekable for FLAC.
        rate: sampling rate in Hz.
        channels: number of channels C.
        num_samples: per channel; None if it is not known yet.
        container: ``"wav"`` or ``"flac"``.
        subtype: libsndfile's name of the sample format; None is 16 bit.

    Raises:
        AudioError: the container cannot hold this number of channels or sampling rate.
        UsageError: the container cannot hold the subtype.
    """
    subtype = check_format(container, subtype)
    if container == "wav":
        return WavSink(file, rate, channels, num_samples, subtype)
    return FlacSink(file, rate, channels, subtype)


def audio_bytes(
    samples: Samples, rate: int, container: str = "wav", subtype: str | None = None
) -> memoryview:
    """Return a whole audio file; arguments and errors as for `open_sink`."""
    buffer = io.BytesIO()
    channels, length = samples.shape
    sink = open_sink(buffer, rate, channels, length, container, subtype)
    sink.write(samples)
    sink.close()
    return buffer.getbuffer()


def check_format(container: str, subtype: str | None) -> str:
    """Return the subtype to write; raise a `UsageError` if the container cannot hold it."""
    subtype = (subtype or DEFAULT_SUBTYPES[container]).upper()
    if subtype not in WRITABLE or not soundfile.check_format(container, subtype):
        known = ", ".join(sorted(WRITABLE & soundfile.available_subtypes(container).keys()))
        raise UsageError(f"{container} cannot hold subtype {subtype}; it can hold {known}")
    return subtype


class WavSink:
    """A WAV file that is being written; see `open_sink`.

    libsndfile encodes the samples, but not the header, because it would seek back to it.
    """

    def __init__(
        self, file: BinaryIO, rate: int, channels: int, num_samples: int | None, subtype: str
    ) -> None:
        if rate > MAX_WAV_RATE:
            raise _unsupported(rate, channels, "wav", subtype, "the rate exceeds the header field")
        self._file = file
        self._format = subtype, rate, channels
        self._announced = num_samples
        self._written = 0
        self._begin = file.tell() if file.seekable() else None
        write_all(file, wav_header(*self._format, num_samples))

    def write(self, samples: Samples) -> None:
        """Write ``(C, N)`` samples in [-1, 1]; integer formats are rounded down and clipped."""
        subtype, rate, channels = self._format
        packed = io.BytesIO()
        with soundfile.SoundFile(
            packed, "w", rate, channels, subtype, endian="LITTLE", format="RAW"
        ) as sound:
            sound.write(samples.T)
        data = packed.getbuffer()
        assert len(data) == samples.size * SUBTYPES[subtype][1]
        write_all(self._file, data)
        self._written += samples.shape[1]

    def close(self) -> None:
        """Finish the audio file; the file object stays open."""
        subtype, _, channels = self._format
        if self._written * SUBTYPES[subtype][1] * channels % 2:
            write_all(self._file, b"\0")
        if self._announced != self._written and self._begin is not None:
            end = self._file.tell()
            header = wav_header(*self._format, self._written)
            # The header is longer if the file has grown beyond 4 GiB; then the old one stays.
            if len(header) == len(wav_header(*self._format, self._announced)):
                self._file.seek(self._begin)
                write_all(self._file, header)
                self._file.seek(end)


class FlacSink:
    """A FLAC file that is being written; see `open_sink`."""

    def __init__(self, file: BinaryIO, rate: int, channels: int, subtype: str) -> None:
        if channels > MAX_FLAC_CHANNELS:
            why = f"flac holds at most {MAX_FLAC_CHANNELS} channels; use wav"
            raise _unsupported(rate, channels, "flac", subtype, why)
        self._file = _ErrorKeepingFile(file)
        try:
            self._sound = soundfile.SoundFile(
                self._file, "w", rate, channels, subtype, format="FLAC"
            )
        except soundfile.LibsndfileError as error:
            self._file.raise_error()
            raise _unsupported(rate, channels, "flac", subtype, error.error_string) from error

    def write(self, samples: Samples) -> None:
        """Write ``(C, N)`` samples in [-1, 1], rounded down and clipped."""
        self._sound.write(np.ascontiguousarray(samples.T))
        self._file.raise_error()

    def close(self) -> None:
        """Finish the audio file; the file object stays open."""
        self._sound.close()
        self._file.raise_error()


class _ErrorKeepingFile:
    """File object that keeps its first error, because libsndfile drops errors of callbacks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: Exception | None = None

    def write(self, data: bytes) -> int:
        self._try(lambda: write_all(self._file, data))
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self._try(lambda: self._file.read(size)) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._try(lambda: self._file.seek(offset, whence)) or 0

    def tell(self) -> int:
        return self._try(self._file.tell) or 0

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _try(self, call: Callable[[], Value]) -> Value | None:
        try:
            return call()
        except (OSError, ValueError) as error:  # a closed file raises a ValueError
            self._error = self._error or error
            return None


def _unsupported(rate: int, channels: int, container: str, subtype: str, why: str) -> AudioError:
    return AudioError(
        f"cannot write {channels} channels at {rate} Hz as {container} {subtype}: {why}"
    )
