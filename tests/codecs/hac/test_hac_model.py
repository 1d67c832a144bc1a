"""`HacCodec` on random weights: causality, context, chunks, loading."""

import numpy as np
import pytest
import torch

from codectool.codecs.hac.model import CHUNK_FRAMES, HacCodec, run_chunk
from codectool.codecs.hac.quantizer import index_to_signs, signs_to_index
from codectool.errors import CheckpointError, ConfigError
from codectool.schema import to_json
from codectool.tokens import TokenLayout, Tokens
from tests.batches import decode_batch, encode_batch, push_in_chunks
from tests.hac_models import load_preset, untrained

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
def run_in_chunks(stack, x, sizes):
    """The plain modules on chunks of these sizes, with carried state."""
    state, parts = None, []
    for chunk in torch.split(x, sizes, dim=1):
        y, state = run_chunk(stack, chunk, state)
        parts.append(y)
    return torch.cat(parts, dim=1)


def random_sizes(total, seed=0):
    rng, sizes = np.random.default_rng(seed), []
    while sum(sizes) < total:
        sizes.append(min(int(rng.integers(1, 40)), total - sum(sizes)))
    return sizes


def test_attributes_match_the_preset(full):
    assert (full.family, full.sample_rate, full.hop_length) == ("hac", 24000, 320)
    assert (full.codebook_sizes, full.min_frames, full.segment_frames) == ((2**18,), 1, None)


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (1, 1), (319, 1), (320, 1), (321, 2), (24000, 75), (264000, 825)],
)
def test_num_frames_rounds_up(tiny, samples, frames):
    assert tiny.num_frames(samples) == tiny.reference_frames(samples) == frames


@pytest.mark.parametrize("frames", [0, 1, 2, 73, 74, 75, 76, 825])
def test_encode_and_decode_keep_the_number_of_frames(tiny, frames):
    codes = encode_batch(tiny, noise(frames))
    assert codes.shape == (1, 1, frames)
    assert codes.dtype == torch.int64
    audio = decode_batch(tiny, codes)
    assert audio.shape == (1, 1, frames * HOP)
    assert audio.dtype == torch.float32


def test_untrained_model_has_diverse_tokens(tiny):
    codes = encode_batch(tiny, noise(300))
    assert len(codes.unique()) > 250
    frequency = (index_to_signs(codes[:, 0], 18) > 0).float().mean((0, 1))
    assert frequency.min() > 0.2
    assert frequency.max() < 0.8


def test_untrained_model_depends_on_its_seed_only():
    before = torch.get_rng_state()
    states = [untrained(load_preset("hac-tiny"), seed).state_dict() for seed in (3, 3, 4)]
    same = [all(torch.equal(states[0][n], other[n]) for n in other) for other in states]
    assert same == [True, True, False]
    assert torch.equal(before, torch.get_rng_state())


def test_first_channel_is_the_first_bit_of_a_token(tiny):
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
def test_decoder_looks_two_tokens_ahead(tiny, frame):
    codes = encode_batch(tiny, noise(100))
    changed = codes.clone()
    changed[..., frame] ^= 2**18 - 1
    difference = (decode_batch(tiny, codes) - decode_batch(tiny, changed)).abs()[0, 0]
    first = (difference > 0).nonzero()[0].item()
    assert (frame - 2) * HOP <= first < (frame - 1) * HOP


def test_decode_context_is_sufficient(tiny):
    codes = encode_batch(tiny, noise(200))
    before, after = tiny.decode_context.before, tiny.decode_context.after
    whole = decode_batch(tiny, codes)[..., 150 * HOP : 160 * HOP]
    part = decode_batch(tiny, codes[..., 150 - before : 160 + after])
    part = part[..., before * HOP : (before + 10) * HOP]
    torch.testing.assert_close(part, whole, atol=1e-6, rtol=0)


def test_decode_context_is_necessary(tiny):
    codes = encode_batch(tiny, noise(200))
    expected = decode_batch(tiny, codes)[..., 150 * HOP :]
    changed = codes.clone()
    changed[..., : 150 - tiny.decode_context.before] ^= 2**18 - 1
    assert torch.equal(decode_batch(tiny, changed)[..., 150 * HOP :], expected)
    changed[..., 150 - tiny.decode_context.before] ^= 2**18 - 1
    assert not torch.equal(decode_batch(tiny, changed)[..., 150 * HOP :], expected)


def test_tokens_and_samples_depend_neither_on_length_nor_on_the_batch(tiny):
    wave = noise(160, batch=3)
    codes = encode_batch(tiny, wave)
    assert torch.equal(encode_batch(tiny, wave[:1, :, : 100 * HOP]), codes[:1, :, :100])
    audio = decode_batch(tiny, codes)
    alone = decode_batch(tiny, codes[1:2, :, :100])
    torch.testing.assert_close(alone[..., : 98 * HOP], audio[1:2, :, : 98 * HOP], atol=1e-6, rtol=0)


@pytest.mark.parametrize("cpu_fast_path", [True, False])
def test_streams_equal_encode_and_decode_bit_for_bit(full, monkeypatch, cpu_fast_path):
    monkeypatch.setattr(full, "cpu_fast_path", cpu_fast_path)
    wave = noise(190)
    codes = encode_batch(full, wave)
    assert torch.equal(push_in_chunks(full.stream_encoder(), wave, [7777]), codes)
    audio = push_in_chunks(full.stream_decoder(), codes, [24, 25, 1])
    assert torch.equal(audio, decode_batch(full, codes))


