"""Read audio files that libsndfile supports: whole files, headers and crops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from codectool.audio.samples import (
    MAX_RATE,
    MAX_SAMPLES,
    MIN_RATE,
    LevelCheck,
    Samples,
    margin_samples,
    resample,
)
from codectool.audio.source import UNREADABLE, open_audio, open_sound, unreadable_reason
from codectool.errors import AudioError


def read_audio(
    file: Path | BinaryIO, name: str, warnings: list[str] | None = None
) -> tuple[Samples, int]:
    """Read a whole file.

    Args:
        file: a path or a file object.
        name: name in error messages.
        warnings: gets one sentence for each fault of the audio that was read anyway.

    Returns:
        float32 ``(C, N)``, in [-1, 1] for integer formats, and the sampling rate in Hz.

    Raises:
        AudioError: not audio, damaged, or a sample is NaN or infinite.
    """
    with open_audio(file, name) as audio:
        # In chunks, because a header may promise more samples than fit in memory.
        chunks = [np.zeros((audio.channels, 0), np.float32), *audio.chunks()]
        if warnings is not None:
            warnings += audio.warnings
        return np.concatenate(chunks, axis=1), audio.sample_rate


def read_header(path: Path) -> tuple[int, int]:
    """Read the length in samples per channel and the sampling rate in Hz, without the samples.

    Raises:
        AudioError: not audio, empty, or the header does not state the length.
    """
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise AudioError(f"{path}: is not an audio file but a folder, a pipe or a device")
    with open_sound(path, str(path)) as sound:
        num_samples, rate = int(sound.frames), int(sound.samplerate)
    if num_samples == 0:
        raise AudioError(f"{path}: holds no samples")
    if not 0 < num_samples <= MAX_SAMPLES:
        raise AudioError(f"{path}: the header does not state the length; convert it to flac")
    check_rate(rate, str(path))
    return num_samples, rate


def check_rate(rate: int, name: str) -> None:
    """Raise an `AudioError` if a file's sampling rate is below 1 kHz or above 1 MHz."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name}: a sampling rate of {rate} Hz is not in {MIN_RATE}..{MAX_RATE} Hz; "
            "correct the file's header"
        )


def read_crop(path: Path, start: int, length: int, sample_rate: int) -> Samples:
    """Read a crop, mixed to mono and resampled; the result equals a crop of the resampled file.

    Only the crop and the samples that the resampling filter reaches are read. In the last page of
    an Ogg Vorbis file libsndfile 1.2.2 seeks up to about 500 samples too far, so that a crop there
    is shifted.

    Args:
        path: a file of any format that libsndfile reads.
        start: first sample of the crop, at ``sample_rate``.
        length: samples of the crop, at ``sample_rate``.
        sample_rate: sampling rate of the result, in Hz.

    Returns:
        float32 ``(1, N)``, the mean of the channels; N is below ``length`` where the file ends.

    Raises:
        AudioError: not audio, damaged, shorter than the header states, or a sample is NaN or
            infinite.
    """
    with open_sound(path, str(path)) as sound:
        rate = sound.samplerate
        margin = margin_samples(rate, sample_rate)
        # The two rates share every `period`-th sample of the file. From there on the crop is
        # resampled onto the same grid as the whole file.
        period = rate // math.gcd(rate, sample_rate)
        first = max(0, (start * rate // sample_rate - margin) // period * period)
        stop = min(sound.frames, -(-(start + length) * rate // sample_rate) + margin)
        count = max(0, stop - first)
        try:
            if count:
                sound.seek(first)
            samples = sound.read(count, dtype="float32", always_2d=True)
        except UNREADABLE as error:
            raise AudioError(f"{path}: {unreadable_reason(path, error)}") from error
    if len(samples) < count:
        end = first + len(samples)
        raise AudioError(f"{path}: ends after {end} samples, before the length in its header")
    LevelCheck(str(path), lambda _: None)(samples.T, first)  # a loud crop is no reason to stop
    mono = samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0]
    offset = start - first * sample_rate // rate
    return resample(mono[None], rate, sample_rate)[:, offset : offset + length]
