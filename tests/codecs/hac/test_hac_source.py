"""The source of harmonics and noise: phase, noise, filters, and the decoder that has one."""

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from codectool.codecs.hac.fast_cpu import CompiledStack, Executor
from codectool.codecs.hac.model import run_chunk
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.quantizer import index_to_signs
from codectool.codecs.hac.source import (
    LOWEST_PITCH,
    HarmonicNoise,
    PitchTracker,
    lock_phase,
    minimum_phase_low_pass,
)
from codectool.codecs.hac.unfold import calibrate_, load_folded_
from codectool.errors import ConfigError
from codectool.schema import to_json
from tests.hac_models import load_preset, untrained
from tests.hac_models import preset_with_source as config

RATE, FRAME, PERIOD = 24000, 160, 1200
FEWER_UNITS = ((1, 3, 9), (1, 3), (1,), (1,))


@pytest.fixture(scope="module")
def codec():
    codec = untrained(config())
    torch.manual_seed(1)
    torch.nn.init.normal_(codec.decoder.blocks["tail"].source.context.narrow.weight, std=0.1)
    return codec


@pytest.fixture(scope="module")
def codes():
    return torch.randint(2**18, (1, 200), generator=torch.Generator().manual_seed(0))


def source(channels=4, **changes):
    torch.manual_seed(0)
    return HarmonicNoise(config(**changes).source, channels, FRAME, RATE, PERIOD)


START = (0.0, 0.0, 0.0)


def tracks(frames, pitch, voicing=1.0):
    steps = torch.arange(frames) * FRAME * pitch / RATE
    track = torch.stack(
        [steps % 1, torch.full((frames,), pitch / RATE), torch.full((frames,), voicing)]
    )
    return track.T[None].float()


@torch.no_grad()
def render(block, frames, pitch, voicing, gains):
    """Run the source with constant gains of harmonics and noise."""
    block.gains.weight.zero_()
    block.gains.bias.copy_(torch.tensor(gains).repeat_interleave(block.bands).repeat(2))
    x = torch.cat([torch.zeros(1, frames, 4), tracks(frames, pitch, voicing)], -1)
    y, _ = block(x, torch.zeros(1, *block.state_shape))
    return y[0, :, 0]


def test_harmonics_have_unit_power_at_multiples_of_the_pitch():
    y = render(source(), 300, 200.0, 1.0, [0.0, -16.0])[4800:]
    spectrum = torch.fft.rfft(y * torch.hann_window(len(y))).abs()
    peaks = spectrum > 0.5 * spectrum.max()
    frequencies = torch.fft.rfftfreq(len(y), 1 / RATE)[peaks]
    assert frequencies.remainder(200).minimum(200 - frequencies.remainder(200)).max() < 2
    assert len(frequencies.div(200).round().unique()) > 50
    assert y.square().mean() == pytest.approx(1, abs=0.05)


def test_noise_is_white_and_of_unit_power():
    block = source()
    noise = block.noise(torch.zeros(1, 1), 600)[0]
    assert noise.square().mean() == pytest.approx(1, abs=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.02)
    spectrum = torch.fft.rfft(noise.unflatten(0, (-1, 480))).abs().square().mean(0)[1:-1]
    assert spectrum.max() < 1.6 * spectrum.mean()
    correlation = torch.fft.irfft(torch.fft.rfft(noise, 2 * len(noise)).abs().square())
    assert correlation[1:50_000].abs().max() < 0.03 * correlation[0]


def test_noise_depends_on_the_number_of_the_sample_in_its_period():
    block = source()
    whole = block.noise(torch.zeros(1, 1), PERIOD + 10)
    assert torch.equal(block.noise(torch.full((1, 1), 4.0), 6), whole[:, 4 * FRAME : 10 * FRAME])
    assert torch.equal(whole[:, PERIOD * FRAME :], whole[:, : 10 * FRAME])
    assert not torch.equal(whole[:, 4 * FRAME : 14 * FRAME], whole[:, : 10 * FRAME])


