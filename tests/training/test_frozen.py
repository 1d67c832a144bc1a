"""Training of the decoder alone: cached tokens, crops, saved weights, resume, errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from msgspec.structs import replace
from safetensors.torch import load_file
from torch import Tensor

from codectool.audio.samples import resample
from codectool.checkpoints.load import load_model, read_weights
from codectool.checkpoints.native import write_native
from codectool.codec import Codec
from codectool.codecs.supercodec import blocks
from codectool.codecs.trainable import CropTokens
from codectool.container import read, write
from codectool.encoding import encode_file
from codectool.errors import CheckpointError, ConfigError, UsageError
from codectool.loading import load
from codectool.torch_runner import TorchRunner
from codectool.training import run as running
from codectool.training import tokens as cache
from codectool.training.checkpoint import (
    LAST,
    START_NAME,
    load_weights,
    read_checkpoint,
    read_weights_of_run,
    tokens_of_start,
)
from codectool.training.config import WITHOUT_ENCODER, set_with_encoder
from codectool.training.data import Batch, CropDataset, read_batches
from codectool.training.filelist import Clip, scan
from codectool.training.losses.mel import MelLossConfig
from codectool.training.run import Callbacks, train
from codectool.training.tokens import ClipTokens, cache_tokens, token_name
from codectool.training.trainer import Trainer
from tests.conftest import GOLDEN
from tests.training import small
from tests.training.two_processes import on_two_processes

CPU = torch.device("cpu")
FAMILIES: dict[str, dict[str, Any]] = {
    "hac": small.HAC,
    "supercodec": small.SUPERCODEC,
    "bigcodec": small.BIGCODEC,
}


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small.speech(tmp_path_factory.mktemp("frozen") / "speech", seconds=1.2)
    rng = np.random.default_rng(1)  # two channels at another rate, and a clip shorter than a crop
    soundfile.write(folder / "stereo.flac", 0.1 * rng.normal(size=(20_000, 2)), 11_025)
    soundfile.write(folder / "short.wav", 0.1 * rng.normal(size=1000), 8000)
    return folder


@pytest.fixture(scope="module")
def starts(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of a few steps per family."""
    folder = tmp_path_factory.mktemp("starts")
    for family, values in FAMILIES.items():
        train(small.with_data(small.config(values, max_steps=3), speech), folder / family)
    return {family: folder / family for family in FAMILIES}


def frozen(values: Mapping[str, Any], data: Path, valid: Path | None = None, **more: Any) -> Any:
    """A config whose encoder is fixed."""
    config = small.config(values, **{**WITHOUT_ENCODER, "freeze": "encoder", **more})
    return small.with_data(config, data, valid)


class Recorded(Callbacks):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []
        super().__init__(on_message=self.messages.append, on_warning=self.warnings.append)

    @property
    def tokens(self) -> str:
        return next(line for line in self.messages if line.startswith("tokens of"))


# -- runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_changes_and_tokens_stay(
    family: str, speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    """Bit for bit, also of tensors in another type."""
    start = tmp_path / "start.safetensors"
    path, state, config = read_weights(starts[family])
    assert config is not None
    write_native(start, path, config, state, torch.bfloat16)
    assert train(
        frozen(FAMILIES[family], speech, speech), tmp_path / "run", start_from=start
    ).finished
    before, after = load_file(start), load_file(tmp_path / "run" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if small.differing(tensor, after[name])}
    trained = {"hac": "decoder.", "supercodec": "decoder.", "bigcodec": "generator.model."}[family]
    assert all(name.startswith(trained) for name in changed)
    assert len(changed) > 0.5 * sum(name.startswith(trained) for name in before)
    codecs = [load(checkpoint=path, device="cpu") for path in (start, tmp_path / "run")]
    wave = 0.2 * np.random.default_rng(0).normal(size=9000).astype(np.float32)
    codes = [codec.encode(wave, 8000).codes for codec in codecs]
    assert np.array_equal(*codes)
    assert not np.array_equal(
        *(codec.decode(codecs[0].encode(wave, 8000), force=True) for codec in codecs)
    )
    assert codecs[1].token_fingerprint == codecs[0].token_fingerprint
    assert codecs[0].fingerprint in codecs[1].same_tokens_as


