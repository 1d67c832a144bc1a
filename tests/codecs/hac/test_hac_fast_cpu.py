"""The CPU fast path is compared with the modules, and streams with whole signals."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from msgspec.structs import replace
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import codectool
from codectool.codecs.hac import model as model_module
from codectool.codecs.hac.cpu_operations import Buffer, DepthwiseConv, History, Product
from codectool.codecs.hac.fast_cpu import CompiledStack, Executor
from codectool.codecs.hac.model import CHUNK_FRAMES, run_chunk
from codectool.codecs.hac.quantizer import index_to_signs
from tests.batches import decode_batch, encode_batch, push_in_chunks
from tests.hac_models import load_preset, small_preset, untrained

CLIP = Path(__file__).parents[3] / "assets" / "speech_espeak.flac"
VALUE_BOUND = 5e-5  # rounding of the values whose signs are the bits; they are of size 1
AUDIO_BOUND = 2e-6
SOURCE_BOUND = 2e-4  # of decoders with a source: rounding of the pitch moves harmonics
LENGTHS = [80, 1, 75, 160, 3, 76]

TINY = load_preset("hac-tiny")
NARROW = replace(  # stages without units, kernels of one frame, no look-ahead
    TINY,
    kernel=1,
    taps=1,
    token_kernel=1,
    lookahead=0,
    encoder_dilations=((), (), (1,), ()),
    decoder_dilations=((), (1, 5), (), ()),
)
WIDE = replace(TINY, kernel=9, decoder_dilations=((31,), (1,), (7,), (1,)))


def noise(frames, batch=1, seed=0, hop=320):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, 1, frames * hop, generator=generator)


def speech(frames):
    audio, _ = soundfile.read(CLIP, dtype="float32")  # played faster, at the model's rate
    return torch.from_numpy(audio[: frames * 320]).view(1, 1, -1)


@pytest.fixture(scope="module")
def tiny():
    return untrained(TINY)


@pytest.fixture(scope="module")
def bundled():
    return codectool.load("hac", device="cpu").model


@pytest.fixture(scope="module")
def spectral():
    return untrained(small_preset("hac-3.6-v13"))


def encoder_executor(codec, frames):
    size = frames * codec.hop_length
    return Executor(CompiledStack(codec.encoder, size), size, codec.config.num_bits)


def decoder_executor(codec, frames):
    return Executor(CompiledStack(codec.decoder, frames), frames, 1)


@torch.no_grad()
def values_of(codec, wave, frames=CHUNK_FRAMES):
    """The values whose signs `encode` takes, in chunks of ``frames`` tokens."""
    size = frames * codec.hop_length
    run = codec.encoder
    if codec.use_cpu_fast_path:
        run = encoder_executor(codec, frames)
    parts, state = [], None
    for chunk in F.pad(wave, (0, -wave.shape[-1] % size)).mT.split(size, dim=1):
        y, state = run(chunk, state)
        parts.append(y)
    return torch.cat(parts, dim=1)[:, : -(-wave.shape[-1] // codec.hop_length)]


def assert_equal_except_ties(codec, codes, expected, wave):
    bits = codec.config.num_bits
    flipped = index_to_signs(codes[:, 0], bits) != index_to_signs(expected[:, 0], bits)
    assert (values_of(codec, wave)[flipped].abs() < VALUE_BOUND).all()


@pytest.mark.parametrize("config", [TINY, NARROW, WIDE], ids=["tiny", "narrow", "wide"])
@pytest.mark.parametrize("frames", [1, 2, 5, 75])
@torch.no_grad()
def test_executor_agrees_with_modules(config, frames):
    codec = untrained(config)
    encoder, decoder = encoder_executor(codec, frames), decoder_executor(codec, frames)
    fast = plain = fast_decoder = plain_decoder = None  # states
    for chunk in noise(-(-60 // frames) * frames).mT.split(frames * 320, dim=1):
        values, fast = encoder(chunk, fast)
        expected, plain = run_chunk(codec.encoder, chunk, plain)
        torch.testing.assert_close(values, expected, atol=VALUE_BOUND, rtol=0)
        signs = torch.where(expected > 0, 1.0, -1.0)
        audio, fast_decoder = decoder(signs, fast_decoder)
        expected, plain_decoder = run_chunk(codec.decoder, signs, plain_decoder)
        torch.testing.assert_close(audio, expected, atol=AUDIO_BOUND, rtol=0)
    for states in ((fast, plain), (fast_decoder, plain_decoder)):
        for found, wanted in zip(*states, strict=True):
            found = torch.from_numpy(found).view_as(wanted)
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("first", "then"), [(1, 4), (4, 1), (75, 3)])
@torch.no_grad()
def test_executor_continues_from_the_state_of_another_chunk_length(tiny, first, then):
    wave = noise(first * 10 + then * 10).mT
    cut = first * 3200
    state = plain_state = None
    run = encoder_executor(tiny, first)
    for chunk in wave[:, :cut].split(first * 320, dim=1):
        _, state = run(chunk, state)
        _, plain_state = run_chunk(tiny.encoder, chunk, plain_state)
    start, before = state, [part.copy() for part in state]
    run = encoder_executor(tiny, then)
    for chunk in wave[:, cut:].split(then * 320, dim=1):
        values, state = run(chunk, state)
        expected, plain_state = run_chunk(tiny.encoder, chunk, plain_state)
        torch.testing.assert_close(values, expected, atol=VALUE_BOUND, rtol=0)
    assert all(map(np.array_equal, before, start))  # a state is not changed by its use


@pytest.mark.parametrize(
    "sizes", [[480], [24000], [320], [7777, 24001, 3], [23998, 1, 1, 1, 1, 10**6]], ids=str
)
def test_stream_codes_do_not_depend_on_the_chunks(tiny, sizes):
    wave = noise(160)[..., :-100]
    expected = encode_batch(tiny, F.pad(wave, (0, 100)))
    assert torch.equal(push_in_chunks(tiny.stream_encoder(), wave, sizes), expected)
    decoded = push_in_chunks(tiny.stream_decoder(), expected, [5, 76, 1])
    assert torch.equal(decoded, decode_batch(tiny, expected))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 15, 74])
def test_stream_in_small_chunks_differs_in_ties_only(bundled, chunk):
    wave = speech(120)
    expected = encode_batch(bundled, wave)
    codes = push_in_chunks(bundled.stream_encoder(chunk), wave, [320 * chunk, 480])
    assert codes.shape == expected.shape
    assert_equal_except_ties(bundled, codes, expected, wave)
    audio = push_in_chunks(bundled.stream_decoder(chunk), expected, [chunk, 3])
    torch.testing.assert_close(audio, decode_batch(bundled, expected), atol=SOURCE_BOUND, rtol=0)


def test_rounding_of_values_is_below_the_bound_for_ties(bundled):
    wave = speech(75)
    expected = values_of(bundled, wave)
    for frames in (1, 5, 15):
        assert (values_of(bundled, wave, frames) - expected).abs().max() < VALUE_BOUND


def test_streams_of_one_model_are_independent(tiny):
    waves = [noise(20, seed=seed) for seed in (1, 2)]
    streams = [tiny.stream_encoder(2) for _ in waves]
    outputs = [[], []]
    for start in range(0, 20 * 320, 640):
        for stream, wave, parts in zip(streams, waves, outputs, strict=True):
            parts.append(stream.push(wave[..., start : start + 640]))
    for wave, parts in zip(waves, outputs, strict=True):
        alone = push_in_chunks(tiny.stream_encoder(2), wave, [640])
        assert torch.equal(torch.cat(parts, dim=-1), alone)


def test_returned_codes_and_samples_are_not_overwritten(tiny):
    wave = noise(20)
    codes = encode_batch(tiny, wave)
    for stream, chunks in (
        (tiny.stream_encoder(1), wave.split(320, dim=-1)),
        (tiny.stream_decoder(1), codes.split(1, dim=-1)),
    ):
        parts = [stream.push(chunk) for chunk in chunks[:10]]
        before = [part.clone() for part in parts]
        for chunk in chunks[10:]:
            stream.push(chunk)
        assert all(map(torch.equal, parts, before))


def test_threads_that_share_a_model_do_not_share_buffers(tiny):
    waves = [noise(100, seed=seed)[0] for seed in range(12)]
    expected = [tiny.encode([wave])[0] for wave in waves]
    samples = [tiny.decode([codes])[0] for codes in expected]
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda wave: tiny.encode([wave])[0], waves))
        audio = list(pool.map(lambda item: tiny.decode([item])[0], codes))
    assert all(map(torch.equal, codes, expected))
    assert all(map(torch.equal, audio, samples))


@pytest.mark.parametrize(("frames", "kept"), [(5, True), (6, False)])
def test_buffers_are_kept_except_those_of_long_chunks(tiny, frames, kept):
    stack = CompiledStack(tiny.decoder, 5)
    operations = stack.take(frames)
    stack.give_back(frames, operations)
    Executor(stack, frames, 1)(torch.ones(1, frames, 18), None)
    assert (stack.take(frames) is operations) == kept
    assert stack.take(frames) is not operations


@pytest.mark.parametrize("rows", [1, 3, 75, 1000])
def test_products_and_convolutions_agree_with_torch_in_any_size(rows):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(48, 64).requires_grad_(False), torch.randn(rows, 48)
    for factor in (1, 100):  # of the size: from a threshold on, other functions compute it
        wide = x.repeat(factor, 1)
        out = Buffer(torch.empty(len(wide), 64))
        Product(layer.weight, layer.bias)(Buffer(wide), out)
        torch.testing.assert_close(out.tensor, layer(wide))
    kernel, bias = torch.randn(48, 10), torch.randn(48)
    history = History((5, 48), 5 * rows)
    history.rows.copy_(torch.randn(5 + 5 * rows, 48))
    convolve = DepthwiseConv(kernel, bias, stride=5).bind(history)
    found = convolve(Buffer(torch.empty(rows, 48)))
    expected = F.conv1d(history.rows.T[None], kernel[:, None], bias, stride=5, groups=48)
    torch.testing.assert_close(found.tensor, expected[0].T)


def test_signals_of_a_batch_are_coded_as_if_alone(tiny):
    wave = noise(80, batch=3)
    codes = encode_batch(tiny, wave)
    assert torch.equal(codes, torch.cat([encode_batch(tiny, item[None]) for item in wave]))
    audio = decode_batch(tiny, codes)
    assert torch.equal(audio, torch.cat([decode_batch(tiny, item[None]) for item in codes]))


def test_new_weights_take_effect():
    codec, other = untrained(TINY), untrained(TINY, seed=5)
    wave = noise(80)
    before = encode_batch(codec, wave)
    codec.load_state_dict(other.state_dict())
    assert torch.equal(encode_batch(codec, wave), encode_batch(other, wave))
    assert not torch.equal(encode_batch(codec, wave), before)
    assert codec.state_dict().keys() == other.state_dict().keys()


def test_fast_path_is_used_for_the_waveform_kind_on_a_cpu(tiny, spectral, monkeypatch):
    assert tiny.use_cpu_fast_path
    assert not spectral.use_cpu_fast_path
    monkeypatch.setattr(tiny, "cpu_fast_path", False)
    assert not tiny.use_cpu_fast_path


def test_fast_path_computes_in_float32_under_autocast():
    codec, wave = untrained(TINY), noise(80)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = encode_batch(codec, wave)
        decoded = decode_batch(codec, codes)
    codec = untrained(TINY)
    assert torch.equal(codes, encode_batch(codec, wave))
    assert torch.equal(decoded, decode_batch(codec, codes))


def test_codec_without_fast_path_differs_in_ties_only(bundled, monkeypatch):
    wave = speech(160)
    expected = encode_batch(bundled, wave)
    audio = decode_batch(bundled, expected)
    monkeypatch.setattr(bundled, "cpu_fast_path", False)
    assert_equal_except_ties(bundled, encode_batch(bundled, wave), expected, wave)
    found = decode_batch(bundled, expected)
    torch.testing.assert_close(found, audio, atol=SOURCE_BOUND, rtol=0)


class OperationCounter(TorchDispatchMode):
    """Counts the operations that reach torch."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_token_takes_few_torch_operations(bundled):
    encoder, decoder = bundled.stream_encoder(1), bundled.stream_decoder(1)
    with OperationCounter() as counter:
        decoder.push(encoder.push(speech(1)))
    assert counter.count < 140  # the modules take 646


