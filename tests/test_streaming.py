"""Streams: the codes and samples do not depend on how the signal was cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from codectool.codec import Codec
from codectool.errors import AudioError, DamagedError, UsageError
from codectool.streaming import OutputResampler, encode_whole_signal
from codectool.tokens import Tokens
from tests.signals import speechlike, split_randomly

CUTS = ["single samples", "random", "one chunk"]


def cut(wave: np.ndarray, cuts: str) -> Iterator[np.ndarray]:
    if cuts == "random":
        yield from split_randomly(wave)
    else:
        size = 1 if cuts == "single samples" else max(1, wave.shape[1])
        for start in range(0, wave.shape[1], size):
            yield wave[:, start : start + size]


def cut_codes(codes: np.ndarray, cuts: str) -> list[np.ndarray]:
    size = {"single samples": 1, "random": 7, "one chunk": codes.shape[2]}[cuts]
    return [codes[:, :, first : first + size] for first in range(0, codes.shape[2], size)]


def encode_stream(
    codec: Codec, wave: np.ndarray, rate: int, cuts: str
) -> tuple[np.ndarray, int | None]:
    encoder = codec.stream_encoder(rate, wave.shape[0])
    codes = [encoder.push(chunk) for chunk in cut(wave, cuts)]
    codes.append(encoder.flush())
    assert encoder.num_samples == wave.shape[1]
    assert encoder.num_frames == sum(chunk.shape[2] for chunk in codes)
    return np.concatenate(codes, axis=2), encoder.segment_frames


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize(("seconds", "rate"), [(0.1, 16000), (1.37, 22050), (0.0, 16000)])
def test_stream_encoder_matches_encode_for_any_chunking(
    codec: Codec, cuts: str, seconds: float, rate: int
) -> None:
    channels = 1 if cuts == "single samples" else 2
    wave = speechlike(seconds, rate, channels)
    tokens = codec.encode(wave, rate)
    codes, segment = encode_stream(codec, wave, rate, cuts)
    np.testing.assert_array_equal(codes, tokens.codes)
    assert segment == tokens.segment_frames


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("length_known", ["at the start", "at the end"])
@pytest.mark.parametrize("rate", [16000, 22050])
def test_stream_decoder_matches_decode_for_any_chunking(
    codec: Codec, cuts: str, length_known: str, rate: int
) -> None:
    tokens = codec.encode(speechlike(0.4, rate, 2), rate)
    expected = codec.decode(tokens)
    early = length_known == "at the start"
    decoder = codec.stream_decoder(rate, 2, num_samples=tokens.num_samples if early else None)
    chunks = [decoder.push(codes) for codes in cut_codes(tokens.codes, cuts)]
    assert early or sum(chunk.shape[1] for chunk in chunks) <= tokens.num_samples
    chunks.append(decoder.flush(None if early else tokens.num_samples))
    decoded = np.concatenate(chunks, axis=1)
    # `decode` runs BigCodec's LSTM on both channels at once, which rounds differently.
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=2e-6)
    if codec.layout.family != "bigcodec":
        np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("seconds", [4.0, 4.001, 4.7, 8.0])
def test_streams_have_the_segments_of_files(
    codecs: dict[str, Codec], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codecs["supercodec"]
    length = round(4 * codec.frame_rate)
    monkeypatch.setattr(codec.model, "segment_frames", length)
    wave = speechlike(seconds, codec.sample_rate)
    tokens = codec.encode(wave, codec.sample_rate)
    codes, segment = encode_stream(codec, wave, codec.sample_rate, "random")
    decoder = codec.stream_decoder(num_samples=tokens.num_samples, chunk_frames=segment)
    chunks = [decoder.push(chunk) for chunk in cut_codes(codes, "random")]
    chunks.append(decoder.flush())
    assert segment == tokens.segment_frames == (None if seconds == 4 else length)
    np.testing.assert_array_equal(codes, tokens.codes)
    np.testing.assert_array_equal(np.concatenate(chunks, axis=1), codec.decode(tokens))


def test_chunk_frames_set_the_length_of_segments(codecs: dict[str, Codec]) -> None:
    codec = codecs["supercodec"]
    wave = speechlike(1.0, 16000)
    encoder = codec.stream_encoder(16000, chunk_frames=100)
    codes = np.concatenate([encoder.push(wave), encoder.flush()], axis=2)
    assert encoder.segment_frames == 100
    alone = codec.encode(wave[:, 100 * codec.hop_length : 200 * codec.hop_length], 16000)
    np.testing.assert_array_equal(codes[:, :, 100:200], alone.codes)


def test_small_chunk_frames_reduce_the_latency(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    wave = speechlike(0.5, codec.sample_rate)
    encoder = codec.stream_encoder(chunk_frames=1)
    first = encoder.push(wave[:, : codec.hop_length])
    assert first.shape[2] == 1
    rest = [encoder.push(wave[:, codec.hop_length :]), encoder.flush()]
    tokens = codec.encode(wave, codec.sample_rate)
    agree = np.concatenate([first, *rest], axis=2) == tokens.codes
    assert agree.mean() > 0.99


def test_stream_encoder_rejects_bad_input(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    encoder = codec.stream_encoder(16000, 2)
    with pytest.raises(AudioError, match="1 channels, but the stream has 2"):
        encoder.push(np.zeros(4, np.float32))
    with pytest.raises(AudioError, match="must be float"):
        encoder.push(np.zeros((2, 4), np.int16))
    encoder.push(np.zeros((2, 5), np.float32))
    with pytest.raises(AudioError, match="sample 6 of channel 1 is nan"):
        encoder.push(np.array([[0.0, 0.0], [0.0, np.nan]], np.float32))
    encoder.flush()
    with pytest.raises(AudioError, match="has ended"):
        encoder.push(np.zeros((2, 4), np.float32))
    with pytest.raises(AudioError, match="cannot carry speech"):
        codec.stream_encoder(900)


def test_stream_encoder_accepts_tensors(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    wave = speechlike(0.1, codec.sample_rate)
    encoder = codec.stream_encoder()
    codes = [encoder.push(torch.from_numpy(wave)), encoder.flush()]
    expected = codec.encode(wave, codec.sample_rate).codes
    np.testing.assert_array_equal(np.concatenate(codes, axis=2), expected)


def test_stream_encoder_has_no_reference_padding(
    codecs: dict[str, Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codecs["supercodec"]
    monkeypatch.setattr(codec, "padding", "reference")
    with pytest.raises(UsageError, match="padding `reference` takes whole files"):
        codec.stream_encoder()


def test_stream_decoder_rejects_codes_beyond_the_codebook(codecs: dict[str, Codec]) -> None:
    codec = codecs["bigcodec"]
    (size,) = codec.model.codebook_sizes[:1]
    with pytest.raises(DamagedError, match=f"codebook 0 holds code {size}"):
        codec.stream_decoder().push(np.full((1, 1, 3), size))


@pytest.mark.parametrize("length", [None, 3, 10, 14])
def test_output_resampler_skips_holds_and_limits(length: int | None) -> None:
    wave = np.arange(14, dtype=np.float32)[None]
    output = OutputResampler(16000, 16000, 1, skip=2, new_skip=1, length=length, hold=4)
    chunks = [output.push(wave[:, start : start + 3]) for start in range(0, 14, 3)]
    assert sum(chunk.shape[1] for chunk in chunks) == min(7, length or 7)
    decoded = np.concatenate([*chunks, output.flush(12)], axis=1)[0]
    expected = [*range(3, 14), 0.0]  # zero-padded to the length that is known at the end
    np.testing.assert_array_equal(decoded, expected[:length])


def test_whole_signal_matches_one_segment(codecs: dict[str, Codec]) -> None:
    codec = codecs["supercodec"]
    rate = 22050
    wave = speechlike(1.3, rate, 2)
    tokens = codec.encode(wave, rate)
    codes, num_samples = encode_whole_signal(codec.runner, lambda: split_randomly(wave), rate, 2)
    assert num_samples == wave.shape[1]
    np.testing.assert_array_equal(codes, tokens.codes)
    chunks = list(codec.runner.decode_whole(codes))
    decoded = codec.decode_clips([tokens])[0]
    np.testing.assert_allclose(np.concatenate(chunks, axis=1), decoded, atol=1e-4)


def test_batched_clips_match_single_clips(codec: Codec) -> None:
    """Clips have different rates, channel counts and lengths; one of them is empty."""
    lengths = [(0.3, 16000, 1), (1.1, 22050, 2), (0.0, 16000, 1), (0.01, 8000, 1), (0.7, 24000, 1)]
    waves = [(speechlike(seconds, rate, channels), rate) for seconds, rate, channels in lengths]
    alone = [codec.encode(wave, rate) for wave, rate in waves]
    batch = codec.encode_clips([codec.prepare(wave, rate) for wave, rate in waves])
    for one, other in zip(alone, batch, strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)
        assert metadata(one) == metadata(other)
    decoded = codec.decode_clips(batch)
    for tokens, wave in zip(alone, decoded, strict=True):
        np.testing.assert_allclose(
            codec.resample_output(tokens, wave), codec.decode(tokens), atol=1e-5
        )


def metadata(tokens: Tokens) -> tuple[object, ...]:
    return tokens.num_samples, tokens.sample_rate, tokens.segment_frames, tokens.fingerprint