def test_cached_tokens_are_those_of_encode(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    for family, start in starts.items():
        codec = load(checkpoint=start, device="cpu")
        folder, report = cache_tokens(codec, scan_clips(speech), tmp_path / family)
        assert report.done == 8
        assert folder == tmp_path / family / codec.token_fingerprint
        for clip in speech.iterdir():
            encode_file(codec, clip, tmp_path / "one.hcd", overwrite=True)
            assert (folder / token_name(clip)).read_bytes() == (tmp_path / "one.hcd").read_bytes()


def scan_clips(speech: Path) -> list[Clip]:
    return scan(running.read_list(speech))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_run_starts_from_weights_of_the_authors(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BigCodec and SuperCodec in their published layouts, and the bundled HAC."""
    monkeypatch.setattr(running, "CALIBRATION_CROPS", 2)
    speech = small.speech(tmp_path / "speech", count=2, rate=16_000, seconds=1.5)
    start = {
        "hac": Path("hac"),
        "bigcodec": GOLDEN / "bigcodec_micro.pt",
        "supercodec": GOLDEN / "supercodec_micro" / "g_00000001",
    }[family]
    model = load_model(start).model
    settings = {
        "generator": {**FAMILIES[family]["training"]["generator"], "learning_rate": 1e-6},
        "schedule": {"decay": "none"},
        "segment_size": max(4 * model.hop_length, 3200),
        "batch_size": 2,
        "max_steps": 2,
    }
    values = {**FAMILIES[family], "model": model.hyper_parameters}
    train(frozen(values, speech, **settings), tmp_path / "run", start_from=start)
    before, after = (load(checkpoint=path, device="cpu") for path in (start, tmp_path / "run"))
    assert after.token_fingerprint == before.token_fingerprint
    assert after.fingerprint != before.fingerprint
    wave = soundfile.read(speech / "0.wav")[0]
    tokens = before.encode(wave, 16_000)
    assert np.array_equal(after.encode(wave, 16_000).codes, tokens.codes)
    old, new = before.decode(tokens), after.decode(tokens)
    assert old.shape == new.shape
    assert 1e-9 < np.square(old - new).mean() / np.square(old).mean() < 1e-2


# -- crops -------------------------------------------------------------------------------------


def fixed_gates(pooled: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    """Gates that do not depend on the mean over the segment, so that crops decode exactly."""
    return torch.full_like(pooled, 0.4), torch.full_like(pooled, 0.6)


@pytest.mark.parametrize("family", FAMILIES)
def test_crop_decodes_as_in_the_whole_clip(
    family: str, starts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audio that the start decodes is the target, so that the loss of the start is zero."""
    monkeypatch.setattr(blocks, "fusion_weights", fixed_gates)
    model = load_model(starts[family]).model
    model.cpu_fast_path = False
    codec = Codec(TorchRunner(model, CPU), "0" * 8, tmp_path)
    rng, clips = np.random.default_rng(0), []
    for frames in (12, 23, 30, 45, 60, 90):
        codes = rng.integers(model.codebook_sizes[0], size=(1, len(model.codebook_sizes), frames))
        tokens = codec.make_tokens(codes.astype(np.int32), 8000, frames * codec.hop_length)
        clip = tmp_path / f"{frames}.wav"
        soundfile.write(clip, codec.decode(tokens)[0], 8000, subtype="FLOAT")
        cached = tmp_path / "cache" / token_name(clip)
        cached.parent.mkdir(parents=True, exist_ok=True)
        with cached.open("wb") as file:
            write(file, tokens)
        clips.append(Clip(clip, frames * codec.hop_length, 8000))
    trainer = start_trainer(family, starts)
    dataset = CropDataset(clips, trainer.config, 8000)
    dataset.tokens = ClipTokens(tmp_path / "cache", codec.layout, *trainer.model.crop_context())
    batch = next(read_batches(dataset, 40))
    assert batch.tokens is not None
    frames = batch.audio.shape[-1] // codec.hop_length
    ends = batch.tokens.num_frames < frames + batch.tokens.after
    assert 0 < int(batch.tokens.starts.sum()) < 40
    assert 0 < int(ends.sum()) < 40
    for training in (False, True):
        trainer.model.train(training).prepare_step(100_000, 0.9)
        with torch.no_grad():
            output = trainer.reconstruct(batch.audio, batch.tokens)
        torch.testing.assert_close(output.audio, output.target, atol=2e-5, rtol=0)
        silent = (output.target == 0).all(1).float().mean(1)
        assert silent[~ends].max() < 0.1  # no sample is left out but at the end of clips
    mel = MelLossConfig(weight=1, windows=(256, 64), bands=(16, 8), mean=True).build(8000)
    assert mel(output.audio, output.target) < 1e-3
    assert mel(output.audio.roll(codec.hop_length, -1), output.target) > 1e-2


def start_trainer(family: str, starts: dict[str, Path], **more: Any) -> Trainer:
    """A trainer of the decoder with the weights of a start, scales not measured."""
    trainer = Trainer(frozen(FAMILIES[family], starts[family], **more), CPU)
    load_weights(trainer.model, family, read_weights(starts[family])[1], frozen=True)
    return trainer


def test_crop_stays_in_its_segment(starts: dict[str, Path], tmp_path: Path) -> None:
    """Segments are decoded independently."""
    speech = small.speech(tmp_path / "speech", count=1, seconds=4.0)
    model = load_model(starts["supercodec"]).model
    model.segment_frames = 150
    codec = Codec(TorchRunner(model, CPU), "0" * 8, tmp_path)
    folder, _ = cache_tokens(codec, scan_clips(speech), tmp_path)
    tokens = ClipTokens(folder, codec.layout, 5, 3)
    rng, clip = np.random.default_rng(0), speech / "0.wav"
    codes = read(folder / token_name(clip)).codes[0]
    total = codes.shape[1]
    assert total > 1500
    seen = set()
    for _ in range(200):
        crop, start, channel = tokens.draw(clip, 40 * 20, rng)
        frame, rest = divmod(start, 20)
        assert (rest, channel) == (0, None)
        begin, end = frame // 150 * 150, min(frame // 150 * 150 + 150, total)
        assert crop.starts == (frame == begin)
        assert frame == begin or frame >= begin + 5
        assert crop.num_frames == min(43, end - frame)
        assert frame + min(40, end - begin) <= end
        inside = slice(5 if crop.starts else 0, 5 + crop.num_frames)
        first = frame if crop.starts else frame - 5
        length = inside.stop - inside.start
        assert np.array_equal(crop.codes[:, inside], codes[:, first : first + length])
        seen.add(frame)
    assert len(seen) > 100


def test_crops_of_two_channels_take_audio_and_tokens_of_one(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    clips = [clip for clip in scan_clips(speech) if clip.path.name == "stereo.flac"]
    codec = load(checkpoint=starts["hac"], device="cpu")
    folder, _ = cache_tokens(codec, clips, tmp_path)
    config = frozen(small.HAC, speech).training
    dataset = CropDataset(clips, config, 8000)
    dataset.tokens = ClipTokens(folder, codec.layout, 0, 0)
    samples = soundfile.read(clips[0].path, always_2d=True, dtype="float32")[0].T
    waves = [resample(row[None], 11_025, 8000)[0] for row in samples]
    codes = read(folder / token_name(clips[0].path)).codes
    found = set()
    for number in range(20):
        crop = dataset[number]
        assert crop.tokens is not None
        for channel, wave in enumerate(waves):
            for frame in range(codes.shape[2] - 19):
                if np.array_equal(codes[channel, :, frame : frame + 20], crop.tokens.codes):
                    part = wave[frame * 40 :][: len(crop.audio)]
                    assert np.allclose(crop.audio[: len(part)], part, atol=1e-4)
                    found.add(channel)
    assert found == {0, 1}


def test_gradients_reach_the_decoder_alone(speech: Path, starts: dict[str, Path]) -> None:
    for family in FAMILIES:
        for precision in ("fp32", "bf16"):
            trainer = start_trainer(family, starts, precision=precision)
            names = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
            before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
            assert names == {
                f"{prefix(family)}.{name}" for name, _ in trainer.model.decoder.named_parameters()
            }
            for _ in range(2):  # the learning rate starts at zero
                batch, tokens = random_batch(trainer)
                assert not trainer.step(batch, 0.3, tokens).skipped
            after = trainer.model.state_dict()
            moved = {name for name in before if not torch.equal(before[name], after[name])}
            assert names - moved <= {name for name in names if "bias" in name}, family


def prefix(family: str) -> str:
    return "network.decoder" if family == "hac" else "model.decoder"


def random_batch(trainer: Trainer) -> tuple[Tensor, CropTokens]:
    before, after = trainer.model.crop_context()
    spec = trainer.run_config.crop_spec()
    audio = small.batch(4, trainer.config.segment_size)
    frames = trainer.config.segment_size // spec.hop_length + after
    codes = torch.randint(16, (4, spec.num_codebooks, before + frames))
    starts = torch.tensor([False, True, False, False])
    return audio, CropTokens(
        codes, starts, torch.tensor([frames, frames, 5, frames]), before, after
    )


# -- resuming ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_run_is_bit_equal_to_uninterrupted_run(
    family: str, speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    size = FAMILIES[family]["training"]["segment_size"] // 2
    adversarial = {**small.ONE_DISCRIMINATOR, "start": 0.25, "segment_size": size}
    config = frozen(
        FAMILIES[family], speech, adversarial=adversarial, save_every=6, ema=0.9, accumulation=2
    )
    config = replace(config, data=replace(config.data, token_cache=str(tmp_path / "cache")))
    recorded = Recorded()
    train(config, tmp_path / "whole", start_from=starts[family], callbacks=recorded)
    assert recorded.tokens == "tokens of 8 files computed, of 0 in the cache"
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (resumed / LAST).write_bytes((tmp_path / "whole" / "step_00000006.ckpt").read_bytes())
    (resumed / START_NAME).write_bytes((tmp_path / "whole" / START_NAME).read_bytes())
    again = Recorded()
    train(config, resumed, resume=True, callbacks=again)
    assert again.tokens == "tokens of 0 files computed, of 8 in the cache"
    states = [read_checkpoint(folder / LAST)["trainer"] for folder in (tmp_path / "whole", resumed)]
    assert not small.differing(*states)
    weights = [folder / "model.safetensors" for folder in (tmp_path / "whole", resumed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not any("encoder" in name for name in states[0]["model"])
    family_found, state, model = read_weights_of_run(tmp_path / "whole" / LAST)
    stored = read_weights(tmp_path / "whole")
    assert (
        tokens_of_start(tmp_path / "whole" / LAST) == load_model(tmp_path / "whole").same_tokens_as
    )
    assert (family_found, model) == (stored[0], stored[2])
    assert not small.differing(state, dict(stored[1]))


def test_stale_and_damaged_tokens_are_computed_again(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "speech"
    copy.mkdir()
    for clip in speech.iterdir():
        (copy / clip.name).write_bytes(clip.read_bytes())
    config = frozen(small.HAC, copy, max_steps=1)
    config = replace(config, data=replace(config.data, token_cache=str(tmp_path / "cache")))

    def tokens(name: str, start: Path = starts["hac"]) -> str:
        recorded = Recorded()
        train(config, tmp_path / name, start_from=start, callbacks=recorded)
        return recorded.tokens

    assert tokens("first") == "tokens of 8 files computed, of 0 in the cache"
    assert tokens("second") == "tokens of 0 files computed, of 8 in the cache"
    soundfile.write(copy / "0.wav", soundfile.read(copy / "1.wav")[0], 8000)
    cached = next((tmp_path / "cache").rglob("2.wav.hcd"))
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    cached.write_bytes(content)
    next((tmp_path / "cache").rglob("3.wav.hcd")).unlink()
    assert tokens("third") == "tokens of 3 files computed, of 5 in the cache"
    train(small.with_data(small.config(max_steps=1, seed=5), speech), tmp_path / "other")
    assert tokens("fourth", tmp_path / "other") == "tokens of 8 files computed, of 0 in the cache"
    # another decoder of the same tokens
    assert tokens("fifth", tmp_path / "first") == "tokens of 0 files computed, of 8 in the cache"


def test_tokens_damaged_during_a_run_are_reported(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    codec = load(checkpoint=starts["hac"], device="cpu")
    folder, _ = cache_tokens(codec, scan_clips(speech), tmp_path)
    for number, name in enumerate(sorted(token_name(clip.path) for clip in scan_clips(speech))):
        path = folder / name
        if number % 3 == 0:
            path.write_bytes(path.read_bytes()[:-2])
        elif number % 3 == 1:
            path.unlink()
    dataset = CropDataset(scan_clips(speech), frozen(small.HAC, speech).training, 8000)
    dataset.tokens = ClipTokens(folder, codec.layout, 2, 1)
    batch: Batch = next(read_batches(dataset, 30))
    assert len(batch.problems) == 6
    assert {line.rpartition("; ")[2] for line in batch.problems} == {"left out"}
    assert batch.tokens is not None
    assert len(batch.tokens.codes) == 30


def test_two_processes_train_like_one(
    speech: Path, starts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main process encodes; the other waits for it, here after each file."""
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.0)
    generator = {**small.HAC["training"]["generator"], "eps": 1e-3}
    config = frozen(small.HAC, speech, speech, generator=generator, max_steps=6)
    train(config, tmp_path / "one", start_from=starts["hac"])

    def work(rank: int) -> list[str]:
        recorded = Recorded()
        train(config, tmp_path / "two", start_from=starts["hac"], callbacks=recorded)
        return recorded.messages

    main, other = on_two_processes(work)
    assert "tokens of 8 files computed, of 0 in the cache" in main
    assert not other
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-4, rtol=1e-3)


def test_run_with_workers_and_two_validations(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    """Validation decodes whole clips with all weights."""
    config = frozen(small.HAC, speech, speech, num_workers=2, validate_every=6, ema=None)
    result = train(config, tmp_path / "run", start_from=starts["hac"])
    codec = load(checkpoint=tmp_path / "run", device="cpu")
    clips = running.load_clips([speech / "0.wav", speech / "4.wav"], 8000)
    again = running.validate(codec.model, clips)
    assert result.valid == pytest.approx(again.values, rel=1e-4, nan_ok=True)


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gain_db": [-6, 3]}, "gain_db has no use with a fixed encoder.*set it to null"),
        ({"silence_prob": 0.1}, "silence_prob has no use .*set it to 0.0"),
        ({"auxiliary_losses": {"commitment": 1}}, "auxiliary_losses has no use .*set it to {}"),
    ],
)
def test_settings_without_effect_are_refused(
    changes: dict[str, Any], message: str, speech: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        frozen(small.HAC, speech, **changes)


def test_bundled_settings_that_need_the_encoder_are_known() -> None:
    assert set_with_encoder(small.HAC["training"]) == [
        *("gain_db", "start_padding_prob", "auxiliary_losses")
    ]


def test_start_is_required(speech: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give `--start-from`, such as `--start-from hac`"):
        train(frozen(small.HAC, speech), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_start_of_another_model_is_refused(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="is a bigcodec checkpoint, the config is for hac"):
        train(frozen(small.HAC, speech), tmp_path / "a", start_from=starts["bigcodec"])
    values = {**small.HAC, "model": {**small.HAC["model"], "taps": 4}}
    message = r"has `model.taps` 2, the config says 4; with a fixed encoder, all that makes tokens"
    with pytest.raises(ConfigError, match=message):
        train(frozen(values, speech), tmp_path / "b", start_from=starts["hac"])
    assert not list(tmp_path.iterdir())


def test_decoder_may_have_another_form(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    """Such as less look-ahead, which changes no shapes."""
    values = {**small.HAC, "model": {**small.HAC["model"], "lookahead": 0}}
    recorded = Recorded()
    train(frozen(values, speech), tmp_path, start_from=starts["hac"], callbacks=recorded)
    message = "`model.lookahead` is 1 there, the config says 0"
    assert any(message in line for line in recorded.warnings)
    start, codec = (load(checkpoint=path, device="cpu") for path in (starts["hac"], tmp_path))
    assert codec.token_fingerprint == start.token_fingerprint
    assert codec.model.delay_frames == 0


def test_checkpoint_without_its_start_is_refused(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    train(frozen(small.HAC, speech, max_steps=1), tmp_path, start_from=starts["hac"])
    (tmp_path / START_NAME).unlink()
    with pytest.raises(CheckpointError, match="the encoder is in start.safetensors of the run"):
        read_weights_of_run(tmp_path / LAST)
    with pytest.raises(UsageError, match="started without `--freeze`, or its start.safetensors"):
        train(frozen(small.HAC, speech, max_steps=2), tmp_path, resume=True)


def test_resume_with_another_freeze_is_refused(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    train(frozen(small.HAC, speech, max_steps=1), tmp_path / "a", start_from=starts["hac"])
    other = small.with_data(small.config(max_steps=2), speech)
    with pytest.raises(
        ConfigError, match="was started with `training.freeze` 'encoder', the config says None"
    ):
        train(other, tmp_path / "a", resume=True)
    train(replace(other, training=replace(other.training, max_steps=1)), tmp_path / "b")
    with pytest.raises(UsageError, match="the run in it was started without `--freeze`"):
        train(frozen(small.HAC, speech, max_steps=2), tmp_path / "b", resume=True)


def test_unusable_clips_are_left_out(starts: dict[str, Path], tmp_path: Path) -> None:
    speech = small.speech(tmp_path / "speech", count=2)
    wave = soundfile.read(speech / "0.wav")[0]
    wave[100] = np.nan
    soundfile.write(speech / "nan.wav", wave, 8000, subtype="FLOAT")
    recorded = Recorded()
    config = frozen(small.HAC, speech, max_steps=1)
    train(config, tmp_path / "run", start_from=starts["hac"], callbacks=recorded)
    assert [line for line in recorded.warnings if "nan.wav" in line and "left out" in line]
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["training"]["freeze"]
        == "encoder"
    )
