"""SuperCodec in batches of any lengths, and chunk by chunk on one signal of any length."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from codectool.codecs.base import WholeSignalModel
from codectool.codecs.supercodec import chunked
from codectool.codecs.supercodec.blocks import (
    CausalConv,
    CausalTransposedConv,
    LengthMask,
    ResidualStack,
)
from codectool.codecs.supercodec.chunked import PackedResampler, RowBuffer, StreamingResampler
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.codecs.supercodec.model import SuperCodec
from codectool.errors import AudioError
from codectool.nn import packed
from tests.batches import decode_batch, encode_batch

CONFIG = SuperCodecConfig(
    sampling_rate=8000,
    strides=(2, 3, 5),
    channel_mults=(1, 2, 1),
    codebook_size=64,
    codebook_dim=16,
    rq_num_quantizers=2,
)
HOP = 30
LENGTHS = [7, 40, 8, 7, 23, 61, 40]


@pytest.fixture(scope="module")
def model() -> SuperCodec:
    """A model with random weights whose fusion weights and tokens differ between signals."""
    torch.manual_seed(0)
    model = SuperCodec(CONFIG)
    for name, weight in model.named_parameters():
        if ".fuse." in name:
            weight.data.mul_(4)
    state = model.state_dict()
    for name in state:
        if name.endswith("initted"):
            state[name] = torch.ones(1)
        elif name.endswith("embed"):
            state[name] = 0.2 * torch.randn(state[name].shape)
    return SuperCodec.from_state(state, model.hyper_parameters)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short signals into many chunks, too."""
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 1)


