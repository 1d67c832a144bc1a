"""Audio written chunk by chunk."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from codectool.audio.sink import open_sink
from codectool.audio.wav import SUBTYPES, wav_header
from codectool.errors import AudioError, UsageError


class NoSeek(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:  # type: ignore[override]
        raise io.UnsupportedOperation("seek")


def noise(samples: int = 3001, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(2).uniform(-1.2, 1.2, (channels, samples)).astype(np.float32)


def written(
    wave: np.ndarray, announced: int | None, file: io.BytesIO, container: str, subtype: str
) -> bytes:
    sink = open_sink(file, 44100, wave.shape[0], announced, container, subtype)
    for chunk in np.array_split(wave, 7, axis=1):
        sink.write(chunk)
    sink.close()
    return file.getvalue()


def by_libsndfile(wave: np.ndarray, container: str, subtype: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, wave.T, 44100, subtype, format=container)
    file.seek(0)
    return soundfile.read(file, dtype="float64", always_2d=True)[0]


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("announced", [3001, None, 17])
def test_wav_sink_matches_libsndfile(subtype: str, announced: int | None) -> None:
    data = written(noise(), announced, io.BytesIO(), "wav", subtype)
    back, rate = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
    assert rate == 44100
    assert soundfile.info(io.BytesIO(data)).subtype == subtype
    np.testing.assert_array_equal(back, by_libsndfile(noise(), "wav", subtype))


def test_wav_sink_writes_to_a_pipe_without_known_length() -> None:
    data = written(noise(channels=1), None, NoSeek(), "wav", "PCM_16")
    back, _ = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
    np.testing.assert_array_equal(back, by_libsndfile(noise(channels=1), "wav", "PCM_16"))


def test_wav_header_is_rf64_above_4_gib() -> None:
    header = wav_header("PCM_16", 44100, 2, 6_000_000_000)
    assert header.startswith(b"RF64\xff\xff\xff\xffWAVEds64")
    info = soundfile.info(io.BytesIO(header + bytes(400)))
    assert (info.channels, info.samplerate, info.format) == (2, 44100, "RF64")
    assert len(wav_header("PCM_16", 44100, 2, 1_000_000)) == 44


def test_flac_sink_matches_libsndfile() -> None:
    data = written(noise(channels=2) / 2, None, io.BytesIO(), "flac", "PCM_24")
    back, _ = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
    assert soundfile.info(io.BytesIO(data)).frames == 3001
    np.testing.assert_array_equal(back, by_libsndfile(noise(channels=2) / 2, "flac", "PCM_24"))


class Full(io.BytesIO):
    """A disk that is full after one kilobyte."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.tell() + len(data) > 1024:
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("container", ["wav", "flac"])
def test_sink_raises_if_the_disk_is_full(container: str) -> None:
    with pytest.raises(OSError, match="No space left"):
        written(noise(200_000, 1), None, Full(), container, "PCM_16")


def test_open_sink_rejects_unsupported_formats() -> None:
    with pytest.raises(AudioError, match="cannot write 9 channels at 16000 Hz as flac"):
        open_sink(io.BytesIO(), 16000, 9, None, "flac")
    with pytest.raises(AudioError, match="cannot write 2 channels at 9999999 Hz as wav"):
        open_sink(io.BytesIO(), 9_999_999, 2, None, "wav")
    with pytest.raises(UsageError, match="flac cannot hold subtype DOUBLE"):
        open_sink(io.BytesIO(), 16000, 1, None, "flac", "DOUBLE")
