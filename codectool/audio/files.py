"""Audio files in and out, through libsndfile."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from codectool.audio.resample import margin_samples, resample
from codectool.audio.samples import Samples, check_finite
from codectool.errors import AudioError, UsageError

FRAMES_AT_ONCE = 1 << 20
FORMATS = {"wav": "PCM_16", "flac": "PCM_16"}  # container -> subtype unless one is asked for
# One code per sample. Others work in blocks and would not keep the exact length.
SUBTYPES = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}
# What names of audio files end in, for searching folders; raw samples say nothing of themselves.
SUFFIXES = {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".nist", ".oga", ".ogg"}
SUFFIXES |= {".opus", ".rf64", ".snd", ".sph", ".w64", ".wav", ".wave"}
MAX_SAMPLES = 1 << 40  # of a file: beyond it the header does not know the length
# A type error is what `soundfile` answers to raw samples, whose rate it would have to be told.
UNREADABLE = (soundfile.SoundFileError, OSError, ValueError, TypeError)
MIN_RATE, MAX_RATE = 1000, 1_000_000  # in Hz; outside no speech can be meant


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
        with soundfile.SoundFile(file_name(file) if isinstance(file, Path) else file) as sound:
            rate, channels = sound.samplerate, sound.channels
            # Piece by piece: a header may promise more frames than memory holds.
            pieces = []
            while len(piece := sound.read(FRAMES_AT_ONCE, dtype="float32", always_2d=True)):
                pieces.append(piece.T)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise AudioError(f"{name}: {why(file, error)}") from error
    samples = np.concatenate(pieces, axis=1) if pieces else np.zeros((channels, 0), np.float32)
    check_finite(samples, name)
    return np.ascontiguousarray(samples), rate


def read_header(path: Path) -> tuple[int, int]:
    """Length in samples per channel, and sampling rate in Hz, without reading samples.

    Raises:
        AudioError: not audio, empty, or a header that does not say how long the file is.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise AudioError(f"{path}: is no file of audio but a folder, a pipe or a device")
    try:
        with soundfile.SoundFile(file_name(path)) as sound:
            num_samples, rate = int(sound.frames), int(sound.samplerate)
    except UNREADABLE as error:
        raise AudioError(f"{path}: {why(path, error)}") from error
    if num_samples == 0:
        raise AudioError(f"{path}: holds no samples")
    if not 0 < num_samples <= MAX_SAMPLES:
        raise AudioError(f"{path}: its header does not say how long it is; convert it to flac")
    check_rate(rate, str(path))
    return num_samples, rate


def check_rate(rate: int, name: str) -> None:
    """Refuse a file whose rate no speech has, before it is converted to another one.

    Raises:
        AudioError: it is below 1 kHz, or above 1 MHz.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"{name}: a sampling rate of {rate} Hz cannot be meant")


def read_crop(path: Path, start: int, length: int, sample_rate: int) -> Samples:
    """Read a stretch of a file, mixed to mono and resampled as within the whole file.

    Of the file no more is read than the stretch and what the resampling filter reaches. In the
    last page of an Ogg Vorbis file libsndfile 1.2.2 lands up to some 500 samples late, so that
    such a stretch is the file's, but not quite the one that was asked for.

    Args:
        path: a file of any format that libsndfile knows.
        start: first sample of the stretch, at ``sample_rate``.
        length: in samples at ``sample_rate``.
        sample_rate: of the result, in Hz.

    Returns:
        float32 ``(1, N)``, the mean of the channels; N is below ``length`` where the file ends.

    Raises:
        AudioError: not audio, damaged, shorter than its header says, or a sample is NaN or
            infinite.
    """
    try:
        with soundfile.SoundFile(file_name(path)) as sound:
            rate = sound.samplerate
            margin = margin_samples(rate, sample_rate)
            # Both rates share every `period`-th sample of the file: a piece that begins there is
            # resampled onto the same grid as the whole.
            period = rate // math.gcd(rate, sample_rate)
            first = max(0, (start * rate // sample_rate - margin) // period * period)
            stop = min(sound.frames, -(-(start + length) * rate // sample_rate) + margin)
            count = max(0, stop - first)
            if count:
                sound.seek(first)
            piece = sound.read(count, dtype="float32", always_2d=True)
    except UNREADABLE as error:
        raise AudioError(f"{path}: {why(path, error)}") from error
    if len(piece) < count:
        raise AudioError(f"{path}: ends after {first + len(piece)} samples; its header says more")
    check_finite(piece.T, str(path), first)
    mono = piece.mean(axis=1, dtype=np.float32) if piece.shape[1] > 1 else piece[:, 0]
    offset = start - first * sample_rate // rate
    return resample(mono[None], rate, sample_rate)[:, offset : offset + length]


def file_name(path: Path) -> str | bytes:
    """A name as `soundfile` takes it: text would have to be UTF-8, which POSIX does not ask for."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def why(file: Path | BinaryIO, error: Exception) -> str:
    """What is wrong with a file that libsndfile refuses, in a few words."""
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
