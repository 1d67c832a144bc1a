"""`Codec`, `Tokens` and `load`: lengths, rates, channels, padding, rejected input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import codectool
from codectool.codec import Codec
from codectool.errors import (
    AudioError,
    DamagedError,
    FingerprintError,
    TokensError,
    UsageError,
    WeightsMissingError,
)
from codectool.loading import load
from tests.batches import decode_batch, encode_batch
from tests.signals import split_randomly

RATES = [8000, 16000, 22050, 24000, 44100, 48000]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(0, 0.1, shape).astype(np.float32)


def test_codec_properties(codecs: dict[str, Codec]) -> None:
    properties = {
        family: (c.sample_rate, c.hop_length, c.frame_rate, c.bits_per_frame)
        for family, c in codecs.items()
    }
    assert properties == {
        "bigcodec": (16000, 200, 80.0, 14),
        "supercodec": (16000, 20, 800.0, 12),
        "hac": (24000, 320, 75.0, 18),
    }


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [0, 1, 19, 20, 199, 200, 201, 319, 320, 321, 5000])
def test_decode_returns_length_rate_and_channels_of_the_input(
    codec: Codec, rate: int, length: int
) -> None:
    tokens = codec.encode(noise(2, length), rate)
    assert tokens.codes.dtype == np.int32
    assert tokens.codes.shape[:2] == (2, codec.layout.num_codebooks)
    assert (tokens.num_samples, tokens.sample_rate) == (length, rate)
    audio = codec.decode(tokens)
    assert audio.dtype == np.float32
    assert audio.shape == (2, length)
    native = codec.decode(tokens, native_rate=True)
    assert native.shape == (2, -(-length * codec.sample_rate // rate))


def test_number_of_frames(codecs: dict[str, Codec]) -> None:
    def frames(family: str, length: int) -> int:
        codec = codecs[family]
        return codec.encode(noise(length), codec.sample_rate).num_frames

    # The reference implementation of BigCodec adds a frame to lengths that are whole already.
    assert [frames("bigcodec", n) for n in (0, 1, 199, 200, 201)] == [0, 1, 1, 2, 2]
    # SuperCodec decodes at least seven frames.
    assert [frames("supercodec", n) for n in (0, 1, 140, 141, 160, 161)] == [0, 7, 7, 8, 8, 9]
    assert [frames("hac", n) for n in (0, 1, 320, 321)] == [0, 1, 1, 2]


def test_reference_padding(checkpoints: dict[str, Path]) -> None:
    big = load("bigcodec", checkpoints["bigcodec"], device="cpu", padding="reference")
    for length, frames in ((0, 1), (199, 1), (200, 2), (401, 3)):
        tokens = big.encode(noise(length), 16000)
        assert (tokens.num_frames, tokens.num_samples) == (frames, 200 * frames)
        assert big.decode(tokens).shape == (1, 200 * frames)
    small = load("supercodec", checkpoints["supercodec"], device="cpu", padding="reference")
    tokens = small.encode(noise(219), 16000)
    assert (tokens.num_frames, tokens.num_samples) == (10, 200)
    with pytest.raises(AudioError, match="too few for the published script of supercodec"):
        small.encode(noise(139), 16000)
    tokens = small.encode(noise(1000), 44100)  # a length that does not divide
    assert small.decode(tokens).shape == (1, tokens.num_samples)


def test_channels_are_independent(codec: Codec) -> None:
    wave = noise(3, 4000)
    tokens = codec.encode(wave, codec.sample_rate)
    for channel in range(3):
        mono = codec.encode(wave[channel], codec.sample_rate)
        np.testing.assert_array_equal(tokens.codes[channel], mono.codes[0])


def test_batch_items_are_independent(codec: Codec) -> None:
    frames = 10
    waves = torch.from_numpy(noise(3, 1, frames * codec.hop_length)) * torch.tensor(
        [0.1, 1.0, 3.0]
    ).view(3, 1, 1)
    with torch.inference_mode():
        codes = encode_batch(codec.model, waves)
        audio = decode_batch(codec.model, codes)
        for item in range(3):
            alone = encode_batch(codec.model, waves[item : item + 1])
            assert torch.equal(codes[item], alone[0])
            torch.testing.assert_close(
                audio[item], decode_batch(codec.model, alone)[0], atol=1e-5, rtol=0
            )


def test_sampling_rate_is_read_from_the_config(checkpoints: dict[str, Path]) -> None:
    config = json.loads((checkpoints["supercodec"] / "config.json").read_text())
    config["sampling_rate"] = 24000
    codec = load("supercodec", checkpoints["supercodec"], config=config, device="cpu")
    assert (codec.sample_rate, codec.frame_rate) == (24000, 1200.0)
    tokens = codec.encode(noise(4800), 24000)
    assert tokens.num_frames == 240
    assert codec.decode(tokens).shape == (1, 4800)


def test_codebooks_option_uses_the_first_codebooks(
    codec: Codec, checkpoints: dict[str, Path]
) -> None:
    family = codec.layout.family
    wave = noise(5000)
    if family == "hac":
        with pytest.raises(UsageError, match="2 codebooks requested, but this hac model has 1"):
            load(family, checkpoints[family], device="cpu", codebooks=2)
        return
    one = load(family, checkpoints[family], device="cpu", codebooks=1)
    tokens = one.encode(wave, 16000)
    assert tokens.fingerprint == codec.token_fingerprint
    np.testing.assert_array_equal(tokens.codes, codec.encode(wave, 16000).codes[:, :1])
    # a codec with all codebooks decodes them
    np.testing.assert_array_equal(codec.decode(tokens), one.decode(tokens))


def test_long_input_is_split_into_segments(
    checkpoints: dict[str, Path],
) -> None:
    codec = load("supercodec", checkpoints["supercodec"], device="cpu")
    assert codec.model.segment_frames == 60 * 16000 // 20  # one minute
    codec.model.segment_frames = 400
    segment = 400 * 20
    assert codec.encode(noise(segment), 16000).segment_frames is None
    wave = noise(2 * segment + 50)
    tokens = codec.encode(wave, 16000)
    assert tokens.segment_frames == 400
    assert tokens.num_frames == 2 * 400 + 7  # the last segment is padded to the minimum
    second = codec.encode(wave[segment : 2 * segment], 16000)
    np.testing.assert_array_equal(tokens.codes[:, :, 400:800], second.codes)
    audio = codec.decode(tokens)
    assert audio.shape == (1, len(wave))
    np.testing.assert_array_equal(audio[:, segment : 2 * segment], codec.decode(second))
    codec.padding = "reference"  # which has no segments
    assert codec.encode(wave, 16000).segment_frames is None


def test_bits_are_the_scalars_of_hac(codecs: dict[str, Codec]) -> None:
    tokens = codecs["hac"].encode(noise(2, 3200), 24000)
    assert tokens.bits.shape == (2, 10, 18)
    assert tokens.bits.dtype == np.uint8
    powers = 2 ** np.arange(17, -1, -1)
    np.testing.assert_array_equal((tokens.bits * powers).sum(-1), tokens.codes[:, 0])


def test_loaded_model_is_frozen(codec: Codec) -> None:
    assert not any(parameter.requires_grad for parameter in codec.model.parameters())
    assert not codec.model.training
    names = [name for name, _ in codec.model.named_parameters()]
    assert not [name for name in names if "original" in name or name.endswith("weight_g")]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(10, np.int16), "samples must be float"),
        (torch.zeros(10, dtype=torch.int16), "samples must be float"),
        (np.zeros((1, 2, 3), np.float32), "must have the shape"),
        (np.zeros((0, 5), np.float32), "must have the shape"),
        (np.array([0.0, np.nan]), "sample 1 of channel 0 is nan"),
        (np.array([[0.0], [-np.inf]]), "sample 0 of channel 1 is -inf"),
    ],
)
def test_encode_rejects_bad_samples(codec: Codec, samples: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        codec.encode(samples, 16000)


@pytest.mark.parametrize("rate", [0, -1, 44100.5, float("nan"), "16000", None, True, 10_000_001])
def test_encode_rejects_bad_rates(codec: Codec, rate: Any) -> None:
    with pytest.raises(
        TokensError, match=r"sampling rate in Hz must be an integer in 1\.\.10000000, not"
    ):
        codec.encode(noise(10), rate)


def test_encode_rejects_bad_tags(codec: Codec) -> None:
    with pytest.raises(TokensError, match="tag 'take' must map text to text"):
        codec.encode(noise(10), 16000, tags={"take": 3})  # type: ignore[dict-item]


@pytest.mark.parametrize("padding", ["lossless", "reference"])
@pytest.mark.parametrize("length", [199, 400, 6401])
def test_chunks_and_clips_match_encode(
    codec: Codec, padding: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "padding", padding)
    wave = noise(2, length)
    expected = codec.encode(wave, 22050, {"speaker": "p253"})
    chunks = codec.encode_chunks(split_randomly(wave), 22050, 2, {"speaker": "p253"})
    (clip,) = codec.encode_clips([codec.prepare(wave, 22050, {"speaker": "p253"})])
    for tokens in (chunks, clip):
        np.testing.assert_array_equal(tokens.codes, expected.codes)
        assert {**vars(tokens), "codes": None} == {**vars(expected), "codes": None}


def test_encode_accepts_arrays_lists_and_tensors(codec: Codec) -> None:
    wave = noise(2, 3000)
    expected = codec.encode(wave, 16000).codes
    for samples in (
        wave.astype(np.float64),
        wave.tolist(),
        np.asfortranarray(wave),
        torch.from_numpy(wave).requires_grad_(),
        torch.from_numpy(wave).double(),
    ):
        np.testing.assert_array_equal(codec.encode(samples, 16000).codes, expected)


def test_tokens_reject_contradictions(codec: Codec) -> None:
    tokens = codec.encode(noise(4000), codec.sample_rate)
    for change, message in (
        ({"num_samples": 1 << 40}, "frames are too few"),
        ({"num_samples": 1.5}, "num_samples must be an integer"),
        ({"num_samples": -1}, "num_samples must be an integer"),
        ({"segment_frames": 0}, r"segment_frames must be an integer in 1\.\."),
        ({"sample_rate": 0}, "sampling rate in Hz .*, not 0"),
        ({"fingerprint": "xyz"}, "eight hexadecimal digits"),
        ({"codes": tokens.codes[0]}, "must be integers of shape"),
        ({"codes": tokens.codes.astype(float)}, "must be integers of shape"),
        ({"codes": tokens.codes + (1 << 20)}, "are not all in"),
        ({"codes": np.concatenate([tokens.codes] * 3, axis=1)}, "must be integers of shape"),
    ):
        with pytest.raises(TokensError, match=message):
            dataclasses.replace(tokens, **change)


def test_repr_of_tokens_is_one_line(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    tokens = codec.encode(noise(2, 4000), codec.sample_rate)
    name = f"Tokens(hac {codec.token_fingerprint}, 2 channels, 13 frames, 0.167 s)"
    assert repr(tokens) == str(tokens) == name
    assert "1 channel," in repr(codec.encode(noise(1), codec.sample_rate))
    with pytest.raises(dataclasses.FrozenInstanceError):
        tokens.num_samples = 3  # type: ignore[misc]


def test_decode_rejects_tokens_of_different_weights(codec: Codec) -> None:
    tokens = codec.encode(noise(4000), codec.sample_rate)
    other = dataclasses.replace(tokens, fingerprint="00000000")
    with pytest.raises(
        FingerprintError, match=f"fingerprint 00000000, but .* decodes {codec.token_fingerprint}"
    ):
        codec.decode(other)
    np.testing.assert_array_equal(codec.decode(other, force=True), codec.decode(tokens))


def test_decode_rejects_tokens_of_another_codec(codecs: dict[str, Codec]) -> None:
    tokens = codecs["hac"].encode(noise(4000), 24000)
    with pytest.raises(FingerprintError, match="the tokens are hac at 24000 Hz"):
        codecs["bigcodec"].decode(tokens, force=True)


def test_decode_rejects_codes_beyond_the_codebook(checkpoints: dict[str, Path]) -> None:
    codec = load("bigcodec", checkpoints["bigcodec"], device="cpu")
    codec.model.codebook_sizes = (100, 128)  # not a power of two
    tokens = codec.encode(noise(4000), 16000)
    codes = tokens.codes.copy()
    codes[0, 0, 3] = 127
    with pytest.raises(DamagedError, match="codebook 0 holds code 127, .* 100 entries"):
        codec.decode(dataclasses.replace(tokens, codes=codes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "no device is called `gpu`"),
        ({"device": "cpu:1"}, "no device is called `cpu:1`"),
        ({"device": "cuda:99"}, "this machine has"),
        ({"precision": "int8"}, "no precision is called `int8`"),
        ({"padding": "odd"}, "no padding is called `odd`"),
        ({"codebooks": 3}, "this bigcodec model has 2"),
        ({"codebooks": 1.5}, "this bigcodec model has 2"),
        ({"model": "opus"}, "choose from hac, bigcodec, supercodec"),
    ],
)
def test_load_rejects_unknown_options(
    checkpoints: dict[str, Path], options: dict[str, str], message: str
) -> None:
    request = {"model": "bigcodec", "device": "cpu", **options}
    with pytest.raises(UsageError, match=message):
        load(checkpoint=checkpoints["bigcodec"], **request)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "advice"),
    [("bigcodec", "run `codectool models pull bigcodec` (about 638 MB), or"), ("supercodec", "")],
)
def test_load_without_weights_says_what_to_give(model: str, advice: str) -> None:
    with pytest.raises(WeightsMissingError, match="`--checkpoint PATH`") as caught:
        load(model)
    assert advice in str(caught.value)
    assert caught.value.model == (model if advice else None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_matches_cpu(codec: Codec, checkpoints: dict[str, Path]) -> None:
    family = codec.layout.family
    fast = load(family, checkpoints[family], device="cuda")
    wave = noise(2, 16000)
    tokens = codec.encode(wave, codec.sample_rate)
    assert (fast.encode(wave, codec.sample_rate).codes == tokens.codes).mean() > 0.999
    assert np.abs(fast.decode(tokens) - codec.decode(tokens)).max() < 1e-4


def test_public_names_are_importable() -> None:
    assert set(codectool.__all__) <= set(dir(codectool))
    for name in codectool.__all__:
        assert getattr(codectool, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        codectool.nothing  # noqa: B018
