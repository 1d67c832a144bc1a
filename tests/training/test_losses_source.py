"""Losses of decoders with a source: levels, modulation and pitch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from codectool.codecs.trainable import Reconstruction, SourcePrediction
from codectool.errors import ConfigError
from codectool.schema import from_json
from codectool.training.losses import AnyLossConfig
from codectool.training.losses.base import Loss
from codectool.training.losses.mel import mel_bands

RATE, FRAME, HOP, FFT = 24000, 160, 80, 512
BANDS = mel_bands(FFT, 10, RATE, f_min=600, unit_sum=True)


def loss_of(kind: str, **values: Any) -> Loss:
    return from_json(AnyLossConfig, {"kind": kind, "weight": 1, **values}).build(RATE)


def noise(seed: int, level: float = 0.1, batch: int = 2, length: int = 24000) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(batch, 1, length, generator=generator)


def source(frames: int = 150, batch: int = 2) -> SourcePrediction:
    return SourcePrediction(
        frame=FRAME,
        pitch=torch.zeros(batch, frames, 76),
        lowest_pitch=60.0,
        bins_per_octave=24,
        voicing=torch.linspace(-1, 1, frames).expand(batch, -1),
        phase=torch.zeros(batch, frames, 2),
        phase_offset=40,
        levels=torch.full((batch, 2 * frames, 10), math.log(0.1)),
        level_hop=HOP,
        level_offset=HOP + 128,
        bands=BANDS,
    )


def level_loss(target: Tensor, prediction: SourcePrediction, **values: Any) -> Tensor:
    output = Reconstruction(target, target, {}, source=prediction)
    return loss_of("source_level", **values).compare(output)


# -- levels of the source ---------------------------------------------------------------------


def test_level_loss_does_not_depend_on_the_level_of_bands_and_voicing() -> None:
    target, prediction = noise(1), source()
    plain = level_loss(target, prediction)
    shifted = prediction.levels + torch.arange(10) * 0.3 + 2 * (torch.arange(300) >= 150)[:, None]
    torch.testing.assert_close(
        level_loss(target, replace(prediction, levels=shifted)), plain, rtol=1e-4, atol=0
    )


def test_level_loss_is_the_deviation_from_medians() -> None:
    """White noise of 4 times the amplitude in the second half of all frames."""
    target = noise(1)
    target[..., 12000:] *= 4
    prediction = source()
    wrong = level_loss(target, replace(prediction, voicing=torch.ones(2, 150)))
    levels = prediction.levels + math.log(4) * (torch.arange(300) * HOP > 12000 - 208)[:, None]
    right = level_loss(target, replace(prediction, levels=levels))
    assert wrong > 2 * right


def test_levels_are_compared_where_they_are_heard() -> None:
    """A step of the level is found at the sample that the prediction states."""
    step = (torch.arange(24000) >= 12000).float() * 0.5 + 0.01
    target = noise(1, 1.0) * step
    values = []
    for shift in (-1600, -240, 0, 240, 1600):
        centres = HOP * torch.arange(300) + source().level_offset
        levels = torch.log((centres >= 12000 + shift) * 0.5 + 0.01)
        prediction = replace(source(), levels=levels[:, None].expand(2, 300, 10))
        values.append(float(level_loss(target, prediction)))
    assert values[2] == min(values)
    assert values[0] > values[1] > values[2] < values[3] < values[4]


def test_gradient_of_the_level_loss_is_that_with_fixed_medians() -> None:
    prediction = source()
    levels = prediction.levels.clone().requires_grad_()
    level_loss(noise(1), replace(prediction, levels=levels)).backward()
    assert levels.grad is not None
    # as many frames are above their median as below it
    assert levels.grad.sum((0, 1)).abs().max() < 1e-3
    assert levels.grad.abs().sum() == pytest.approx(1, rel=0.05)


def test_rows_before_the_target_are_left_out() -> None:
    early = replace(source(), level_offset=-100)
    assert level_loss(noise(1), early).isfinite()


def test_window_of_levels_must_fit_the_fft() -> None:
    with pytest.raises(ConfigError, match="window 1024 is longer than the FFT of the source, 512"):
        level_loss(noise(1), source(), window=1024)


# -- modulation -------------------------------------------------------------------------------


def modulated(depth: float, seed: int, rate: float = 6.0) -> Tensor:
    time = torch.arange(48000) / RATE
    envelope = torch.exp(depth * torch.sin(2 * math.pi * rate * time + seed))
    return noise(seed, 0.05, batch=4, length=48000) * envelope


def modulation(output: Tensor, target: Tensor, **values: Any) -> float:
    return float(loss_of("modulation", **values)(output, target))


def test_modulation_is_zero_for_the_target() -> None:
    assert modulation(noise(1), noise(1)) == 0


def tilted(depth: float, seed: int) -> Tensor:
    """Noise whose spectrum rises and falls at 1500 Hz, six times per second."""
    wave = modulated(0.0, seed)
    lag = torch.nn.functional.pad(wave, (8, 0))[..., :48000]
    return wave + depth * torch.sin(2 * math.pi * 6 * torch.arange(48000) / RATE) * lag


def test_modulation_grows_with_the_difference_of_variances() -> None:
    target = tilted(0.9, seed=1)
    values = [modulation(tilted(depth, seed=2), target) for depth in (0.9, 0.6, 0.3)]
    assert values[0] < values[1] < values[2]
    assert values[0] < 0.3 * values[2]


def test_modulation_does_not_compare_frames() -> None:
    target = tilted(0.9, seed=1)
    assert modulation(target.roll(8000, -1), target) < 0.1 * modulation(tilted(0.0, seed=3), target)


def test_modulation_uses_all_outputs() -> None:
    loss, target = loss_of("modulation"), noise(1)
    both = loss.compare(Reconstruction(noise(2), target, {}, (noise(3),)))
    mean = (loss(noise(2), target) + loss(noise(3), target)) / 2
    torch.testing.assert_close(both, mean)


def test_modulation_of_silence_has_a_finite_gradient() -> None:
    output = torch.zeros(1, 1, 12000, requires_grad=True)
    loss_of("modulation")(output, torch.zeros(1, 1, 12000)).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_modulation_needs_a_segment() -> None:
    with pytest.raises(ConfigError, match="5000 samples are too few .* needs 5360"):
        modulation(noise(1)[..., :5000], noise(2)[..., :5000])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 1024}, "window 1024 is longer than fft_size 512"),
        ({"bands": 20}, "quefrencies 47 is not below the number of bands, 20"),
        ({"f_min": 900, "f_max": 800}, "f_max 800.0 is not above f_min 900.0"),
    ],
)
def test_wrong_modulation_configs_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loss_of("modulation", **values)


# -- pitch ------------------------------------------------------------------------------------


def perfect(pitch: Tensor) -> SourcePrediction:
    """What a tracker would predict that knew the pitch and phase ``(B, F, 2)``."""
    hertz, turns = pitch.unbind(-1)
    voiced = hertz > 0
    hertz = torch.where(voiced, hertz, 60.0)
    bins = 24 * torch.log2(hertz / 60)
    logits = -(torch.arange(76) - bins[..., None]).square()
    angle = 2 * math.pi * (turns.nan_to_num() + 40 * hertz / RATE)
    return replace(
        source(pitch.shape[1], len(pitch)),
        pitch=logits,
        voicing=40 * (voiced.float() - 0.5),
        phase=torch.stack([angle.cos(), angle.sin()], -1),
    )


def pitch_loss(prediction: SourcePrediction, pitch: Tensor) -> float:
    output = Reconstruction(noise(1), noise(1), {}, source=prediction, pitch=pitch)
    return float(loss_of("pitch").compare(output))


def track(frames: int = 100) -> Tensor:
    """Pitch rising from 100 to 200 Hz, unvoiced and unknown at the ends."""
    hertz = torch.linspace(100, 200, frames)
    turns = torch.cumsum(hertz * FRAME / RATE, 0) % 1
    hertz[:10], turns[:10] = 0, math.nan
    hertz[-5:], turns[-5:] = math.nan, math.nan
    return torch.stack([hertz, turns], -1)[None]


def test_pitch_loss_is_least_for_the_truth() -> None:
    best = perfect(track())
    least = pitch_loss(best, track())
    for change in (
        {"pitch": best.pitch.roll(3, -1)},
        {"voicing": best.voicing * 0},
        {"phase": best.phase * 0},
        {"phase": -best.phase},
        {"phase_offset": 0},
    ):
        assert pitch_loss(replace(best, **change), track()) > least + 0.05, change


def test_unknown_frames_do_not_count() -> None:
    best = perfect(track())
    other = {name: getattr(best, name).clone() for name in ("pitch", "voicing", "phase")}
    for value in other.values():
        value[:, -5:] = 7.0
    assert pitch_loss(replace(best, **other), track()) == pitch_loss(best, track())


def test_pitch_loss_of_unvoiced_crops_trains_the_voicing_only() -> None:
    silent = torch.stack([torch.zeros(1, 50), torch.full((1, 50), math.nan)], -1)
    assert pitch_loss(source(50, 1), silent) == pytest.approx(0.7, abs=0.2)


def test_longer_tracks_are_cut() -> None:
    assert pitch_loss(perfect(track()), torch.cat([track(), track()], 1)) == pitch_loss(
        perfect(track()), track()
    )
