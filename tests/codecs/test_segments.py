"""Streams of a model with segments: their output does not depend on how the signal was cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from codectool.codec import Codec
from codectool.codecs.base import CodecModel
from tests.batches import decode_batch, encode_batch

FRAMES = 10  # of a segment


@pytest.fixture
def model(codecs: dict[str, Codec]) -> CodecModel:
    return codecs["supercodec"].model


def noise(samples: int) -> Tensor:
    return 0.1 * torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(3))


def random_sizes(total: int, largest: int, seed: int) -> list[int]:
    """Return sizes from 0 to ``largest`` that sum to ``total``."""
    rng, sizes = np.random.default_rng(seed), []
    while sum(sizes) < total:
        sizes.append(min(int(rng.integers(0, largest + 1)), total - sum(sizes)))
    return sizes


def encode_each_segment(model: CodecModel, wave: Tensor) -> Tensor:
    parts = wave.split(FRAMES * model.hop_length, dim=-1)
    return torch.cat([encode_batch(model, part) for part in parts], -1)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [7, 10, 19, 20, 47])
@pytest.mark.parametrize("largest", [3, 50, 1000])
def test_stream_encoder_matches_segments_for_any_chunking(
    model: CodecModel, frames: int, largest: int
) -> None:
    wave = noise(frames * model.hop_length)
    stream, codes, pushed = model.stream_encoder(FRAMES), [], 0
    for part in wave.split(random_sizes(wave.shape[-1], largest, frames), dim=-1):
        codes.append(stream.push(part))
        pushed += part.shape[-1]
        whole = pushed // (FRAMES * model.hop_length) * FRAMES
        assert sum(found.shape[-1] for found in codes) == whole
    codes.append(stream.flush())
    assert torch.equal(torch.cat(codes, -1), encode_each_segment(model, wave))


@torch.inference_mode()
@pytest.mark.parametrize("frames", [7, 10, 19, 20, 47])
@pytest.mark.parametrize("largest", [1, 13, 100])
@pytest.mark.parametrize("codebooks", [1, 2])
def test_stream_decoder_matches_segments_for_any_chunking(
    model: CodecModel, frames: int, largest: int, codebooks: int
) -> None:
    codes = encode_each_segment(model, noise(frames * model.hop_length))[:, :codebooks]
    stream, audio = model.stream_decoder(FRAMES), []
    for part in codes.split(random_sizes(frames, largest, frames), dim=-1):
        audio.append(stream.push(part))
    audio.append(stream.flush())
    parts = codes.split(FRAMES, dim=-1)
    assert torch.equal(
        torch.cat(audio, -1), torch.cat([decode_batch(model, part) for part in parts], -1)
    )


@torch.inference_mode()
def test_short_last_segment_is_padded(model: CodecModel) -> None:
    wave = noise((FRAMES + 3) * model.hop_length)
    stream = model.stream_encoder(FRAMES)
    codes = torch.cat((stream.push(wave), stream.flush()), -1)
    padded = torch.nn.functional.pad(wave, (0, (model.min_frames - 3) * model.hop_length))
    assert torch.equal(codes, encode_each_segment(model, padded)[..., : FRAMES + 3])
    decoder = model.stream_decoder(FRAMES)
    audio = torch.cat((decoder.push(codes), decoder.flush()), -1)
    assert audio.shape == wave.shape
    last = torch.cat((codes[..., -3:], codes[..., -1:].expand(-1, -1, 4)), -1)
    assert torch.equal(
        audio[..., -3 * model.hop_length :], decode_batch(model, last)[..., : 3 * 20]
    )


@torch.inference_mode()
def test_stream_without_input_has_no_output(model: CodecModel) -> None:
    encoder, decoder = model.stream_encoder(), model.stream_decoder()
    assert encoder.push(noise(0)).shape == encoder.flush().shape == (1, 2, 0)
    none = torch.zeros(1, 2, 0, dtype=torch.int64)
    assert decoder.push(none).shape == decoder.flush().shape == (1, 1, 0)


@torch.inference_mode()
def test_stream_copies_its_input(model: CodecModel) -> None:
    wave = noise(FRAMES * model.hop_length)
    stream, buffer = model.stream_encoder(FRAMES), torch.empty(1, 1, 50)
    for part in wave.split(50, dim=-1):
        codes = stream.push(buffer.copy_(part))
        buffer.fill_(9.0)
    assert torch.equal(codes, encode_batch(model, wave))


@torch.inference_mode()
def test_codec_segments_match_the_streams(
    codecs: dict[str, Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codecs["supercodec"]
    wave = noise(37 * codec.hop_length)
    monkeypatch.setattr(codec.model, "segment_frames", FRAMES)
    tokens = codec.encode(wave[0].numpy(), codec.sample_rate)
    assert tokens.segment_frames == FRAMES
    encoder, decoder = codec.model.stream_encoder(), codec.model.stream_decoder()
    codes = torch.cat((encoder.push(wave), encoder.flush()), -1)
    np.testing.assert_array_equal(tokens.codes[0], codes[0])
    audio = torch.cat((decoder.push(codes), decoder.flush()), -1)
    np.testing.assert_array_equal(codec.decode(tokens), audio[0].numpy())
