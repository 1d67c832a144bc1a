"""Files of many channels: memory does not grow with their number, and nothing else changes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool import streaming
from codectool.audio.source import PcmSource, open_audio
from codectool.codec import Codec
from codectool.container import Reader, read, write
from codectool.decoding import Decoding, decode_file, write_audio
from codectool.encoding import encode_file, encode_live, encode_source

# Encodes and decodes all files of a folder, first alone, then as a folder; prints by how many MB
# the most memory in use exceeded the memory before the file of 1024 channels.
PROGRAM = """
import json, re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import codectool
from codectool.decoding import decode_file
from codectool.encoding import encode_file
from codectool.pipeline.run import decode_tree, encode_tree

def megabytes(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def alone(name, made):
    encode_file(codec, Path(f"{name}/x.wav"), Path(f"{made}.hcd"))
    decode_file(codec, Path(f"{made}.hcd"), Path(f"{made}.wav"))

def folder(name, made):
    assert not encode_tree(codec, Path(name), Path(f"{made}-tokens")).failures
    assert not decode_tree(codec, Path(f"{made}-tokens"), Path(f"{made}-audio")).failures

codec = codectool.load(checkpoint=sys.argv[1] if len(sys.argv) > 1 else None, device="cpu")
growth = {}
for work in (alone, folder):
    work("mono", "mono-" + work.__name__)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS
    before = megabytes("VmRSS")
    work("many", "many-" + work.__name__)
    growth[work.__name__] = megabytes("VmHWM") - before
print(json.dumps(growth))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("family", ["bundled", "hac", "bigcodec", "supercodec"])
def test_1024_channels_need_at_most_300_mb_more_than_one(
    checkpoints: dict[str, Path], tmp_path: Path, family: str
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (600, 1024))
    for name, channels in {"mono": 1, "many": 1024}.items():
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "x.wav", noise[:, :channels], 16000)
    weights = [] if family == "bundled" else [str(checkpoints[family].resolve())]
    command = [sys.executable, "-c", PROGRAM, *weights]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout.splitlines()[-1]).values()) < 300, done.stdout
    for made in ("many-alone.wav", "many-folder-audio/x.wav"):
        assert soundfile.info(tmp_path / made).channels == 1024
        assert soundfile.info(tmp_path / made).frames == 600


@pytest.fixture
def groups_of_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MAX_GROUP", 4)


def ten_channels(codec: Codec) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (10, 3333)).astype(np.float32)


def written(wave: np.ndarray, path: Path, rate: int = 22050) -> Path:
    soundfile.write(path, wave.T, rate, "FLOAT")
    return path


def test_groups_hold_at_most_some_channels_and_samples(codecs: dict[str, Codec]) -> None:
    model = codecs["bigcodec"].model
    assert streaming.channel_groups(model, 1) == [slice(0, 1)]
    assert streaming.channel_groups(model, 64) == [slice(0, 64)]
    assert streaming.channel_groups(model, 130) == [slice(0, 64), slice(64, 128), slice(128, 130)]


@pytest.mark.usefixtures("groups_of_4")
def test_file_in_groups_has_the_tokens_and_audio_of_each_channel(
    codec: Codec, tmp_path: Path
) -> None:
    assert len(streaming.channel_groups(codec.model, 10)) >= 3
    wave = ten_channels(codec)
    source = written(wave, tmp_path / "x.wav")
    encode_file(codec, source, tmp_path / "x.hcd", tags={"a": "b"})
    tokens = read(tmp_path / "x.hcd")
    assert (tokens.tags, tokens.num_samples, tokens.num_channels) == ({"a": "b"}, 3333, 10)
    for row, codes in zip(wave, tokens.codes, strict=True):
        assert np.array_equal(codec.encode(row, 22050).codes[0], codes)
    decode_file(codec, tmp_path / "x.hcd", tmp_path / "y.wav", subtype="FLOAT")
    audio, rate = soundfile.read(tmp_path / "y.wav", dtype="float32")
    assert rate == 22050
    for channel in (0, 3, 4, 9):
        alone = codec.decode(codec.encode(wave[channel], 22050))
        np.testing.assert_allclose(audio[:, channel], alone[0], atol=1e-6)


