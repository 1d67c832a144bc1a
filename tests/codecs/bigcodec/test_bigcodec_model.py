"""BigCodec in chunks and in variable-length batches against the plain modules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from codectool.codec import Codec
from codectool.codecs.base import Stream
from codectool.codecs.bigcodec.config import BigCodecConfig
from codectool.codecs.bigcodec.model import CPU_CHUNK_FRAMES, BigCodec
from codectool.codecs.bigcodec.streaming import run_batch
from codectool.codecs.properties import Latency
from codectool.schema import to_json
from tests.batches import decode_batch, encode_batch
from tests.bigcodec_configs import mirrored_config
from tests.full_size_weights import BIGCODEC

LENGTHS = (1, 2, 47, 80, 85, 200, 240, 7)  # frames


def make_config(use_rnn: bool = True, bidirectional: bool = False) -> BigCodecConfig:
    return mirrored_config(
        sample_rate=8000,
        ngf=3,
        initial_channel=16,
        up_ratios=(2, 5),
        dilations=(1, 3),
        latent_dim=12,
        rnn_layers=(2, 1),
        codebooks=(2, 32, 4),
        use_rnn=use_rnn,
        bidirectional=bidirectional,
    )


def build(config: BigCodecConfig) -> BigCodec:
    torch.manual_seed(0)
    state = BigCodec(config).state_dict()
    return BigCodec.from_state(state, to_json(config))


@pytest.fixture(scope="module")
def small() -> BigCodec:
    return build(make_config())


def noise(frames: int, hop: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return 0.3 * torch.randn(batch, 1, frames * hop, generator=generator)


def random_codes(model: BigCodec, frames: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    shape = (batch, len(model.codebook_sizes), frames)
    return torch.randint(0, model.codebook_sizes[0], shape, generator=generator)


def run_stream(stream: Stream[Any], signal: Tensor, sizes: list[int]) -> Tensor:
    parts, first = [], 0
    while first < signal.shape[-1]:
        for size in sizes:
            parts.append(stream.push(signal[..., first : first + size]))
            first += size
    return torch.cat([*parts, stream.flush()], -1)


def streaming_latent(model: BigCodec, wave: Tensor) -> Tensor:
    chunk_size = CPU_CHUNK_FRAMES * model.hop_length
    (latent,) = run_batch(model.networks[0], [wave[0].mT], chunk_size, False)
    return latent[None]


@pytest.mark.parametrize("frames", LENGTHS)
@torch.inference_mode()
def test_chunked_model_matches_plain_modules(small: BigCodec, frames: int) -> None:
    wave = noise(frames, small.hop_length, batch=2)
    latent = small.latent(wave)
    scale = float(latent.abs().max())
    for item in range(2):
        found = streaming_latent(small, wave[item : item + 1])
        assert (found - latent[item]).abs().max() < 1e-5 * scale
    assert torch.equal(encode_batch(small, wave), small.quantize(latent))
    codes = random_codes(small, frames, batch=2)
    expected = small.decoder(small.dequantize(codes).mT)
    torch.testing.assert_close(decode_batch(small, codes), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_cpu_fast_path_off_runs_plain_modules(small: BigCodec) -> None:
    plain = build(make_config())
    plain.cpu_fast_path = False
    wave, codes = noise(165, small.hop_length), random_codes(small, 165)
    assert torch.equal(plain.encode([wave[0]])[0], small.encode([wave[0]])[0])
    assert torch.equal(plain.decode([codes[0]])[0], plain.decoder(plain.dequantize(codes).mT)[0])
    stream = plain.stream_encoder()
    assert stream.push(wave).shape[-1] == 0
    assert torch.equal(stream.flush(), small.encode([wave[0]])[0][None])
    assert plain.latency == small.latency


@pytest.mark.parametrize("sizes", [[1], [7, 0, 331, 13], [100_000]], ids=str)
@torch.inference_mode()
def test_streams_match_offline_for_any_chunking(small: BigCodec, sizes: list[int]) -> None:
    for frames in (1, 165, 2 * CPU_CHUNK_FRAMES):
        wave, codes = noise(frames, small.hop_length), random_codes(small, frames)
        encoded = run_stream(small.stream_encoder(), wave, sizes)
        assert torch.equal(encoded, encode_batch(small, wave))
        decoded = run_stream(small.stream_decoder(), codes, sizes)
        assert torch.equal(decoded, decode_batch(small, codes))


@pytest.mark.parametrize("chunk_frames", [1, 3, 200])
@torch.inference_mode()
def test_streams_match_offline_for_any_chunk_size(small: BigCodec, chunk_frames: int) -> None:
    wave, codes = noise(165, small.hop_length), random_codes(small, 165)
    encoded = run_stream(small.stream_encoder(chunk_frames), wave, [5])
    assert torch.equal(encoded, encode_batch(small, wave))
    decoded = run_stream(small.stream_decoder(chunk_frames), codes, [5])
    torch.testing.assert_close(decoded, decode_batch(small, codes), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_streams_of_empty_signals_are_empty(small: BigCodec) -> None:
    encoder, decoder = small.stream_encoder(), small.stream_decoder()
    assert encoder.push(torch.zeros(1, 1, 0)).shape == encoder.flush().shape == (1, 2, 0)
    assert decoder.push(random_codes(small, 0)).shape == decoder.flush().shape == (1, 1, 0)


@pytest.mark.parametrize("batch_convolutions", [False, True])
@torch.inference_mode()
def test_batch_of_any_lengths_matches_single_signals(
    small: BigCodec, batch_convolutions: bool
) -> None:
    encoder, decoder = small.networks
    waves = [noise(frames, small.hop_length)[0] for frames in LENGTHS]
    signals, chunk_size = [wave.mT for wave in waves], CPU_CHUNK_FRAMES * small.hop_length
    latents = run_batch(encoder, signals, chunk_size, batch_convolutions)
    for wave, latent in zip(waves, latents, strict=True):
        assert torch.equal(small.quantize(latent[None]), encode_batch(small, wave[None]))
    codes = [random_codes(small, frames) for frames in LENGTHS]
    latents = [small.dequantize(item)[0] for item in codes]
    decoded = run_batch(decoder, latents, CPU_CHUNK_FRAMES, batch_convolutions)
    for item, found in zip(codes, decoded, strict=True):
        torch.testing.assert_close(found.mT, decode_batch(small, item)[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_encode_and_decode_take_signals_of_different_lengths(small: BigCodec) -> None:
    waves = [noise(frames, small.hop_length)[0] for frames in LENGTHS[:4]]
    codes = small.encode(waves)
    assert [tuple(found.shape) for found in codes] == [(2, frames) for frames in LENGTHS[:4]]
    for found, wave in zip(codes, waves, strict=True):
        assert torch.equal(found, small.encode([wave])[0])
    for found, item in zip(small.decode(codes), codes, strict=True):
        torch.testing.assert_close(found, small.decode([item])[0], atol=1e-5, rtol=0)


def test_latency_of_the_published_size() -> None:
    with torch.device("meta"):
        model = BigCodec(BIGCODEC)
    assert model.latency == Latency(encoder=5376, decoder=30 * 200)


def test_latency_matches_the_gradient(small: BigCodec) -> None:
    model, frame = build(make_config()).double(), 60
    wave = noise(100, model.hop_length).double().requires_grad_()
    model.encoder(wave)[..., frame].sum().backward()
    assert wave.grad is not None
    seen = int(wave.grad.nonzero().max()) + 1
    assert seen == (frame + 1) * model.hop_length + (small.latency.encoder or 0)
    latent = torch.randn(1, 12, 100, dtype=torch.float64, requires_grad=True)
    model.decoder(latent)[
        ..., frame * model.hop_length : (frame + 1) * model.hop_length
    ].sum().backward()
    assert latent.grad is not None
    seen = int(latent.grad.abs().sum(1).nonzero()[:, 1].max()) + 1
    assert seen == frame + 1 + (small.latency.decoder or 0) // model.hop_length


@torch.inference_mode()
def test_streams_return_output_after_their_latency(small: BigCodec) -> None:
    latency, hop = small.latency, small.hop_length
    assert latency.encoder is not None
    assert latency.decoder is not None
    frames = -(-latency.encoder // hop)
    stream, wave = small.stream_encoder(1), noise(frames + 3, hop)
    counts = [stream.push(part).shape[-1] for part in wave.split(hop, -1)]
    assert counts == [0] * frames + [1, 1, 1]
    frames = latency.decoder // hop
    decoder, codes = small.stream_decoder(1), random_codes(small, frames + 3)
    counts = [decoder.push(part).shape[-1] for part in codes.split(1, -1)]
    totals = torch.tensor(counts).cumsum(0)
    assert (totals >= hop * (torch.arange(frames + 3) + 1 - frames)).all()
    assert totals[frames - 1] < hop


@torch.inference_mode()
def test_bidirectional_lstm_waits_for_the_end_of_the_signal() -> None:
    model = build(make_config(bidirectional=True))
    assert model.latency == Latency(encoder=None, decoder=None)
    waves = [noise(frames, model.hop_length)[0] for frames in (3, 90)]
    for wave, codes in zip(waves, model.encode(waves), strict=True):
        encoder, decoder = model.stream_encoder(), model.stream_decoder()
        assert encoder.push(wave[None]).shape[-1] == 0
        assert torch.equal(encoder.flush(), codes[None])
        assert torch.equal(run_stream(decoder, codes[None], [7]), decode_batch(model, codes[None]))


@torch.inference_mode()
def test_model_without_lstm_matches_plain_modules() -> None:
    model = build(make_config(use_rnn=False))
    wave = noise(165, model.hop_length)
    codes = encode_batch(model, wave)
    assert torch.equal(codes, model.quantize(model.latent(wave)))
    expected = model.decoder(model.dequantize(codes).mT)
    torch.testing.assert_close(decode_batch(model, codes), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_bfloat16_is_close_to_float32(small: BigCodec) -> None:
    waves = [noise(frames, small.hop_length)[0] for frames in (3, 90)]
    with torch.autocast("cpu", torch.bfloat16):
        codes = small.encode(waves)
        audio = small.decode(codes)
        alone = decode_batch(small, codes[1][None])[0]
    assert audio[1].dtype == torch.float32
    exact = decode_batch(small, codes[1][None])[0]
    for found in (audio[1], alone):
        assert (found - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_packed_weights_are_renewed_after_training() -> None:
    torch.manual_seed(0)
    model = BigCodec(make_config()).eval()
    wave = noise(20, model.hop_length)
    with torch.no_grad():
        before = streaming_latent(model, wave)
        model.train()
        for parameter in model.parameters():
            parameter += 0.1
        model.eval()
        after = streaming_latent(model, wave)
        expected = model.latent(wave)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)


def test_plain_modules_have_gradients_after_chunked_inference() -> None:
    torch.manual_seed(0)
    model = BigCodec(make_config()).eval()
    wave = noise(20, model.hop_length)
    codes = encode_batch(model, wave)
    assert not decode_batch(model, codes).requires_grad
    output = model.quantizer.forward_train(model.latent(wave))
    model.decoder(output.quantized.mT).square().mean().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())


@torch.inference_mode()
def test_deep_copy_has_its_own_weights(small: BigCodec) -> None:
    wave = noise(20, small.hop_length)
    expected = encode_batch(small, wave)
    copied = copy.deepcopy(small)
    for parameter in small.encoder.parameters():
        assert all(parameter is not other for other in copied.encoder.parameters())
    assert torch.equal(encode_batch(copied, wave), expected)


@torch.inference_mode()
def test_golden_model_in_batches_matches_plain_modules(codecs: dict[str, Codec]) -> None:
    model = codecs["bigcodec"].model
    assert isinstance(model, BigCodec)
    waves = [noise(frames, model.hop_length)[0] for frames in (1, 30, 12)]
    for batch_convolutions in (False, True):
        signals, chunk_size = [wave.mT for wave in waves], CPU_CHUNK_FRAMES * model.hop_length
        latents = run_batch(model.networks[0], signals, chunk_size, batch_convolutions)
        for wave, latent in zip(waves, latents, strict=True):
            expected = model.quantize(model.latent(wave[None]))
            assert torch.equal(model.quantize(latent[None]), expected)