def predictions(frames, pitch=150.0, voicing=9.0, phase=None):
    """Return the input of the phase lock; a phase of None is not known."""
    steps = np.arange(frames) * FRAME * pitch / RATE
    aim = np.full(frames, np.nan) if phase is None else 2 * np.pi * (steps + phase)
    columns = [np.full(frames, pitch / RATE), np.full(frames, voicing), np.cos(aim), np.sin(aim)]
    return np.nan_to_num(np.stack(columns, 1))


def test_phase_accumulates_and_is_drawn_to_the_prediction():
    aim = (np.arange(200) * FRAME * 150 / RATE + 0.3) % 1
    track, (phase, number, since) = lock_phase(predictions(200, phase=0.3), START, FRAME, PERIOD)
    error = np.abs((track[:, 0] - aim + 0.5) % 1 - 0.5)
    assert error[0] == pytest.approx(0.3)
    assert error[60:].max() < 1e-3
    steps = (track[:-1, 0] + FRAME * track[:-1, 1]) % 1
    assert np.abs((steps - track[1:, 0] + 0.5) % 1 - 0.5).max() < 1e-4  # no jumps
    unknown = predictions(200)
    assert np.allclose(lock_phase(unknown, START, FRAME, PERIOD)[0][:, 1], 150 / RATE)
    assert 0 <= phase < 1
    assert number == since == 200


def test_state_of_the_phase_is_exact_in_float32():
    values = predictions(400, 151.3, phase=0.3)
    whole, end = lock_phase(values, START, FRAME, PERIOD)
    state, parts = START, []
    for part in np.array_split(values, [1, 7, 250]):
        track, state = lock_phase(part, np.float32(state).tolist(), FRAME, PERIOD)
        parts.append(track)
    assert np.array_equal(np.concatenate(parts), whole)
    assert state == end


def test_phase_starts_again_without_a_voice():
    values = predictions(50, 151.3)
    values[20:30, 1] = -9.0
    track, _ = lock_phase(values, START, FRAME, PERIOD)
    assert not track[20:31, 0][:-1].any()
    assert track[30, 0] == pytest.approx(FRAME * 151.3 / RATE % 1, abs=1e-5)


@pytest.mark.parametrize("last", [None, 500, 700])
def test_phase_starts_again_at_a_multiple_of_the_period_after_half_a_period(last):
    values = predictions(3 * PERIOD, 151.3)
    if last is not None:
        values[PERIOD + last, 1] = -9.0
    track, _ = lock_phase(values, START, FRAME, PERIOD)
    starts = np.flatnonzero(track[:, 0] == 0)
    assert starts[0] == 0
    assert PERIOD in starts
    assert (2 * PERIOD in starts) == (last != 700)


def test_pitch_is_the_mean_around_the_likeliest_bin():
    tracker = PitchTracker(config().source, 4, FRAME, RATE, PERIOD)
    logits = torch.full((1, 1, 79), -20.0)
    logits[..., 24] = logits[..., 25] = 5.0
    expected = LOWEST_PITCH * 2 ** (24.5 / 24) / RATE
    assert tracker.frequency(logits).item() == pytest.approx(expected, rel=1e-4)


def test_low_pass_is_early_and_passes_only_low_frequencies():
    taps = minimum_phase_low_pass(600 / RATE)
    response = np.abs(np.fft.rfft(taps, 2400))  # bins of 10 Hz
    assert response[:30] == pytest.approx(1, abs=0.1)
    assert response[200:].max() < 0.02
    assert np.argmax(np.abs(taps)) < 40


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_streams_in_other_chunks_agree_within_rounding(codec, codes, chunk):
    whole = codec.decode([codes])[0]
    stream = codec.stream_decoder(chunk).run(codes[None])[0]
    assert torch.allclose(stream, whole, atol=1e-3 * whole.abs().max().item())


