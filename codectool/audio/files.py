"""Audio files in and out, through libsndfile."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from codectool.audio.samples import Samples, check_finite
from codectool.errors import AudioError, UsageError

FRAMES_AT_ONCE = 1 << 20
FORMATS = {"wav": "PCM_16", "flac": "PCM_16"}  # container -> subtype unless one is asked for
# One code per sample. Others work in blocks and would not keep the exact length.
SUBTYPES = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


def read_audio(file: Path | BinaryIO, name: str) -> tuple[Samples, int]:
    """Read a whole file of any format that libsndfile knows.

    Args:
        file: a path, or a seekable file object.
        name: what to call it in messages.

    Returns:
        float32 ``(C, N)``, in [-1, 1] for integer formats, and the sampling rate in Hz.

    Raises:
        AudioError: not audio, damaged, or a sample is NaN or infinite.
    """
    try:
        with soundfile.SoundFile(file) as sound:
            rate, channels = sound.samplerate, sound.channels
            # Piece by piece: a header may promise more frames than memory holds.
            pieces = []
            while len(piece := sound.read(FRAMES_AT_ONCE, dtype="float32", always_2d=True)):
                pieces.append(piece.T)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise AudioError(f"{name}: {_why(file, error)}") from error
    samples = np.concatenate(pieces, axis=1) if pieces else np.zeros((channels, 0), np.float32)
    check_finite(samples, name)
    return np.ascontiguousarray(samples), rate


def _why(file: Path | BinaryIO, error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        if isinstance(file, Path):
            if not file.exists():
                return "no such file"
            if file.is_dir():
                return "is a folder; `encode` takes one file"
            if file.stat().st_size == 0:
                return "is empty (0 bytes)"
        elif file.seek(0, io.SEEK_END) == 0:
            return "is empty (0 bytes)"
        return f"not audio that libsndfile can read ({error.error_string.rstrip('.')})"
    return str(error)


def check_format(container: str, subtype: str | None) -> str:
    """The subtype to write.

    Raises:
        UsageError: this container cannot hold it.
    """
    subtype = (subtype or FORMATS[container]).upper()
    if subtype not in SUBTYPES or not soundfile.check_format(container, subtype):
        known = ", ".join(sorted(SUBTYPES & soundfile.available_subtypes(container).keys()))
        raise UsageError(f"{container} cannot hold subtype {subtype}; it can hold {known}")
    return subtype


def audio_bytes(
    samples: Samples, rate: int, container: str = "wav", subtype: str | None = None
) -> memoryview:
    """An audio file, in memory: errors of a disk would be lost inside libsndfile's calls to us.

    Integer subtypes are rounded by libsndfile: towards minus infinity, clipped at full scale.

    Args:
        samples: ``(C, N)`` in [-1, 1].
        rate: sampling rate in Hz.
        container: ``"wav"`` or ``"flac"``.
        subtype: libsndfile's name of the sample format; None is 16 bit.

    Raises:
        AudioError: this container cannot hold so many channels or such a rate.
        UsageError: this container cannot hold the subtype.
    """
    subtype = check_format(container, subtype)
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(
            buffer, "w", rate, samples.shape[0], subtype, format=container.upper()
        ) as sound:
            sound.write(samples.T)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"cannot write {samples.shape[0]} channels at {rate} Hz as {container} {subtype}: "
            f"{error.error_string}"
        ) from error
    return buffer.getbuffer()
