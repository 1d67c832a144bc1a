"""Audio that is read piece by piece: files, WAV on a pipe, raw samples.

Letters used in shapes: C channels, N samples.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import soundfile

from codectool.audio.files import UNREADABLE, file_name, why
from codectool.audio.samples import Samples, check_finite
from codectool.audio.wav import PcmFormat, read_wav_header
from codectool.errors import AudioError

FRAMES_AT_ONCE = 1 << 16  # samples per channel of a piece
SPOOL_BYTES = 1 << 26  # of a pipe that has to be searched; beyond it goes to a temporary file


class AudioSource(Protocol):
    """Audio of a known rate and channel count.

    Attributes:
        name: what messages call it.
        sample_rate: in Hz.
        channels: number of channels C.
        num_samples: samples per channel, where that is known beforehand.
        rewinds: whether it can be read more than once.
    """

    name: str
    sample_rate: int
    channels: int
    num_samples: int | None
    rewinds: bool

    def pieces(self) -> Iterator[Samples]:
        """Samples ``(C, N)`` in order, N > 0; a file begins anew at every call.

        Raises:
            AudioError: damaged, or a sample is NaN or infinite.
        """


class FileSource:
    """A file of any format that libsndfile knows; see `AudioSource`."""

    rewinds = True

    def __init__(self, sound: soundfile.SoundFile, name: str) -> None:
        self.name = name
        self.sample_rate = int(sound.samplerate)
        self.channels = int(sound.channels)
        self.num_samples: int | None = int(sound.frames)
        self._sound = sound
        self._fresh = True

    def pieces(self) -> Iterator[Samples]:
        """Samples from the beginning."""
        position = 0
        try:
            if not self._fresh:
                self._sound.seek(0)
            self._fresh = False
            while len(piece := self._sound.read(FRAMES_AT_ONCE, dtype="float32", always_2d=True)):
                samples = np.ascontiguousarray(piece.T)
                check_finite(samples, self.name, position)
                position += samples.shape[1]
                yield samples
        except UNREADABLE as error:
            raise AudioError(f"{self.name}: {error}") from error


class PcmSource:
    """Samples as they come from a pipe, without end until the pipe ends; see `AudioSource`.

    Args:
        file: where they come from; what there is is taken at once, so that none waits.
        form: how they are written.
        sample_rate: in Hz.
        channels: how many samples of different channels lie side by side.
        name: what messages call it.
        num_bytes: bytes that belong to them; None is all.
    """

    rewinds = False

    def __init__(
        self,
        file: BinaryIO,
        form: PcmFormat,
        sample_rate: int,
        channels: int,
        name: str,
        num_bytes: int | None = None,
    ) -> None:
        self.name = name
        self.sample_rate = sample_rate
        self.channels = channels
        self.num_samples: int | None = None
        self._file = file
        self._form = form
        self._left = num_bytes

    def pieces(self) -> Iterator[Samples]:
        """Samples as they arrive; of the last sample, what is cut off is dropped."""
        frame = self._form.num_bytes * self.channels
        rest = b""
        position = 0
        while data := self._some(frame * FRAMES_AT_ONCE - len(rest)):
            data = rest + data
            whole = len(data) // frame * frame
            rest = data[whole:]
            if whole:
                samples = self._form.samples(data[:whole]).reshape(-1, self.channels).T
                check_finite(samples, self.name, position)
                position += samples.shape[1]
                yield np.ascontiguousarray(samples)

    def _some(self, most: int) -> bytes:
        if self._left is not None:
            most = min(most, self._left)
        # `read1` returns as soon as there is something: a microphone gives little at a time.
        read = getattr(self._file, "read1", self._file.read)
        data = cast(bytes, read(most)) if most else b""
        if self._left is not None:
            self._left -= len(data)
        return data


@contextmanager
def open_audio(file: Path | BinaryIO, name: str) -> Iterator[AudioSource]:
    """Open a file, or a pipe with WAV or any other format that libsndfile knows.

    WAV on a pipe is handed on while it arrives; any other format is read to its end first, to a
    temporary file if it is long.

    Raises:
        AudioError: not audio.
    """
    if isinstance(file, Path) or file.seekable():
        with _sound(file, name) as sound:
            yield FileSource(sound, name)
        return
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        form, rate, channels, num_bytes = read_wav_header(file, head, name)
        yield PcmSource(file, form, rate, channels, name, num_bytes)
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        spool.write(head)
        shutil.copyfileobj(file, spool)
        spool.seek(0)
        with _sound(cast(BinaryIO, spool), name) as sound:
            yield FileSource(sound, name)


@contextmanager
def _sound(file: Path | BinaryIO, name: str) -> Iterator[soundfile.SoundFile]:
    try:
        sound = soundfile.SoundFile(file_name(file) if isinstance(file, Path) else file)
    except UNREADABLE as error:
        raise AudioError(f"{name}: {why(file, error)}") from error
    with sound:
        yield sound
