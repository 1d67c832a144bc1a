"""Decoding of `.hcd` files: ranges, damage, pipes."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import pytest
import torch
from msgspec.structs import replace

import codectool
from codectool.audio.files import read_audio
from codectool.audio.source import PcmSource
from codectool.audio.wav import RAW_FORMATS
from codectool.codec import Codec
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.properties import Context
from codectool.container import Header, Reader, write
from codectool.decoding import DecodeRange, Decoding, decode_file, plan_range
from codectool.encoding import encode_live
from codectool.errors import DamagedError, FingerprintError, TruncatedError, UsageError
from codectool.nn.weight_norm import fold_weight_norm
from codectool.tokens import TokenLayout, Tokens
from codectool.torch_runner import TorchRunner
from tests.full_size_weights import BIGCODEC
from tests.hac_models import load_preset, preset_with_source, untrained
from tests.signals import Pipe, speechlike

HAC = TokenLayout("hac", 24000, 320, (18,))
SUPERCODEC = TokenLayout("supercodec", 16000, 320, (10, 10))
LOCAL = Context(before=10, after=2)
SEGMENT = Context(before=None, after=None)


class Decoded(NamedTuple):
    samples: np.ndarray
    sample_rate: int
    damage: list[str]


def decode(
    codec: Codec,
    file: Any,
    start: float = 0.0,
    seconds: float | None = None,
    *,
    damaged: Any = "raise",
    native_rate: bool = False,
) -> Decoded:
    """Decode a file or a range of it to one array."""
    reader = Reader(file, damaged=damaged)
    decoding = Decoding(codec, reader, start, seconds, native_rate=native_rate)
    samples = np.concatenate(list(decoding.chunks()), axis=1)
    assert decoding.num_samples == samples.shape[1]
    return Decoded(samples, decoding.sample_rate, decoding.damage)


def as_file(data: bytes, pipe: bool) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(Pipe(data)) if pipe else io.BytesIO(data))


def stored(tokens: Tokens, block_frames: int | None = None) -> bytes:
    file = io.BytesIO()
    write(file, tokens, block_frames=block_frames)
    return file.getvalue()


def live(codec: Codec, wave: np.ndarray, block_frames: int) -> bytes:
    """Return a stream, whose header does not state its length."""
    file, samples = io.BytesIO(), io.BytesIO(wave.T.astype("<f4").tobytes())
    rate, channels = codec.sample_rate, wave.shape[0]
    source = PcmSource(samples, RAW_FORMATS["f32le"], rate, channels, "test")
    encode_live(codec, source, file, block_frames=block_frames)
    return file.getvalue()


# Samples of a file of 10 s at 24 kHz: 750 frames of HAC.
@pytest.mark.parametrize(
    ("start", "seconds", "expected"),
    [
        # start, stop, first_frame, stop_frame, skip, skip_resampled
        (0.0, None, (0, 240_000, 0, None, 0, 0)),  # everything, and a check of the end
        (0.0, 60.0, (0, 240_000, 0, 750, 0, 0)),
        (1.0, 1.0, (24_000, 48_000, 65, 152, 0, 3200)),  # 75 - 10 and 150 + 2 frames
        (1.0, None, (24_000, 240_000, 65, 750, 0, 3200)),
        (0.1, 0.01, (2400, 2640, 0, 11, 0, 2400)),  # 7 - 10 frames
        (9.9, 9.0, (237_600, 240_000, 732, 750, 0, 3360)),
    ],
)
def test_plan_range_at_the_model_rate(
    start: float, seconds: float | None, expected: Sequence[int | None]
) -> None:
    header = Header(HAC, "00000000", 24000, num_samples=240_000)
    found = plan_range(header, LOCAL, 24000, start, seconds, num_samples=240_000, num_frames=750)
    assert dataclasses.astuple(found) == expected
    assert found.num_samples == cast(int, expected[1]) - cast(int, expected[0])


@pytest.mark.parametrize(
    ("rate", "output_rate", "start", "stop"),
    [
        (48000, 48000, 48_000, 72_000),
        (44100, 44100, 44_100, 66_150),
        (22050, 24000, 24_000, 36_000),
        (11025, 24000, 24_000, 35_999),  # 16,537 samples are 35,998.9 of the model's
    ],
)
def test_plan_range_starts_on_a_common_sample_of_both_rates(
    rate: int, output_rate: int, start: int, stop: int
) -> None:
    header = Header(HAC, "00000000", rate, num_samples=10 * rate)
    found = plan_range(header, LOCAL, output_rate, 1.0, 0.5, num_samples=10 * rate, num_frames=750)
    assert (found.start, found.stop) == (start, stop)
    first_sample = found.first_frame * 320 + found.skip  # where resampling starts
    first_output = found.start - found.skip_resampled
    assert first_sample * output_rate == first_output * 24000
    assert found.first_frame <= 75 - LOCAL.before  # type: ignore[operator]
    assert cast(int, found.stop_frame) >= 113 + LOCAL.after  # type: ignore[operator]


@pytest.mark.parametrize(
    ("start", "seconds", "segment", "expected"),
    [
        (1.0, 1.0, 40, (40, 120)),  # frames 50..100
        (1.0, 1.0, 50, (50, 100)),
        (1.0, None, 50, (50, 500)),
        (0.0, None, 50, (0, None)),
        (1.0, 1.0, None, (0, None)),  # one segment
    ],
)
def test_plan_range_reads_whole_segments(
    start: float,
    seconds: float | None,
    segment: int | None,
    expected: tuple[int, int | None],
) -> None:
    header = Header(SUPERCODEC, "00000000", 16000, num_samples=160_000, segment_frames=segment)
    found = plan_range(header, SEGMENT, 16000, start, seconds, num_samples=160_000, num_frames=500)
    assert (found.first_frame, found.stop_frame) == expected
    assert found.skip_resampled == found.start - 320 * found.first_frame


def test_plan_range_starts_and_stops_at_multiples() -> None:
    header = Header(HAC, "00000000", 24000, 1)
    context = Context(before=10, after=2, start_step=50, stop_step=20)
    found = plan_range(header, context, 24000, 1.0, 1.0, num_samples=240_000, num_frames=750)
    assert (found.first_frame, found.stop_frame) == (50, 160)
    assert found.skip_resampled == 25 * 320
    found = plan_range(header, context, 24000, 9.5, 9.0, num_samples=240_000, num_frames=750)
    assert (found.first_frame, found.stop_frame) == (700, 750)


def test_plan_range_of_unknown_length() -> None:
    header = Header(HAC, "00000000", 24000)
    found = plan_range(header, LOCAL, 24000, 1.0, 1.0)
    assert found == DecodeRange(24_000, 48_000, 65, 152, 0, 3200)
    rest = plan_range(header, LOCAL, 24000, 1.0)
    assert (rest.stop, rest.stop_frame, rest.num_samples) == (None, None, None)


@pytest.mark.parametrize("length", [0, 100, 24_000])
def test_plan_range_rejects_a_start_after_the_end(length: int) -> None:
    header = Header(HAC, "00000000", 24000, num_samples=length)
    assert plan_range(header, LOCAL, 24000, num_samples=length).stop == length
    for start in (length / 24_000, 7.5):
        if start:
            with pytest.raises(UsageError, match="the audio ends at"):
                plan_range(header, LOCAL, 24000, start, num_samples=length)


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
@pytest.mark.parametrize("pipe", [False, True])
def test_range_matches_the_whole_file(codec: Codec, rate: int, pipe: bool) -> None:
    tokens = codec.encode(speechlike(5, rate, 2), rate)
    data = stored(tokens, round(0.4 * codec.frame_rate))
    whole = codec.decode(tokens)
    for start, seconds in ((0.0, 0.3), (3.1, 1.234), (4.7, 60.0), (2.0, None)):
        found = decode(codec, as_file(data, pipe), start, seconds)
        begin = round(start * rate)
        end = (
            whole.shape[1]
            if seconds is None
            else min(whole.shape[1], begin + round(seconds * rate))
        )
        assert found.sample_rate == rate
        assert found.damage == []
        assert found.samples.shape == (2, end - begin)
        np.testing.assert_allclose(found.samples, whole[:, begin:end], atol=2e-4)


@pytest.mark.parametrize("with_source", [False, True])
def test_range_of_hac_equals_the_whole_file_bit_for_bit(with_source: bool) -> None:
    model = untrained(preset_with_source() if with_source else load_preset("hac-tiny"))
    codec = Codec(TorchRunner(model, torch.device("cpu")), "00000000", Path("-"))
    rate = codec.sample_rate
    tokens = codec.encode(speechlike(21, rate), rate)
    data = stored(tokens, 100)
    whole = codec.decode(tokens)
    for start, seconds in ((0.5, 1.0), (3.1, 1.234), (19.0, 0.5), (20.5, 60.0), (9.5, None)):
        found = decode(codec, io.BytesIO(data), start, seconds)
        begin = round(start * rate)
        expected = whole[:, begin : None if seconds is None else begin + round(seconds * rate)]
        np.testing.assert_array_equal(found.samples, expected)


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize(("start", "seconds"), [(0.0, 1.0), (0.5, 0.75), (1.5, 9.0), (1.0, None)])
def test_range_of_a_stream_has_the_requested_length(
    codecs: dict[str, Codec], pipe: bool, start: float, seconds: float | None
) -> None:
    codec = codecs["hac"]
    rate = codec.sample_rate
    wave = speechlike(2, rate)
    found = decode(codec, as_file(live(codec, wave, 8), pipe), start, seconds)
    whole = codec.decode(codec.encode(wave, rate))
    begin = round(start * rate)
    expected = whole[:, begin : None if seconds is None else begin + round(seconds * rate)]
    assert found.samples.shape == expected.shape
    np.testing.assert_allclose(found.samples, expected, atol=2e-4)


class CountingFile(io.BytesIO):
    """Count the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def test_range_reads_only_the_blocks_it_needs(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    tokens = codec.encode(speechlike(30, 24000), 24000)
    file = CountingFile(stored(tokens, 75))
    decode(codec, file, 20.0, 1.0)
    # one second, 1.3 s of context before it, and the blocks at both ends
    assert file.count < 0.25 * len(file.getvalue())


def test_range_at_the_model_rate(codec: Codec) -> None:
    tokens = codec.encode(speechlike(3, 44100), 44100)
    whole = codec.decode(tokens, native_rate=True)
    found = decode(codec, io.BytesIO(stored(tokens)), 1.0, 1.0, native_rate=True)
    assert found.sample_rate == codec.sample_rate
    begin, length = codec.sample_rate, codec.sample_rate
    np.testing.assert_allclose(found.samples, whole[:, begin : begin + length], atol=2e-4)


def test_range_of_a_bigcodec_with_small_strides() -> None:
    """With small strides the convolutions see many more frames."""
    shape = {"up_ratios": (2, 2), "use_rnn": False}
    encoder = replace(BIGCODEC.codec_encoder, ngf=4, out_channels=8, **shape)
    decoder = replace(
        BIGCODEC.codec_decoder, upsample_initial_channel=16, in_channels=8, vq_dim=8, **shape
    )
    config = replace(BIGCODEC, codec_encoder=encoder, codec_decoder=decoder)
    torch.manual_seed(0)
    model = BigCodec(config).eval()
    fold_weight_norm(model)
    codec = Codec(TorchRunner(model, torch.device("cpu")), "00000000", Path("-"))
    tokens = codec.encode(speechlike(1, 16000), 16000)
    whole = codec.decode(tokens)
    found = decode(codec, io.BytesIO(stored(tokens, 10)), 0.5, 0.01)
    np.testing.assert_allclose(found.samples, whole[:, 8000:8160], atol=1e-6)


@pytest.mark.parametrize("pipe", [False, True])
def test_range_after_the_end_is_rejected(codec: Codec, pipe: bool) -> None:
    data = stored(codec.encode(speechlike(1, 16000), 16000))
    with pytest.raises(UsageError, match="the audio ends at 1 s"):
        decode(codec, as_file(data, pipe), 1.0)
    with pytest.raises(UsageError, match="the audio ends at 1 s"):
        decode(codec, as_file(data, pipe), 7.5, 1.0)


def test_damage_is_rejected_or_concealed(codec: Codec) -> None:
    rate = codec.sample_rate
    tokens = codec.encode(speechlike(4, rate), rate)
    frames = round(codec.frame_rate)
    data = bytearray(stored(tokens, frames))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(DamagedError, match="block"):
        decode(codec, io.BytesIO(bytes(data)))
    found = decode(codec, io.BytesIO(bytes(data)), damaged="keep")
    whole = codec.decode(tokens)
    assert found.samples.shape == whole.shape
    assert len(found.damage) == 1
    silent = np.flatnonzero(found.samples[0] == 0)
    block = round(silent.mean() // rate)
    np.testing.assert_array_equal(found.samples[:, block * rate : (block + 1) * rate], 0)
    assert (found.samples != 0).any(axis=0).mean() > 0.7
    if codec.layout.family != "supercodec":  # its gates pool over the whole signal
        before = max(0, block * rate - 8000)
        np.testing.assert_allclose(found.samples[:, :before], whole[:, :before], atol=1e-4)


def test_damage_outside_a_range_does_not_matter(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    tokens = codec.encode(speechlike(10, 24000), 24000)
    data = bytearray(stored(tokens, 75))
    data[-20] ^= 1
    found = decode(codec, io.BytesIO(bytes(data)), 1.0, 2.0)
    assert found.damage == []
    kept = decode(codec, io.BytesIO(bytes(data)), 8.5, damaged="keep")
    assert len(kept.damage) == 1
    assert (kept.samples[:, -24000:] == 0).all()
    assert (kept.samples[:, :10000] != 0).any()


@pytest.mark.parametrize("pipe", [False, True])
def test_truncated_files_end_early(codec: Codec, pipe: bool) -> None:
    rate = codec.sample_rate
    tokens = codec.encode(speechlike(4, rate), rate)
    data = stored(tokens, round(codec.frame_rate))
    cut = data[: len(data) * 6 // 10]
    with pytest.raises(TruncatedError):
        decode(codec, as_file(cut, pipe))
    found = decode(codec, as_file(cut, pipe), damaged="keep")
    assert found.samples.shape == (1, 2 * rate)
    assert len(found.damage) == 1


def test_files_of_another_codec_are_rejected(codec: Codec, codecs: dict[str, Codec]) -> None:
    data = stored(codec.encode(speechlike(0.5, 16000), 16000))
    other = codecs["hac" if codec.layout.family != "hac" else "bigcodec"]
    with pytest.raises(FingerprintError, match="the tokens are"):
        decode(other, io.BytesIO(data))


def test_decode_file_writes_the_audio(codec: Codec, tmp_path: Path) -> None:
    tokens = codec.encode(speechlike(0.5, 22050, 2), 22050)
    source, target = tmp_path / "speech.hcd", tmp_path / "speech.wav"
    codectool.write(source, tokens)
    decoding = decode_file(codec, source, target, subtype="FLOAT")
    assert (decoding.num_samples, decoding.damage) == (tokens.num_samples, [])
    samples, rate = read_audio(target, "target")
    assert rate == 22050
    np.testing.assert_allclose(samples, codec.decode(tokens), atol=2e-6)
