import numpy as np
import pytest
import torch

from codectool.codecs.hac.codec import (
    BLOCK_FRAMES,
    HacCodec,
    HacStreamDecoder,
    HacStreamEncoder,
    untrained,
)
from codectool.codecs.hac.config import load_preset
from codectool.codecs.hac.quantizer import index_to_signs, signs_to_index
from codectool.errors import CheckpointError, ConfigError
from codectool.tokens import TokenLayout, Tokens
from tests.batches import decode_batch, encode_batch

HOP = 320


def noise(frames, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, 1, frames * HOP, generator=generator)


@pytest.fixture(scope="module")
def tiny():
    return untrained(load_preset("hac-tiny"))


@pytest.fixture(scope="module")
def full():
    return untrained(load_preset("hac"))


@torch.no_grad()
def values_by_block(codec, wave, sizes):
    state, values = codec.start_encoder(len(wave)), []
    for block in wave.split([size * HOP for size in sizes], dim=-1):
        new, state = codec.encode_values(block, state)
        values.append(new)
    return torch.cat(values, dim=1)


@torch.no_grad()
def audio_by_block(codec, codes, sizes):
    state, audio = codec.start_decoder(len(codes)), []
    for block in codes.split(sizes, dim=-1):
        new, state = codec.decode_block(block, state)
        audio.append(new)
    return torch.cat(audio, dim=-1)


def random_sizes(total, seed=0):
    rng, sizes = np.random.default_rng(seed), []
    while sum(sizes) < total:
        sizes.append(min(int(rng.integers(1, 40)), total - sum(sizes)))
    return sizes


def test_facts(full):
    assert (full.family, full.sample_rate, full.hop_length) == ("hac", 24000, 320)
    assert (full.codebook_sizes, full.min_frames, full.segment_frames) == ((2**18,), 1, None)


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (1, 1), (319, 1), (320, 1), (321, 2), (24000, 75), (264000, 825)],
)
def test_frames_of_a_length(tiny, samples, frames):
    assert tiny.num_frames(samples) == tiny.reference_frames(samples) == frames


@pytest.mark.parametrize("frames", [0, 1, 2, 73, 74, 75, 76, 825])
def test_whole_frames_in_whole_frames_out(tiny, frames):
    codes = encode_batch(tiny, noise(frames))
    assert codes.shape == (1, 1, frames)
    assert codes.dtype == torch.int64
    audio = decode_batch(tiny, codes)
    assert audio.shape == (1, 1, frames * HOP)
    assert audio.dtype == torch.float32


def test_tokens_of_an_untrained_model_are_diverse(tiny):
    codes = encode_batch(tiny, noise(300))
    assert len(codes.unique()) > 250
    frequency = (index_to_signs(codes[:, 0], 18) > 0).float().mean((0, 1))
    assert frequency.min() > 0.2
    assert frequency.max() < 0.8


def test_same_seed_same_model():
    states = [untrained(load_preset("hac-tiny"), seed).state_dict() for seed in (3, 3, 4)]
    same = [all(torch.equal(states[0][n], other[n]) for n in other) for other in states]
    assert same == [True, True, False]


def test_untrained_leaves_the_global_random_numbers_alone():
    before = torch.get_rng_state()
    untrained(load_preset("hac-tiny"))
    assert torch.equal(before, torch.get_rng_state())


def test_first_channel_is_the_first_bit_of_the_stream(tiny):
    signs = -torch.ones(1, 1, 18)
    signs[..., 0] = 1
    codes = signs_to_index(signs).view(1, 1, 1)
    assert codes.item() == 131072
    layout = TokenLayout("hac", tiny.sample_rate, tiny.hop_length, (18,))
    tokens = Tokens(codes.numpy(), layout, "00000000", 24000, 320)
    assert np.packbits(tokens.bits[0]).tobytes() == bytes.fromhex("800000")
    assert torch.equal(index_to_signs(codes[:, 0], 18), signs)


