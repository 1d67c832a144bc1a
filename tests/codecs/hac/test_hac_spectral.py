import pytest
import torch

from codectool.codecs.hac.blocks import Stack
from codectool.codecs.hac.codec import HacCodec, HacStreamDecoder, layer_costs, untrained
from codectool.codecs.hac.config import load_preset, parse_config
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.spectral import ResponseNorm, Spectrum, Synthesis
from tests.batches import decode_batch, encode_batch

HOP = 120
# preset: parameters, folded parameters, million multiply-adds of encoder and decoder
COSTS = {
    "hac-3.6-v12": (5_952_052, 5_948_292, 1667, 1941),
    "hac-3.6-v13": (3_623_396, 3_620_788, 913, 1114),
}


def noise(frames, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, 1, frames * HOP, generator=generator)


def small(name):
    """The preset with a few percent of its width."""
    values = {
        **load_preset(name).to_dict(),
        "channels": [4, 4, 8, 8],
        "hidden": [4, 4, 8, 16],
        "depth_channels": 24,
        "depth_hidden": 32,
    }
    return parse_config(values)


@pytest.fixture(scope="module", params=COSTS)
def codec(request):
    return untrained(small(request.param))


def run(block, x):
    stack = Stack([("only", block)])
    return stack(x, stack.start(len(x), x.device))[0]


@pytest.mark.parametrize("name", COSTS)
def test_counts_of_the_published_sizes(name):
    with torch.device("meta"):
        network = HacNetwork(load_preset(name))
        folded = HacCodec(network.config, *network.fold())
    encoder, decoder = layer_costs(network.encoder, 200), layer_costs(network.decoder, 200)
    assert (
        sum(p.numel() for p in network.parameters()),
        sum(p.numel() for p in folded.parameters()),
        round(sum(c.macs for c in encoder) / 1e6),
        round(sum(c.macs for c in decoder) / 1e6),
    ) == COSTS[name]


def test_facts(codec):
    assert (codec.sample_rate, codec.hop_length, codec.codebook_sizes) == (24000, 120, (2**18,))
    assert codec.decode_context.after == 3


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 4), (120, 4), (121, 5), (24000, 203)])
def test_three_more_tokens_complete_the_overlap(codec, samples, frames):
    assert codec.num_frames(samples) == codec.reference_frames(samples) == frames


def test_analysis_and_synthesis_give_the_signal_back_three_hops_late():
    wave = noise(20).mT
    again = run(Synthesis(480, HOP), run(Spectrum(480, HOP), wave))
    # the dropped Nyquist bin is the only loss: compare below it
    wave, again = (torch.fft.rfft(x[0, :, 0])[:-80] for x in (wave[:, : -3 * HOP], again[:, 360:]))
    assert (wave - again).abs().max() < 0.05 * wave.abs().max()


def test_a_tone_comes_back_exactly():
    time = torch.arange(20 * HOP) / 24000
    wave = torch.sin(2 * torch.pi * 440 * time).view(1, -1, 1)
    again = run(Synthesis(480, HOP), run(Spectrum(480, HOP), wave))
    torch.testing.assert_close(again[:, 720:], wave[:, 360:-360], atol=1e-4, rtol=0)


def test_response_norm_without_frequencies_is_x_times_its_relative_size():
    norm = ResponseNorm(3, over_frequency=False)
    x = torch.tensor([[[1.0, -2.0, 3.0]]])
    assert torch.equal(norm(x), x)
    norm.gamma.data.fill_(1.0)
    torch.testing.assert_close(norm(x), x + x * x.abs() / 2)


def test_response_norm_sees_one_frame_only():
    norm = ResponseNorm(3, over_frequency=True)
    norm.gamma.data.fill_(1.0)
    x = torch.randn(1, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norm(x)[:, 1:2], norm(x[:, 1:2]))


@pytest.mark.parametrize("frames", [0, 1, 3, 75, 80])
def test_whole_frames_in_whole_frames_out(codec, frames):
    codes = encode_batch(codec, noise(frames))
    assert codes.shape == (1, 1, frames)
    assert decode_batch(codec, codes).shape == (1, 1, frames * HOP)


def test_encoder_is_causal(codec):
    wave = noise(100)
    changed = wave.clone()
    changed[..., 40 * HOP :] += 0.5
    before, after = encode_batch(codec, wave), encode_batch(codec, changed)
    assert torch.equal(before[..., :40], after[..., :40])
    assert not torch.equal(before[..., 40:], after[..., 40:])


def test_decoder_needs_the_stated_context_and_no_more(codec):
    codes = encode_batch(codec, noise(120))
    before, after = codec.decode_context.before, codec.decode_context.after
    start = (100 - before) * HOP
    whole = decode_batch(codec, codes)[..., 100 * HOP : 105 * HOP]
    changed = codes.clone()
    changed[..., : 100 - before] ^= 2**18 - 1
    changed[..., 105 + after :] ^= 2**18 - 1
    assert torch.equal(decode_batch(codec, changed)[..., 100 * HOP : 105 * HOP], whole)
    part = decode_batch(codec, codes[..., 100 - before : 105 + after])
    part = part[..., 100 * HOP - start : 105 * HOP - start]
    torch.testing.assert_close(part, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("block_frames", [1, 15, 75])
def test_streams_agree_with_files(codec, block_frames):
    wave = noise(90)
    with torch.no_grad():
        state, values = codec.start_encoder(), []
        for block in wave.split(block_frames * HOP, dim=-1):
            new, state = codec.encode_values(block, state)
            values.append(new)
        expected, _ = codec.encode_values(wave, codec.start_encoder())
    torch.testing.assert_close(torch.cat(values, dim=1), expected, atol=1e-5, rtol=0)
    codes = encode_batch(codec, wave)
    stream = HacStreamDecoder(codec, block_frames=block_frames)
    audio = torch.cat([stream.push(codes), stream.flush()], dim=-1)
    torch.testing.assert_close(
        audio, decode_batch(codec, codes), atol=0 if block_frames == 75 else 2e-6, rtol=0
    )


def test_state_and_hyper_parameters_make_the_same_model(codec):
    again = HacCodec.from_state(codec.state_dict(), codec.hyper_parameters)
    codes = encode_batch(codec, noise(80))
    assert torch.equal(encode_batch(again, noise(80)), codes)
    assert torch.equal(decode_batch(again, codes), decode_batch(codec, codes))


@pytest.mark.parametrize("name", COSTS)
def test_every_parameter_gets_a_gradient_in_the_first_step(name):
    torch.manual_seed(0)
    network = HacNetwork(small(name)).train()
    output = network(noise(100, batch=2))
    assert output.audio.shape == output.target.shape == (2, 1, 97 * HOP)
    (output.audio - output.target).abs().mean().backward()
    dead = [n for n, p in network.named_parameters() if not p.grad.abs().max() > 0]
    assert dead == []
