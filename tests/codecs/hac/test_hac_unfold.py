import pytest
import torch

from codectool.checkpoints import registry
from codectool.checkpoints.native import read_native
from codectool.codecs.hac.layers import PointwiseMLP, RunningScale
from codectool.codecs.hac.model import HacCodec, fold
from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.unfold import SEEN_BATCHES, calibrate_, load_folded_
from codectool.nn.loading import TensorMismatchError
from tests.batches import decode_batch, encode_batch
from tests.hac_models import small_preset, untrained

PRESETS = ["hac-tiny", "hac-3.6-v12", "hac-3.6-v13"]


def noise(seconds=0.5, batch=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, 1, int(24000 * seconds), generator=generator)


def unfolded(codec, waves=None):
    network = HacNetwork(codec.config).train()
    load_folded_(network, codec.state_dict())
    if waves is not None:
        calibrate_(network, waves)
    return network


def assert_same(codec, other, wave, atol=1e-5):
    codes = encode_batch(codec, wave)
    assert torch.equal(encode_batch(other, wave), codes)
    torch.testing.assert_close(
        decode_batch(other, codes), decode_batch(codec, codes), rtol=1e-4, atol=atol
    )


@pytest.fixture(scope="module", params=PRESETS)
def codec(request):
    return untrained(small_preset(request.param))


@pytest.mark.parametrize("calibrated", [False, True])
def test_unfolded_network_folds_to_the_same_codec(codec, calibrated):
    network = unfolded(codec, noise() if calibrated else None)
    assert_same(codec, fold(network), noise(1.0, batch=1, seed=1))


def test_bundled_weights_survive_unfolding():
    _, state, config = read_native(registry.default("hac").locate())
    codec = HacCodec.from_state(state, config)
    folded = fold(unfolded(codec, noise(batch=2)))
    assert_same(codec, folded, noise(1.0, batch=1, seed=1), atol=1e-4)  # rounding moves harmonics
    for name, tensor in codec.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_calibration_gives_features_unit_variance_and_rows_unit_norm(codec):
    network = unfolded(codec, noise()).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, RunningScale):
            module.register_forward_hook(lambda _m, _i, y: seen.append(y.square().mean().item()))
        if isinstance(module, PointwiseMLP):
            norms = torch.linalg.vector_norm(module.narrow.weight, dim=1)
            torch.testing.assert_close(norms, torch.ones_like(norms))
    with torch.no_grad():
        network(noise())
    assert len(seen) > 10
    assert all(0.9 < value < 1.1 for value in seen), seen


def test_next_batch_moves_the_statistics_only_a_little(codec):
    network = unfolded(codec, noise())
    scale = next(m for m in network.modules() if isinstance(m, RunningScale))
    before = scale.mean_square.clone()
    with torch.no_grad():
        network.train()(3 * noise())
    assert scale.count == SEEN_BATCHES + 1
    assert before < scale.mean_square < 1.2 * before


def test_calibration_on_silence_keeps_the_function(codec):
    network = unfolded(codec, torch.zeros(1, 1, 12000))
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
    assert_same(codec, fold(network), noise(1.0, batch=1, seed=1))


def test_tensors_of_another_model_are_refused_without_a_change(codec):
    network = HacNetwork(codec.config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = codec.state_dict()
    del state[next(iter(state))]
    with pytest.raises(TensorMismatchError, match="1 missing"):
        load_folded_(network, state)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
