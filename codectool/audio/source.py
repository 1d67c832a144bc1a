"""Read audio chunk by chunk from files, from WAV on a pipe and from raw samples."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import soundfile

from codectool.audio import flac, headers, mp3, ogg
from codectool.audio.ffmpeg import audio_format, open_with_ffmpeg
from codectool.audio.layout import Layout, Part
from codectool.audio.mpg123 import Messages, collected_messages
from codectool.audio.samples import MAX_SAMPLES, LevelCheck, Samples, chunk_samples
from codectool.audio.view import Span, View, read_at
from codectool.audio.wav import SUBTYPES, is_trailing_chunk, is_wav, parse_wav, plan_wav
from codectool.errors import AudioError
from codectool.filetypes import START_BYTES, describe_foreign

SPOOL_BYTES = 1 << 26  # of a pipe that are kept in memory; more go to a temporary file
LOSSY = {"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
MAX_WAV_HEADER = 1 << 20  # bytes before the samples on a pipe that are streamed
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


class UnreadableError(AudioError):
    """libsndfile cannot read the file, but FFmpeg may."""


class _Sound(soundfile.SoundFile):  # type: ignore[misc]
    """An open file that is read without seeking.

    `SoundFile.read` seeks after each read in seekable files, which damages the next samples of MP3.
    """

    def seekable(self) -> bool:
        return False

    def can_seek(self) -> bool:
        """Return whether `seek` works."""
        return bool(super().seekable())


class FileSource:
    """A file that libsndfile reads; see `AudioSource`.

    Args:
        file: seekable file object.
        layout: where the audio is in the file.
        name: name in messages.

    Raises:
        UnreadableError: libsndfile cannot read the file.
        AudioError: its streams have different sampling rates or numbers of channels.
    """

    seekable = True

    def __init__(self, file: BinaryIO, layout: Layout, name: str) -> None:
        self.name = name
        self.warnings = [f"{name}: {sentence}" for sentence in layout.warnings]
        self._file, self._parts = file, layout.parts
        self._current: tuple[int, _Sound, View] | None = None
        self._position = 0  # in the open stream
        self._concealed = 0  # messages about damage
        formats: list[tuple[int, int]] = []
        self._lengths: list[int | None] = []
        for index, part in enumerate(self._parts):
            sound, _ = self._open(index)
            formats.append((int(sound.samplerate), int(sound.channels)))
            self._lengths.append(self._length(part, sound))
        if len(set(formats)) > 1:
            raise AudioError(
                f"{name}: holds {len(formats)} streams of different sampling rates or numbers of "
                "channels; split the file"
            )
        self.sample_rate, self.channels = formats[0]
        known = [length for length in self._lengths if length is not None]
        self.num_samples = sum(known) if len(known) == len(formats) else None
        if self.num_samples is not None:
            promised = promised_samples(layout, self.num_samples)
            if promised > self.num_samples:
                self._warn_short(promised, self.num_samples)
        if self.num_samples == 0 and not self.warnings:
            self.warnings.append(f"{name}: holds no samples")
        self._has_faults = bool(self.warnings)
        self._check = LevelCheck(name, self.warnings.append, lossy=sound.subtype in LOSSY)

    def chunks(self, first: int = 0, count: int | None = None) -> Iterator[Samples]:
        """Yield samples; see `AudioSource.chunks`."""
        stop = sys.maxsize if count is None else first + count
        begin = 0  # where the stream begins in the whole audio
        for index, length in enumerate(self._lengths):
            end = sys.maxsize if length is None else begin + length
            position, wanted = max(first, begin), min(stop, end)
            if position < wanted:
                for samples in self._read(index, position - begin, wanted - begin):
                    self._check(samples, position)
                    position += samples.shape[1]
                    yield samples
                if length is not None and position < wanted and not self._has_faults:
                    self._warn_short(end, position)
                    self._has_faults = True
            begin = end
        if self._concealed and not self._has_faults:
            self.warnings.append(f"{self.name}: is damaged: some MP3 frames cannot be decoded")
            self._has_faults = True

    def close(self) -> None:
        """Free what libsndfile holds; the file stays open."""
        if self._current is not None:
            self._current[1].close()
            self._current = None
            self._position = 0

    def _read(self, index: int, first: int, stop: int) -> Iterator[Samples]:
        """Yield the samples of a stream from ``first`` to ``stop``, fewer if it ends before."""
        try:
            position = self._seek(index, first)
            sound, view = self._open(index)
            while position < stop:
                size = min(chunk_samples(self.channels), stop - position)
                with self._messages(index) as messages:
                    chunk = sound.read(size, dtype="float32", always_2d=True)
                self._concealed += messages.count
                view.raise_error()
                if not len(chunk):
                    return
                samples = np.ascontiguousarray(chunk[max(0, first - position) :].T)
                position += len(chunk)
                self._position = position
                if samples.shape[1]:
                    yield samples
        except UNREADABLE as error:
            raise AudioError(f"{self.name}: is damaged ({_message(error)})") from error

    def _seek(self, index: int, first: int) -> int:
        """Move to a sample that is ``first`` or precedes it, and return it."""
        part = self._parts[index]
        sound, _ = self._open(index)
        if self._position == first:
            return first
        if part.begin_at is not None and first > part.preroll:
            spans, position = part.begin_at(first)
            self.close()
            self._open(index, spans)
            self._position = position
            return position
        target = max(0, first - part.preroll)
        if part.last_seek is not None:
            target = min(target, part.last_seek)
        if target and sound.can_seek():
            self._position = int(sound.seek(target))
        else:  # from the beginning
            self.close()
        return self._position

    def _open(self, index: int, spans: Sequence[Span] | None = None) -> tuple[_Sound, View]:
        """Return a stream, positioned at its start if it was not the one in use.

        ``spans`` are read instead of those of the stream.
        """
        if self._current is None or self._current[0] != index:
            self.close()
            view = View(self._file, spans or self._parts[index].spans)
            try:
                with self._messages(index):
                    sound = _Sound(view)
            except UNREADABLE as error:
                view.raise_error()
                reason = f"not audio that libsndfile can read ({_message(error)})"
                raise UnreadableError(f"{self.name}: {reason}") from error
            self._current = index, sound, view
            self._position = 0
        return self._current[1:]

    def _messages(self, index: int) -> AbstractContextManager[Messages]:
        """Return a context that counts the messages of the decoder."""
        if self._parts[index].may_be_mpeg:
            return collected_messages()
        return nullcontext(Messages())

    def _length(self, part: Part, sound: _Sound) -> int | None:
        """Return the samples of a stream per channel, or None if libsndfile does not know it."""
        if part.num_samples is None and sound.format == "MP3":
            raise UnreadableError(
                f"{self.name}: is MPEG audio with frames of unknown size; convert it with ffmpeg"
            )
        length = int(sound.frames) if part.num_samples is None else part.num_samples
        if part.num_samples is not None and sound.frames < length:
            raise UnreadableError(
                f"{self.name}: libsndfile cannot read all of it; convert it with ffmpeg"
            )
        return length if 0 <= length <= MAX_SAMPLES else None

    def _warn_short(self, promised: int, came: int) -> None:
        self.warnings.append(short_warning(self.name, promised, came, self.sample_rate))


def promised_samples(layout: Layout, num_samples: int) -> int:
    """Return how many samples per channel a header states; ``num_samples`` are there."""
    if layout.promised_bytes is None or not num_samples:
        return layout.promised or 0
    stated, there = layout.promised_bytes
    frame = there // num_samples
    is_pcm = frame > 0 and there // frame == num_samples  # not packed in blocks
    return stated // frame if is_pcm else round(stated / there * num_samples)


def short_warning(name: str, promised: int, came: int, rate: int) -> str:
    """Return a warning about audio that ends before the length in its header."""
    return (
        f"{name}: the header promises {promised / rate:.2f} s ({promised} samples), but only "
        f"{came / rate:.2f} s ({came}) came; the file is cut off or damaged"
    )


class PcmSource:
    """PCM samples from a pipe, yielded as soon as they arrive; see `AudioSource`.

    Args:
        file: file object positioned after ``start``.
        subtype: libsndfile's name of the sample format.
        sample_rate: in Hz.
        channels: number of interleaved channels.
        name: name in messages.
        num_bytes: size of the samples; None reads to the end of the file.
        is_bound: whether the size is certain; otherwise samples may follow after it.
        start: bytes of the samples that were already read from the file.
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
        *,
        is_bound: bool = True,
        start: bytes = b"",
    ) -> None:
        self.name = name
        self.sample_rate = sample_rate
        self.channels = channels
        self.num_samples: int | None = None
        self.warnings: list[str] = []
        self._check = LevelCheck(name, self.warnings.append)
        self._file = file
        self._subtype = subtype
        self._num_bytes, self._is_bound = num_bytes, is_bound
        self._start = start

    def chunks(self, first: int = 0, count: int | None = None) -> Iterator[Samples]:
        """Yield samples as they arrive; an incomplete sample at the end is dropped."""
        assert (first, count) == (0, None), "a pipe is read once, from its start"
        frame = SUBTYPES[self._subtype][1] * self.channels
        rest = b""
        position = 0
        for data in self._bytes(frame * chunk_samples(self.channels)):
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
        if self._num_bytes is not None and self._is_bound and position < self._num_bytes // frame:
            promised = self._num_bytes // frame
            self.warnings.append(short_warning(self.name, promised, position, self.sample_rate))
        elif position == 0:
            self.warnings.append(f"{self.name}: holds no samples")

    def _bytes(self, most: int) -> Iterator[bytes]:
        """Yield the bytes of the samples, at most ``most`` at once."""
        # `read1` returns what is there: a microphone delivers little at a time.
        read = getattr(self._file, "read1", self._file.read)
        left = sys.maxsize if self._num_bytes is None else self._num_bytes
        data = self._start or read(min(left, most))
        while data and self._num_bytes != 0:
            yield data[:left]
            left -= len(data)
            if left <= 0 and not self._is_bound:
                data = self._file.read(4)
                if is_trailing_chunk(data):
                    return
                left = sys.maxsize
            else:
                data = read(min(left, most)) if left > 0 else b""


