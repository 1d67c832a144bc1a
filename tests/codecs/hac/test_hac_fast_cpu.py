"""The steps against the blocks that they stand for, and streams against whole files."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import codectool
from codectool.codecs.hac import codec as ragged
from codectool.codecs.hac.codec import BLOCK_FRAMES, untrained
from codectool.codecs.hac.config import load_preset, parse_config
from codectool.codecs.hac.fast_cpu import BlockRunner, Ring, StepRunner
from codectool.codecs.hac.quantizer import index_to_signs
from tests.batches import decode_batch, encode_batch

CLIP = Path(__file__).parents[3] / "assets" / "speech_espeak.flac"
VALUE_BOUND = 5e-5  # rounding of the values whose signs are the bits; they are of size 1
AUDIO_BOUND = 2e-6
BLOCKS = [1, 2, 3, 7, 15, 74]

TINY = load_preset("hac-tiny")
ODD = dataclasses.replace(  # stages without units, kernels of one frame, no look-ahead
    TINY,
    kernel=1,
    taps=1,
    token_kernel=1,
    lookahead=0,
    encoder_dilations=((), (), (1,), ()),
    decoder_dilations=((), (1, 5), (), ()),
)
LONG_REACH = dataclasses.replace(TINY, kernel=9, decoder_dilations=((31,), (1,), (7,), (1,)))


def noise(frames, batch=1, seed=0, hop=320):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, 1, frames * hop, generator=generator)


def speech(frames):
    audio, _ = soundfile.read(CLIP, dtype="float32")  # a higher voice at the model's rate
    return torch.from_numpy(audio[: frames * 320]).view(1, 1, -1)


@pytest.fixture(scope="module")
def tiny():
    return untrained(TINY)


@pytest.fixture(scope="module")
def shipped():
    return codectool.load("hac", device="cpu").model


@pytest.fixture(scope="module")
def spectral():
    narrow = {"channels": [4, 4, 8, 8], "hidden": [4, 4, 8, 16], "depth_channels": 24}
    return untrained(parse_config({**load_preset("hac-3.6-v13").to_dict(), **narrow}))


def in_pieces(stream, x, sizes):
    """Everything a stream gives out for ``x`` in pieces of the given sizes, again and again."""
    parts, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= x.shape[-1]:
            return torch.cat([*parts, stream.flush()], dim=-1)
        parts.append(stream.push(x[..., start : start + size]))
        start += size


@torch.no_grad()
def values_of(codec, wave):
    """The values whose signs `encode` takes."""
    runner = codec.encoder_runner(1, BLOCK_FRAMES)
    wave = torch.nn.functional.pad(wave, (0, -wave.shape[-1] % (BLOCK_FRAMES * codec.hop_length)))
    blocks = wave.mT.split(BLOCK_FRAMES * codec.hop_length, dim=1)
    return torch.cat([runner(block) for block in blocks], dim=1)


def assert_equal_but_for_ties(codec, codes, expected, wave):
    values = values_of(codec, wave)[:, : codes.shape[-1]]
    bits = codec.config.num_bits
    flipped = index_to_signs(codes[:, 0], bits) != index_to_signs(expected[:, 0], bits)
    assert (values[flipped].abs() < VALUE_BOUND).all()


def both_ways(codec, frames):
    """A step runner and a block runner for the encoder, and for the decoder."""
    encoder = codec.encoder_runner(1, frames), BlockRunner(codec.encoder, 1, codec.device)
    decoder = codec.decoder_runner(1, frames), BlockRunner(codec.decoder, 1, codec.device)
    return encoder, decoder


@pytest.mark.parametrize("config", [TINY, ODD, LONG_REACH], ids=["tiny", "odd", "long reach"])
@pytest.mark.parametrize("frames", [1, 2, 5, 75])
@torch.no_grad()
def test_steps_compute_what_the_blocks_compute(config, frames):
    codec = untrained(config)
    (fast, plain), (fast_decoder, plain_decoder) = both_ways(codec, frames)
    assert isinstance(fast, StepRunner)
    for block in noise(-(-60 // frames) * frames).mT.split(frames * 320, dim=1):
        values, expected = fast(block), plain(block)
        torch.testing.assert_close(values, expected, atol=VALUE_BOUND, rtol=0)
        signs = torch.where(expected > 0, 1.0, -1.0)
        made, wanted = fast_decoder(signs), plain_decoder(signs)
        torch.testing.assert_close(made, wanted, atol=AUDIO_BOUND, rtol=0)
    for runner, blocks in ((fast, plain), (fast_decoder, plain_decoder)):
        for end, wanted in zip(runner.state(), blocks.state(), strict=True):
            torch.testing.assert_close(end, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("first", "then"), [(1, 4), (4, 1), (75, 3)])
@torch.no_grad()
def test_a_stream_goes_on_from_the_state_of_another(tiny, first, then):
    wave = noise(first * 10 + then * 10).mT
    (start, _), _ = both_ways(tiny, first)
    (end, plain), _ = both_ways(tiny, then)
    for block in wave[:, : first * 3200].split(first * 320, dim=1):
        start(block)
    before = [part.clone() for part in start.state()]
    end.load(start.state())
    plain.load(start.state())
    for block in wave[:, first * 3200 :].split(then * 320, dim=1):
        torch.testing.assert_close(end(block), plain(block), atol=VALUE_BOUND, rtol=0)
    assert all(map(torch.equal, before, start.state()))


@pytest.mark.parametrize(
    "sizes", [[480], [24000], [320], [7777, 24001, 3], [23998, 1, 1, 1, 1, 10**6]], ids=str
)
def test_codes_are_the_same_however_the_samples_come(tiny, sizes):
    wave = noise(160)[..., :-100]
    expected = encode_batch(tiny, torch.nn.functional.pad(wave, (0, 100)))
    assert torch.equal(in_pieces(tiny.stream_encoder(), wave, sizes), expected)
    decoded = in_pieces(tiny.stream_decoder(), expected, [5, 76, 1])
    assert torch.equal(decoded, decode_batch(tiny, expected))


@pytest.mark.parametrize("block", BLOCKS)
def test_small_blocks_differ_in_ties_only(shipped, block):
    wave = speech(120)
    expected = encode_batch(shipped, wave)
    codes = in_pieces(shipped.stream_encoder(block), wave, [320 * block, 480])
    assert codes.shape == expected.shape
    assert_equal_but_for_ties(shipped, codes, expected, wave)
    audio = in_pieces(shipped.stream_decoder(block), expected, [block, 3])
    torch.testing.assert_close(audio, decode_batch(shipped, expected), atol=AUDIO_BOUND, rtol=0)


@torch.no_grad()
def test_rounding_of_the_values_is_far_below_the_bound_of_ties(shipped):
    wave = speech(75)
    expected = values_of(shipped, wave)
    for block in (1, 5, 15):
        runner = shipped.encoder_runner(1, block)
        values = torch.cat([runner(piece) for piece in wave.mT.split(block * 320, 1)], dim=1)
        assert (values - expected).abs().max() < VALUE_BOUND


def test_streams_of_one_model_do_not_disturb_each_other(tiny):
    waves = [noise(20, seed=seed) for seed in (1, 2)]
    streams = [tiny.stream_encoder(2) for _ in waves]
    made = [[], []]
    for start in range(0, 20 * 320, 640):
        for stream, wave, parts in zip(streams, waves, made, strict=True):
            parts.append(stream.push(wave[..., start : start + 640]))
    kept = [[part.clone() for part in parts] for parts in made]
    for wave, parts, clones in zip(waves, made, kept, strict=True):
        alone = in_pieces(tiny.stream_encoder(2), wave, [640])
        assert torch.equal(torch.cat(parts, dim=-1), alone)
        assert all(map(torch.equal, parts, clones))


def test_samples_given_out_stay_as_they_are(tiny):
    codes = encode_batch(tiny, noise(20))
    stream = tiny.stream_decoder(1)
    parts = [stream.push(codes[..., frame : frame + 1]) for frame in range(10)]
    before = [part.clone() for part in parts]
    for frame in range(10, 20):
        stream.push(codes[..., frame : frame + 1])
    assert all(map(torch.equal, parts, before))


def test_items_of_a_batch_are_coded_as_if_alone(tiny):
    wave = noise(80, batch=3)
    codes = encode_batch(tiny, wave)
    assert torch.equal(codes, torch.cat([encode_batch(tiny, item[None]) for item in wave]))
    audio = decode_batch(tiny, codes)
    assert torch.equal(audio, torch.cat([decode_batch(tiny, item[None]) for item in codes]))


def test_new_weights_take_effect(tiny):
    codec, other = untrained(TINY), untrained(TINY, seed=5)
    wave = noise(80)
    before = encode_batch(codec, wave)
    codec.load_state_dict(other.state_dict())
    assert torch.equal(encode_batch(codec, wave), encode_batch(other, wave))
    assert not torch.equal(encode_batch(codec, wave), before)
    assert codec.state_dict().keys() == other.state_dict().keys()


def test_which_way_is_chosen(tiny, spectral):
    assert isinstance(tiny.encoder_runner(1, 1), StepRunner)
    assert isinstance(tiny.encoder_runner(2, 1), BlockRunner)
    assert isinstance(spectral.encoder_runner(1, 1), BlockRunner)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert isinstance(tiny.encoder_runner(1, 1), BlockRunner)


class Operations(TorchDispatchMode):
    """Counts what reaches torch."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_token_takes_few_operations(shipped):
    encoder, decoder = shipped.stream_encoder(1), shipped.stream_decoder(1)
    with Operations() as made:
        decoder.push(encoder.push(speech(1)))
    assert made.count < 140  # the blocks take 646


