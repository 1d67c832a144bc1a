"""SuperCodec in training: the published tokens, gradients everywhere, and back to inference."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from codectool.checkpoints.published import read_published
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.codecs.supercodec.quantizer import EuclideanCodebook
from codectool.codecs.supercodec.trainable import TrainableSuperCodec
from codectool.errors import CheckpointError
from codectool.training.checkpoint import load_weights
from tests.batches import decode_batch, encode_batch
from tests.conftest import GOLDEN
from tests.training.one_batch import (
    check_inference_model,
    check_stored_model,
    noise,
    overfit,
    step,
)

TINY = SuperCodecConfig(
    sampling_rate=8000,
    strides=(8, 10),
    channel_mults=(1, 1),
    codebook_size=64,
    codebook_dim=16,
    rq_num_quantizers=2,
)


def tiny(seed: int = 0, dead_code_threshold: float = 0.0) -> TrainableSuperCodec:
    torch.manual_seed(seed)
    model = TrainableSuperCodec(TINY)
    model.set_dead_code_threshold(dead_code_threshold)
    return model


@pytest.fixture
def published() -> TrainableSuperCodec:
    """A model with weights in the published layout."""
    _, state, config = read_published(GOLDEN / "supercodec_micro" / "g_00000001")
    assert config is not None
    model = TrainableSuperCodec(SuperCodecConfig.from_published(config))
    load_weights(model, "supercodec", state)
    return model


def test_published_weights_reproduce_golden_tokens_and_audio(
    published: TrainableSuperCodec,
) -> None:
    published.eval()
    codec = published.inference_model()
    with np.load(GOLDEN / "supercodec_micro.npz") as golden:
        for name in golden["names"]:
            used = int(golden[f"{name}/used_len"])
            wave = torch.from_numpy(golden[f"{name}/wav"][:used]).view(1, 1, -1)
            with torch.no_grad():
                output, codes = published(wave), encode_batch(codec, wave)
            np.testing.assert_array_equal(codes[0].numpy(), golden[f"{name}/codes"])
            np.testing.assert_allclose(
                output.audio[0, 0], golden[f"{name}/rec_from_codes"], atol=2e-5
            )


def test_published_codebooks_are_not_initialised_again(published: TrainableSuperCodec) -> None:
    before = [codebook.embed.clone() for codebook in codebooks(published)]
    wave = noise(2, 1, 2000)
    codec = published.inference_model()
    with torch.no_grad():
        expected = decode_batch(codec, encode_batch(codec, wave))
        torch.testing.assert_close(published(wave).audio, expected, atol=1e-5, rtol=0)
    step(published, wave)
    moved = [c.embed - old for c, old in zip(codebooks(published), before, strict=True)]
    assert all(move.abs().amax() > 0 for move in moved)


def codebooks(model: TrainableSuperCodec) -> list[EuclideanCodebook]:
    return [cast(EuclideanCodebook, stage) for stage in model.model.rq.layers]


def test_weights_of_another_model_are_refused_by_name() -> None:
    _, state, _ = read_published(GOLDEN / "supercodec_micro" / "g_00000001")
    with pytest.raises(CheckpointError, match=r"downs_one\.conv\.weight .* `model` in the config"):
        load_weights(tiny(), "supercodec", state)


def test_inference_model_matches_training_model() -> None:
    check_inference_model(tiny())


def test_stored_model_matches_inference_model(tmp_path: Path) -> None:
    check_stored_model(tiny(), tmp_path)


def test_inference_model_needs_a_training_step() -> None:
    with pytest.raises(CheckpointError, match="never initialised"):
        tiny().inference_model()


def test_crops_of_a_batch_are_independent() -> None:
    model = tiny()
    step(model, noise(4, 1, 2000))
    model.eval()
    batch = torch.cat([noise(1, 1, 2000, seed=1), 5 * noise(1, 1, 2000, seed=2).cumsum(-1)])
    with torch.no_grad():
        together = model(batch)
        for item in range(2):
            alone = model(batch[item : item + 1])
            torch.testing.assert_close(together.audio[item], alone.audio[0], atol=1e-5, rtol=1e-4)


def test_every_used_parameter_gets_a_gradient() -> None:
    model = tiny()
    output = model(noise(2, 1, 2000))
    assert output.audio.shape == output.target.shape == (2, 1, 2000)
    assert tuple(output.auxiliary_losses) == model.auxiliary_loss_names
    (output.audio - output.target).abs().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        if ".fuse." in name and name.endswith("weight"):
            # stored as kernels of three taps, of which only the middle one is used
            assert parameter.grad[:, :, 1].any()
            assert not parameter.grad[:, :, ::2].any()


def test_commitment_loss_trains_only_the_encoder() -> None:
    model = tiny()
    model(noise(2, 1, 2000))  # k-means: the loss is nearly zero
    model(noise(2, 1, 2000, seed=1)).auxiliary_losses["commitment"].backward()
    trained = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"encoder"}


def test_codebooks_change_only_in_training() -> None:
    model = tiny()
    model(noise(2, 1, 2000))
    assert all(codebook.initted.item() == 1 for codebook in codebooks(model))
    for mode, moves in ((False, False), (True, True)):
        before = [codebook.embed.clone() for codebook in codebooks(model)]
        model.train(mode)(noise(2, 1, 2000, seed=1))
        for codebook, old in zip(codebooks(model), before, strict=True):
            assert torch.equal(codebook.embed, old) != moves


def test_dead_codewords_are_replaced_if_enabled() -> None:
    kept, revived = tiny(), tiny(dead_code_threshold=0.2)
    for model in (kept, revived):
        for seed in range(30):
            with torch.no_grad():
                model(noise(1, 1, 2000, seed=seed) * (1 + seed))
    assert min(codebook.cluster_size.min().item() for codebook in codebooks(kept)) < 0.01
    assert min(codebook.cluster_size.min().item() for codebook in codebooks(revived)) >= 0.2


def test_no_parameter_has_weight_decay() -> None:
    model = tiny()
    assert not any(model.has_weight_decay(name, p) for name, p in model.named_parameters())


def test_training_under_autocast_is_float32_where_needed() -> None:
    model = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(noise(1, 1, 2000))
    assert output.audio.dtype == output.auxiliary_losses["commitment"].dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    output.audio.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_model_overfits_one_crop() -> None:
    distances = overfit(tiny(), {"commitment": 1.0}, (0.5, 0.9), steps=30)
    assert min(distances[-5:]) < 0.5 * distances[0]
