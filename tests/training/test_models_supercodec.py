"""SuperCodec in training: the published tokens, gradients everywhere, and back to inference."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from codectool.checkpoints.load import load_model
from codectool.checkpoints.native import write_model
from codectool.checkpoints.published import read_published
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.codecs.supercodec.model import SuperCodec
from codectool.codecs.supercodec.quantizer import EuclideanCodebook
from codectool.errors import CheckpointError
from codectool.training.models.supercodec import SuperCodecTrainee
from tests.conftest import GOLDEN
from tests.training.one_batch import learn

TINY = SuperCodecConfig(
    sampling_rate=8000,
    strides=(8, 10),
    channel_mults=(1, 1),
    codebook_size=64,
    codebook_dim=16,
    rq_num_quantizers=2,
)


def tiny(seed: int = 0, dead_code_threshold: float = 0.0) -> SuperCodecTrainee:
    torch.manual_seed(seed)
    return SuperCodecTrainee(TINY, dead_code_threshold)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(trainee: SuperCodecTrainee, wave: Tensor) -> None:
    """One step of plain gradient descent."""
    made = trainee(wave)
    loss = (made.audio - made.target).abs().mean() + made.penalties["commitment"]
    loss.backward()
    with torch.no_grad():
        for parameter in trainee.parameters():
            assert parameter.grad is not None
            parameter -= 0.01 * parameter.grad
            parameter.grad = None


@pytest.fixture
def published() -> SuperCodecTrainee:
    """The published layout's weights in a model for training."""
    _, state, config = read_published(GOLDEN / "supercodec_micro" / "g_00000001")
    assert config is not None
    trainee = SuperCodecTrainee(SuperCodecConfig.from_published(config))
    trainee.load_codec_state(state)
    return trainee


def test_published_weights_give_the_published_tokens_and_audio(
    published: SuperCodecTrainee,
) -> None:
    published.eval()
    codec = published.codec()
    with np.load(GOLDEN / "supercodec_micro.npz") as golden:
        for name in golden["names"]:
            used = int(golden[f"{name}/used_len"])
            wave = torch.from_numpy(golden[f"{name}/wav"][:used]).view(1, 1, -1)
            with torch.no_grad():
                made, codes = published(wave), codec.encode(wave)
            np.testing.assert_array_equal(made.codes[0].numpy(), golden[f"{name}/codes"])
            np.testing.assert_array_equal(codes[0].numpy(), golden[f"{name}/codes"])
            np.testing.assert_allclose(
                made.audio[0, 0], golden[f"{name}/rec_from_codes"], atol=2e-5
            )


def test_published_codebooks_are_trained_further_not_begun_anew(
    published: SuperCodecTrainee,
) -> None:
    before = [codebook.embed.clone() for codebook in codebooks(published)]
    wave = noise(2, 1, 2000)
    with torch.no_grad():
        expected = published.codec().encode(wave)
    assert torch.equal(published(wave).codes, expected)
    step(published, wave)
    moved = [c.embed - old for c, old in zip(codebooks(published), before, strict=True)]
    assert all(move.abs().amax() > 0 for move in moved)


def codebooks(trainee: SuperCodecTrainee) -> list[EuclideanCodebook]:
    return [cast(EuclideanCodebook, stage) for stage in trainee.model.rq.layers]


def test_weights_of_another_model_are_refused_by_their_names() -> None:
    _, state, _ = read_published(GOLDEN / "supercodec_micro" / "g_00000001")
    with pytest.raises(CheckpointError, match=r"downs_one\.conv\.weight .* `model` in the config"):
        tiny().load_codec_state(state)


def test_codec_has_the_tokens_of_the_same_weights() -> None:
    trainee, wave = tiny(), noise(1, 1, 2000, seed=1)
    for seed in range(3):
        step(trainee, noise(2, 1, 2000, seed=seed))
    state = {name: value.clone() for name, value in trainee.state_dict().items()}
    codec = trainee.codec()
    again = SuperCodec.from_state(dict(trainee.model.state_dict()), codec.hyper_parameters)
    with torch.no_grad():
        made = trainee.eval()(wave)
        codes = codec.encode(wave)
        assert torch.equal(codes, made.codes)
        assert torch.equal(codes, again.encode(wave))
        torch.testing.assert_close(codec.decode(codes), made.audio, atol=1e-5, rtol=0)
        assert not codec.training
        # neither model has anything of the other
        for tensor in codec.state_dict().values():
            tensor.zero_()
    assert trainee.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in trainee.state_dict().items())
    step(trainee.train(), wave)


