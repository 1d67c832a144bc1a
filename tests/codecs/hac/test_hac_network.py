import pytest
import torch

from codectool.codecs.hac.layers import RunningScale
from codectool.codecs.hac.model import HacCodec, fold
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.waveform import WaveNorm
from tests.batches import decode_batch, encode_batch
from tests.hac_models import load_preset

# name, output frames per second, parameters, million MACs per second, values of state
ENCODER = [
    ("stem", 3000, 1584, 4.6, 24),
    ("unit0_0", 3000, 5136, 14.8, 288),
    ("down1", 600, 5712, 14.4, 480),
    ("unit1_0", 600, 38112, 22.5, 576),
    ("unit1_1", 600, 38112, 22.5, 1728),
    ("down2", 150, 23616, 13.2, 896),
    ("unit2_0", 150, 203616, 30.3, 1344),
    ("unit2_1", 150, 203616, 30.3, 4032),
    ("down3", 75, 66176, 9.8, 576),
    ("unit3_0", 75, 335520, 25.0, 1728),
    ("unit3_1", 75, 335520, 25.0, 5184),
    ("project", 75, 5490, 0.4, 0),
]
DECODER = [
    ("first", 75, 21120, 1.6, 36),
    ("unit0_0", 75, 594816, 44.4, 2304),
    ("unit0_1", 75, 594816, 44.4, 6912),
    ("unit0_2", 75, 594816, 44.4, 20736),
    ("up1", 150, 106192, 7.9, 272),
    ("unit1_0", 150, 299472, 44.7, 1632),
    ("unit1_1", 150, 299472, 44.7, 4896),
    ("up2", 600, 45232, 6.7, 160),
    ("unit2_0", 600, 104480, 62.1, 960),
    ("unit2_1", 600, 104480, 62.1, 2880),
    ("up3", 3000, 11104, 6.5, 64),
    ("unit3_0", 3000, 8896, 25.9, 384),
    ("unit3_1", 3000, 8896, 25.9, 1152),
    ("head", 24000, 2112, 6.1, 96),
]


def build(name, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return HacNetwork(load_preset(name))


def noise(*shape, seed=0):
    return 0.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(module):
    return sum(p.numel() for p in module.parameters())


def table(stack, rate):
    rows = []
    for name, block in stack.blocks.items():
        macs = round(block.macs * rate / 1e6, 1)
        rate = rate * block.up / block.down
        rows.append((name, rate, count(block), macs, torch.Size(block.state_shape).numel()))
    return rows


@pytest.fixture(scope="module")
def full():
    return build("hac")


def test_layers_have_the_published_costs(full):
    assert table(full.encoder, 24000) == ENCODER
    assert table(full.decoder, 75) == DECODER


def test_full_model_has_the_published_costs(full):
    codec = fold(full)
    assert (count(full.encoder), count(full.decoder)) == (1_262_210, 2_795_904)
    assert count(codec) == 4_054_706
    assert round(codec.encoder.macs_per_second(24000) / 1e6) == 213
    assert round(codec.decoder.macs_per_second(75) / 1e6) == 428
    _, state = codec.encoder(torch.zeros(1, 320, 1))
    assert sum(part.numel() for part in state) == 16_856
    _, state = codec.decoder(torch.ones(1, 1, 18))
    assert sum(part.numel() for part in state) == 42_484


def test_full_model_has_the_published_receptive_field(full):
    codec = fold(full)
    assert 320 - codec.encoder.first_input(0) == 13_392
    # the first sample of a token depends on 98 tokens before, two of which are its look-ahead
    assert codec.decoder.first_input(0) == -98
    assert (codec.decode_context.before, codec.decode_context.after) == (96, 2)


def test_tiny_preset_is_small():
    assert 250_000 < count(build("hac-tiny")) < 350_000


def test_running_scales_give_features_unit_variance():
    network = build("hac-tiny").train()
    seen = {}

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output.square().mean().item())

    for name, module in network.named_modules():
        if isinstance(module, RunningScale):
            module.register_forward_hook(keep(name))
    network(noise(4, 1, 24000) * 0.01)
    assert len(seen) == 22
    assert all(0.99 < value < 1.01 for value in seen.values())


def test_wave_norm_removes_mean_and_scale():
    norm = WaveNorm().train()
    wave = 0.3 * noise(2, 1, 24000) + 0.02
    for _ in range(3):
        normal = norm(wave)
    assert abs(normal.mean()) < 1e-4
    assert abs(normal.std() - 1) < 1e-3
    torch.testing.assert_close(norm.restore(normal), wave)


def test_statistics_move_only_in_training_and_only_if_tracked():
    network = build("hac-tiny").train()
    network(noise(1, 1, 9600))
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.track_scales(False)
    network.bottleneck.updating = False
    network(noise(1, 1, 9600, seed=1))
    network.track_scales(True)
    network.bottleneck.updating = True
    network.eval()(noise(1, 1, 9600, seed=1))
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    network.track_scales(False)
    network.train()(noise(1, 1, 9600, seed=1))
    moved = {n for n, value in network.named_buffers() if not torch.equal(value, before[n])}
    assert {name.split(".")[0] for name in moved} == {"bottleneck"}


def test_every_parameter_gets_a_gradient_in_the_first_step():
    network = build("hac-tiny").train()
    output = network(noise(2, 1, 16000))
    assert output.audio.shape == output.target.shape == (2, 1, 16000 - 640)
    loss = (output.audio - output.target).abs().mean() + output.bottleneck.commitment
    loss.backward()
    dead = [name for name, p in network.named_parameters() if not p.grad.abs().max() > 0]
    assert dead == []


def test_target_is_aligned_with_the_output():
    network = build("hac-tiny").eval()
    wave = noise(1, 1, 9600)
    output = network(wave)
    assert torch.equal(output.target, wave[..., :-640])
    codec = fold(network)
    decoded = decode_batch(codec, encode_batch(codec, wave))
    torch.testing.assert_close(output.audio, decoded[..., :-640], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["hac-tiny", "hac-3.6-v12", "hac-3.6-v13"])
def test_folded_codec_computes_the_same_function(name):
    network = build(name).train()
    with torch.no_grad():
        for step in range(2):
            network(noise(1, 1, 24000, seed=step) + 0.05)
            for parameter in network.parameters():  # away from the initial zeros and ones
                parameter += 0.05 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(step)
                )
        network(noise(1, 1, 24000, seed=7) + 0.05)
        wave = noise(1, 1, 24000, seed=9)
        expected = network.eval()(wave)
        codec = fold(network)
        values, _ = codec.encoder(wave.mT)
        signs = torch.where(expected.bottleneck.values > 0, 1.0, -1.0)
        decoded = codec.decoder(signs)[0].mT
    delay = codec.delay_frames * codec.hop_length
    for found, wanted in (
        (values, expected.bottleneck.values),
        (decoded[..., delay:], expected.audio),
    ):
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_fold_does_not_change_the_network():
    network = build("hac-tiny")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert isinstance(fold(network), HacCodec)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_network_trains_under_autocast():
    network = build("hac-tiny").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(noise(1, 1, 9600))
    assert output.bottleneck.values.dtype == torch.float32
    output.audio.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
