"""Segments: how signals are split, and streams of a model that encodes segments independently."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from codectool.codec import Codec
from codectool.codecs.base import CodecModel
from codectool.segments import decode_segments, encode_segments, split_segments
from codectool.torch_runner import TorchRunner
from tests.batches import decode_batch, encode_batch

FRAMES = 10  # of a segment


@pytest.fixture
def model(codecs: dict[str, Codec]) -> CodecModel:
    return codecs["supercodec"].model


def noise(samples: int) -> Tensor:
    return 0.1 * torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(3))


def random_sizes(total: int, largest: int, seed: int) -> list[int]:
    """Sizes of chunks, some of them zero, that sum to ``total``."""
    rng, sizes = np.random.default_rng(seed), []
    while sum(sizes) < total:
        sizes.append(min(int(rng.integers(0, largest + 1)), total - sum(sizes)))
    return sizes


def encode_separately(model: CodecModel, wave: Tensor) -> Tensor:
    segments = wave.split(FRAMES * model.hop_length, dim=-1)
    return torch.cat([encode_batch(model, segment) for segment in segments], -1)


@pytest.mark.parametrize(
    ("frames", "segment", "shortest", "expected"),
    [
        (0, 10, 7, []),
        (25, 10, 1, [(0, 10), (10, 20), (20, 25)]),
        (20, 10, 7, [(0, 10), (10, 20)]),
        (21, 10, 7, [(0, 10), (10, 20), (20, 27)]),
        (5, 10, 7, [(0, 7)]),
        (21, None, 7, [(0, 21)]),
        (0, None, 7, []),
    ],
)
def test_split_segments(
    frames: int, segment: int | None, shortest: int, expected: list[tuple[int, int]]
) -> None:
    assert split_segments(frames, segment, shortest) == expected


@torch.inference_mode()
def test_batched_segments_match_separate_segments(model: CodecModel) -> None:
    runner = TorchRunner(model, model.device)
    waves = [noise(frames * model.hop_length)[0].numpy() for frames in (47, 7, 0, 13)]
    codes = encode_segments(runner, waves, FRAMES)
    for wave, item in zip(waves, codes, strict=True):
        encoder = runner.stream_encoder(1, FRAMES)
        alone = np.concatenate((encoder.push(wave[None]), encoder.flush()), -1)[0]
        np.testing.assert_array_equal(item, alone)
    decoded = decode_segments(runner, codes, [FRAMES, None, FRAMES, FRAMES])
    for item, audio in zip(codes, decoded, strict=True):
        decoder = runner.stream_decoder(1, FRAMES)
        alone = np.concatenate((decoder.push(item[None]), decoder.flush()), -1)[0]
        np.testing.assert_array_equal(audio, alone)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [7, 10, 19, 20, 47])
@pytest.mark.parametrize("largest", [3, 50, 1000])
def test_stream_encoder_matches_separate_segments(
    model: CodecModel, frames: int, largest: int
) -> None:
    wave = noise(frames * model.hop_length)
    stream, codes, pushed = model.stream_encoder(FRAMES), [], 0
    for chunk in wave.split(random_sizes(wave.shape[-1], largest, frames), dim=-1):
        codes.append(stream.push(chunk))
        pushed += chunk.shape[-1]
        whole = pushed // (FRAMES * model.hop_length) * FRAMES
        assert sum(found.shape[-1] for found in codes) == whole
    codes.append(stream.flush())
    assert torch.equal(torch.cat(codes, -1), encode_separately(model, wave))


@torch.inference_mode()
@pytest.mark.parametrize("frames", [7, 10, 19, 20, 47])
@pytest.mark.parametrize("largest", [1, 13, 100])
@pytest.mark.parametrize("codebooks", [1, 2])
def test_stream_decoder_matches_separate_segments(
    model: CodecModel, frames: int, largest: int, codebooks: int
) -> None:
    codes = encode_separately(model, noise(frames * model.hop_length))[:, :codebooks]
    stream, audio = model.stream_decoder(FRAMES), []
    for chunk in codes.split(random_sizes(frames, largest, frames), dim=-1):
        audio.append(stream.push(chunk))
    audio.append(stream.flush())
    segments = codes.split(FRAMES, dim=-1)
    expected = torch.cat([decode_batch(model, segment) for segment in segments], -1)
    assert torch.equal(torch.cat(audio, -1), expected)


@torch.inference_mode()
def test_last_segment_shorter_than_the_model_needs(model: CodecModel) -> None:
    wave = noise((FRAMES + 3) * model.hop_length)
    stream = model.stream_encoder(FRAMES)
    codes = torch.cat((stream.push(wave), stream.flush()), -1)
    padded = torch.nn.functional.pad(wave, (0, (model.min_frames - 3) * model.hop_length))
    assert torch.equal(codes, encode_separately(model, padded)[..., : FRAMES + 3])
    decoder = model.stream_decoder(FRAMES)
    audio = torch.cat((decoder.push(codes), decoder.flush()), -1)
    assert audio.shape == wave.shape
    last = torch.cat((codes[..., -3:], codes[..., -1:].expand(-1, -1, 4)), -1)
    assert torch.equal(
        audio[..., -3 * model.hop_length :], decode_batch(model, last)[..., : 3 * 20]
    )


@torch.inference_mode()
def test_streams_return_nothing_for_no_input(model: CodecModel) -> None:
    encoder, decoder = model.stream_encoder(), model.stream_decoder()
    assert encoder.push(noise(0)).shape == encoder.flush().shape == (1, 2, 0)
    none = torch.zeros(1, 2, 0, dtype=torch.int64)
    assert decoder.push(none).shape == decoder.flush().shape == (1, 1, 0)


@torch.inference_mode()
def test_stream_encoder_copies_its_input(model: CodecModel) -> None:
    wave = noise(FRAMES * model.hop_length)
    stream, buffer = model.stream_encoder(FRAMES), torch.empty(1, 1, 50)
    for chunk in wave.split(50, dim=-1):
        codes = stream.push(buffer.copy_(chunk))
        buffer.fill_(9.0)
    assert torch.equal(codes, encode_batch(model, wave))


@torch.inference_mode()
def test_model_streams_match_the_codec(
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
