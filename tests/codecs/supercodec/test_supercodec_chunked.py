"""SuperCodec over many signals at once, and over one of any length in bounded memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from codectool.codecs.supercodec.blocks import Ends, ResidualStack
from codectool.codecs.supercodec.model import SuperCodec, SuperCodecConfig
from codectool.codecs.supercodec.model import chunked as supercodec_passes
from codectool.errors import AudioError
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
    """Random weights, but gates and tokens that differ from signal to signal."""
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
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that short signals are made of many."""
    monkeypatch.setattr(supercodec_passes, "WINDOW", 1)


def noise(frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.rand(1, generator=generator) + 0.2
    return loudness * torch.randn(1, 1, frames * HOP, generator=generator)


def plain(model: SuperCodec, wave: Tensor) -> tuple[Tensor, Tensor]:
    """Latent and audio of the layers as they are trained, the whole signal at once."""
    latent = model.encoder(wave)
    codes, _ = model.rq(latent.mT)
    return latent, model.decoder(model.rq.lookup(codes).mT)


def assert_same_codes(model: SuperCodec, wave: Tensor, codes: Tensor) -> None:
    """Those of the plain layers, but for codewords equally near within rounding."""
    left = model.encoder(wave).mT
    for stage, found in zip(model.rq.layers, codes.unbind(1), strict=True):
        distances = torch.cdist(left, stage.embed)
        chosen = distances.gather(2, found[..., None])[..., 0]
        assert (chosen - distances.amin(-1)).amax() < 1e-5
        left = left - stage.lookup(found)


def pieces(wave: Tensor, sizes: list[int]) -> Callable[[], Iterator[Tensor]]:
    """Read a signal again and again in pieces of these sizes, over and over."""

    def read() -> Iterator[Tensor]:
        first, turn = 0, 0
        while first < wave.shape[-1]:
            size = sizes[turn % len(sizes)]
            yield wave[..., first : first + size].clone()
            first, turn = first + size, turn + 1

    return read


@pytest.mark.parametrize("frames", [7, 8, 11, 64, 200])
@pytest.mark.parametrize("window", [1, 1 << 12, 1 << 19])
def test_windows_give_what_the_plain_layers_give(
    model: SuperCodec, frames: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supercodec_passes, "WINDOW", window)
    wave = noise(frames)
    latent, audio = plain(model, wave)
    torch.testing.assert_close(model.latent(wave), latent, atol=1e-5, rtol=1e-5)
    codes = encode_batch(model, wave)
    assert_same_codes(model, wave, codes)
    assert codes.shape == (1, 2, frames)
    torch.testing.assert_close(
        decode_batch(model, model.rq(latent.mT)[0]), audio, atol=1e-5, rtol=1e-5
    )


def test_items_of_a_batch_are_alone(model: SuperCodec) -> None:
    waves = torch.cat([noise(20, seed) for seed in range(3)])
    codes = encode_batch(model, waves)
    audio = decode_batch(model, codes)
    for item in range(3):
        assert torch.equal(codes[item : item + 1], encode_batch(model, waves[item : item + 1]))
        assert torch.equal(audio[item : item + 1], decode_batch(model, codes[item : item + 1]))


@pytest.mark.parametrize("way", ["ragged", "padded"])
def test_many_at_once_are_as_alone(model: SuperCodec, way: str) -> None:
    waves = [noise(frames, seed)[0] for seed, frames in enumerate(LENGTHS)]
    codes = getattr(model, f"encode_{way}")(waves)
    audio = getattr(model, f"decode_{way}")(codes)
    for wave, found, samples in zip(waves, codes, audio, strict=True):
        assert found.shape == (2, wave.shape[-1] // HOP)
        assert_same_codes(model, wave[None], found[None])
        alone = model.decoder(model.rq.lookup(found[None]).mT)[0]
        assert samples.shape == wave.shape
        torch.testing.assert_close(samples, alone, atol=1e-5, rtol=1e-5)


def test_padding_matters_where_it_is_not_told(model: SuperCodec) -> None:
    """What the tests above would miss if the items of a batch were all alike."""
    short, long = noise(7, 1), noise(61, 2)
    padded = torch.cat([short, torch.zeros(1, 1, 54 * HOP)], -1)
    assert not torch.equal(encode_batch(model, padded)[..., :7], encode_batch(model, short))
    told = model.encoder(torch.cat([padded, long]), Ends([7, 61], torch.device("cpu")))
    torch.testing.assert_close(told[:1, :, :7], model.encoder(short), atol=1e-5, rtol=1e-5)


def test_tails_do_not_reach_back() -> None:
    stack = ResidualStack(4, (1, 3, 5))
    batch = torch.randn(2, 4, 40)
    told = stack(batch, Ends([3, 8], torch.device("cpu")))
    torch.testing.assert_close(told[:1, :, :15], stack(batch[:1, :, :15]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(stack(batch)[:1, :, :15], told[:1, :, :15], atol=1e-3)


@pytest.mark.parametrize("frames", [7, 9, 64, 301])
@pytest.mark.parametrize("sizes", [[1, 2, 3], [HOP], [7, 0, 1000], [1 << 20]], ids=str)
@pytest.mark.usefixtures("small_windows")
def test_any_length_in_pieces_is_one_whole(
    model: SuperCodec, frames: int, sizes: list[int]
) -> None:
    wave = noise(frames)
    codes = torch.cat(list(model.encode_whole(pieces(wave, sizes))), -1)
    assert codes.shape == (1, 2, frames)
    assert_same_codes(model, wave, codes)


@pytest.mark.parametrize("frames", [7, 9, 64, 301, 2100])
@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.usefixtures("small_windows")
def test_codes_of_any_length_are_one_whole(model: SuperCodec, frames: int, streams: int) -> None:
    codes = torch.randint(64, (1, streams, frames), generator=torch.Generator().manual_seed(1))
    audio = torch.cat(list(model.decode_whole(codes)), -1)
    whole = model.decoder(model.rq.lookup(codes).mT)
    torch.testing.assert_close(audio, whole, atol=1e-5, rtol=1e-5)


def test_the_signal_is_read_once_for_each_gate_and_once_more(model: SuperCodec) -> None:
    wave, times = noise(20), 0

    def read() -> Iterator[Tensor]:
        nonlocal times
        times += 1
        yield wave

    codes = torch.cat(list(model.encode_whole(read)), -1)
    assert times == 4
    assert torch.equal(codes, encode_batch(model, wave))


def held() -> int:
    """Numbers in all tensors there are."""
    tensors = [thing for thing in gc.get_objects() if type(thing) is Tensor]
    # weights that other models have handed to oneDNN do not say what they take
    tensors = [tensor for tensor in tensors if tensor.layout is torch.strided]
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().size() for t in tensors}.values()
    )


def peak_of_encoding(model: SuperCodec, frames: int) -> int:
    sizes = []

    def read() -> Iterator[Tensor]:
        for turn in range(frames // 10):
            if turn % 9 == 0:
                sizes.append(held())
            yield noise(10, turn)

    for _ in model.encode_whole(read):
        sizes.append(held())
    return max(sizes)


def peak_of_decoding(model: SuperCodec, frames: int) -> int:
    codes = torch.zeros(1, 2, frames, dtype=torch.int64)
    own = codes.untyped_storage().size()
    peak = 0
    for turn, _ in enumerate(model.decode_whole(codes)):
        if turn % 9 == 0:
            peak = max(peak, held() - own)
    return peak


@pytest.mark.parametrize("peak", [peak_of_encoding, peak_of_decoding])
@pytest.mark.usefixtures("small_windows")
def test_memory_does_not_grow_with_the_length(
    model: SuperCodec, peak: Callable[[SuperCodec, int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codectool.codecs.supercodec.model.EXACT_FRAMES", 20)
    base = held()
    short, long = peak(model, 150) - base, peak(model, 600) - base
    assert long < 1.3 * short


@pytest.mark.parametrize("frames", [1, 2])
def test_what_cannot_be_mirrored_is_refused(model: SuperCodec, frames: int) -> None:
    with pytest.raises(AudioError, match="too short"):
        encode_batch(model, noise(frames))
    with pytest.raises(AudioError, match="too short"):
        list(model.encode_whole(lambda: [noise(frames)]))
    with pytest.raises(AudioError, match="too short"):
        decode_batch(model, torch.zeros(1, 2, frames, dtype=torch.int64))


def test_gradients_go_through_the_plain_layers() -> None:
    with torch.inference_mode(False):
        model = SuperCodec(CONFIG)
        model.latent(noise(7).clone()).sum().backward()
        assert model.encoder[0].conv.weight.grad.abs().sum() > 0
