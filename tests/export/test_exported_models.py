"""Exported SuperCodec and BigCodec in ONNX Runtime: segments, whole signals, and their limits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

import codectool
from codectool.codec import Codec
from codectool.decoding import decode_file
from codectool.encoding import encode_file
from codectool.errors import AudioError, CheckpointError, UsageError
from codectool.onnx.runner import OnnxRunner
from tests.export.conftest import Exported
from tests.signals import speechlike, split_randomly


@pytest.fixture
def originals(graphs: Exported) -> dict[str, Codec]:
    """Codecs that were exported, by family."""
    return {family: codec for family, (codec, _, _) in graphs.items()}


@pytest.fixture
def exports(graphs: Exported) -> dict[str, Path]:
    """Folders of exported models by family."""
    return {family: folder for family, (_, folder, _) in graphs.items()}


@pytest.mark.parametrize("family", ["supercodec", "bigcodec"])
def test_tokens_equal_those_of_torch(
    originals: dict[str, Codec], exports: dict[str, Path], family: str
) -> None:
    codec = codectool.load(checkpoint=exports[family])  # an exported model selects the runtime
    assert codec.runner.runtime == "onnx"
    for seconds in (0.0, 0.001, 1.1):
        wave = speechlike(seconds, 22050, 2)
        tokens, expected = codec.encode(wave, 22050), originals[family].encode(wave, 22050)
        assert tokens.fingerprint == expected.fingerprint
        assert np.mean(tokens.codes == expected.codes) > 0.99 if seconds else not tokens.codes.size
        decoded = codec.decode(expected)
        np.testing.assert_allclose(decoded, originals[family].decode(expected), atol=1e-4)
    with pytest.raises(CheckpointError, match=f"is a {family} model; use `--model {family}`"):
        codectool.load("hac", exports[family])


@pytest.mark.parametrize("family", ["supercodec", "bigcodec"])
def test_files_and_streams(
    originals: dict[str, Codec], exports: dict[str, Path], tmp_path: Path, family: str
) -> None:
    codec = codectool.load(checkpoint=exports[family])
    wave = speechlike(0.9, 16000)
    encoder = codec.stream_encoder(16000)
    codes = [*map(encoder.push, split_randomly(wave)), encoder.flush()]
    np.testing.assert_array_equal(np.concatenate(codes, axis=2), codec.encode(wave, 16000).codes)
    audio, packed, back = tmp_path / "x.wav", tmp_path / "x.hcd", tmp_path / "y.wav"
    soundfile.write(audio, wave.T, 16000)
    encode_file(codec, audio, packed)
    decode_file(codec, packed, back)
    assert len(soundfile.read(back)[0]) == wave.shape[1]
    encode_file(originals[family], audio, tmp_path / "torch.hcd")
    found, expected = codectool.read(packed), codectool.read(tmp_path / "torch.hcd")
    assert np.mean(found.codes == expected.codes) > 0.99


def test_segments_equal_those_of_torch(
    originals: dict[str, Codec], exports: dict[str, Path]
) -> None:
    codec = codectool.load(checkpoint=exports["supercodec"])
    wave = speechlike(0.9, 16000)
    streams = [item.stream_encoder(chunk_frames=100) for item in (codec, originals["supercodec"])]
    found, expected = (
        np.concatenate([stream.push(wave), stream.flush()], axis=2) for stream in streams
    )
    assert streams[0].segment_frames == streams[1].segment_frames == 100
    assert np.mean(found == expected) > 0.99


def test_first_codebook_of_an_export(originals: dict[str, Codec], exports: dict[str, Path]) -> None:
    wave = speechlike(0.5, 16000)
    tokens = codectool.load(checkpoint=exports["supercodec"], codebooks=1).encode(wave, 16000)
    assert tokens.codes.shape[1] == 1
    found = codectool.load(checkpoint=exports["supercodec"]).decode(tokens)
    np.testing.assert_allclose(found, originals["supercodec"].decode(tokens), atol=1e-4)


@pytest.mark.parametrize("family", ["supercodec", "bigcodec"])
def test_padding_reference(
    originals: dict[str, Codec], exports: dict[str, Path], family: str
) -> None:
    codec = codectool.load(checkpoint=exports[family], padding="reference")
    tokens = codec.encode(speechlike(0.777, 16000), 16000)
    frames = originals[family].model.reference_frames(round(0.777 * 16000))
    assert tokens.num_frames == frames


def test_exact_within_a_segment(exports: dict[str, Path], tmp_path: Path) -> None:
    codec = codectool.load(checkpoint=exports["supercodec"])
    audio = tmp_path / "x.wav"
    soundfile.write(audio, speechlike(0.9, 16000).T, 16000)
    encode_file(codec, audio, tmp_path / "exact.hcd", exact=True)
    encode_file(codec, audio, tmp_path / "x.hcd")
    assert (tmp_path / "exact.hcd").read_bytes() == (tmp_path / "x.hcd").read_bytes()


def test_signals_that_are_too_long(
    exports: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codectool.onnx.runner.MAX_WHOLE_SECONDS", 1)
    codec = codectool.load(checkpoint=exports["bigcodec"])
    assert codec.encode(speechlike(0.9, 16000), 16000).num_frames
    long = speechlike(1.3, 16000)
    problem = "longer than the 1 s that bigcodec processes at once in ONNX Runtime"
    with pytest.raises(AudioError, match=problem):
        codec.encode(long, 16000)
    with pytest.raises(AudioError, match=problem):
        codec.encode_clips([codec.prepare(long, 16000)])
    tokens = codec.encode(speechlike(0.7, 16000), 16000)
    doubled = np.concatenate([tokens.codes] * 2, axis=2)
    with pytest.raises(AudioError, match=problem):
        codec.decode(dataclasses.replace(tokens, codes=doubled))
    runner = codec.runner
    assert isinstance(runner, OnnxRunner)
    with pytest.raises(AudioError, match=problem):
        runner.encode_whole(lambda: [long[:, :9600], long[:, 9600:19200]])


def test_live_needs_a_streaming_step(exports: dict[str, Path]) -> None:
    codec = codectool.load(checkpoint=exports["bigcodec"])
    with pytest.raises(UsageError, match="encodes whole signals and cannot be used live"):
        codec.stream_encoder(16000, chunk_frames=8)
