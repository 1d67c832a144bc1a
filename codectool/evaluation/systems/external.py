"""Codecs that are external programs, found on PATH."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from typing_extensions import override

from codectool.audio.files import read_audio
from codectool.audio.samples import resample
from codectool.audio.sink import audio_bytes
from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.systems.system import CodecCost, Coded, System

TIMEOUT_SECONDS = 600  # of one call of a program


class ExternalCodec(System):
    """A codec with one program to encode and one to decode.

    Args:
        package: Debian package of the programs.
        encode: command that encodes `source`; ``{rate}`` stands for the sampling rate in Hz.
        decode: command that decodes to `decoded`.
        coded: name of the coded file in both commands.
        payload_bits: function from the coded file to the number of bits that carry audio.
        model_rate: sampling rate of the codec, in Hz; None if it accepts any.
        version: command that prints the version, and regular expression of the version in it.

    Attributes:
        source: name of the audio file to encode.
        decoded: name of the decoded file.

    Raises:
        UsageError: a program is not installed.
    """

    source = "in.wav"
    decoded = "out.wav"

    def __init__(
        self,
        package: str,
        encode: str,
        decode: str,
        coded: str,
        payload_bits: Callable[[bytes], float],
        model_rate: int | None = None,
        version: tuple[str, str] | None = None,
    ) -> None:
        self.encode, self.decode = encode, decode
        self.coded = coded
        self.payload_bits = payload_bits
        self.model_rate = model_rate
        for command in filter(None, (encode, decode)):
            program = command.split()[0]
            if shutil.which(program) is None:
                raise UsageError(
                    f"there is no program `{program}` on PATH; install the Debian package "
                    f"`{package}`"
                )
        self.version = "" if version is None else find_version(*version)

    @override
    def code(self, wave: Wave, rate: int) -> Coded:
        inner = self.model_rate or rate
        encode, decode = (text.format(rate=inner).split() for text in (self.encode, self.decode))
        with tempfile.TemporaryDirectory(prefix="codectool-") as name:
            folder = Path(name)
            source = self.to_file(resample(wave[None], rate, inner)[0], inner)
            (folder / self.source).write_bytes(source)
            encode_seconds = run(encode, folder)
            decode_seconds = self.run_decoder(decode, folder)
            try:
                coded = (folder / self.coded).read_bytes()
            except OSError as error:
                raise CodectoolError(f"`{' '.join(encode)}` wrote no output") from error
            decoded, decoded_rate = self.from_file(folder / self.decoded, inner)
        cost = CodecCost(self.payload_bits(coded), len(coded), encode_seconds, decode_seconds)
        return Coded(decoded, decoded_rate, cost)

    def run_decoder(self, command: Sequence[str], folder: Path) -> float:
        """Decode `coded` to `decoded` in a folder and return the processor time in seconds."""
        return run(command, folder)

    def to_file(self, samples: Wave, rate: int) -> bytes | memoryview:
        """Return the contents of `source` for samples ``(N,)``: 16-bit WAV."""
        return audio_bytes(samples[None], rate)

    def from_file(self, path: Path, rate: int) -> tuple[Wave, int]:
        """Read `decoded` as samples ``(N,)`` and their sampling rate."""
        samples, found = read_audio(path, "decoded audio")
        return samples.mean(axis=0), found


def find_version(command: str, pattern: str) -> str:
    """Return what a regular expression finds in the output of a program; empty if nothing."""
    try:
        result = subprocess.run(
            command.split(), capture_output=True, stdin=subprocess.DEVNULL, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(pattern, (result.stdout + result.stderr).decode(errors="replace"))
    return found[0] if found else ""


def run(command: Sequence[str], folder: Path) -> float:
    """Run a program in a folder and return its processor time in seconds.

    Raises:
        CodectoolError: the program fails or does not finish in time.
    """
    import resource

    def seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = seconds()
    text = " ".join(command)
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise CodectoolError(f"`{text}` did not finish within {TIMEOUT_SECONDS} s") from error
    except OSError as error:
        raise CodectoolError(f"`{command[0]}` cannot be run ({error.strerror})") from error
    if result.returncode:
        lines = result.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise CodectoolError(f"`{text}` failed: {reason}")
    return seconds() - before
