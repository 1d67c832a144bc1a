"""`Codec.latents` and `Codec.embed`: what the quantizer and the decoder receive."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import codectool
from codectool.codec import Codec
from codectool.codecs.hac.model import HacCodec
from codectool.codecs.isolation import isolated
from codectool.errors import AudioError, DamagedError, FingerprintError
from tests.codecs.test_parity import CASES, RELATIVE, locate, relative_error
from tests.signals import split_randomly


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 0.1, shape).astype(np.float32)


def quantize(codec: Codec, latents: np.ndarray) -> np.ndarray:
    with isolated("cpu"):
        return codec.model.quantize(torch.from_numpy(latents).mT.contiguous()).numpy()


def decoder_input(codec: Codec, codes: np.ndarray) -> np.ndarray:
    """Return what the first layer of the plain decoder receives, ``(1, D, F)``."""
    model, received = codec.model, []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        received.append(inputs[0].mT if isinstance(model, HacCodec) else inputs[0])

    assert isinstance(model.decoder, nn.Module)
    hook = model.decoder.register_forward_pre_hook(record)
    model.cpu_fast_path = False
    try:
        with isolated("cpu"):
            model.decode([torch.from_numpy(codes).long()])
    finally:
        model.cpu_fast_path = True
        hook.remove()
    return torch.cat(received, dim=-1)[..., : codes.shape[-1]].numpy()


def test_quantized_latents_are_the_codes(codec: Codec) -> None:
    wave = noise(2, 30000)
    tokens, latents = codec.encode(wave, 16000), codec.latents(wave, 16000)
    assert latents.dtype == np.float32
    assert latents.shape == (2, codec.model.latent_channels, tokens.num_frames)
    np.testing.assert_array_equal(quantize(codec, latents), tokens.codes)


def test_embed_is_the_input_of_the_decoder(codec: Codec) -> None:
    tokens = codec.encode(noise(2, 30000), 24000)
    features = codec.embed(tokens)
    assert features.dtype == np.float32
    assert features.shape == (2, codec.model.latent_channels, tokens.num_frames)
    for row, codes in zip(features, tokens.codes, strict=True):
        np.testing.assert_allclose(row[None], decoder_input(codec, codes), atol=1e-6)


def test_latents_do_not_depend_on_the_chunks(codec: Codec) -> None:
    wave = noise(2, 40000)
    whole = codec.latents(wave, 22050)
    chunks = split_randomly(wave, 3000)
    np.testing.assert_array_equal(codec.latents_chunks(chunks, 22050, 2), whole)


def test_latents_of_several_segments(codecs: dict[str, Codec]) -> None:
    codec = codecs["supercodec"]
    wave, frames = noise(1, 10010), codec.model.segment_frames
    codec.model.segment_frames = 100
    try:
        tokens, latents = codec.encode(wave, 16000), codec.latents(wave, 16000)
    finally:
        codec.model.segment_frames = frames
    assert tokens.segment_frames == 100
    assert tokens.num_frames > 500
    np.testing.assert_array_equal(quantize(codec, latents), tokens.codes)


@pytest.mark.parametrize("length", [0, 1, 500])
def test_short_signals_have_as_many_frames_as_their_tokens(codec: Codec, length: int) -> None:
    tokens = codec.encode(noise(length), 16000)
    assert codec.latents(noise(length), 16000).shape[2] == tokens.num_frames
    assert codec.embed(tokens).shape[2] == tokens.num_frames


def test_plain_modules_give_the_same_latents(codec: Codec) -> None:
    fast = codec.latents(noise(20000), 16000)
    codec.model.cpu_fast_path = False
    try:
        plain = codec.latents(noise(20000), 16000)
    finally:
        codec.model.cpu_fast_path = True
    np.testing.assert_allclose(plain, fast, atol=1e-4)


def test_embed_sums_the_codebooks_that_there_are(checkpoints: dict[str, Path]) -> None:
    codec = codectool.load(checkpoint=checkpoints["supercodec"], device="cpu")
    tokens = codec.encode(noise(9000), 16000)
    layout = dataclasses.replace(
        tokens.layout, bits_per_codebook=tokens.layout.bits_per_codebook[:1]
    )
    first = dataclasses.replace(tokens, codes=tokens.codes[:, :1], layout=layout)
    codebook = codec.model.state_dict()["rq.layers.0.embed"][0].numpy()
    np.testing.assert_array_equal(codec.embed(first)[0].T, codebook[tokens.codes[0, 0]])


def test_embed_of_hac_is_the_bits(codecs: dict[str, Codec]) -> None:
    tokens = codecs["hac"].encode(noise(9000), 24000)
    signs = 2 * tokens.bits.astype(np.float32) - 1
    np.testing.assert_array_equal(codecs["hac"].embed(tokens), signs.swapaxes(1, 2))


def test_embed_refuses_tokens_of_other_weights(codec: Codec) -> None:
    tokens = codec.encode(noise(9000), 24000)
    other = dataclasses.replace(tokens, fingerprint="00000000")
    with pytest.raises(FingerprintError, match="the fingerprint 00000000"):
        codec.embed(other)
    np.testing.assert_array_equal(codec.embed(other, force=True), codec.embed(tokens))


def test_embed_refuses_codes_beyond_the_codebook(
    codecs: dict[str, Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codecs["supercodec"]
    tokens = codec.encode(noise(9000), 16000)
    monkeypatch.setattr(codec.model, "codebook_sizes", (60, 60))
    with pytest.raises(DamagedError, match="codebook 1 holds code 61, but it has only 60 entries"):
        codec.embed(dataclasses.replace(tokens, codes=tokens.codes * [[[0], [0]]] + [[[0], [61]]]))


def test_latents_refuse_what_encode_refuses(codec: Codec) -> None:
    with pytest.raises(AudioError, match="float"):
        codec.latents(np.zeros(100, np.int16), 16000)
    with pytest.raises(AudioError, match="cannot carry speech"):
        codec.latents(noise(100), 500)


@pytest.mark.parametrize("name", CASES)
def test_features_match_golden(name: str) -> None:
    codec = codectool.load(checkpoint=locate(CASES[name]), device="cpu", padding="reference")
    with np.load(locate(f"{name}.npz")) as golden:
        for item in golden["names"]:
            wave = golden[f"{item}/wav"]
            latents = codec.latents(wave, 16000)[0]
            assert relative_error(latents, golden[f"{item}/enc"]) < RELATIVE, item
            tokens = codec.encode(wave, 16000)
            same = (tokens.codes[0] == golden[f"{item}/codes"]).all(0)  # not where codes are tied
            assert same.mean() > 0.99
            features, expected = codec.embed(tokens)[0], golden[f"{item}/zq"]
            assert relative_error(features[:, same], expected[:, same]) < RELATIVE, item
