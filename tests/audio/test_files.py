"""Audio files: what comes in as it was written, what goes out as the published scripts round it."""

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


def test_sixteen_bits_are_rounded_as_by_the_script_of_bigcodec() -> None:
    with np.load(shared("golden", "bigcodec_layers.npz")) as golden:
        found = written(golden["pcm16_write/in"][None])
        np.testing.assert_array_equal(found[0], golden["pcm16_write/out"])


def test_sixteen_bits_are_one_step_from_the_script_of_supercodec() -> None:
    """It cuts towards zero; libsndfile rounds down. Beyond full scale it wraps, which we do not."""
    with np.load(GOLDEN / "supercodec_micro.npz") as golden:
        for name in golden["names"]:
            found = written(golden[f"{name}/rec_from_codes"][None])[0].astype(int)
            assert np.abs(found - golden[f"{name}/int16"]).max() <= 1


def test_full_scale_is_clipped() -> None:
    found = written(np.array([[1.0, 1.5, -1.0, -1.5, 0.0]]))
    np.testing.assert_array_equal(found, [[32767, 32767, -32768, -32768, 0]])


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("container", ["wav", "flac"])
def test_round_trip(channels: int, container: str) -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (channels, 999)) / 2**15
    file = io.BytesIO(audio_bytes(samples.astype(np.float32), 44100, container))
    found, rate = read_audio(file, "x")
    assert rate == 44100
    np.testing.assert_array_equal(found, samples.astype(np.float32))


def test_formats_that_cannot_be() -> None:
    assert check_format("wav", None) == "PCM_16"
    assert check_format("flac", "pcm_24") == "PCM_24"
    with pytest.raises(UsageError, match="flac cannot hold subtype FLOAT; it can hold PCM_16"):
        check_format("flac", "FLOAT")
    with pytest.raises(AudioError, match="cannot write 9 channels at 16000 Hz as flac"):
        audio_bytes(np.zeros((9, 4), np.float32), 16000, "flac")