def test_stored_weights_are_those_of_the_codec(tmp_path: Path) -> None:
    trainee, wave = tiny(), noise(1, 1, 2000)
    step(trainee, noise(2, 1, 2000))
    write_model(tmp_path / "tiny.safetensors", trainee.stored_codec())
    loaded = load_model(tmp_path / "tiny.safetensors").model
    with torch.no_grad():
        assert torch.equal(loaded.encode(wave), trainee.codec().encode(wave))
    step(trainee, wave)


def test_there_is_no_codec_before_the_first_step() -> None:
    with pytest.raises(CheckpointError, match="never initialised"):
        tiny().codec()


def test_crops_of_a_batch_do_not_influence_each_other() -> None:
    trainee = tiny()
    step(trainee, noise(4, 1, 2000))
    trainee.eval()
    batch = torch.cat([noise(1, 1, 2000, seed=1), 5 * noise(1, 1, 2000, seed=2).cumsum(-1)])
    with torch.no_grad():
        together = trainee(batch)
        for item in range(2):
            alone = trainee(batch[item : item + 1])
            assert torch.equal(together.codes[item], alone.codes[0])
            torch.testing.assert_close(together.audio[item], alone.audio[0], atol=1e-5, rtol=1e-4)


def test_every_parameter_that_acts_gets_a_gradient() -> None:
    trainee = tiny()
    made = trainee(noise(2, 1, 2000))
    assert made.audio.shape == made.target.shape == (2, 1, 2000)
    assert made.codes.shape == (2, 2, 25)
    assert tuple(made.penalties) == trainee.penalty_names
    (made.audio - made.target).abs().mean().backward()
    for name, parameter in trainee.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        if ".fuse." in name and name.endswith("weight"):
            # stored as kernels of three taps, of which the middle one acts
            assert parameter.grad[:, :, 1].any()
            assert not parameter.grad[:, :, ::2].any()


def test_penalty_teaches_the_encoder_alone() -> None:
    trainee = tiny()
    trainee(noise(2, 1, 2000))  # k-means: many latents are codewords, the penalty is nearly zero
    trainee(noise(2, 1, 2000, seed=1)).penalties["commitment"].backward()
    taught = {name.split(".")[1] for name, p in trainee.named_parameters() if p.grad is not None}
    assert taught == {"encoder"}


def test_codebooks_move_in_training_and_stand_still_in_evaluation() -> None:
    trainee = tiny()
    trainee(noise(2, 1, 2000))
    assert all(codebook.initted.item() == 1 for codebook in codebooks(trainee))
    for mode, moves in ((False, False), (True, True)):
        before = [codebook.embed.clone() for codebook in codebooks(trainee)]
        trainee.train(mode)(noise(2, 1, 2000, seed=1))
        for codebook, old in zip(codebooks(trainee), before, strict=True):
            assert torch.equal(codebook.embed, old) != moves


def test_dead_codewords_are_revived_if_wanted() -> None:
    kept, revived = tiny(), tiny(dead_code_threshold=0.2)
    for trainee in (kept, revived):
        for seed in range(30):
            with torch.no_grad():
                trainee(noise(1, 1, 2000, seed=seed) * (1 + seed))
    assert min(codebook.cluster_size.min().item() for codebook in codebooks(kept)) < 0.01
    assert min(codebook.cluster_size.min().item() for codebook in codebooks(revived)) >= 0.2


def test_nothing_decays() -> None:
    trainee = tiny()
    assert not any(trainee.decayed(name, p) for name, p in trainee.named_parameters())


def test_trains_under_autocast() -> None:
    trainee = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = trainee(noise(1, 1, 2000))
    assert made.audio.dtype == made.penalties["commitment"].dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in trainee.state_dict().values())
    made.audio.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in trainee.parameters() if p.grad is not None)


def test_learns_one_crop() -> None:
    distances = learn(tiny(), {"commitment": 1.0}, (0.5, 0.9), steps=30)
    assert min(distances[-5:]) < 0.5 * distances[0]
