"""Whisper loss with a tiny encoder of random weights."""

import importlib
import json
import sys
import warnings

import pytest
import torch

from codectool.errors import CheckpointError, ConfigError, UsageError
from codectool.training.losses.whisper import LogMel, WhisperLoss, WhisperLossConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny_model():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        config = transformers.WhisperConfig(
            vocab_size=20,
            d_model=16,
            encoder_layers=3,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_source_positions=60,
            max_target_positions=10,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        torch.manual_seed(0)
        return transformers.WhisperModel(config).eval()


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("whisper")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(path)
    return path


def build(folder, rate=24000, blocks=4) -> WhisperLoss:
    return WhisperLossConfig(weight=1, folder=str(folder), blocks=blocks).build(rate)


@pytest.fixture(scope="module")
def distance(folder):
    return build(folder, blocks=2)


def test_log_mel_matches_feature_extractor(model):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    wave = noise(2, 16000)
    wave[1, :8000] = 0  # the limit 80 dB below the loudest value
    expected = extractor(
        list(wave.numpy()), sampling_rate=16000, padding="do_not_pad", return_tensors="pt"
    )
    torch.testing.assert_close(LogMel(80)(wave), expected["input_features"], atol=1e-4, rtol=0)


def test_hidden_states_match_encoder(model, folder):
    """At the length of the table of positions, which the model itself accepts."""
    distance = build(folder, rate=16000, blocks=3)
    wave = noise(2, 60 * 320)
    with torch.no_grad():
        states = distance.hidden_states(wave)
        whole = model.encoder(LogMel(80)(wave), output_hidden_states=True)
    for ours, theirs in zip(states[:2], whole.hidden_states[1:3], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    # the last state has passed the final normalization
    last = model.encoder.layer_norm(states[2])
    torch.testing.assert_close(last, whole.last_hidden_state, atol=1e-5, rtol=1e-4)


def test_loss_is_mean_over_blocks(distance):
    target = noise(2, 1, 24000)
    output = target + noise(2, 1, 24000, seed=1)
    states = [distance.hidden_states(signal[:, 0]) for signal in (output, target)]
    assert [tuple(state.shape) for state in states[0]] == [(2, 50, 16)] * 2
    expected = sum((y - x).abs().mean() / x.abs().mean() for y, x in zip(*states, strict=True)) / 2
    torch.testing.assert_close(distance(output, target), expected)
    assert distance(target, target) == 0


def test_only_the_output_gets_a_gradient(distance):
    target = noise(1, 1, 12000).requires_grad_()
    output = noise(1, 1, 12000, seed=1).requires_grad_()
    loss = distance(output, target)
    loss.backward()
    assert target.grad is None
    assert all(parameter.grad is None for parameter in distance.parameters())
    assert not any(parameter.requires_grad for parameter in distance.parameters())
    # a step against the gradient reduces the loss by the norm of the gradient
    step = 1e-3 * output.grad / output.grad.norm()
    drop = (loss - distance(output.detach() - step, target)).item()
    assert drop == pytest.approx(1e-3 * output.grad.norm().item(), rel=0.1)


def test_gradient_is_finite_for_silence(distance):
    output = torch.zeros(1, 1, 12000, requires_grad=True)
    distance(output, torch.zeros(1, 1, 12000)).backward()
    assert torch.isfinite(output.grad).all()


def test_loss_stays_in_evaluation_mode(distance):
    distance.train()
    assert not any(module.training for module in distance.modules())


def test_long_crops_and_missing_blocks_are_refused(distance, folder):
    with pytest.raises(ConfigError, match="1.22 s are longer than the 1.2 s"):
        distance(noise(1, 1, 24000 * 61 // 50), noise(1, 1, 24000 * 61 // 50))
    with pytest.raises(ConfigError, match="4 blocks were asked for.* has 3"):
        build(folder)


def test_folder_without_whisper_is_refused(folder, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match="no Whisper model: config.json is missing"):
        build(tmp_path / "absent")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="type bert"):
        build(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="cannot be read: .*safetensors"):
        build(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        build(tmp_path)


def test_missing_weights_are_named(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("encoder.conv2.bias"))
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="lacks 1 weights .* encoder.conv2.bias"):
        build(tmp_path)


def test_missing_transformers_names_the_install_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'codectool\[whisper\]'"):
        build(tmp_path)


def test_torchaudio_that_does_not_load_is_a_usage_error(folder, monkeypatch):
    def refuse(name, *args):
        if name.startswith("torchaudio"):
            raise RuntimeError("compiled with different CUDA versions.\nPlease install another")
        return import_module(name, *args)

    import_module = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(
        UsageError, match=r"torchaudio, which does not load with torch .* versions\."
    ):
        build(folder, blocks=1)
    build(folder, rate=16000, blocks=1)  # needs no resampling
