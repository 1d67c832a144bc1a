"""Running other people's encoders and decoders, found on PATH."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from codectool.audio.files import read_audio
from codectool.audio.samples import resample
from codectool.audio.sink import audio_bytes
from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.systems.system import Coded, System

LONGEST_SECONDS = 600  # of a program: after that it hangs


class Programs(System):
    """A codec that is one program to encode and one to decode, file to file.

    Attributes:
        needs: the programs, and the Debian package that each comes with.
        source: name of the file that is encoded; its suffix tells the program what it is.
        packed: name of the coded file.
        back: name of the decoded file.
        model_rate: rate in Hz that the encoder wants; None takes any.
    """

    needs: ClassVar[dict[str, str]]
    source: ClassVar[str] = "in.wav"
    packed: ClassVar[str]
    back: ClassVar[str] = "out.wav"
    model_rate: int | None = None

    def __init__(self) -> None:
        for program, package in self.needs.items():
            if shutil.which(program) is None:
                raise UsageError(
                    f"there is no program `{program}` on PATH; Debian has it in the package "
                    f"`{package}`"
                )

    @abstractmethod
    def encoder(self, rate: int) -> list[str]:
        """Command that makes `packed` of `source` in the folder where it runs."""

    @abstractmethod
    def decoder(self, rate: int) -> list[str]:
        """Command that makes `back` of `packed`."""

    @abstractmethod
    def payload_bits(self, packed: bytes) -> float:
        """Bits of the coded file that carry audio."""

    def code(self, wave: Wave, rate: int) -> Coded:
        """By way of a folder that nobody sees."""
        inner = self.model_rate or rate
        samples = self.prepare(resample(wave[None], rate, inner)[0])
        with tempfile.TemporaryDirectory(prefix="codectool-") as name:
            folder = Path(name)
            (folder / self.source).write_bytes(self.write(samples, inner))
            encode_seconds = run(self.encoder(inner), folder)
            decode_seconds = run(self.decoder(inner), folder)
            packed = _bytes_of(folder / self.packed, self.encoder(inner))
            decoded, decoded_rate = self.read(folder / self.back, inner)
        return Coded(
            wave=decoded,
            rate=decoded_rate,
            payload_bits=self.payload_bits(packed),
            file_bytes=len(packed),
            encode_seconds=encode_seconds,
            decode_seconds=decode_seconds,
        )

    def prepare(self, samples: Wave) -> Wave:
        """What has to be done to ``(N,)`` so that the encoder drops nothing of it."""
        return samples

    def write(self, samples: Wave, rate: int) -> bytes | memoryview:
        """Content of `source`: 16-bit wav unless the program wants something else."""
        return audio_bytes(samples[None], rate)

    def read(self, path: Path, rate: int) -> tuple[Wave, int]:
        """Samples ``(N,)`` and rate of `back`."""
        samples, found = read_audio(path, "decoded audio")
        return samples.mean(axis=0), found


class RawPrograms(Programs):
    """The same for programs that take and give raw 16-bit samples."""

    source: ClassVar[str] = "in.raw"
    back: ClassVar[str] = "out.raw"

    def write(self, samples: Wave, rate: int) -> bytes:
        """Little-endian integers, rounded to the nearest."""
        return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()

    def read(self, path: Path, rate: int) -> tuple[Wave, int]:
        """They have the rate that went in."""
        return np.fromfile(path, "<i2").astype(np.float32) / np.float32(32768), rate


def run(command: list[str], folder: Path) -> float:
    """Run a program in a folder.

    Returns:
        Its processor time in seconds.

    Raises:
        CodectoolError: it fails, or hangs.
    """
    import resource

    def seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = seconds()
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=LONGEST_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise CodectoolError(f"`{' '.join(command)}` hangs") from error
    except OSError as error:
        raise CodectoolError(f"`{command[0]}` cannot be run ({error.strerror})") from error
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip().splitlines()
        why = words[-1] if words else f"exit code {result.returncode}"
        raise CodectoolError(f"`{' '.join(command)}` failed: {why}")
    return seconds() - before


def _bytes_of(path: Path, command: list[str]) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CodectoolError(f"`{' '.join(command)}` wrote nothing") from error