@pytest.mark.parametrize("frame", [1, 40, 80])
def test_encoder_is_causal(tiny, frame):
    wave = noise(100)
    changed = wave.clone()
    changed[..., frame * HOP :] += 0.5
    before, after = encode_batch(tiny, wave), encode_batch(tiny, changed)
    assert torch.equal(before[..., :frame], after[..., :frame])
    assert not torch.equal(before[..., frame:], after[..., frame:])


@pytest.mark.parametrize("frame", [2, 3, 40, 80])
def test_decoder_looks_two_tokens_ahead_and_no_further(tiny, frame):
    codes = encode_batch(tiny, noise(100))
    changed = codes.clone()
    changed[..., frame] ^= 2**18 - 1
    first = (
        ((decode_batch(tiny, codes) - decode_batch(tiny, changed)).abs() > 0)[0, 0]
        .nonzero()[0]
        .item()
    )
    assert (frame - 2) * HOP <= first < (frame - 1) * HOP


def test_stated_context_is_enough_to_decode_a_stretch(tiny):
    codes = encode_batch(tiny, noise(200))
    before, after = tiny.decode_context.before, tiny.decode_context.after
    whole = decode_batch(tiny, codes)[..., 150 * HOP : 160 * HOP]
    part = decode_batch(tiny, codes[..., 150 - before : 160 + after])
    part = part[..., before * HOP : (before + 10) * HOP]
    torch.testing.assert_close(part, whole, atol=1e-6, rtol=0)


def test_nothing_before_the_stated_context_matters(tiny):
    codes = encode_batch(tiny, noise(200))
    changed = codes.clone()
    changed[..., : 150 - tiny.decode_context.before] ^= 2**18 - 1
    start = 150 * HOP
    assert torch.equal(
        decode_batch(tiny, codes)[..., start:], decode_batch(tiny, changed)[..., start:]
    )
    changed[..., 150 - tiny.decode_context.before] ^= 2**18 - 1
    assert not torch.equal(
        decode_batch(tiny, codes)[..., start:], decode_batch(tiny, changed)[..., start:]
    )


def test_neither_length_nor_neighbours_change_a_token_or_a_sample(tiny):
    wave = noise(160, batch=3)
    codes = encode_batch(tiny, wave)
    assert torch.equal(encode_batch(tiny, wave[:1, :, : 100 * HOP]), codes[:1, :, :100])
    audio = decode_batch(tiny, codes)
    alone = decode_batch(tiny, codes[1:2, :, :100])
    torch.testing.assert_close(alone[..., : 98 * HOP], audio[1:2, :, : 98 * HOP], atol=1e-6, rtol=0)


def test_stream_in_canonical_blocks_is_bit_exact(full):
    wave = noise(190)
    codes = full.encode(wave)
    encoder, decoder = HacStreamEncoder(full), HacStreamDecoder(full)
    parts = [encoder.push(piece) for piece in wave.split(7777, dim=-1)] + [encoder.flush()]
    assert torch.equal(torch.cat(parts, dim=-1), codes)
    audio = [decoder.push(part) for part in parts] + [decoder.flush()]
    assert torch.equal(torch.cat(audio, dim=-1), full.decode(codes))


def test_bare_blocks_are_bit_exact_too(full):
    wave = noise(150)
    codes = full.encode(wave)
    values = values_by_block(full, wave, [BLOCK_FRAMES] * 2)
    assert torch.equal(signs_to_index(values).unsqueeze(1), codes)
    audio = audio_by_block(full, codes, [BLOCK_FRAMES] * 2)
    assert torch.equal(audio[..., 2 * HOP :], full.decode(codes)[..., : -2 * HOP])