@pytest.mark.parametrize("threads", [1, 2])
def test_streams_and_batches_equal_files_bit_for_bit(codec, codes, threads):
    whole = codec.decode([codes])[0]
    short = codec.decode([codes[:, :90]])[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = codec.decode([codes[:, :90], codes, codes[:, :90]])
        assert list(map(torch.equal, found, [short, whole, short])) == [True] * 3
        for seed in range(10):
            stream, generator = codec.stream_decoder(), torch.Generator().manual_seed(seed)
            parts, rest = [], codes[None]
            while rest.shape[2]:
                size = int(torch.randint(1, 120, (), generator=generator))
                parts.append(stream.push(rest[..., :size]))
                rest = rest[..., size:]
            assert torch.equal(torch.cat([*parts, stream.flush()], dim=-1)[0], whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("voicing", [-3.0, 0.0, 9.0])
def test_decoding_from_a_multiple_of_the_period_equals_the_whole_bit_for_bit(codec, voicing):
    tail = codec.decoder.blocks["tail"]
    before = tail.pitch.out.bias[-3].item()
    tail.pitch.out.bias[-3] = voicing
    try:
        many = torch.randint(2**18, (1, 1900), generator=torch.Generator().manual_seed(1))
        whole = codec.decode([many])[0]
        context = codec.decode_context
        assert (context.before, context.start_step, context.stop_step) == (600, 600, 75)
        for start, stop in ((600, 1500), (0, 750)):
            part = codec.decode([many[:, start:stop]])[0]
            first = 0 if start == 0 else context.before
            last = stop - start - context.after
            expected = whole[:, (start + first) * 320 : (start + last) * 320]
            assert torch.equal(part[:, first * 320 : last * 320], expected)
    finally:
        tail.pitch.out.bias[-3] = before


def test_modules_and_batches_agree_with_the_fast_path(codec, codes):
    fast = codec.decode([codes])[0]
    tolerance = 5e-3 * fast.abs().max().item()
    assert torch.allclose(codec.decode_batched([codes, codes[:, :50]])[0], fast, atol=tolerance)
    codec.cpu_fast_path = False
    try:
        assert torch.allclose(codec.decode([codes])[0], fast, atol=tolerance)
    finally:
        codec.cpu_fast_path = True


@pytest.mark.parametrize(
    "changes",
    [
        {"context": 0},
        {"sharpening": 0.5, "stage": 0, "fft_size": 512},
        {"fft_size": 512, "filter_delay": 128, "phase_advance": 80},
        {"sharpening": 0.5, "voiced_noise_from": 1000.0},
    ],
    ids=str,
)
@torch.no_grad()
def test_fast_path_of_other_sources_agrees_with_modules(codes, changes):
    codec = untrained(config(**changes))
    executor = Executor(CompiledStack(codec.decoder, 30), 30, 1)
    state = plain = None
    signs = index_to_signs(codes, 18)
    for chunk in torch.split(signs, [30, 30, 1, 1, 138], dim=1):
        y, state = executor(chunk, state)
        expected, plain = run_chunk(codec.decoder, chunk, plain)
        assert torch.allclose(y, expected, atol=2e-3 * expected.abs().max().item())
    assert [part.shape for part in state] == [tuple(part.shape[1:]) for part in plain]
    for found, wanted in zip(state, plain, strict=True):
        if found.size:
            found = torch.from_numpy(found)
            assert torch.allclose(found, wanted[0], atol=1e-3 * wanted.abs().max().item())


def test_sharpening_raises_peaks_of_the_upper_band_and_keeps_flat_levels():
    sharpening = source(sharpening=0.5).sharpening
    assert torch.allclose(torch.ones(20) @ sharpening, torch.zeros(20), atol=1e-6)
    levels = torch.zeros(20)
    levels[12] = 1.0  # about 4 kHz
    change = levels @ sharpening
    assert 0.3 < change[12] < 0.5
    assert change[11] < 0
    assert not sharpening[:, :3].any()  # below 600 Hz


@torch.no_grad()
def test_low_bands_of_voiced_sounds_get_no_noise():
    rendered = {}
    for voicing in (0.0, 1.0):
        for limit in (0.0, 3000.0):
            block = source(voiced_noise_from=limit)
            gains = torch.zeros(1, 400, 2, block.bands)
            gains[:, :, 0] = -20  # no harmonics
            track = torch.tensor([0.0, 0.005, voicing]).repeat(1, 200, 1)
            noise = torch.randn(1, 200 * block.up, generator=torch.Generator().manual_seed(0))
            parts = torch.split(torch.zeros(1, *block.state_shape), block.sizes, 1)
            samples = block.render(gains, track, noise, *parts[1:3])[0][0]
            power = torch.fft.rfft(samples).abs().square()
            edge = len(power) // 8  # 1500 Hz
            rendered[voicing, limit] = power[:edge].mean().item(), power[4 * edge :].mean().item()
    for kind in ((0.0, 0.0), (0.0, 3000.0), (1.0, 0.0)):
        assert rendered[kind] == pytest.approx(rendered[0.0, 0.0], rel=0.05)
    low, high = rendered[1.0, 3000.0]
    assert low < 1e-3 * rendered[0.0, 0.0][0]
    assert high == pytest.approx(rendered[0.0, 0.0][1], rel=0.05)


@torch.no_grad()
def test_gains_depend_on_the_last_frames():
    block = source()
    torch.nn.init.normal_(block.context.narrow.weight)
    hidden = torch.randn(1, 20, 16)
    past = torch.zeros(1, block.sizes[-1])
    whole, _ = block.context(hidden, past)
    moved, _ = block.context(hidden.index_add(1, torch.tensor([8]), torch.ones(1, 1, 16)), past)
    changed = (moved - whole).abs().amax((0, 2)).nonzero().flatten()
    assert changed.tolist() == list(range(8, 15))  # a kernel of 7 frames
    first, past = block.context(hidden[:, :9], past)
    second, _ = block.context(hidden[:, 9:], past)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-5)


@torch.no_grad()
def test_chunks_of_modules_continue_the_state(codec):
    signs = torch.randn(2, 60, 18).sign()
    whole, _ = codec.decoder(signs)
    state, parts = None, []
    for chunk in torch.split(signs, [1, 30, 29], dim=1):
        y, state = run_chunk(codec.decoder, chunk, state)
        parts.append(y)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=5e-3 * whole.abs().max().item())


