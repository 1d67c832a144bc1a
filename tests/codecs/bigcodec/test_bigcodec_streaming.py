"""BigCodec in pieces, side by side and as one whole: the same codes and samples."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from codectool.codec import Codec
from codectool.codecs.base import Latency, StreamDecoder, StreamEncoder
from codectool.codecs.bigcodec.config import BigCodecConfig, HalfConfig
from codectool.codecs.bigcodec.model import CPU_WINDOW, BigCodec
from tests.batches import decode_batch, encode_batch

CONFIG = BigCodecConfig(
    sample_rate=8000,
    latent_width=12,
    encoder=HalfConfig(3, (2, 5), (1, 3), True, False, 2),
    decoder=HalfConfig(16, (5, 2), (1, 3), True, False, 1),
    num_quantizers=2,
    codebook_size=32,
    codebook_width=4,
)
LENGTHS = (1, 2, 47, 80, 85, 200, 240, 7)  # frames


def build(config: BigCodecConfig) -> BigCodec:
    torch.manual_seed(0)
    state = BigCodec(config).state_dict()
    return BigCodec.from_state(state, config.to_published())


@pytest.fixture(scope="module")
def small() -> BigCodec:
    return build(CONFIG)


def noise(frames: int, hop: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return 0.3 * torch.randn(batch, 1, frames * hop, generator=generator)


def some_codes(model: BigCodec, frames: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    shape = (batch, len(model.codebook_sizes), frames)
    return torch.randint(0, model.codebook_sizes[0], shape, generator=generator)


def in_parts(stream: StreamEncoder | StreamDecoder, signal: Tensor, sizes: list[int]) -> Tensor:
    parts, first = [], 0
    while first < signal.shape[-1]:
        for size in sizes:
            parts.append(stream.push(signal[..., first : first + size]))
            first += size
    return torch.cat([*parts, stream.flush()], -1)


def latent_by_windows(model: BigCodec, wave: Tensor) -> Tensor:
    (latent,) = model.stacks[0].side_by_side([wave[0].mT], CPU_WINDOW, together=False)
    return latent.mT[None]


@pytest.mark.parametrize("frames", LENGTHS)
@torch.inference_mode()
def test_windows_make_what_the_modules_make(small: BigCodec, frames: int) -> None:
    wave = noise(frames, small.hop_length, batch=2)
    latent = small.latent(wave)
    scale = float(latent.abs().max())
    for item in range(2):
        made = latent_by_windows(small, wave[item : item + 1])
        assert (made - latent[item]).abs().max() < 1e-5 * scale
    assert torch.equal(encode_batch(small, wave), small.quantize(latent.mT))
    codes = some_codes(small, frames, batch=2)
    expected = small.decoder(small.look_up(codes).mT)
    torch.testing.assert_close(decode_batch(small, codes), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", [[1], [7, 0, 331, 13], [100_000]], ids=str)
@torch.inference_mode()
def test_codes_do_not_depend_on_the_cutting(small: BigCodec, sizes: list[int]) -> None:
    for frames in (1, 165, 2 * CPU_WINDOW):
        wave, codes = noise(frames, small.hop_length), some_codes(small, frames)
        assert torch.equal(in_parts(small.stream_encoder(), wave, sizes), encode_batch(small, wave))
        assert torch.equal(
            in_parts(small.stream_decoder(), codes, sizes), decode_batch(small, codes)
        )
        exact = torch.cat(list(small.encode_exact(lambda wave=wave: iter([wave]))), -1)
        assert torch.equal(exact, encode_batch(small, wave))
        assert torch.equal(
            torch.cat(list(small.decode_exact(codes)), -1), decode_batch(small, codes)
        )


@pytest.mark.parametrize("block", [1, 3, 200])
@torch.inference_mode()
def test_other_windows_agree(small: BigCodec, block: int) -> None:
    wave, codes = noise(165, small.hop_length), some_codes(small, 165)
    encoded = in_parts(small.stream_encoder(block), wave, [5])
    assert torch.equal(encoded, encode_batch(small, wave))
    decoded = in_parts(small.stream_decoder(block), codes, [5])
    torch.testing.assert_close(decoded, decode_batch(small, codes), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_nothing_gives_nothing(small: BigCodec) -> None:
    encoder, decoder = small.stream_encoder(), small.stream_decoder()
    assert encoder.push(torch.zeros(1, 1, 0)).shape == encoder.flush().shape == (1, 2, 0)
    assert decoder.push(some_codes(small, 0)).shape == decoder.flush().shape == (1, 1, 0)


@pytest.mark.parametrize("together", [False, True])
@torch.inference_mode()
def test_side_by_side_is_as_alone(small: BigCodec, together: bool) -> None:
    waves = [noise(frames, small.hop_length)[0] for frames in LENGTHS]
    codes = [some_codes(small, frames)[0] for frames in LENGTHS]
    for wave, found in zip(waves, small.encode_many(waves, together), strict=True):
        assert torch.equal(found, encode_batch(small, wave[None])[0])
    for signal, found in zip(codes, small.decode_many(codes, together), strict=True):
        torch.testing.assert_close(found, decode_batch(small, signal[None])[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_ragged_is_side_by_side(small: BigCodec) -> None:
    waves = [noise(frames, small.hop_length)[0] for frames in LENGTHS[:4]]
    codes = small.encode(waves)
    assert [tuple(found.shape) for found in codes] == [(2, frames) for frames in LENGTHS[:4]]
    for found, expected in zip(codes, small.encode_many(waves, together=False), strict=True):
        assert torch.equal(found, expected)
    for found, signal in zip(small.decode(codes), codes, strict=True):
        torch.testing.assert_close(found, decode_batch(small, signal[None])[0], atol=1e-5, rtol=0)


def test_latency_of_the_published_size() -> None:
    with torch.device("meta"):
        half = HalfConfig(48, (2, 2, 2, 5, 5), (1, 3, 9), True, False, 2)
        other = dataclasses.replace(half, width=1536, ratios=(5, 5, 2, 2, 2))
        model = BigCodec(BigCodecConfig(16000, 1024, half, other, 1, 8192, 8))
    assert model.latency == Latency(encoder=5376, decoder=30 * 200)


def test_latency_is_what_the_gradient_says(small: BigCodec) -> None:
    model, frame = build(CONFIG).double(), 60
    wave = noise(100, model.hop_length).double().requires_grad_()
    model.encoder(wave)[..., frame].sum().backward()
    assert wave.grad is not None
    seen = int(wave.grad.nonzero().max()) + 1
    assert seen == (frame + 1) * model.hop_length + (small.latency.encoder or 0)
    latent = torch.randn(1, CONFIG.latent_width, 100, dtype=torch.float64, requires_grad=True)
    model.decoder(latent)[
        ..., frame * model.hop_length : (frame + 1) * model.hop_length
    ].sum().backward()
    assert latent.grad is not None
    seen = int(latent.grad.abs().sum(1).nonzero()[:, 1].max()) + 1
    assert seen == frame + 1 + (small.latency.decoder or 0) // model.hop_length


@torch.inference_mode()
def test_streams_wait_as_long_as_they_say(small: BigCodec) -> None:
    latency, hop = small.latency, small.hop_length
    assert latency.encoder is not None
    assert latency.decoder is not None
    frames = -(-latency.encoder // hop)
    stream, wave = small.stream_encoder(1), noise(frames + 3, hop)
    given = [stream.push(part).shape[-1] for part in wave.split(hop, -1)]
    assert given == [0] * frames + [1, 1, 1]
    frames = latency.decoder // hop
    decoder, codes = small.stream_decoder(1), some_codes(small, frames + 3)
    given = [decoder.push(part).shape[-1] for part in codes.split(1, -1)]
    totals = torch.tensor(given).cumsum(0)
    assert (totals >= hop * (torch.arange(frames + 3) + 1 - frames)).all()
    assert totals[frames - 1] < hop


@torch.inference_mode()
def test_lstm_that_runs_both_ways_waits_for_the_end() -> None:
    both = dataclasses.replace(CONFIG.decoder, rnn_bidirectional=True)
    model = build(dataclasses.replace(CONFIG, decoder=both))
    assert model.latency == Latency(encoder=None, decoder=None)
    waves = [noise(frames, model.hop_length)[0] for frames in (3, 90)]
    for wave, codes in zip(waves, model.encode(waves), strict=True):
        encoder, decoder = model.stream_encoder(), model.stream_decoder()
        assert encoder.push(wave[None]).shape[-1] == 0
        assert torch.equal(encoder.flush(), codes[None])
        assert torch.equal(in_parts(decoder, codes[None], [7]), decode_batch(model, codes[None]))


@torch.inference_mode()
def test_without_lstm() -> None:
    bare = [dataclasses.replace(half, use_rnn=False) for half in (CONFIG.encoder, CONFIG.decoder)]
    model = build(dataclasses.replace(CONFIG, encoder=bare[0], decoder=bare[1]))
    wave = noise(165, model.hop_length)
    codes = encode_batch(model, wave)
    assert torch.equal(codes, model.quantize(model.latent(wave).mT))
    expected = model.decoder(model.look_up(codes).mT)
    torch.testing.assert_close(decode_batch(model, codes), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_half_precision(small: BigCodec) -> None:
    waves = [noise(frames, small.hop_length)[0] for frames in (3, 90)]
    with torch.autocast("cpu", torch.bfloat16):
        codes = small.encode(waves)
        audio = small.decode(codes)
        alone = decode_batch(small, codes[1][None])[0]
    assert audio[1].dtype == torch.float32
    exact = decode_batch(small, codes[1][None])[0]
    for found in (audio[1], alone):
        assert (found - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_weights_that_change_in_training_are_taken() -> None:
    torch.manual_seed(0)
    model = BigCodec(CONFIG).eval()
    wave = noise(20, model.hop_length)
    with torch.no_grad():
        before = latent_by_windows(model, wave)
        model.train()
        for parameter in model.parameters():
            parameter += 0.1
        model.eval()
        after = latent_by_windows(model, wave)
        expected = model.latent(wave)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)


def test_modules_give_gradients_after_windows() -> None:
    torch.manual_seed(0)
    model = BigCodec(CONFIG).eval()
    wave = noise(20, model.hop_length)
    codes = encode_batch(model, wave)
    assert not decode_batch(model, codes).requires_grad
    output = model.quantizer.forward_train(model.latent(wave))
    model.decoder(output.quantized).square().mean().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())


@torch.inference_mode()
def test_a_copy_works_on_its_own(small: BigCodec) -> None:
    wave = noise(20, small.hop_length)
    expected = encode_batch(small, wave)
    copied = copy.deepcopy(small)
    for parameter in small.encoder.parameters():
        assert all(parameter is not other for other in copied.encoder.parameters())
    assert torch.equal(copied.encode(wave), expected)


@torch.inference_mode()
def test_golden_model_side_by_side(codecs: dict[str, Codec]) -> None:
    model = codecs["bigcodec"].model
    assert isinstance(model, BigCodec)
    waves = [noise(frames, model.hop_length)[0] for frames in (1, 30, 12)]
    for together in (False, True):
        for wave, found in zip(waves, model.encode_many(waves, together), strict=True):
            assert torch.equal(found, model.quantize(model.latent(wave[None]).mT)[0])