@pytest.mark.parametrize("size", [1, 3, 15, "random"])
def test_other_block_sizes_agree_within_rounding(full, size):
    wave = noise(75, seed=2)
    sizes = random_sizes(75) if size == "random" else [size] * (75 // size)
    expected = values_by_block(full, wave, [75])
    values = values_by_block(full, wave, sizes)
    assert (values - expected).abs().max() < 1e-5  # features are of size 1
    flipped = (values > 0) != (expected > 0)
    assert (expected[flipped].abs() < 1e-5).all()
    codes = signs_to_index(expected).unsqueeze(1)
    difference = audio_by_block(full, codes, sizes) - audio_by_block(full, codes, [75])
    assert difference.abs().max() < 2e-6


@pytest.mark.parametrize("block_frames", [1, 4])
def test_streams_of_small_blocks_give_every_sample(tiny, block_frames):
    wave = noise(31)[..., :-100]
    encoder = HacStreamEncoder(tiny, block_frames=block_frames)
    codes = torch.cat([encoder.push(wave[..., :5000]), encoder.push(wave[..., 5000:])], dim=-1)
    codes = torch.cat([codes, encoder.flush()], dim=-1)
    padded = torch.nn.functional.pad(wave, (0, 100))
    assert torch.equal(codes, encode_batch(tiny, padded))
    decoder = HacStreamDecoder(tiny, block_frames=block_frames)
    now = decoder.push(codes)
    assert now.shape[-1] == (31 // block_frames * block_frames - 2) * HOP  # two tokens late
    audio = torch.cat([now, decoder.flush()], dim=-1)
    torch.testing.assert_close(audio, decode_batch(tiny, codes), atol=2e-6, rtol=0)


def test_no_look_ahead_is_a_model_too():
    values = {**load_preset("hac-tiny").to_dict(), "lookahead": 0}
    base = untrained(load_preset("hac-tiny"))
    codec = HacCodec.from_state(base.state_dict(), values)
    assert codec.decode_context.after == 0
    codes = encode_batch(codec, noise(20))
    late = base.decode(codes)
    torch.testing.assert_close(
        decode_batch(codec, codes)[..., 2 * HOP :], late[..., : -2 * HOP], atol=1e-6, rtol=0
    )


def test_state_and_hyper_parameters_make_the_same_model(tiny):
    state, wave = tiny.state_dict(), noise(80)
    again = HacCodec.from_state(state, tiny.hyper_parameters)
    codes = encode_batch(tiny, wave)
    assert torch.equal(encode_batch(again, wave), codes)
    assert torch.equal(decode_batch(again, codes), decode_batch(tiny, codes))
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(again.state_dict()[name], state[name]) for name in state)


def test_bfloat16_tensors_are_computed_with_in_float32(tiny):
    state = {name: tensor.bfloat16() for name, tensor in tiny.state_dict().items()}
    codec = HacCodec.from_state(state, tiny.hyper_parameters)
    assert {tensor.dtype for tensor in codec.state_dict().values()} == {torch.float32}
    assert decode_batch(codec, encode_batch(codec, noise(10))).isfinite().all()


def test_loading_needs_hyper_parameters(tiny):
    with pytest.raises(ConfigError, match="hyper-parameters"):
        HacCodec.from_state(tiny.state_dict(), None)


def test_tensors_that_do_not_fit_are_named(tiny):
    state = dict(tiny.state_dict())
    del state["encoder.stem.transform.bias"]
    state["encoder.oddity"] = torch.zeros(1)
    state["decoder.up1.bias"] = torch.zeros(5)
    with pytest.raises(CheckpointError) as caught:
        HacCodec.from_state(state, tiny.hyper_parameters)
    for part in ("encoder.stem.transform.bias", "encoder.oddity", "decoder.up1.bias (5,)"):
        assert part in str(caught.value)


def test_runs_under_autocast(tiny):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = encode_batch(tiny, noise(80))
        audio = decode_batch(tiny, codes)
    assert audio.dtype == torch.float32
    assert (audio - decode_batch(tiny, codes)).abs().max() < 0.1 * audio.abs().max()
