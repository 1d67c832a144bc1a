"""Read what libsndfile does not know (m4a, mp4, webm, wma, amr, ...) with FFmpeg, through PyAV.

PyAV is optional, `pip install 'codectool[formats]'`; its wheels bring FFmpeg.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any, BinaryIO, NoReturn

import numpy as np

from codectool.audio.samples import LevelCheck, Samples, chunk_samples
from codectool.errors import AudioError

INSTALL = "pip install 'codectool[formats]'"
# Formats that may be opened: no playlists, which name other files and addresses.
DEMUXERS = (
    "aac,ac3,amr,ape,asf,avi,caf,dsf,dts,dtshd,eac3,flv,matroska,mov,mpc,mpc8,mpeg,mpegts,ogg,rm,"
    "tak,tta,wav,wv"
)
# Formats whose header states the length; for others, FFmpeg estimates it.
STATE_LENGTH = ("ape", "asf", "matroska", "mov", "tta", "wv")
DURATION_SLACK = 0.1  # seconds; some programs state the length of a longer video stream
DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
SIGNATURES = (
    (4, b"ftyp", "MP4 (m4a, mp4, mov, 3gp)"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska (webm, mka, mkv)"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF (wma)"),
    (0, b"#!AMR", "AMR"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"\x0b\x77", "AC-3"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "TTA"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"tBaK", "TAK"),
    (0, b"DSD ", "DSD"),
    (0, b"\x7f\xfe\x80\x01", "DTS"),
    (0, b".RMF", "RealMedia"),
    (0, b"FLV\1", "Flash video"),
    (8, b"AVI ", "AVI"),
    (0, b"\0\0\1\xba", "MPEG video"),
    (28, b"Speex   ", "Ogg Speex"),
)


class FfmpegSource:
    """A file that FFmpeg reads; see `AudioSource`.

    The length is not known beforehand: containers state it in milliseconds, or not at all. A range
    is decoded from the start of the file, because decoders depend on what came before.

    Args:
        file: seekable file object.
        name: name in error messages.

    Raises:
        AudioError: not audio of a format that FFmpeg may open, or no sample can be decoded.
    """

    seekable = True

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self.num_samples: int | None = None
        self.warnings: list[str] = []
        self._file = file
        # some containers state another rate than the decoder returns (HE-AAC)
        for rate, samples in self._decode():
            self.sample_rate, self.channels = rate, len(samples)
            break
        else:
            raise AudioError(f"{name}: holds no audio that can be decoded")

    def chunks(self, first: int = 0, count: int | None = None) -> Iterator[Samples]:
        """Yield samples; see `AudioSource.chunks`."""
        stop = sys.maxsize if count is None else first + count
        self.warnings.clear()
        check = LevelCheck(self.name, self.warnings.append, lossy=True)
        position = waiting = 0
        parts: list[Samples] = []
        for rate, samples in self._decode():
            if (rate, len(samples)) != (self.sample_rate, self.channels):
                seconds = position / self.sample_rate
                raise AudioError(
                    f"{self.name}: sampling rate or channels change after {seconds:.1f} s; "
                    "split it there"
                )
            check(samples, position)
            part = samples[:, max(0, first - position) : max(0, stop - position)]
            position += samples.shape[1]
            waiting += part.shape[1]
            parts.append(part)
            if waiting >= chunk_samples(self.channels):
                yield np.concatenate(parts, axis=1)
                parts, waiting = [], 0
            if position >= stop:
                break
        if waiting:
            yield np.concatenate(parts, axis=1)

    def _decode(self) -> Iterator[tuple[int, Samples]]:
        """Decode from the start; yield rate and samples ``(C, N)`` of frames."""
        av = import_av(self.name)
        self._file.seek(0)
        try:
            with av.open(
                _Bytes(self._file),
                options={"format_whitelist": DEMUXERS},
                io_open=_refuse_other_files,
                metadata_errors="replace",
            ) as container:
                if not container.streams.audio:
                    raise AudioError(f"{self.name}: holds no audio")
                yield from self._decode_stream(av, container, container.streams.audio[0])
        except (av.error.FFmpegError, OSError) as error:
            reason = f"not audio that FFmpeg can read ({error.strerror})"
            raise AudioError(f"{self.name}: {reason}") from error

    def _decode_stream(
        self, av: ModuleType, container: Any, stream: Any
    ) -> Iterator[tuple[int, Samples]]:
        if stream.codec_context is None:
            raise AudioError(f"{self.name}: FFmpeg has no decoder for its audio")
        decoder = _decoder(av, stream)
        packets = damaged = num_samples = early = rate = 0
        for packet in container.demux(stream):
            if packets == 0:
                early = _samples_before_start(stream, packet)
            packets += packet.size > 0
            try:
                frames = decoder.decode(packet if packet.size else None)
            except av.error.FFmpegError:
                damaged += 1
                continue
            damaged += packet.is_corrupt
            for frame in frames:
                if frame.format.packed.name not in DTYPES:
                    raise AudioError(f"{self.name}: its samples are of type {frame.format.name}")
                samples = _to_float(frame)[:, early:]
                early -= frame.samples - samples.shape[1]
                num_samples += samples.shape[1]
                rate = int(frame.sample_rate)
                yield rate, samples
        streams = len(container.streams.audio)
        if streams > 1:
            self.warnings.append(f"{self.name}: the first of {streams} audio streams was read")
        if damaged:
            self.warnings.append(f"{self.name}: {damaged} of {packets} packets are damaged")
        seconds = num_samples / rate if rate else 0.0
        stated = _stated_seconds(container, stream)
        # packets of PCM hold many frames
        slack = 0.0 if packets < stream.frames else DURATION_SLACK
        if seconds < stated - slack:
            self.warnings.append(
                f"{self.name}: ends after {seconds:.2f} s; its header states {stated:.2f} s"
            )


def open_with_ffmpeg(file: BinaryIO, name: str) -> FfmpegSource | None:
    """Open a file that libsndfile cannot read; return None if FFmpeg does not know it either.

    Args:
        file: seekable file object.
        name: name in error messages.

    Raises:
        AudioError: it is audio, but PyAV is not installed or cannot read it.
    """
    file.seek(0)
    kind = audio_format(file.read(64))
    if not ffmpeg_is_installed():
        if kind is None:
            return None
        raise AudioError(
            f"{name}: is {kind}, which needs FFmpeg: `{INSTALL}`, "
            f"or convert it: ffmpeg -i {name} {name}.wav"
        )
    try:
        return FfmpegSource(file, name)
    except AudioError:
        if kind is None:
            return None
        raise


def audio_format(head: bytes) -> str | None:
    """Return the name of a format that FFmpeg reads by the first bytes of a file."""
    for offset, signature, name in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name
    return None


def ffmpeg_is_installed() -> bool:
    """Return whether PyAV is installed."""
    return find_spec("av") is not None


def import_av(name: str) -> ModuleType:
    """Import PyAV, which takes 50 ms; raise an `AudioError` about the file ``name`` if it fails."""
    try:
        import av
    except ImportError as error:
        raise AudioError(f"{name}: PyAV, which reads it, cannot be imported: {error}") from error
    return av


class _Bytes:
    """The bytes of a file without its name, from which FFmpeg would guess the format."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _refuse_other_files(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("the file refers to another file, which is not opened")


