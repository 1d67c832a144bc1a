"""Crops of files equal crops of the whole file, without reading the whole file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from codectool.audio.files import read_audio, read_crop, read_header
from codectool.audio.samples import resample
from codectool.errors import AudioError

RATE = 24000


def write_noise(path: Path, seconds: float, rate: int, channels: int = 1, **options: Any) -> Path:
    samples = np.random.default_rng(0).normal(0, 0.1, (int(seconds * rate), channels))
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("a.wav", 8000, 1),
        ("a.wav", 24000, 1),
        ("a.wav", 44100, 2),
        ("a.wav", 22051, 1),  # shares one sample per second with the model's rate
        ("a.flac", 16000, 1),
        ("a.flac", 48000, 3),
        ("a.flac", 96000, 1),
        ("a.mp3", 22050, 1),
        ("a.ogg", 16000, 2),
        ("a.opus", 48000, 1),
    ],
)
def test_read_crop_equals_crop_of_the_resampled_file(
    tmp_path: Path, name: str, rate: int, channels: int
) -> None:
    opus = {"format": "OGG", "subtype": "OPUS"} if name.endswith(".opus") else {}
    path = write_noise(tmp_path / name, 7.3, rate, channels, **opus)
    samples, _ = read_audio(path, name)
    whole = resample(samples.mean(axis=0, keepdims=True), rate, RATE)
    size, end = 6000, whole.shape[1]
    starts = [0, 1, 1000, 77_777, end - size - 1, end - size, end - 100]
    for start in starts:
        crop = read_crop(path, start, size, RATE)
        assert crop.dtype == np.float32
        np.testing.assert_allclose(crop, whole[:, start : start + size], rtol=0, atol=1e-4)


def test_read_crop_averages_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.tile([[0.5, -0.25]], (100, 1)), RATE, "FLOAT")
    np.testing.assert_array_equal(read_crop(path, 10, 50, RATE), np.full((1, 50), 0.125))


def test_read_crop_ends_at_the_end_of_the_file(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.wav", 0.1, RATE)
    assert read_crop(path, 2000, 1000, RATE).shape == (1, 400)
    assert read_crop(path, 5000, 1000, RATE).shape == (1, 0)


@pytest.mark.parametrize("rate", [24000, 16000, 44100])
def test_read_crop_reads_one_second_of_ten_minutes(
    tmp_path: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(600 * rate, np.int16), rate)
    read = []
    original = soundfile.SoundFile.read

    def counting(self: Any, frames: int = -1, *args: Any, **options: Any) -> Any:
        result = original(self, frames, *args, **options)
        read.append(len(result))
        return result

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    read_crop(path, 300 * RATE, RATE, RATE)
    assert rate <= sum(read) < 1.1 * rate


def test_read_crop_reads_little_from_disk(tmp_path: Path) -> None:
    """The kernel counts what libsndfile reads."""
    if not os.path.exists("/proc/self/io"):
        pytest.skip("only Linux counts the bytes that a process reads")
    path = tmp_path / "long.flac"
    noise = np.random.default_rng(0).integers(-3000, 3000, 600 * 8000).astype(np.int16)
    soundfile.write(path, noise, 8000)

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    read_crop(path, 400 * 8000, 8000, 8000)
    assert bytes_read() - before < path.stat().st_size / 10


def test_read_crop_errors_name_file_and_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = np.zeros(50_000, np.float32)
    samples[40_000] = np.nan
    soundfile.write(path, samples, RATE, "FLOAT")
    read_crop(path, 0, 10_000, RATE)  # a crop without the NaN
    with pytest.raises(AudioError, match=r"a\.wav: sample 40000 of channel 0 is nan"):
        read_crop(path, 35_000, 10_000, RATE)
    with pytest.raises(AudioError, match=r"none\.wav: no such file"):
        read_crop(tmp_path / "none.wav", 0, 10, RATE)


def test_read_crop_ends_at_the_end_of_a_truncated_file(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.flac", 4.0, RATE)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    warnings: list[str] = []
    length, _ = read_header(path, warnings)
    assert 40_000 < length < 48_000
    assert "promises 4.00 s" in warnings[0]
    assert read_crop(path, 0, 10_000, RATE).shape == (1, 10_000)
    assert read_crop(path, length - 1000, 10_000, RATE).shape == (1, 1000)


def test_read_header_returns_length_and_rate(tmp_path: Path) -> None:
    assert read_header(write_noise(tmp_path / "a.ogg", 1.25, 16000, 2)) == (20_000, 16000)
    (tmp_path / "x.raw").write_bytes(bytes(1000))
    with pytest.raises(AudioError, match=r"x\.raw: "):
        read_header(tmp_path / "x.raw")
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="a pipe"):
        read_header(tmp_path / "pipe.wav")
