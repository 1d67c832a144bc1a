"""Audio files: round trips, and rounding to 16 bit as in the reference implementations."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from codectool.audio.files import read_audio
from codectool.audio.sink import audio_bytes, check_format
from codectool.errors import AudioError, UsageError
from tests.conftest import GOLDEN, shared


def written(samples: np.ndarray, **options: str) -> np.ndarray:
    file = io.BytesIO(audio_bytes(samples.astype(np.float32), 16000, **options))
    return soundfile.read(file, dtype="int16", always_2d=True)[0].T


def test_pcm16_rounding_matches_bigcodec_reference() -> None:
    with np.load(shared("golden", "bigcodec_layers.npz")) as golden:
        found = written(golden["pcm16_write/in"][None])
        np.testing.assert_array_equal(found[0], golden["pcm16_write/out"])


def test_pcm16_is_within_one_step_of_supercodec_reference() -> None:
    """The reference truncates toward zero, libsndfile rounds down."""
    with np.load(GOLDEN / "supercodec_micro.npz") as golden:
        for name in golden["names"]:
            found = written(golden[f"{name}/rec_from_codes"][None])[0].astype(int)
            assert np.abs(found - golden[f"{name}/int16"]).max() <= 1


def test_audio_bytes_clips_at_full_scale() -> None:
    found = written(np.array([[1.0, 1.5, -1.0, -1.5, 0.0]]))
    np.testing.assert_array_equal(found, [[32767, 32767, -32768, -32768, 0]])


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("container", ["wav", "flac"])
def test_audio_file_round_trip(channels: int, container: str) -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (channels, 999)) / 2**15
    file = io.BytesIO(audio_bytes(samples.astype(np.float32), 44100, container))
    found, rate = read_audio(file, "x")
    assert rate == 44100
    np.testing.assert_array_equal(found, samples.astype(np.float32))


def test_unsupported_formats_are_rejected() -> None:
    assert check_format("wav", None) == "PCM_16"
    assert check_format("flac", "pcm_24") == "PCM_24"
    with pytest.raises(UsageError, match="flac cannot hold subtype FLOAT; it can hold PCM_16"):
        check_format("flac", "FLOAT")
    with pytest.raises(AudioError, match="cannot write 9 channels at 16000 Hz as flac"):
        audio_bytes(np.zeros((9, 4), np.float32), 16000, "flac")