@contextmanager
def open_audio(file: Path | BinaryIO, name: str) -> Iterator[AudioSource]:
    """Open a file or a pipe with audio; its content decides the format, not its name.

    PCM in WAV on a pipe is read while it arrives. Any other format is read to its end first, into
    memory or, if it is long, into a temporary file.

    Raises:
        AudioError: not audio.
    """
    with ExitStack() as stack:
        yield _open(stack, file, name)


def check_intact(audio: AudioSource) -> None:
    """Raise an `AudioError` if reading gave a warning."""
    if audio.warnings:
        raise AudioError(audio.warnings[0])


def _open(stack: ExitStack, file: Path | BinaryIO, name: str) -> AudioSource:
    """Choose the reader of an audio file, and open it."""
    if isinstance(file, Path):
        file = stack.enter_context(_open_path(file, name))
    if not file.seekable():
        start = PipeStart(file)
        streamed = _stream_wav(start, name)
        if streamed is not None:
            return streamed
        temporary = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115
        spool = cast(BinaryIO, stack.enter_context(temporary))
        spool.write(start.data)
        shutil.copyfileobj(file, spool)
        file = spool
    end = file.seek(0, io.SEEK_END)
    if end == 0:
        raise AudioError(f"{name}: is empty (0 bytes)")
    try:
        source = FileSource(file, _plan(file, end, name), name)
        stack.callback(source.close)
        return source
    except UnreadableError:
        audio = open_with_ffmpeg(file, name)
        if audio is not None:
            return audio
        what = describe_foreign(read_at(file, 0, START_BYTES), "the audio")
        if what is None:
            raise
        raise AudioError(f"{name}: is {what}") from None


