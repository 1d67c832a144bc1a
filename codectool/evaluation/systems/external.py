"""Codecs that are external programs, found on PATH."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from codectool.audio.files import read_audio
from codectool.audio.samples import resample
from codectool.audio.sink import audio_bytes
from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.systems.system import CodecCost, Coded, System

TIMEOUT_SECONDS = 600  # of one call of a program


class ExternalCodec(System):
    """A codec with one program to encode and one to decode, file to file.

    Attributes:
        programs: the programs, each with the Debian package that contains it.
        source: name of the audio file; the suffix selects the format.
        packed: name of the coded file.
        decoded: name of the decoded file.
        model_rate: sampling rate of the codec, in Hz; None if it accepts any.
    """

    programs: ClassVar[dict[str, str]]
    source: str = "in.wav"
    packed: str
    decoded: str = "out.wav"
    model_rate: int | None = None

    def __init__(self) -> None:
        for program, package in self.programs.items():
            if shutil.which(program) is None:
                raise UsageError(
                    f"there is no program `{program}` on PATH; install the Debian package "
                    f"`{package}`"
                )

    @abstractmethod
    def encoder(self, rate: int) -> list[str]:
        """Return the command that encodes `source` to `packed` in its working folder."""

    @abstractmethod
    def decoder(self, rate: int) -> list[str]:
        """Return the command that decodes `packed` to `decoded`."""

    @abstractmethod
    def payload_bits(self, packed: bytes) -> float:
        """Return how many bits of the coded file carry audio."""

    @override
    def code(self, wave: Wave, rate: int) -> Coded:
        inner = self.model_rate or rate
        samples = self.prepare(resample(wave[None], rate, inner)[0])
        with tempfile.TemporaryDirectory(prefix="codectool-") as name:
            folder = Path(name)
            (folder / self.source).write_bytes(self.write(samples, inner))
            encode_seconds = run(self.encoder(inner), folder)
            decode_seconds = run(self.decoder(inner), folder)
            try:
                packed = (folder / self.packed).read_bytes()
            except OSError as error:
                command = " ".join(self.encoder(inner))
                raise CodectoolError(f"`{command}` wrote no output") from error
            decoded, decoded_rate = self.read(folder / self.decoded, inner)
        bits = self.payload_bits(packed)
        cost = CodecCost(bits, len(packed), encode_seconds, decode_seconds)
        return Coded(decoded, decoded_rate, cost)

    def prepare(self, samples: Wave) -> Wave:
        """Return ``(N,)`` padded so that the encoder drops no samples."""
        return samples

    def write(self, samples: Wave, rate: int) -> bytes | memoryview:
        """Return the contents of `source`: by default 16-bit wav."""
        return audio_bytes(samples[None], rate)

    def read(self, path: Path, rate: int) -> tuple[Wave, int]:
        """Read `decoded` as samples ``(N,)`` and their rate."""
        samples, found = read_audio(path, "decoded audio")
        return samples.mean(axis=0), found


def run(command: list[str], folder: Path) -> float:
    """Run a program in a folder.

    Returns:
        Its processor time in seconds.

    Raises:
        CodectoolError: the program fails or does not finish in time.
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
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        text = " ".join(command)
        raise CodectoolError(f"`{text}` did not finish within {TIMEOUT_SECONDS} s") from error
    except OSError as error:
        raise CodectoolError(f"`{command[0]}` cannot be run ({error.strerror})") from error
    if result.returncode:
        lines = result.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise CodectoolError(f"`{' '.join(command)}` failed: {reason}")
    return seconds() - before