def _decoder(av: ModuleType, stream: Any) -> Any:
    """Return the decoder of a stream, one that knows all frames of AMR if there is one."""
    own = stream.codec_context
    name = {"amrnb": "libopencore_amrnb", "amrwb": "libopencore_amrwb"}.get(own.name, own.name)
    if name == own.name or name not in av.codecs_available:
        own.thread_count = 1
        return own
    decoder = av.CodecContext.create(name, "r")
    decoder.sample_rate, decoder.layout = own.sample_rate, own.layout
    return decoder


def _samples_before_start(stream: Any, packet: Any) -> int:
    """Return how many samples of Opus FFmpeg 8 keeps too many at the start of mp4 and webm.

    It counts the samples to skip, which are at 48 kHz, at the rate that the container states.
    """
    if stream.codec_context.name != "opus" or len(stream.codec_context.extradata or b"") < 12:
        return 0
    skip = int.from_bytes(stream.codec_context.extradata[10:12], "little")
    for data in packet.iter_sidedata():
        if data.data_type == "skip_samples":
            return max(0, skip - int.from_bytes(bytes(data)[:4], "little"))
    return 0


def _stated_seconds(container: Any, stream: Any) -> float:
    """Return the length that a container states; 0 if FFmpeg only estimates it."""
    if container.format.name.partition(",")[0] not in STATE_LENGTH:
        return 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / 1e6)
    return 0.0


def _to_float(frame: Any) -> Samples:
    """Return the samples ``(C, N)`` of a frame, in [-1, 1] for integer formats."""
    from av.audio.plane import AudioPlane

    form, channels = frame.format, frame.layout.nb_channels
    kind = np.dtype(DTYPES[form.packed.name])
    # PyAV 18 reads beyond the planes of 8 and more channels in `frame.to_ndarray`
    planes: list[Any] = [
        AudioPlane(frame, index) for index in range(channels if form.is_planar else 1)
    ]
    count = frame.samples if form.is_planar else frame.samples * channels
    samples = np.stack([np.frombuffer(plane, kind, count) for plane in planes])
    if not form.is_planar:
        samples = samples.reshape(-1, channels).T
    if kind.kind == "u":
        samples = (samples.astype(np.float32) - 128) / 128
    elif kind.kind == "i":
        samples = samples.astype(np.float64) / -float(np.iinfo(kind).min)
    return np.ascontiguousarray(samples, np.float32)
