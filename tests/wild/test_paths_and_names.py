"""Paths given as text, and the name of the file in errors about its content."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio.source import PcmSource
from codectool.codec import Codec
from codectool.container import read, write
from codectool.decoding import decode_file
from codectool.encoding import encode_file, encode_live, encode_source
from codectool.errors import AudioError, DamagedError, FingerprintError
from codectool.evaluation.run import EvaluationConfig
from codectool.pipeline.run import decode_tree, encode_tree, reconstruct_tree
from codectool.tokens import Tokens

NOISE = np.random.default_rng(0).normal(0, 0.1, 4000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "x.wav"
    path.parent.mkdir()
    soundfile.write(path, NOISE, 16000)
    return path


def test_functions_that_take_paths_take_text(
    codecs: dict[str, Codec], source: Path, tmp_path: Path
) -> None:
    codec, folder = codecs["hac"], str(source.parent)
    encode_file(codec, str(source), f"{tmp_path}/x.hcd")
    decode_file(codec, f"{tmp_path}/x.hcd", f"{tmp_path}/x.wav")
    assert encode_tree(codec, folder, f"{tmp_path}/tokens").done == 1
    assert decode_tree(codec, f"{tmp_path}/tokens", f"{tmp_path}/audio").done == 1
    assert reconstruct_tree(codec, folder, f"{tmp_path}/again").done == 1
    expected = (tmp_path / "x.wav").read_bytes()
    assert (tmp_path / "audio" / "x.wav").read_bytes() == expected
    assert (tmp_path / "again" / "x.wav").read_bytes() == expected
    write(f"{tmp_path}/y.hcd", read(f"{tmp_path}/x.hcd"))


def low_rate(tmp_path: Path) -> Path:
    path = tmp_path / "slow.wav"
    soundfile.write(path, NOISE, 800)
    return path


def test_error_about_a_rate_names_the_file(codec: Codec, tmp_path: Path) -> None:
    path = low_rate(tmp_path)
    message = f"^{path}: a sampling rate of 800 Hz cannot carry speech$"
    for exact in (False, True):
        with pytest.raises(AudioError, match=message):
            encode_file(codec, path, tmp_path / "slow.hcd", exact=exact)
    pipe = PcmSource(io.BytesIO(bytes(1000)), "PCM_16", 800, 1, "stdin")
    with pytest.raises(AudioError, match="^stdin: a sampling rate of 800 Hz"):
        encode_source(codec, pipe)
    with pytest.raises(AudioError, match="^stdin: a sampling rate of 800 Hz"):
        encode_live(codec, pipe, io.BytesIO())
    report = encode_tree(codec, tmp_path, tmp_path / "out")
    assert report.failures[0].reason == "a sampling rate of 800 Hz cannot carry speech"


def test_error_about_the_padding_names_the_file(codecs: dict[str, Codec], tmp_path: Path) -> None:
    model = codecs["supercodec"]
    codec = Codec.__new__(Codec)
    codec.__dict__ |= model.__dict__ | {"padding": "reference"}
    path = tmp_path / "short.wav"
    soundfile.write(path, NOISE[:5], 16000)
    with pytest.raises(AudioError, match=f"^{path}: 5 samples at .* too few for the published"):
        encode_file(codec, path, tmp_path / "short.hcd")


def test_errors_about_tokens_name_the_file(
    codecs: dict[str, Codec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.hcd"
    tokens = codecs["hac"].encode(NOISE, 16000)
    write(path, tokens)
    with pytest.raises(FingerprintError, match=f"^{path}: the tokens are hac"):
        decode_file(codecs["bigcodec"], path, tmp_path / "x.wav")
    codec = codecs["supercodec"]  # with 64 entries in a codebook
    codes = np.full_like(codec.encode(NOISE, 16000).codes, 63)
    write(path, Tokens(codes, codec.layout, codec.fingerprint, 16000, 4000))
    monkeypatch.setattr(codec.model, "codebook_sizes", (50, 64))
    with pytest.raises(DamagedError, match=f"^{path}: codebook 0 holds code 63, but"):
        decode_file(codec, path, tmp_path / "x.wav")


def test_evaluation_takes_folders_as_text(source: Path, tmp_path: Path) -> None:
    config = EvaluationConfig(
        str(source.parent),  # type: ignore[arg-type]
        [],
        [("copy", str(source.parent))],  # type: ignore[list-item]
        None,  # type: ignore[arg-type]
    )
    assert config.references == source.parent
    assert config.folders == [("copy", source.parent)]
