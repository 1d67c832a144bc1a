import pytest
import torch

from codectool.codecs.hac.blocks import Stack
from codectool.codecs.hac.model import HacCodec
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.spectral import STFT, InverseSTFT, ResponseNorm
from tests.batches import decode_batch, encode_batch, push_in_chunks
from tests.hac_models import load_preset, small_preset, untrained

HOP = 120
# preset: parameters, folded parameters, million MACs per second of encoder and decoder
COSTS = {
    "hac-3.6-v12": (5_952_052, 5_948_292, 1667, 1941),
    "hac-3.6-v13": (3_623_396, 3_620_788, 913, 1114),
}


def noise(frames, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, 1, frames * HOP, generator=generator)


@pytest.fixture(scope="module", params=COSTS)
def codec(request):
    return untrained(small_preset(request.param))


def run(block, x):
    return Stack({"only": block})(x)[0]


@pytest.mark.parametrize("name", COSTS)
def test_presets_have_the_published_costs(name):
    with torch.device("meta"):
        network = HacNetwork(load_preset(name))
        folded = HacCodec(network.config, *network.fold())
    assert (
        sum(p.numel() for p in network.parameters()),
        sum(p.numel() for p in folded.parameters()),
        round(network.encoder.macs_per_second(200) / 1e6),
        round(network.decoder.macs_per_second(200) / 1e6),
    ) == COSTS[name]


def test_attributes_match_the_preset(codec):
    assert (codec.sample_rate, codec.hop_length, codec.codebook_sizes) == (24000, 120, (2**18,))
    assert codec.decode_context.after == 3


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 4), (120, 4), (121, 5), (24000, 203)])
def test_three_extra_tokens_complete_the_overlap(codec, samples, frames):
    assert codec.num_frames(samples) == codec.reference_frames(samples) == frames


def test_inverse_stft_restores_the_signal_three_hops_late():
    wave = noise(20).mT
    again = run(InverseSTFT(480, HOP), run(STFT(480, HOP), wave))
    # only the dropped Nyquist bin is lost, so compare below it
    wave, again = (torch.fft.rfft(x[0, :, 0])[:-80] for x in (wave[:, : -3 * HOP], again[:, 360:]))
    assert (wave - again).abs().max() < 0.05 * wave.abs().max()


def test_inverse_stft_restores_a_tone_exactly():
    time = torch.arange(20 * HOP) / 24000
    wave = torch.sin(2 * torch.pi * 440 * time).view(1, -1, 1)
    again = run(InverseSTFT(480, HOP), run(STFT(480, HOP), wave))
    torch.testing.assert_close(again[:, 720:], wave[:, 360:-360], atol=1e-4, rtol=0)


def test_response_norm_without_frequencies_scales_by_relative_magnitude():
    norm = ResponseNorm(3, over_frequency=False)
    x = torch.tensor([[[1.0, -2.0, 3.0]]])
    assert torch.equal(norm(x), x)
    norm.gamma.data.fill_(1.0)
    torch.testing.assert_close(norm(x), x + x * x.abs() / 2)


def test_response_norm_depends_on_one_frame_only():
    norm = ResponseNorm(3, over_frequency=True)
    norm.gamma.data.fill_(1.0)
    x = torch.randn(1, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norm(x)[:, 1:2], norm(x[:, 1:2]))


@pytest.mark.parametrize("frames", [0, 1, 3, 75, 80])
def test_encode_and_decode_keep_the_number_of_frames(codec, frames):
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


def test_decode_context_is_sufficient_and_necessary(codec):
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


@pytest.mark.parametrize("chunk_frames", [1, 15, 75])
def test_streams_agree_with_encode_and_decode(codec, chunk_frames):
    wave = noise(90)
    with torch.no_grad():
        state, values = None, []
        for chunk in wave.mT.split(chunk_frames * HOP, dim=1):
            y, state = codec.encoder(chunk, state)
            values.append(y)
        expected, _ = codec.encoder(wave.mT)
    torch.testing.assert_close(torch.cat(values, dim=1), expected, atol=1e-5, rtol=0)
    codes = encode_batch(codec, wave)
    audio = push_in_chunks(codec.stream_decoder(chunk_frames), codes, [90])
    torch.testing.assert_close(
        audio, decode_batch(codec, codes), atol=0 if chunk_frames == 75 else 2e-6, rtol=0
    )


def test_state_and_hyper_parameters_define_the_model(codec):
    again = HacCodec.from_state(codec.state_dict(), codec.hyper_parameters)
    codes = encode_batch(codec, noise(80))
    assert torch.equal(encode_batch(again, noise(80)), codes)
    assert torch.equal(decode_batch(again, codes), decode_batch(codec, codes))


@pytest.mark.parametrize("name", COSTS)
def test_every_parameter_gets_a_gradient_in_the_first_step(name):
    torch.manual_seed(0)
    network = HacNetwork(small_preset(name)).train()
    output = network(noise(100, batch=2))
    assert output.audio.shape == output.target.shape == (2, 1, 97 * HOP)
    (output.audio - output.target).abs().mean().backward()
    dead = [n for n, p in network.named_parameters() if not p.grad.abs().max() > 0]
    assert dead == []
