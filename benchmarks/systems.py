"""What is compared: codecs of ours, and the programs of Codec2 and Opus.

Every system gets the same clip, mono at 24 kHz and of 16 bits, and gives such audio back.
"""

from __future__ import annotations

import io
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import codectool
from benchmarks.measures import RATE, Wave
from codectool.audio.files import read_audio
from codectool.audio.resample import resample
from codectool.audio.sink import audio_bytes
from codectool.codecs.registry import FAMILIES
from codectool.errors import CodectoolError, UsageError


@dataclass(frozen=True)
class Coded:
    """One clip, coded and decoded.

    Attributes:
        wave: ``(N',)`` at 24 kHz, not aligned.
        payload_bits: what the decoder needs besides the order of the packets.
        file_bytes: what lies on the disk.
        encode_seconds: processor time, of all threads.
        decode_seconds: the same for the way back.
        codes: int32 ``(K, F)`` for codecs of ours.
        stream_bits: bits of each of the K.
    """

    wave: Wave
    payload_bits: float
    file_bytes: int
    encode_seconds: float
    decode_seconds: float
    codes: npt.NDArray[np.int32] | None = None
    stream_bits: tuple[int, ...] = ()


class System(Protocol):
    """A codec with its settings.

    Attributes:
        late: whether its output has a delay that users are used to, and that is taken off.
    """

    late: bool

    def code(self, wave: Wave) -> Coded:
        """Code one clip, ``(N,)`` at 24 kHz."""


def open_system(text: str) -> System:
    """A system by its name on the command line.

    Args:
        text: ``codec2@1300``, ``opus@6`` (kbit/s), a family with weights that ship (``hac``), or
            a path to a checkpoint.

    Raises:
        UsageError: there is no such system, or its program is missing.
    """
    name, _, setting = text.partition("@")
    if name == "codec2":
        return Codec2(setting)
    if name == "opus":
        return Opus(setting)
    if text in FAMILIES:
        return Ours(text, None)
    return Ours(None, Path(text))


def load_clip(path: Path) -> Wave:
    """A clip as the systems get it: ``(N,)`` at 24 kHz, channels averaged, rounded to 16 bits."""
    samples, rate = read_audio(path, str(path))
    return to_16_bits(resample(samples.mean(axis=0, keepdims=True), rate, RATE)[0])


def to_16_bits(wave: Wave) -> Wave:
    """What is left after a 16-bit file."""
    return _read(io.BytesIO(audio_bytes(wave[None], RATE)))


def _read(file: Path | io.BytesIO) -> Wave:
    samples, rate = read_audio(file, "decoded audio")
    if rate != RATE:
        raise CodectoolError(f"decoded audio has {rate} Hz; expected {RATE}")
    return np.asarray(samples[0])


