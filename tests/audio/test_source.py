"""Audio read chunk by chunk, from files and from pipes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio.source import PcmSource, open_audio
from codectool.audio.view import View
from codectool.audio.wav import RAW_FORMATS, SUBTYPES
from codectool.errors import AudioError
from tests.signals import Pipe


def noise(samples: int = 5000, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (samples, channels)).astype(np.float32)


def stored(wave: np.ndarray, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, 22050, subtype, format=container)
    return file.getvalue()


def read(data: bytes, pipe: bool) -> tuple[np.ndarray, int]:
    file = io.BufferedReader(Pipe(data)) if pipe else io.BytesIO(data)
    with open_audio(file, "in") as audio:  # type: ignore[arg-type]
        chunks = list(audio.chunks())
        assert all(chunk.shape[1] for chunk in chunks)
        empty = np.zeros((audio.channels, 0), np.float32)
        return np.concatenate([empty, *chunks], axis=1), audio.sample_rate


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", name) for name in SUBTYPES]
    + [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16")],
)
def test_source_matches_libsndfile(pipe: bool, container: str, subtype: str) -> None:
    data = stored(noise(), container, subtype)
    expected, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    samples, found = read(data, pipe)
    assert found == rate == 22050
    np.testing.assert_array_equal(samples, expected.T)


def test_file_source_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(stored(noise(), "FLAC"))
    with open_audio(path, str(path)) as audio:
        assert audio.seekable
        assert audio.num_samples == 5000
        first, second = (np.concatenate(list(audio.chunks()), axis=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF8000])
def test_wav_on_a_pipe_without_known_length_is_read_to_its_end(size: int) -> None:
    data = bytearray(stored(noise()))
    at = data.index(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")
    assert read(bytes(data), pipe=True)[0].shape == (2, 5000)


def test_wav_on_a_pipe_ignores_chunks_after_the_samples() -> None:
    samples, _ = read(stored(noise()) + b"LIST\x04\0\0\0abcd", pipe=True)
    assert samples.shape == (2, 5000)


def test_incomplete_last_sample_is_dropped() -> None:
    samples, _ = read(stored(noise())[:-3], pipe=True)
    assert samples.shape == (2, 4999)


@pytest.mark.parametrize("name", RAW_FORMATS)
def test_pcm_source_matches_libsndfile(name: str) -> None:
    subtype = RAW_FORMATS[name]
    data = stored(noise(), "WAV", subtype)
    raw = data[data.index(b"data") + 8 :]
    audio = PcmSource(io.BytesIO(raw), subtype, 8000, 2, "raw")
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(np.concatenate(list(audio.chunks()), axis=1), expected.T)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"RIFF\0\0\0\0WAVE", "ends within its WAV header"),
        (
            b"RIFF\0\0\0\0WAVEfmt \x02\0\0\0ab" + b"data\0\0\0\0",
            "not audio that libsndfile can read",
        ),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\x7f", "ends within its WAV header"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "no format chunk before the samples"),
        (b"no audio at all, only text", "not audio that libsndfile can read"),
        (b"", "is empty"),
    ],
)
def test_open_audio_rejects_invalid_pipes(data: bytes, why: str) -> None:
    with pytest.raises(AudioError, match=f"in: .*{why}"):
        read(data, pipe=True)


def test_view_reads_nothing_before_its_start() -> None:
    """After a seek to an impossible position libsndfile may read without looking."""
    view = View(io.BytesIO(b"abc"))
    assert view.seek(-5) == -1
    assert view.readinto(bytearray(2)) == 0
    view.raise_error()
    assert view.seek(1) == 1
    assert view.readinto(bytearray(9)) == 2
