"""Runs that train a decoder with a source of harmonics and noise on fixed tokens."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codectool.audio.discovery import read_list
from codectool.codecs.hac.blocks import Stack
from codectool.errors import ConfigError, UsageError
from codectool.loading import load
from codectool.training.checkpoint import LAST, read_checkpoint
from codectool.training.config import WITHOUT_ENCODER, RunConfig
from codectool.training.data import CropDataset, read_batches
from codectool.training.filelist import scan
from codectool.training.metrics_log import METRICS_NAME, read_metrics
from codectool.training.pitch import track_pitch
from codectool.training.run import train
from codectool.training.trainer import Trainer
from tests.training import small
from tests.training.two_processes import on_two_processes

pytest.importorskip("parselmouth", reason="package praat-parselmouth is not installed")

RATE, CPU = 8000, torch.device("cpu")
LOSSES = [
    {"kind": "energy_distance", "weight": 10, "windows": [256, 128], "bands": [20, 10]},
    {"kind": "phase_coherence", "weight": 1, "windows": [256], "f_max": 500},
    {"kind": "pitch", "weight": 0.3},
    {"kind": "source_level", "weight": 5, "window": 64},
    {
        **{"kind": "modulation", "weight": 0.1, "window": 64, "fft_size": 64, "hop": 20},
        **{"bands": 10, "quefrencies": 8, "frames": 16},
    },
]
LOG_MEL = {"kind": "log_mel", "sample_rate": RATE, "bands": 20, "channels": [4, 4, 8]}
TRAINING = {**WITHOUT_ENCODER, "freeze": "encoder", "losses": LOSSES, "segment_size": 1600}


def vowel(pitch: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Pulses through two resonances, in syllables, and a little noise."""
    time = np.arange(int(RATE * seconds)) / RATE
    hertz = pitch * (1 + 0.05 * np.sin(2 * np.pi * 2 * time))
    turns = np.cumsum(hertz) / RATE
    pulses = np.diff(np.floor(turns), prepend=0)
    response = np.zeros(200)
    for formant, width in ((600, 80), (1800, 150)):
        lag = np.arange(200) / RATE
        response += np.exp(-np.pi * width * lag) * np.sin(2 * np.pi * formant * lag)
    syllables = np.clip(2 * np.sin(2 * np.pi * 1.5 * time), 0, 1)
    wave = np.convolve(pulses * syllables, response)[: len(time)]
    return (0.1 * wave + 0.001 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vowels")
    rng = np.random.default_rng(0)
    for number, pitch in enumerate((100, 125, 160, 210)):
        soundfile.write(folder / f"{number}.wav", vowel(pitch, 1.5, rng), RATE)
    return folder


@pytest.fixture(scope="module")
def start(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a codec without a source."""
    folder = tmp_path_factory.mktemp("start") / "run"
    train(small.with_data(small.config(small.HAC, max_steps=3), speech), folder)
    return folder


def config(speech: Path, **training: Any) -> RunConfig:
    values = {**small.HAC, "model": {**small.HAC["model"], "source": small.SOURCE}}
    return small.with_data(small.config(values, **{**TRAINING, **training}), speech)


def batches(config: RunConfig, speech: Path) -> Any:
    clips, _ = scan(read_list(speech))
    dataset = CropDataset(clips, config.training, RATE)
    dataset.pitch_frame = config.pitch_frame
    return read_batches(dataset, config.training.batch_size)


@pytest.fixture(scope="module")
def trained(speech: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "run"
    rate = {**small.HAC["training"]["generator"], "learning_rate": 5e-3}
    train(config(speech, max_steps=150, generator=rate), folder, start_from=start)
    return folder


def test_all_losses_fall(trained: Path) -> None:
    lines = read_metrics(trained / METRICS_NAME)
    lines = [line for line in lines if line["kind"] == "train"]
    for kind in ("energy_distance", "pitch", "source_level"):
        values = [line[kind] for line in lines]
        assert np.mean(values[-10:]) < 0.85 * np.mean(values[:5]), kind


@torch.no_grad()
def test_tokens_stay_and_the_voice_has_harmonics(trained: Path, start: Path) -> None:
    codecs = [load(checkpoint=path, device="cpu") for path in (start, trained)]
    wave = vowel(140, 1.5, np.random.default_rng(5))
    tokens = codecs[0].encode(wave, RATE)
    assert np.array_equal(tokens.codes, codecs[1].encode(wave, RATE).codes)
    assert codecs[1].token_fingerprint == codecs[0].token_fingerprint
    decoder = codecs[1].model.decoder
    *blocks, (_, tail), _ = decoder.blocks.items()
    signs = codecs[1].model.dequantize(torch.from_numpy(tokens.codes[0][None].astype(np.int64)))
    features = Stack(dict(blocks))(signs)[0]
    _, prediction = tail.draw(features, tail.initial_state(features))
    voiced = (prediction.voicing[0] > 0).repeat_interleave(2)
    assert 0.1 < voiced.float().mean() < 0.9
    past = features.new_zeros(1, tail.source.sizes[-1])
    gains = tail.source.predict_gains(features, past)[0][0, :, :, tail.source.first_band :]
    assert (gains[voiced, 0] - gains[voiced, 1]).mean() > -1


def test_run_is_the_same_after_resume(speech: Path, start: Path, tmp_path: Path) -> None:
    """Noise and phases continue with the saved random state."""
    settings = config(speech, max_steps=6, save_every=3, num_workers=1)
    train(settings, tmp_path / "whole", start_from=start)
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.copy(tmp_path / "whole" / "step_00000003.ckpt", tmp_path / "resumed" / LAST)
    assert train(settings, tmp_path / "resumed", resume=True).step == 6
    ends = [read_checkpoint(tmp_path / name / LAST) for name in ("whole", "resumed")]
    assert not small.differing(*(end["trainer"]["model"] for end in ends))
    assert not small.differing(*(end["trainer"]["random"] for end in ends))


def test_steps_depend_on_the_seed_only(speech: Path) -> None:
    def after_a_step(seed: int) -> dict[str, torch.Tensor]:
        settings = config(speech, freeze=None, seed=seed)
        batch = next(batches(config(speech), speech))
        trainer = Trainer(settings, CPU)
        assert not trainer.step(batch.audio, 0.0, pitch=batch.pitch).skipped
        return trainer.model.state_dict()

    first, again, other = (after_a_step(seed) for seed in (1, 1, 2))
    assert not small.differing(first, again)
    assert small.differing(first, other)


def test_accumulation_splits_the_pitch(speech: Path) -> None:
    batch = next(batches(config(speech), speech))
    for accumulation in (1, 2):
        trainer = Trainer(config(speech, freeze=None, accumulation=accumulation), CPU)
        report = trainer.step(batch.audio, 0.0, pitch=batch.pitch)
        assert report.values["pitch"] > 0


def test_two_processes_share_a_run(speech: Path, start: Path, tmp_path: Path) -> None:
    settings = config(speech, max_steps=3)

    def work(rank: int) -> int:
        return train(settings, tmp_path / "run", start_from=start).step

    assert on_two_processes(work) == [3, 3]
    state = load_file(tmp_path / "run" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_crops_have_the_pitch_of_their_audio(speech: Path) -> None:
    batch = next(batches(config(speech), speech))
    assert batch.pitch.shape == (4, 1600 // 40, 2)
    for audio, pitch in zip(batch.audio, batch.pitch, strict=True):
        expected = track_pitch(audio[0].numpy(), RATE, 40)
        np.testing.assert_array_equal(pitch.numpy(), expected)
    assert (batch.pitch[..., 0] > 90).any()
    other = [loss for loss in LOSSES if loss["kind"] != "pitch"]
    assert next(batches(config(speech, losses=other), speech)).pitch is None


def test_missing_praat_is_reported_before_the_run(
    speech: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "parselmouth", None)
    with pytest.raises(UsageError, match="the pitch loss needs Praat"):
        train(config(speech), tmp_path / "run", start_from=start)


def test_balancer_is_refused_with_a_source(speech: Path) -> None:
    kinds = {loss["kind"]: 1.0 for loss in LOSSES}
    balance = {**kinds, "adversarial": 1.0, "features": 1.0}
    adversarial = {**small.ONE_DISCRIMINATOR, "balance": balance}
    with pytest.raises(ConfigError, match="`training.adversarial.balance` .* set it to null"):
        config(speech, adversarial=adversarial)
    config(speech, adversarial={**adversarial, "balance": None})


@pytest.mark.parametrize("discriminators", [None, [LOG_MEL]], ids=["complex", "log_mel"])
def test_adversarial_training_takes_a_source(speech: Path, discriminators: Any) -> None:
    batch = next(batches(config(speech), speech))
    adversarial = {**small.ONE_DISCRIMINATOR, "balance": None, "start": 0.0}
    if discriminators is not None:
        adversarial["discriminators"] = discriminators
    trainer = Trainer(config(speech, freeze=None, adversarial=adversarial), CPU)
    report = trainer.step(batch.audio, 0.0, pitch=batch.pitch)
    assert not report.skipped
    assert {"adversarial_0", "discriminator", "source_level"} <= report.values.keys()


def test_crops_too_short_for_a_loss_are_refused(speech: Path) -> None:
    modulation = {"kind": "modulation", "weight": 1, "window": 64, "fft_size": 64}
    modulation |= {"bands": 10, "quefrencies": 8, "frames": 64}
    with pytest.raises(ConfigError, match="`training.losses`: .* too few for a modulation loss"):
        Trainer(config(speech, freeze=None, losses=[modulation]), CPU)
