"""Loudness: the gain before encoding is stored in the file and undone by decoding."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

import codectool
from codectool.audio.loudness import LoudnessMeter, amplify
from codectool.codec import Codec
from codectool.container import Reader, read, write
from codectool.decoding import Decoding, decode_file
from codectool.encoding import encode_file
from codectool.errors import CodectoolWarning, TokensError
from tests.signals import speechlike

QUIET = -30.0


def quiet(seconds: float = 2.0, rate: int = 16000, channels: int = 2) -> np.ndarray:
    return amplify(speechlike(seconds, rate, channels), QUIET)


def loudness(wave: np.ndarray, rate: int) -> float:
    meter = LoudnessMeter(rate, len(wave))
    meter.push(wave)
    found = meter.loudness()
    assert found is not None
    return found


def test_gain_is_applied_before_encoding_and_undone_after_decoding(codec: Codec) -> None:
    wave = quiet()
    tokens = codec.encode(wave, 16000, normalize=-23.0)
    assert tokens.gain_db == round(-23.0 - loudness(wave, 16000), 2)
    louder = codec.encode(amplify(wave, tokens.gain_db), 16000)
    np.testing.assert_array_equal(tokens.codes, louder.codes)
    kept = codec.decode(tokens, keep_loudness=True)
    np.testing.assert_array_equal(kept, codec.decode(louder))
    np.testing.assert_array_equal(codec.decode(tokens), amplify(kept, -tokens.gain_db))


def test_two_channels_get_one_gain(codecs: dict[str, Codec]) -> None:
    wave = quiet()
    wave[1] *= 0.1
    codec = codecs["hac"]
    tokens = codec.encode(wave, 16000, normalize=-23.0)
    louder = codec.encode(amplify(wave, tokens.gain_db), 16000)
    np.testing.assert_array_equal(tokens.codes, louder.codes)


def test_without_normalize_no_byte_changes(codec: Codec) -> None:
    tokens = codec.encode(quiet(), 16000)
    assert tokens.gain_db == 0.0
    data = io.BytesIO()
    write(data, tokens)
    assert not data.getvalue()[4] & 2, "there are no sections"


def test_file_keeps_the_gain(codec: Codec) -> None:
    tokens = codec.encode(quiet(), 16000, {"speaker": "p253"}, normalize=-23.0)
    data = io.BytesIO()
    write(data, tokens)
    data.seek(0)
    again = read(data)
    assert (again.gain_db, again.tags) == (tokens.gain_db, {"speaker": "p253"})
    np.testing.assert_array_equal(again.codes, tokens.codes)
    plain = io.BytesIO()
    write(plain, dataclasses.replace(tokens, gain_db=0.0))
    assert len(data.getvalue()) == len(plain.getvalue()) + 8


@pytest.mark.parametrize("name", ["bigcodec", "supercodec", "hac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_batches_and_arrays_get_the_same_tokens(
    codecs: dict[str, Codec], name: str, channels: int, tmp_path: Path
) -> None:
    codec, wave = codecs[name], quiet(2.5, 22050, channels)
    soundfile.write(tmp_path / "x.wav", wave.T, 22050, "FLOAT")
    encoded = encode_file(codec, tmp_path / "x.wav", tmp_path / "x.hcd", normalize=-20.0)
    expected = codec.encode(wave, 22050, normalize=-20.0)
    found = read(tmp_path / "x.hcd")
    (batched,) = codec.encode_clips([codec.prepare(wave, 22050, normalize=-20.0)])
    assert encoded.gain_db == found.gain_db == batched.gain_db == expected.gain_db
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(batched.codes, expected.codes)


def test_exact_encodes_with_gain(codecs: dict[str, Codec], tmp_path: Path) -> None:
    wave, codec = quiet(1.0, 16000, 1), codecs["supercodec"]
    soundfile.write(tmp_path / "x.wav", wave.T, 16000, "FLOAT")
    encode_file(codec, tmp_path / "x.wav", tmp_path / "x.hcd", normalize=-23.0, exact=True)
    found = read(tmp_path / "x.hcd")
    expected = codec.encode(wave, 16000, normalize=-23.0)
    assert found.gain_db == expected.gain_db
    np.testing.assert_array_equal(found.codes, expected.codes)


def test_ranges_and_files_are_decoded_with_the_gain_undone(
    codecs: dict[str, Codec], tmp_path: Path
) -> None:
    codec = codecs["hac"]
    tokens = codec.encode(quiet(3.0, 24000), 24000, normalize=-23.0)
    write(tmp_path / "x.hcd", tokens)
    whole = codec.decode(tokens)
    with (tmp_path / "x.hcd").open("rb") as file:
        chunks = Decoding(codec, Reader(file), 1.0, 1.0).chunks()
        np.testing.assert_allclose(np.concatenate([*chunks], 1), whole[:, 24000:48000], atol=1e-6)
    for keep in (False, True):
        target = tmp_path / f"{keep}.wav"
        decode_file(codec, tmp_path / "x.hcd", target, subtype="FLOAT", keep_loudness=keep)
        expected = codec.decode(tokens, keep_loudness=keep)
        np.testing.assert_allclose(soundfile.read(target)[0].T, expected, atol=1e-6)


@pytest.mark.parametrize("wave", [np.zeros((1, 8000)), np.zeros((1, 0)), np.full((1, 8000), 1e-5)])
def test_silence_keeps_its_level(codec: Codec, wave: np.ndarray) -> None:
    assert codec.encode(wave, 16000, normalize=-23.0).gain_db == 0.0


def test_loud_audio_is_made_quieter_and_restored(codecs: dict[str, Codec]) -> None:
    wave = speechlike(2, 16000)
    wave *= 1.5 / np.abs(wave).max()
    with pytest.warns(CodectoolWarning, match="full scale is 1"):
        tokens = codecs["hac"].encode(wave, 16000, normalize=-23.0)
    assert tokens.gain_db < 0


@pytest.mark.parametrize("gain", [float("nan"), float("inf"), 121.0, "1"])
def test_gain_out_of_range_is_refused(codecs: dict[str, Codec], gain: float) -> None:
    tokens = codecs["hac"].encode(quiet(0.1), 16000)
    with pytest.raises(TokensError, match="gain must be in -120..120 dB"):
        dataclasses.replace(tokens, gain_db=gain)


def test_bundled_hac_keeps_the_level_of_quiet_speech() -> None:
    codec = codectool.load(device="cpu")
    wave, rate = soundfile.read("assets/speech_flite.flac", dtype="float32", always_2d=True)
    speech = amplify(wave.T[:, : 3 * rate], QUIET)
    decoded = codec.decode(codec.encode(speech, rate, normalize=-23.0))
    assert loudness(decoded, rate) == pytest.approx(loudness(speech, rate), abs=3.0)