def noise(frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.rand(1, generator=generator) + 0.2
    return loudness * torch.randn(1, 1, frames * HOP, generator=generator)


def run_plain_modules(model: SuperCodec, wave: Tensor) -> tuple[Tensor, Tensor]:
    """Return latent and audio of the modules used in training, on the whole signal."""
    latent = model.encoder(wave)
    codes, _ = model.rq(latent.mT)
    return latent, model.decoder(model.rq.lookup(codes).mT)


def assert_nearest_codes(model: SuperCodec, wave: Tensor, codes: Tensor) -> None:
    """Check that no codeword is nearer to the plain modules' latent, but for rounding."""
    residual = model.encoder(wave).mT
    for stage, found in zip(model.rq.layers, codes.unbind(1), strict=True):
        distances = torch.cdist(residual, stage.embed)
        chosen = distances.gather(2, found[..., None])[..., 0]
        assert (chosen - distances.amin(-1)).amax() < 1e-5
        residual = residual - stage.lookup(found)


def reader(wave: Tensor, sizes: list[int]) -> Callable[[], Iterator[Tensor]]:
    """Return a function that reads a signal in parts of these sizes, repeated."""

    def read() -> Iterator[Tensor]:
        first, number = 0, 0
        while first < wave.shape[-1]:
            size = sizes[number % len(sizes)]
            yield wave[..., first : first + size].clone()
            first, number = first + size, number + 1

    return read


@pytest.mark.parametrize("frames", [7, 8, 11, 64, 200])
@pytest.mark.parametrize("elements", [1, 1 << 12, 1 << 19])
def test_chunked_form_matches_plain_modules(
    model: SuperCodec, frames: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", elements)
    wave = noise(frames)
    latent, audio = run_plain_modules(model, wave)
    torch.testing.assert_close(model.latent(wave).mT, latent, atol=1e-5, rtol=1e-5)
    codes = encode_batch(model, wave)
    assert_nearest_codes(model, wave, codes)
    assert codes.shape == (1, 2, frames)
    torch.testing.assert_close(
        decode_batch(model, model.rq(latent.mT)[0]), audio, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("kernel", "stride"), [(7, 1), (3, 1), (8, 4), (10, 5)])
@pytest.mark.parametrize("group", [1, 2, 8])
def test_grouped_conv_matches_the_causal_conv(kernel: int, stride: int, group: int) -> None:
    layer = CausalConv(3, 1, kernel, stride)
    x = torch.randn(1, 3, 16 * stride)
    streaming = StreamingResampler(PackedResampler(layer, group))
    buffer = RowBuffer(100, like=x[0].T)
    parts = [streaming.push(buffer.fill(part)).rows for part in torch.split(x[0].T, 7)]
    torch.testing.assert_close(torch.cat(parts).T[None], layer(x))


@pytest.mark.parametrize("stride", [2, 4, 5])
def test_grouped_transposed_conv_matches_the_causal_one(stride: int) -> None:
    layer = CausalTransposedConv(3, 4, stride)
    x = torch.randn(1, 3, 20)
    streaming = StreamingResampler(PackedResampler(layer, sign=-1))
    buffer = RowBuffer(100, like=x[0].T)
    parts = [streaming.push(buffer.fill(part)).rows for part in torch.split(x[0].T, 7)]
    torch.testing.assert_close(torch.cat(parts).T[None], -layer(x))


def test_lengths_are_rounded_to_few_sizes() -> None:
    """Each length costs the time to generate code."""
    lengths = range(1, 1 << 16)
    rounded = [chunked._round_up(length) for length in lengths]
    assert len(set(rounded)) <= 8 * 14
    assert all(n <= r <= n + n // 8 for n, r in zip(lengths, rounded, strict=True))


def test_form_without_onednn_matches_plain_modules(
    model: SuperCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "can_use_packed", lambda x: False)
    latent, audio = run_plain_modules(model, noise(40))
    torch.testing.assert_close(model.latent(noise(40)).mT, latent, atol=1e-5, rtol=1e-5)
    codes = model.rq(latent.mT)[0]
    torch.testing.assert_close(decode_batch(model, codes), audio, atol=1e-5, rtol=1e-5)


def test_changed_weights_are_packed_again(model: SuperCodec) -> None:
    with torch.inference_mode(False):  # tensors made in inference mode have no version
        model = copy.deepcopy(model)
    before = model.latent(noise(11))
    with torch.inference_mode(False), torch.no_grad():
        model.encoder[1].res_one.convs[0].weight.mul_(2)
    after = model.latent(noise(11))
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after.mT, model.encoder(noise(11)), atol=1e-5, rtol=1e-5)


def test_batch_items_are_independent(model: SuperCodec) -> None:
    waves = torch.cat([noise(20, seed) for seed in range(3)])
    codes = encode_batch(model, waves)
    audio = decode_batch(model, codes)
    for item in range(3):
        assert torch.equal(codes[item : item + 1], encode_batch(model, waves[item : item + 1]))
        assert torch.equal(audio[item : item + 1], decode_batch(model, codes[item : item + 1]))


@pytest.mark.parametrize("cpu_fast_path", [True, False])
def test_variable_length_batch_matches_single_signals(
    model: SuperCodec, cpu_fast_path: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "cpu_fast_path", cpu_fast_path)
    waves = [noise(frames, seed)[0] for seed, frames in enumerate(LENGTHS)]
    codes = model.encode(waves)
    audio = model.decode(codes)
    for wave, found, samples in zip(waves, codes, audio, strict=True):
        assert found.shape == (2, wave.shape[-1] // HOP)
        assert_nearest_codes(model, wave[None], found[None])
        alone = model.decoder(model.rq.lookup(found[None]).mT)[0]
        assert samples.shape == wave.shape
        torch.testing.assert_close(samples, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cpu_fast_path", [True, False])
def test_empty_batch_is_empty(
    model: SuperCodec, cpu_fast_path: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "cpu_fast_path", cpu_fast_path)
    assert model.encode([]) == model.decode([]) == []


def test_fast_path_off_runs_the_plain_modules(
    model: SuperCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "cpu_fast_path", False)
    wave = noise(11)
    assert torch.equal(model.latent(wave).mT, model.encoder(wave))


def test_padding_changes_the_output_without_a_mask(model: SuperCodec) -> None:
    """Guard the test above: it would prove nothing if all items were alike."""
    short, long = noise(7, 1), noise(61, 2)
    padded = torch.cat([short, torch.zeros(1, 1, 54 * HOP)], -1)
    assert not torch.equal(encode_batch(model, padded)[..., :7], encode_batch(model, short))
    masked = model.encoder(torch.cat([padded, long]), LengthMask([7, 61], torch.device("cpu")))
    torch.testing.assert_close(masked[:1, :, :7], model.encoder(short), atol=1e-5, rtol=1e-5)


def test_residual_stack_masks_the_padding_of_each_layer() -> None:
    stack = ResidualStack(4, (1, 3, 5))
    batch = torch.randn(2, 4, 40)
    masked = stack(batch, LengthMask([3, 8], torch.device("cpu")))
    torch.testing.assert_close(masked[:1, :, :15], stack(batch[:1, :, :15]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(stack(batch)[:1, :, :15], masked[:1, :, :15], atol=1e-3)


def test_supercodec_is_a_whole_signal_model(model: SuperCodec) -> None:
    assert isinstance(model, WholeSignalModel)


# The smallest chunk has 64 rows: with 320 and 1920 frames some signals end at the end of a chunk.
@pytest.mark.parametrize("frames", [7, 9, 64, 301, 320])
@pytest.mark.parametrize("sizes", [[1, 2, 3], [HOP], [7, 0, 1000], [1 << 20]], ids=str)
@pytest.mark.usefixtures("small_chunks")
def test_encode_whole_matches_plain_modules_for_any_chunking(
    model: SuperCodec, frames: int, sizes: list[int]
) -> None:
    wave = noise(frames)
    codes = torch.cat(list(model.encode_whole(reader(wave, sizes))), -1)
    assert codes.shape == (1, 2, frames)
    assert_nearest_codes(model, wave, codes)


@pytest.mark.parametrize("frames", [7, 9, 64, 301, 1920, 2100])
@pytest.mark.parametrize("codebooks", [1, 2])
@pytest.mark.usefixtures("small_chunks")
def test_decode_whole_matches_plain_modules(model: SuperCodec, frames: int, codebooks: int) -> None:
    codes = torch.randint(64, (1, codebooks, frames), generator=torch.Generator().manual_seed(1))
    audio = torch.cat(list(model.decode_whole(codes)), -1)
    whole = model.decoder(model.rq.lookup(codes).mT)
    torch.testing.assert_close(audio, whole, atol=1e-5, rtol=1e-5)


def test_encode_whole_reads_once_per_block_and_once_more(model: SuperCodec) -> None:
    wave, times = noise(20), 0

    def read() -> Iterator[Tensor]:
        nonlocal times
        times += 1
        yield wave

    codes = torch.cat(list(model.encode_whole(read)), -1)
    assert times == 4
    assert torch.equal(codes, encode_batch(model, wave))


def bytes_in_tensors() -> int:
    tensors = [thing for thing in gc.get_objects() if type(thing) is Tensor]
    # weights that other models have packed for oneDNN do not say how large they are
    tensors = [tensor for tensor in tensors if tensor.layout is torch.strided]
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().size() for t in tensors}.values()
    )


def peak_of_encoding(model: SuperCodec, frames: int) -> int:
    sizes = []

    def read() -> Iterator[Tensor]:
        for number in range(frames // 10):
            if number % 9 == 0:
                sizes.append(bytes_in_tensors())
            yield noise(10, number)

    for _ in model.encode_whole(read):
        sizes.append(bytes_in_tensors())
    return max(sizes)


def peak_of_decoding(model: SuperCodec, frames: int) -> int:
    codes = torch.zeros(1, 2, frames, dtype=torch.int64)
    own = codes.untyped_storage().size()
    peak = 0
    for number, _ in enumerate(model.decode_whole(codes)):
        if number % 9 == 0:
            peak = max(peak, bytes_in_tensors() - own)
    return peak


@pytest.mark.parametrize("peak", [peak_of_encoding, peak_of_decoding])
@pytest.mark.usefixtures("small_chunks")
def test_memory_is_independent_of_the_length(
    model: SuperCodec, peak: Callable[[SuperCodec, int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codectool.codecs.supercodec.model.LOOKUP_FRAMES", 20)
    base = bytes_in_tensors()
    short, long = peak(model, 150) - base, peak(model, 600) - base
    assert long < 1.3 * short


@pytest.mark.parametrize("frames", [1, 2])
def test_signal_too_short_to_be_mirrored_is_refused(model: SuperCodec, frames: int) -> None:
    with pytest.raises(AudioError, match="too short"):
        encode_batch(model, noise(frames))
    with pytest.raises(AudioError, match="too short"):
        list(model.encode_whole(lambda: [noise(frames)]))
    with pytest.raises(AudioError, match="too short"):
        decode_batch(model, torch.zeros(1, 2, frames, dtype=torch.int64))


def test_gradients_flow_through_the_plain_modules() -> None:
    with torch.inference_mode(False):
        model = SuperCodec(CONFIG)
        model.latent(noise(7).clone()).sum().backward()
        assert model.encoder[0].conv.weight.grad.abs().sum() > 0