@torch.no_grad()
def test_modules_in_chunks_equal_encode_and_decode_bit_for_bit(full, monkeypatch):
    monkeypatch.setattr(full, "cpu_fast_path", False)
    wave = noise(150)
    codes = encode_batch(full, wave)
    values = run_in_chunks(full.encoder, wave.mT, CHUNK_FRAMES * HOP)
    assert torch.equal(signs_to_index(values).unsqueeze(1), codes)
    audio = run_in_chunks(full.decoder, index_to_signs(codes[:, 0], 18), CHUNK_FRAMES).mT
    assert torch.equal(audio[..., 2 * HOP :], decode_batch(full, codes)[..., : -2 * HOP])


@pytest.mark.parametrize("size", [1, 3, 15, "random"])
def test_modules_in_other_chunks_agree_within_rounding(full, size):
    wave = noise(75, seed=2).mT
    sizes = random_sizes(75) if size == "random" else [size] * (75 // size)
    expected = run_in_chunks(full.encoder, wave, [75 * HOP])
    values = run_in_chunks(full.encoder, wave, [size * HOP for size in sizes])
    assert (values - expected).abs().max() < 1e-5  # features have variance 1
    flipped = (values > 0) != (expected > 0)
    assert (expected[flipped].abs() < 1e-5).all()
    signs = torch.where(expected > 0, 1.0, -1.0)
    audio = run_in_chunks(full.decoder, signs, sizes)
    assert (audio - run_in_chunks(full.decoder, signs, [75])).abs().max() < 2e-6


@pytest.mark.parametrize("chunk_frames", [1, 4])
def test_stream_in_small_chunks_returns_every_sample(tiny, chunk_frames):
    wave = noise(31)[..., :-100]
    codes = push_in_chunks(tiny.stream_encoder(chunk_frames), wave, [5000, 10**6])
    assert torch.equal(codes, encode_batch(tiny, torch.nn.functional.pad(wave, (0, 100))))
    decoder = tiny.stream_decoder(chunk_frames)
    first = decoder.push(codes)
    assert first.shape[-1] == (31 // chunk_frames * chunk_frames - 2) * HOP  # two tokens late
    audio = torch.cat([first, decoder.flush()], dim=-1)
    torch.testing.assert_close(audio, decode_batch(tiny, codes), atol=2e-6, rtol=0)


@pytest.mark.parametrize("cpu_fast_path", [True, False])
def test_streams_without_input_return_nothing(tiny, monkeypatch, cpu_fast_path):
    monkeypatch.setattr(tiny, "cpu_fast_path", cpu_fast_path)
    for stream, x in (
        (tiny.stream_encoder(), torch.zeros(1, 1, 0)),
        (tiny.stream_decoder(), torch.zeros(1, 1, 0, dtype=torch.int64)),
    ):
        assert stream.push(x).shape == stream.flush().shape == (1, 1, 0)


def test_codec_without_lookahead_decodes_without_delay():
    values = {**to_json(load_preset("hac-tiny")), "lookahead": 0}
    base = untrained(load_preset("hac-tiny"))
    codec = HacCodec.from_state(base.state_dict(), values)
    assert codec.decode_context.after == 0
    codes = encode_batch(codec, noise(20))
    late = decode_batch(codec, codes)[..., 2 * HOP :]
    expected = decode_batch(base, codes)[..., : -2 * HOP]
    torch.testing.assert_close(late, expected, atol=1e-6, rtol=0)


def test_state_and_hyper_parameters_define_the_model(tiny):
    state, wave = tiny.state_dict(), noise(80)
    again = HacCodec.from_state(state, tiny.hyper_parameters)
    codes = encode_batch(tiny, wave)
    assert torch.equal(encode_batch(again, wave), codes)
    assert torch.equal(decode_batch(again, codes), decode_batch(tiny, codes))
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(again.state_dict()[name], state[name]) for name in state)


def test_bfloat16_tensors_are_loaded_as_float32(tiny):
    state = {name: tensor.bfloat16() for name, tensor in tiny.state_dict().items()}
    codec = HacCodec.from_state(state, tiny.hyper_parameters)
    assert {tensor.dtype for tensor in codec.state_dict().values()} == {torch.float32}
    assert decode_batch(codec, encode_batch(codec, noise(10))).isfinite().all()


def test_loading_needs_hyper_parameters(tiny):
    with pytest.raises(ConfigError, match="hyper-parameters"):
        HacCodec.from_state(tiny.state_dict(), None)


def test_loading_names_every_tensor_that_does_not_fit(tiny):
    state = dict(tiny.state_dict())
    del state["encoder.stem.transform.bias"]
    state["encoder.oddity"] = torch.zeros(1)
    state["decoder.up1.bias"] = torch.zeros(5)
    with pytest.raises(CheckpointError) as caught:
        HacCodec.from_state(state, tiny.hyper_parameters)
    for part in ("encoder.stem.transform.bias", "encoder.oddity", "decoder.up1.bias (5,)"):
        assert part in str(caught.value)


def test_codec_runs_under_autocast(tiny):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = encode_batch(tiny, noise(80))
        audio = decode_batch(tiny, codes)
    assert audio.dtype == torch.float32
    assert (audio - decode_batch(tiny, codes)).abs().max() < 0.1 * audio.abs().max()


def test_stream_keeps_its_form_when_autocast_changes(tiny):
    wave = noise(80)
    expected = encode_batch(tiny, wave)
    audio = decode_batch(tiny, expected)
    encoder, decoder = tiny.stream_encoder(), tiny.stream_decoder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = [encoder.push(wave), encoder.flush()]
        samples = [decoder.push(expected), decoder.flush()]
    assert torch.equal(torch.cat(codes, dim=-1), expected)
    assert torch.equal(torch.cat(samples, dim=-1), audio)