def test_loading_folded_weights_keeps_the_function(codec, codes):
    network = HacNetwork(config())
    load_folded_(network, codec.state_dict())
    calibrate_(network, 0.1 * torch.randn(2, 1, 20 * 320))
    again = type(codec)(network.config, *network.fold()).decode([codes])[0]
    reference = codec.decode([codes])[0]
    assert torch.allclose(again, reference, atol=1e-2 * reference.abs().max().item())


@pytest.mark.parametrize("left_out", [None, "unit2_1"])
def test_loading_weights_without_a_source_keeps_the_rest_and_starts_the_source(codes, left_out):
    plain = untrained(load_preset("hac-tiny"))
    narrow = config() if left_out is None else replace(config(), decoder_dilations=FEWER_UNITS)
    network = HacNetwork(narrow)
    start = network.state_dict()["decoder.tail.pitch.out.weight"].clone()
    load_folded_(network, plain.state_dict())
    codec = type(plain)(network.config, *network.fold())
    state, tail = codec.state_dict(), codec.decoder.blocks["tail"]
    assert torch.equal(state["decoder.tail.pitch.out.weight"], start)
    wave = 0.1 * torch.randn(1, 24000)
    assert torch.equal(codec.encode([wave])[0], plain.encode([wave])[0])
    # without the source and the low-pass, the network makes the same samples
    torch.nn.init.constant_(tail.source.gains.bias, -100)
    torch.nn.init.zeros_(tail.low_pass.taps)[0] = 1
    if left_out is not None:
        for parameter in plain.decoder.blocks[left_out].branch.narrow.parameters():
            torch.nn.init.zeros_(parameter)
    expected = plain.decode([codes])[0]
    assert torch.allclose(codec.decode([codes])[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": 3}, "source.stage 3 is not below 3"),
        ({"fft_size": 128}, "source.fft_size 128 does not suit the frames of stage 1, 160 samples"),
        ({"cutoff": 9000.0}, "source.cutoff 9000 is too high for 24000 Hz"),
    ],
)
def test_source_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_defaults_of_the_config_are_left_out_so_that_new_keys_do_not_change_fingerprints():
    given = config().source
    assert not {"context_kernel", "sharpening", "phase_advance"} & to_json(given).keys()
    assert given.context_kernel == 7