class Pipe(io.BytesIO):
    """Bytes that can be read only once."""

    def seekable(self) -> bool:
        return False


@pytest.mark.usefixtures("groups_of_4")
def test_pipe_in_groups_has_the_tokens_of_the_file(codec: Codec, tmp_path: Path) -> None:
    source = written(ten_channels(codec), tmp_path / "x.wav")
    encode_file(codec, source, tmp_path / "x.hcd")
    expected = read(tmp_path / "x.hcd")
    with open_audio(Pipe(source.read_bytes()), "pipe") as audio:
        assert isinstance(audio, PcmSource)
        tokens = encode_source(codec, audio)
    assert np.array_equal(tokens.codes, expected.codes)
    assert tokens.num_samples == 3333


def decoded(codec: Codec, file: io.BytesIO, *, damaged: str = "raise", **options: float) -> tuple:
    """Decode; return the samples ``(C, N)`` and the sentences about damage."""
    file.seek(0)
    decoding = Decoding(codec, Reader(file, "x", damaged=damaged), **options)  # type: ignore[arg-type]
    return np.concatenate(list(decoding.chunks()), axis=1), decoding.damage, decoding.num_samples


@pytest.mark.parametrize(
    "kind", ["file", "pipe", "live pipe", "cut pipe", "range", "range of a live pipe", "damaged"]
)
def test_decoding_in_groups_equals_decoding_at_once(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    wave, options = ten_channels(codec), {}
    file = Pipe() if "pipe" in kind else io.BytesIO()
    if "live" in kind:
        pcm = Pipe(wave.T.tobytes())
        encode_live(codec, PcmSource(pcm, "FLOAT", 22050, 10, "x"), file, block_frames=9)
    else:
        write(file, codec.encode(wave, 22050), block_frames=9)
    if "range" in kind:
        options |= {"start_seconds": 0.05, "seconds": 0.04}
    if kind == "cut pipe":
        options |= {"damaged": "keep"}
        file = Pipe(file.getvalue()[:-200])
    if kind == "damaged":
        options |= {"damaged": "keep"}
        file.getbuffer()[-200] ^= 255
    expected = decoded(codec, file, **options)  # type: ignore[arg-type]
    assert bool(expected[1]) == (kind in ("damaged", "cut pipe"))
    monkeypatch.setattr(streaming, "MAX_GROUP", 4)
    found = decoded(codec, file, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1:] == expected[1:]
    assert found[0].shape == (10, expected[2] or found[0].shape[1])


@pytest.mark.usefixtures("groups_of_4")
def test_decoding_in_groups_can_be_stopped(codec: Codec) -> None:
    file = io.BytesIO()
    write(file, codec.encode(ten_channels(codec), 22050))
    file.seek(0)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_audio(io.BytesIO(), Decoding(codec, Reader(file, "x")), check=stop)


def test_streams_of_one_encoder_and_decoder_do_not_mix_channels(codec: Codec) -> None:
    wave = ten_channels(codec)
    encoder = codec.stream_encoder(22050, 10)
    parts = [encoder.push(part) for part in np.split(wave, [100, 1000, 2500], axis=1)]
    codes = np.concatenate([*parts, encoder.flush()], axis=2)
    decoder = codec.stream_decoder(22050, 10, num_samples=3333)
    pushed = [decoder.push(codes[:, :, :7]), decoder.push(codes[:, :, 7:])]
    audio = np.concatenate([*pushed, decoder.flush()], axis=1)
    for row, got, samples in zip(wave, codes, audio, strict=True):
        tokens = codec.encode(row, 22050)
        assert np.array_equal(tokens.codes[0], got)
        np.testing.assert_allclose(codec.decode(tokens)[0], samples, atol=1e-6)