class Ours:
    """A codec of codectool, on the CPU."""

    late = False

    def __init__(self, model: str | None, checkpoint: Path | None):
        self.codec = codectool.load(model, checkpoint, device="cpu")
        silence = np.zeros(RATE // 2, np.float32)  # the first call sets things up; not timed
        self.codec.decode(self.codec.encode(silence, RATE))

    def code(self, wave: Wave) -> Coded:
        tokens, encode_seconds = _timed(lambda: self.codec.encode(wave, RATE))
        file = io.BytesIO()
        codectool.write(file, tokens)
        file.seek(0)
        packed = codectool.read(file)
        audio, decode_seconds = _timed(lambda: self.codec.decode(packed))
        return Coded(
            wave=to_16_bits(audio[0]),
            payload_bits=tokens.num_frames * tokens.layout.bits_per_frame,
            file_bytes=len(file.getvalue()),
            encode_seconds=encode_seconds,
            decode_seconds=decode_seconds,
            codes=tokens.codes[0],
            stream_bits=tokens.layout.stream_bits,
        )


# Bits and milliseconds of a frame. In a file each frame is filled up to whole bytes.
CODEC2_FRAMES = {
    "3200": (64, 20),
    "2400": (48, 20),
    "1600": (64, 40),
    "1400": (56, 40),
    "1300": (52, 40),
    "1200": (48, 40),
    "700C": (28, 40),
}


class Codec2:
    """`c2enc` and `c2dec`, at their 8 kHz."""

    late = True

    def __init__(self, mode: str):
        if mode not in CODEC2_FRAMES:
            raise UsageError(
                f"codec2 has no mode `{mode}`; write codec2@MODE, of {', '.join(CODEC2_FRAMES)}"
            )
        _need("c2enc", "codec2")
        _need("c2dec", "codec2")
        self.mode = mode
        self.frame_bits, milliseconds = CODEC2_FRAMES[mode]
        self.frame_samples = 8 * milliseconds

    def code(self, wave: Wave) -> Coded:
        narrow = resample(wave[None], RATE, 8000)[0]
        # An unfinished frame would be dropped, and another frame is still inside the codec.
        missing = -len(narrow) % self.frame_samples + self.frame_samples
        steps = np.rint(np.pad(narrow, (0, missing)) * 32768)
        samples = np.clip(steps, -32768, 32767).astype("<i2")
        with tempfile.TemporaryDirectory() as folder:
            raw, bits, back = (Path(folder, name) for name in ("in.raw", "bits.bin", "out.raw"))
            raw.write_bytes(samples.tobytes())
            encode_seconds = _run(["c2enc", self.mode, str(raw), str(bits)])
            decode_seconds = _run(["c2dec", self.mode, str(bits), str(back)])
            size = bits.stat().st_size
            decoded = np.fromfile(back, "<i2").astype(np.float32) / np.float32(32768)
        return Coded(
            wave=to_16_bits(resample(decoded[None], 8000, RATE)[0]),
            payload_bits=size // -(-self.frame_bits // 8) * self.frame_bits,
            file_bytes=size,
            encode_seconds=encode_seconds,
            decode_seconds=decode_seconds,
        )


class Opus:
    """`opusenc` and `opusdec` as they come: variable bit rate, frames of 20 ms."""

    late = True

    def __init__(self, kbps: str):
        try:
            if not 6 <= float(kbps) <= 256:
                raise ValueError
        except ValueError:
            raise UsageError(f"opus@{kbps}: write opus@KBPS, from 6 to 256 kbit/s") from None
        _need("opusenc", "opus-tools")
        _need("opusdec", "opus-tools")
        self.kbps = kbps

    def code(self, wave: Wave) -> Coded:
        with tempfile.TemporaryDirectory() as folder:
            source, packed, back = (Path(folder, name) for name in ("in.wav", "x.opus", "out.wav"))
            source.write_bytes(audio_bytes(wave[None], RATE))
            # No padding for later tags, which would be half a kilobyte per file.
            encode = ["opusenc", "--quiet", "--padding", "0", "--bitrate", self.kbps]
            encode_seconds = _run([*encode, str(source), str(packed)])
            decode = ["opusdec", "--quiet", "--no-dither", "--rate", str(RATE)]
            decode_seconds = _run([*decode, str(packed), str(back)])
            file = packed.read_bytes()
            return Coded(
                wave=_read(back),
                payload_bits=8 * sum(ogg_packet_sizes(file)[2:]),  # after OpusHead and OpusTags
                file_bytes=len(file),
                encode_seconds=encode_seconds,
                decode_seconds=decode_seconds,
            )


def ogg_packet_sizes(file: bytes) -> list[int]:
    """Sizes in bytes of the packets of an Ogg file with one stream (RFC 3533, section 6).

    A page has a head of 27 bytes, the last of which counts the segments; then their sizes, a byte
    each; then the segments. A segment of less than 255 bytes ends a packet, on whatever page.
    """
    sizes, begun, at = [], 0, 0
    while at < len(file):
        if file[at : at + 4] != b"OggS":
            raise CodectoolError(f"no Ogg page at byte {at}")
        segments = file[at + 27 : at + 27 + file[at + 26]]
        at += 27 + len(segments) + sum(segments)
        for segment in segments:
            begun += segment
            if segment < 255:
                sizes.append(begun)
                begun = 0
    return sizes


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise UsageError(f"no program `{program}` here; Debian has it in the package `{package}`")


def _run(command: list[str]) -> float:
    """Run a program; its processor time in seconds."""
    before = _children_seconds()
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise CodectoolError(f"{' '.join(command)} failed: {result.stderr.strip()}")
    return _children_seconds() - before


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    before = time.process_time()
    result = work()
    return result, time.process_time() - before
