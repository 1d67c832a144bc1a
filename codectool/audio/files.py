"""Read audio files that libsndfile supports: whole files, headers and crops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from codectool.audio.samples import (
    MAX_RATE,
    MIN_RATE,
    Samples,
    margin_samples,
    resample,
)
from codectool.audio.source import open_audio
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


def read_header(path: Path, warnings: list[str] | None = None) -> tuple[int, int]:
    """Read the length in samples per channel and the sampling rate in Hz, without the samples.

    Only a damaged file and one whose header does not state the length are read to their end.

    Args:
        path: a file of any format that can be read.
        warnings: gets one sentence for each fault of the audio that can be read anyway.

    Raises:
        AudioError: not audio, or empty.
    """
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise AudioError(f"{path}: is not an audio file but a folder, a pipe or a device")
    with open_audio(path, str(path)) as audio:
        num_samples, rate = audio.num_samples, audio.sample_rate
        if num_samples is None or audio.warnings:
            num_samples = sum(chunk.shape[1] for chunk in audio.chunks())
    if num_samples == 0:
        raise AudioError(f"{path}: holds no samples")
    if warnings is not None:
        warnings += audio.warnings
    check_rate(rate, str(path))
    return num_samples, rate


def check_rate(rate: int, name: str) -> None:
    """Raise an `AudioError` if a file's sampling rate is below 1 kHz or above 1 MHz."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name}: a sampling rate of {rate} Hz is not in {MIN_RATE}..{MAX_RATE} Hz; "
            "correct the file's header"
        )


def read_crop(
    path: Path,
    start: int,
    length: int,
    sample_rate: int,
    listed: tuple[int, int] | None = None,
    warnings: list[str] | None = None,
    channel: int | None = None,
) -> Samples:
    """Read a crop, mixed to mono and resampled; the result equals a crop of the resampled file.

    Only the crop and the samples that resampling and decoding depend on are read, if the format
    can seek.

    Args:
        path: a file of any format that libsndfile reads.
        start: first sample of the crop, at ``sample_rate``.
        length: samples of the crop, at ``sample_rate``.
        sample_rate: sampling rate of the result, in Hz.
        listed: samples per channel and sampling rate in Hz that a list gives for the file.
        warnings: gets one sentence for each fault of the file, and one if it is not as listed.
        channel: a channel to read instead of the mean of all.

    Returns:
        float32 ``(1, N)``, the mean of the channels; N is below ``length`` where the file ends.

    Raises:
        AudioError: not audio, damaged, shorter than the header states, or a sample is NaN or
            infinite.
    """
    with open_audio(path, str(path)) as audio:
        rate = audio.sample_rate
        margin = margin_samples(rate, sample_rate)
        # The two rates share every `period`-th sample of the file. From there on the crop is
        # resampled onto the same grid as the whole file.
        period = rate // math.gcd(rate, sample_rate)
        first = max(0, (start * rate // sample_rate - margin) // period * period)
        stop = -(-(start + length) * rate // sample_rate) + margin
        if audio.num_samples is not None:
            stop = min(stop, audio.num_samples)
        chunks = [np.zeros((audio.channels, 0), np.float32)]
        if first < stop:
            chunks += audio.chunks(first, stop - first)
        if warnings is not None:
            warnings += audio.warnings
            found = (audio.num_samples, rate)
            if listed is not None and audio.num_samples is not None and found != listed:
                warnings.append(
                    f"{path}: has {found[0]} samples at {found[1]} Hz, but the list says "
                    f"{listed[0]} at {listed[1]} Hz; write the list again with `codectool filelist`"
                )
    samples = np.concatenate(chunks, axis=1)
    end = first + samples.shape[1]
    if audio.num_samples is not None and end < stop:
        raise AudioError(f"{path}: ends after {end} samples, before the length in its header")
    if channel is None and len(samples) > 1:
        mono = samples.mean(axis=0, dtype=np.float32)
    else:
        mono = samples[channel or 0]
    offset = start - first * sample_rate // rate
    return resample(mono[None], rate, sample_rate)[:, offset : offset + length]
