"""Audio and codes in pieces: cut anywhere, the same as whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from codectool.codec import Codec
from codectool.errors import AudioError, DamagedError, UsageError
from codectool.exact import decode_exact, encode_exact
from codectool.tokens import Tokens
from tests.test_decoding import speechlike

CUTS = ["single samples", "random", "huge"]


def pieces(wave: np.ndarray, cuts: str) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(7)
    at = 0
    while at < wave.shape[1]:
        size = {"single samples": 1, "random": int(rng.integers(0, 900)), "huge": 1 << 30}[cuts]
        yield wave[:, at : at + size]
        at += size


def encoded(codec: Codec, wave: np.ndarray, rate: int, cuts: str) -> tuple[np.ndarray, int | None]:
    stream = codec.stream_encoder(rate, wave.shape[0])
    codes = [stream.push(piece) for piece in pieces(wave, cuts)]
    codes.append(stream.flush())
    assert stream.num_samples == wave.shape[1]
    assert stream.num_frames == sum(part.shape[2] for part in codes)
    return np.concatenate(codes, axis=2), stream.segment_frames


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize(("seconds", "rate"), [(0.1, 16000), (1.37, 22050), (0.0, 16000)])
def test_codes_of_a_stream_are_those_of_the_whole(
    codec: Codec, cuts: str, seconds: float, rate: int
) -> None:
    channels = 1 if cuts == "single samples" else 2
    wave = speechlike(seconds, rate, channels)
    tokens = codec.encode(wave, rate)
    codes, segment = encoded(codec, wave, rate, cuts)
    np.testing.assert_array_equal(codes, tokens.codes)
    assert segment == tokens.segment_frames


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("told", ["at the start", "at the end"])
@pytest.mark.parametrize("rate", [16000, 22050])
def test_samples_of_a_stream_are_those_of_the_whole(
    codec: Codec, cuts: str, told: str, rate: int
) -> None:
    tokens = codec.encode(speechlike(0.4, rate, 2), rate)
    whole = codec.decode(tokens)
    early = told == "at the start"
    stream = codec.stream_decoder(rate, 2, num_samples=tokens.num_samples if early else None)
    parts = [stream.push(tokens.codes[:, :, at]) for at in slices(tokens.num_frames, cuts)]
    assert early or sum(part.shape[1] for part in parts) <= tokens.num_samples
    parts.append(stream.flush(None if early else tokens.num_samples))
    heard = np.concatenate(parts, axis=1)
    # BigCodec's LSTM takes both channels of the whole at once, which rounds otherwise.
    np.testing.assert_allclose(heard, whole, rtol=0, atol=2e-6)
    if codec.layout.family != "bigcodec":
        np.testing.assert_array_equal(heard, whole)


def slices(frames: int, cuts: str) -> list[slice]:
    size = {"single samples": 1, "random": 7, "huge": frames}[cuts]
    return [slice(first, first + size) for first in range(0, frames, size)]


@pytest.mark.parametrize("seconds", [4.0, 4.001, 4.7, 8.0])
def test_segments_are_those_of_files(codecs: dict[str, Codec], seconds: float) -> None:
    codec = codecs["supercodec"]
    length = codec.model.segment_frames
    assert length is not None
    short = round(4 * codec.frame_rate)
    codec.model.segment_frames = short
    try:
        wave = speechlike(seconds, codec.sample_rate)
        tokens = codec.encode(wave, codec.sample_rate)
        codes, segment = encoded(codec, wave, codec.sample_rate, "random")
        whole = codec.decode(tokens)
        stream = codec.stream_decoder(num_samples=tokens.num_samples, block_frames=segment)
        parts = [stream.push(codes[:, :, at]) for at in slices(codes.shape[2], "random")]
        parts.append(stream.flush())
    finally:
        codec.model.segment_frames = length
    assert segment == tokens.segment_frames == (None if seconds == 4 else short)
    np.testing.assert_array_equal(codes, tokens.codes)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_shorter_segments_on_demand(codecs: dict[str, Codec]) -> None:
    codec = codecs["supercodec"]
    wave = speechlike(1.0, 16000)
    stream = codec.stream_encoder(16000, block_frames=100)
    codes = np.concatenate([stream.push(wave), stream.flush()], axis=2)
    assert stream.segment_frames == 100
    alone = codec.encode(wave[:, 100 * codec.hop_length : 200 * codec.hop_length], 16000)
    np.testing.assert_array_equal(codes[:, :, 100:200], alone.codes)


def test_short_blocks_come_sooner(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    wave = speechlike(0.5, codec.sample_rate)
    stream = codec.stream_encoder(block_frames=1)
    first = stream.push(wave[:, : codec.hop_length])
    assert first.shape[2] == 1
    rest = [stream.push(wave[:, codec.hop_length :]), stream.flush()]
    tokens = codec.encode(wave, codec.sample_rate)
    agree = np.concatenate([first, *rest], axis=2) == tokens.codes
    assert agree.mean() > 0.99


def test_what_a_stream_refuses(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    stream = codec.stream_encoder(16000, 2)
    with pytest.raises(AudioError, match="1 channels, but the stream has 2"):
        stream.push(np.zeros(4, np.float32))
    with pytest.raises(AudioError, match="must be float"):
        stream.push(np.zeros((2, 4), np.int16))
    stream.push(np.zeros((2, 5), np.float32))
    with pytest.raises(AudioError, match="sample 6 of channel 1 is nan"):
        stream.push(np.array([[0.0, 0.0], [0.0, np.nan]], np.float32))
    stream.flush()
    with pytest.raises(AudioError, match="has ended"):
        stream.push(np.zeros((2, 4), np.float32))
    with pytest.raises(AudioError, match="cannot carry speech"):
        codec.stream_encoder(900)


def test_streams_have_no_upstream_framing(codecs: dict[str, Codec]) -> None:
    codec = codecs["supercodec"]
    codec.padding = "reference"
    try:
        with pytest.raises(UsageError, match="padding `reference` takes whole files"):
            codec.stream_encoder()
    finally:
        codec.padding = "lossless"


def test_codes_that_the_codebook_does_not_have(codecs: dict[str, Codec]) -> None:
    codec = codecs["bigcodec"]
    (size,) = codec.model.codebook_sizes[:1]
    with pytest.raises(DamagedError, match=f"holds code {size}"):
        codec.stream_decoder().push(np.full((1, 1, 3), size))


def test_one_whole_of_any_length(codec: Codec) -> None:
    rate = 22050
    wave = speechlike(1.3, rate, 2)
    tokens = codec.encode(wave, rate)
    codes, num_samples = encode_exact(codec, lambda: pieces(wave, "random"), rate, 2)
    assert num_samples == wave.shape[1]
    np.testing.assert_array_equal(codes, tokens.codes)
    whole = codec.decode_clips([tokens])[0]
    parts = list(decode_exact(codec, tokens.codes))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-4)


def test_clips_together_are_clips_alone(codec: Codec) -> None:
    """Of any rates, channel counts and lengths, none at all among them."""
    lengths = [(0.3, 16000, 1), (1.1, 22050, 2), (0.0, 16000, 1), (0.01, 8000, 1), (0.7, 24000, 1)]
    waves = [(speechlike(seconds, rate, channels), rate) for seconds, rate, channels in lengths]
    alone = [codec.encode(wave, rate) for wave, rate in waves]
    together = codec.encode_clips([codec.prepare(wave, rate) for wave, rate in waves])
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)
        assert facts(one) == facts(other)
    decoded = codec.decode_clips(together)
    for tokens, wave in zip(alone, decoded, strict=True):
        np.testing.assert_allclose(codec.finish(tokens, wave), codec.decode(tokens), atol=1e-5)


def facts(tokens: Tokens) -> tuple[object, ...]:
    return tokens.num_samples, tokens.sample_rate, tokens.segment_frames, tokens.fingerprint