@pytest.mark.parametrize("level", [1e30, float("inf"), float("nan")])
def test_extreme_samples_are_encoded_without_a_warning(tiny, level):
    assert encode_batch(tiny, level * noise(3)).shape == (1, 1, 3)


@pytest.mark.parametrize("batch", [2, 64])
def test_batched_signals_agree_with_single_signals(tiny, batch, monkeypatch):
    monkeypatch.setattr(model_module, "MAX_BATCH", batch)
    waves = [noise(frames, seed=seed)[0] for seed, frames in enumerate(LENGTHS)]
    alone = tiny.encode(waves)
    for wave, codes, expected in zip(waves, tiny.encode_batched(waves), alone, strict=True):
        assert torch.equal(expected, encode_batch(tiny, wave[None])[0])
        assert codes.shape == expected.shape
        assert_equal_except_ties(tiny, codes[None], expected[None], wave[None])
    audio = tiny.decode_batched(alone)
    for codes, samples, wanted in zip(alone, audio, tiny.decode(alone), strict=True):
        assert torch.equal(wanted, decode_batch(tiny, codes[None])[0])
        torch.testing.assert_close(samples, wanted, atol=AUDIO_BOUND, rtol=0)


def test_batched_spectral_signals_agree_with_single_signals(spectral):
    waves = [noise(frames, seed=frames, hop=120)[0] for frames in LENGTHS]
    alone = spectral.encode(waves)
    for wave, codes, expected in zip(waves, spectral.encode_batched(waves), alone, strict=True):
        assert codes.shape == expected.shape
        assert_equal_except_ties(spectral, codes[None], expected[None], wave[None])
    audio = spectral.decode_batched(alone)
    for samples, wanted in zip(audio, spectral.decode(alone), strict=True):
        torch.testing.assert_close(samples, wanted, atol=AUDIO_BOUND, rtol=0)


def test_empty_batch_is_allowed(tiny):
    assert tiny.encode_batched([]) == tiny.decode_batched([]) == []


@pytest.mark.parametrize(("reach", "frames"), [(0, 2), (1, 1), (5, 2), (6, 2), (3, 10), (4, 4)])
def test_history_windows_span_past_and_chunk(reach, frames):
    history = History((reach, 3), frames)
    windows = history.windows(reach + 1).array
    signal = np.random.default_rng(0).normal(size=(7 * frames, 3)).astype(np.float32)
    padded = np.concatenate([np.zeros((reach, 3), np.float32), signal])
    end = np.zeros((reach, 3), np.float32)
    for start in range(0, len(signal), frames):
        history.past[:] = end
        history.chunk.array[:] = signal[start : start + frames]
        for frame, seen in enumerate(windows):
            assert np.array_equal(seen, padded[start + frame :][: reach + 1])
        end = history.end.copy()