@pytest.mark.parametrize("level", [1e30, float("inf"), float("nan")])
def test_samples_out_of_all_bounds_are_coded_without_a_warning(tiny, level):
    assert encode_batch(tiny, level * noise(3)).shape == (1, 1, 3)


LENGTHS = [80, 1, 75, 160, 3, 76]


@pytest.mark.parametrize("batch", [2, 64])
def test_signals_side_by_side_are_as_alone(tiny, batch, monkeypatch):
    monkeypatch.setattr(ragged, "BATCH", batch)
    waves = [noise(frames, seed=seed)[0] for seed, frames in enumerate(LENGTHS)]
    made = tiny.encode_together(waves)
    alone = tiny.encode(waves)
    for wave, codes, expected in zip(waves, made, alone, strict=True):
        assert torch.equal(expected, encode_batch(tiny, wave[None])[0])
        assert codes.shape == expected.shape
        assert_equal_but_for_ties(tiny, codes[None], expected[None], wave[None])
    audio = tiny.decode_together(alone)
    for codes, samples, wanted in zip(alone, audio, tiny.decode(alone), strict=True):
        assert torch.equal(wanted, decode_batch(tiny, codes[None])[0])
        torch.testing.assert_close(samples, wanted, atol=AUDIO_BOUND, rtol=0)


