"""Files to audio: stretches, damage, pipes."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import codectool
from codectool.checkpoints.load import LoadedModel
from codectool.codec import Codec
from codectool.codecs.bigcodec.config import BigCodecConfig, DecoderConfig, EncoderConfig
from codectool.codecs.bigcodec.model import BigCodec
from codectool.container import Reader, write_tokens
from codectool.decoding import decode_reader
from codectool.errors import DamagedError, FingerprintError, TruncatedError, UsageError
from codectool.nn.weight_norm import fold_weight_norm
from codectool.tokens import Tokens


def speechlike(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * 140 * time + 3 * np.sin(9 * time)) * np.sin(5 * time) ** 2
    hiss = np.random.default_rng(3).normal(0, 0.05, (channels, len(time)))
    return (0.3 * tone + hiss).astype(np.float32)


def stored(tokens: Tokens, block_frames: int | None = None) -> bytes:
    file = io.BytesIO()
    write_tokens(file, tokens, block_frames)
    return file.getvalue()


class Pipe(io.RawIOBase):
    """Bytes that can be read once, in small pieces."""

    def __init__(self, data: bytes):
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = self._data.read(min(len(buffer), 37))
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
@pytest.mark.parametrize("pipe", [False, True])
def test_a_stretch_is_what_the_whole_has_there(codec: Codec, rate: int, pipe: bool) -> None:
    tokens = codec.encode(speechlike(5, rate, 2), rate)
    data = stored(tokens, round(0.4 * codec.frame_rate))
    whole = codec.decode(tokens)
    for start, seconds in ((0.0, 0.3), (3.1, 1.234), (4.7, 60.0), (2.0, None)):
        file = io.BufferedReader(Pipe(data)) if pipe else io.BytesIO(data)
        found = decode_reader(codec, Reader(file), start, seconds)  # type: ignore[arg-type]
        begin = round(start * rate)
        end = (
            whole.shape[1]
            if seconds is None
            else min(whole.shape[1], begin + round(seconds * rate))
        )
        assert found.sample_rate == rate
        assert found.damage == ()
        assert found.samples.shape == (2, end - begin)
        np.testing.assert_allclose(found.samples, whole[:, begin:end], atol=2e-4)


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def test_a_stretch_reads_only_its_blocks(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    tokens = codec.encode(speechlike(30, 24000), 24000)
    file = Counting(stored(tokens, 75))
    decode_reader(codec, Reader(file), 20.0, 1.0)
    # one second, the 1.3 s that the decoder looks back, and the blocks at both ends
    assert file.count < 0.25 * len(file.getvalue())


def test_native_rate(codec: Codec) -> None:
    tokens = codec.encode(speechlike(3, 44100), 44100)
    whole = codec.decode(tokens, native_rate=True)
    found = decode_reader(codec, Reader(io.BytesIO(stored(tokens))), 1.0, 1.0, native_rate=True)
    assert found.sample_rate == codec.sample_rate
    begin, length = codec.sample_rate, codec.sample_rate
    np.testing.assert_allclose(found.samples, whole[:, begin : begin + length], atol=2e-4)


def test_context_of_a_bigcodec_with_small_strides() -> None:
    """With small strides the convolutions reach over many more frames."""
    config = BigCodecConfig(
        sample_rate=16000,
        codec_encoder=EncoderConfig(
            ngf=4,
            up_ratios=(2, 2),
            dilations=(1, 3, 9),
            use_rnn=False,
            rnn_bidirectional=False,
            rnn_num_layers=1,
            out_channels=8,
        ),
        codec_decoder=DecoderConfig(
            upsample_initial_channel=16,
            up_ratios=(2, 2),
            dilations=(1, 3, 9),
            use_rnn=False,
            rnn_bidirectional=False,
            rnn_num_layers=1,
            in_channels=8,
            vq_dim=8,
            vq_num_quantizers=1,
            codebook_size=64,
            codebook_dim=8,
        ),
    )
    torch.manual_seed(0)
    model = BigCodec(config).eval()
    fold_weight_norm(model)
    codec = Codec(LoadedModel(model, "00000000", Path("-")), torch.device("cpu"))
    tokens = codec.encode(speechlike(1, 16000), 16000)
    whole = codec.decode(tokens)
    found = decode_reader(codec, Reader(io.BytesIO(stored(tokens, 10))), 0.5, 0.01)
    np.testing.assert_allclose(found.samples, whole[:, 8000:8160], atol=1e-6)


def test_beyond_the_end(codec: Codec) -> None:
    data = stored(codec.encode(speechlike(1, 16000), 16000))
    with pytest.raises(UsageError, match="the audio ends at 1 s"):
        decode_reader(codec, Reader(io.BytesIO(data)), 1.0)
    with pytest.raises(UsageError, match="the audio ends at 1 s"):
        decode_reader(codec, Reader(io.BytesIO(data)), 7.5, 1.0)


def test_damage_is_refused_or_silent(codec: Codec) -> None:
    rate = codec.sample_rate
    tokens = codec.encode(speechlike(4, rate), rate)
    frames = round(codec.frame_rate)
    data = bytearray(stored(tokens, frames))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(DamagedError, match="block"):
        decode_reader(codec, Reader(io.BytesIO(bytes(data))))
    found = decode_reader(codec, Reader(io.BytesIO(bytes(data)), damaged="keep"))
    whole = codec.decode(tokens)
    assert found.samples.shape == whole.shape
    assert len(found.damage) == 1
    silent = np.flatnonzero(found.samples[0] == 0)
    block = round(silent.mean() // rate)
    np.testing.assert_array_equal(found.samples[:, block * rate : (block + 1) * rate], 0)
    assert (found.samples != 0).any(axis=0).mean() > 0.7
    if codec.layout.family != "supercodec":  # there the gates pool over everything
        before = max(0, block * rate - 8000)
        np.testing.assert_allclose(found.samples[:, :before], whole[:, :before], atol=1e-4)


def test_damage_outside_a_stretch_does_not_matter(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    tokens = codec.encode(speechlike(10, 24000), 24000)
    data = bytearray(stored(tokens, 75))
    data[-20] ^= 1
    found = decode_reader(codec, Reader(io.BytesIO(bytes(data))), 1.0, 2.0)
    assert found.damage == ()
    kept = decode_reader(codec, Reader(io.BytesIO(bytes(data)), damaged="keep"), 8.5)
    assert len(kept.damage) == 1
    assert (kept.samples[:, -24000:] == 0).all()
    assert (kept.samples[:, :10000] != 0).any()


def test_cut_off_files_end_early(codec: Codec) -> None:
    rate = codec.sample_rate
    tokens = codec.encode(speechlike(4, rate), rate)
    data = stored(tokens, round(codec.frame_rate))
    cut = data[: len(data) * 6 // 10]
    with pytest.raises(TruncatedError):
        decode_reader(codec, Reader(io.BytesIO(cut)))
    for file in (io.BytesIO(cut), io.BufferedReader(Pipe(cut))):
        found = decode_reader(codec, Reader(file, damaged="keep"))  # type: ignore[arg-type]
        assert found.samples.shape == (1, 2 * rate)
        assert len(found.damage) == 1


def test_other_weights(codec: Codec, codecs: dict[str, Codec]) -> None:
    data = stored(codec.encode(speechlike(0.5, 16000), 16000))
    other = codecs["hac" if codec.layout.family != "hac" else "bigcodec"]
    with pytest.raises(FingerprintError, match="the tokens are"):
        decode_reader(other, Reader(io.BytesIO(data)))


def test_pipes_and_links_as_targets(codecs: dict[str, Codec], tmp_path: Path) -> None:
    tokens = codecs["hac"].encode(speechlike(0.1, 24000), 24000)
    link, real = tmp_path / "link.hcd", tmp_path / "real.hcd"
    real.write_bytes(b"old")
    link.symlink_to(real)
    codectool.write(link, tokens)
    assert link.is_symlink()
    assert real.read_bytes() == stored(tokens)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pipe.read_bytes)
        codectool.write(pipe, tokens)
        assert reading.result(10) == stored(tokens)
    assert pipe.is_fifo()


def test_write_and_read_by_path_and_by_file(codec: Codec, tmp_path: Path) -> None:
    tokens = codec.encode(speechlike(0.5, 22050, 2), 22050, tags={"speaker": "p253"})
    path = tmp_path / "x.hcd"
    codectool.write(path, tokens, tags={"title": "Grüße"})
    memory = io.BytesIO()
    codectool.write(memory, tokens, {"title": "Grüße"})
    assert path.read_bytes() == memory.getvalue()
    memory.seek(0)
    for source in (path, str(path), memory):
        found = codectool.read(source)
        np.testing.assert_array_equal(found.codes, tokens.codes)
        assert found.tags == {"speaker": "p253", "title": "Grüße"}
        assert found.layout == tokens.layout
        assert found.segment_frames == tokens.segment_frames
        np.testing.assert_array_equal(codec.decode(found), codec.decode(tokens))
    assert list(tmp_path.iterdir()) == [path]