def _plan(file: BinaryIO, end: int, name: str) -> Layout:
    """Return how libsndfile has to read a file, chosen by its first bytes."""
    start = 0
    while (head := read_at(file, start, 16)).startswith(b"ID3") and len(head) == 16:
        start += mp3.id3_size(head)
    if is_wav(head):
        return plan_wav(file, start, end, name)
    if head.startswith(b"fLaC"):
        return flac.plan(file, start, end, name)
    if head.startswith(b"OggS"):
        return ogg.plan(file, start, end, name)
    if head.startswith((b".snd", b"dns.")):
        return headers.plan_au(file, start, end)
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return headers.plan_aiff(file, start, end)
    if head.startswith(b"caff"):
        return headers.plan_caf(file, start, end)
    if head.startswith(headers.W64_START):
        return headers.plan_w64(file, start, end)
    if head.startswith(b"NIST_1A"):
        return headers.plan_nist(file, start, end)
    if audio_format(read_at(file, start, 64)) is None:  # MP4 may hold MPEG frames, too
        stream = mp3.find_frames(file, start, end)
        if stream is not None:
            return mp3.plan(file, stream, name)
    return Layout([Part([(0, end)], may_be_mpeg=True)])  # libsndfile looks for frames in it


class PipeStart:
    """The first bytes of a pipe, which are kept so that other readers get them, too."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.data = bytearray()

    def read(self, position: int, size: int) -> bytes:
        """Return bytes at a position near the start; fewer at the end of the pipe.

        Raises:
            OverflowError: the position is too far from the start.
        """
        stop = position + size
        if stop > MAX_WAV_HEADER:
            raise OverflowError
        while len(self.data) < stop and (more := self.file.read(stop - len(self.data))):
            self.data += more
        return bytes(self.data[position:stop])


def _stream_wav(start: PipeStart, name: str) -> PcmSource | None:
    """Return the samples of a WAV file on a pipe; None if the file has to be read to its end."""
    if not is_wav(start.read(0, 12)):
        return None
    try:
        header = parse_wav(start.read, name)
        form = header.pcm()
        if form is None:
            return None
        num_bytes = header.num_bytes
        if num_bytes is None and is_trailing_chunk(start.read(header.start, 4)):
            num_bytes = 0
    except OverflowError:
        return None
    samples = bytes(start.data[header.start :])
    return PcmSource(start.file, *form, name, num_bytes, is_bound=header.is_bound, start=samples)


def _open_path(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise AudioError(f"{name}: is a folder; `encode` takes one file") from error
    except OSError as error:
        raise AudioError(f"{name}: {(error.strerror or str(error)).lower()}") from error


def _message(error: Exception) -> str:
    """Return what libsndfile says about a file."""
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    if "regular file" in text:  # libmpg123 found no frames
        return "no audio in it"
    return str(text).removeprefix("Error : ").strip().rstrip(".")