def test_spectral_signals_side_by_side_are_as_alone(spectral):
    waves = [noise(frames, seed=frames, hop=120)[0] for frames in LENGTHS]
    alone = spectral.encode(waves)
    for wave, codes, expected in zip(waves, spectral.encode_together(waves), alone, strict=True):
        assert codes.shape == expected.shape
        assert_equal_but_for_ties(spectral, codes[None], expected[None], wave[None])
    audio = spectral.decode_together(alone)
    for samples, wanted in zip(audio, spectral.decode(alone), strict=True):
        torch.testing.assert_close(samples, wanted, atol=AUDIO_BOUND, rtol=0)


def test_nothing_side_by_side_is_nothing(tiny):
    assert tiny.encode_together([]) == tiny.decode_together([]) == []


@pytest.mark.parametrize(("reach", "frames"), [(0, 2), (1, 1), (5, 2), (6, 2), (3, 10), (4, 4)])
def test_a_ring_shows_the_last_frames_of_an_endless_signal(reach, frames):
    ring = Ring(reach, frames, 3)
    windows = ring.windows(reach + 1)
    signal = np.random.default_rng(0).normal(size=(7 * frames, 3)).astype(np.float32)
    padded = np.concatenate([np.zeros((reach, 3), np.float32), signal])
    for start in range(0, len(signal), frames):
        assert np.array_equal(ring.past(), padded[start : start + reach])
        ring.piece.array[:] = signal[start : start + frames]
        for frame, seen in enumerate(windows[ring.turn].array):
            assert np.array_equal(seen, padded[start + frame :][: reach + 1])
        ring.advance()
