"""SuperCodec's training step written the straightforward way, to hold ours against.

It computes what `codectool.training.trainer.Trainer.step` computes, from the same weights, as one
would write it down at first and as the published training does (arXiv 2407.20530):

- windows and mel bands are made anew whenever a loss needs them;
- spectra come from `torch.stft` and torchaudio, gradients from autograd alone;
- either side has its own pass of real and of made speech through the discriminators;
- the generator's loss leaves gradients in the discriminators, and a graph through real speech,
  which nobody uses; the discriminators' graph is kept after its backward pass;
- Adam is what the constructor gives.

The generator steps before the discriminators do, so that both are judged by the same weights, as in
our loop.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torchaudio
from msgspec.structs import replace
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.codecs.supercodec.model import SuperCodec
from codectool.codecs.supercodec.quantizer import EuclideanCodebook
from codectool.errors import UsageError
from codectool.training.adversarial import AdversarialConfig
from codectool.training.config import RunConfig
from codectool.training.discriminators.base import SubDiscriminator
from codectool.training.discriminators.stft import SLOPE, ComplexImage
from codectool.training.losses.mel import MelLossConfig
from codectool.training.losses.waveform import WaveformLossConfig
from codectool.training.optimizer import OptimizerConfig
from codectool.training.trainer import Trainer

TOLERANCE = 1e-4  # relative, of the losses of one batch


class StraightforwardTrainer:
    """What `Trainer` is for SuperCodec's recipe; its weights begin as those of `Trainer` do.

    Args:
        config: a recipe of SuperCodec with lengths in steps.

    Raises:
        UsageError: a recipe of another form.
    """

    def __init__(self, config: RunConfig) -> None:
        self.recipe = recipe = config.training
        self.adversarial = has_upstream_form(config)
        assert recipe.max_steps is not None, "upstream_form has set it"
        torch.manual_seed(recipe.seed)
        self.model = config.trainable.from_config(config.model)
        family = self.adversarial.discriminators[0].build()
        self.judges = cast("list[SubDiscriminator]", list(cast(Any, family).members))
        windows = [len(cast(ComplexImage, judge.image).window) for judge in self.judges]
        self.pictures = [
            torchaudio.transforms.Spectrogram(
                window, hop_length=window // 4, normalized=True, center=False, power=None
            )
            for window in windows
        ]
        self.optimizer = adam(recipe.generator, self.model)
        self.judge_optimizer = adam(recipe.discriminator or recipe.generator, family)
        self.schedulers = [
            torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, recipe.max_steps, recipe.schedule.final * optimizer.defaults["lr"]
            )
            for optimizer in (self.optimizer, self.judge_optimizer)
        ]

    def step(self, batch: Tensor) -> dict[str, float]:
        """Learn from crops ``(B, 1, N)``; losses by the names that `Trainer.step` has for them."""
        recipe, adversarial = self.recipe, self.adversarial
        output = self.model.train()(batch)
        made, real = output.audio, output.target

        self.optimizer.zero_grad()
        values: dict[str, Tensor] = {}
        total = torch.zeros(())
        for term in recipe.losses:
            if isinstance(term, MelLossConfig):
                distance = mel_distance(term, made, real, self.model.sample_rate)
            else:
                assert isinstance(term, WaveformLossConfig)
                distance = F.l1_loss(made, real)
            values[term.kind] = values.get(term.kind, torch.zeros(())) + distance
            total = total + term.weight * distance
        commitment = output.auxiliary_losses["commitment"]
        total = total + recipe.auxiliary_losses["commitment"] * commitment
        values |= {"commitment": commitment, "loss": total.detach()}
        real_said, made_said = self._judge(real), self._judge(made)
        values["adversarial_0"] = mean_hinge([logits for logits, _ in made_said], real=True)
        values["features_0"] = feature_distance(real_said, made_said)
        total = total + adversarial.weight * values["adversarial_0"]
        total = total + adversarial.feature_weight * values["features_0"]
        total.backward()
        self.optimizer.step()

        self.judge_optimizer.zero_grad()
        real_said, made_said = self._judge(real), self._judge(made.detach())
        values["discriminator"] = mean_hinge([logits for logits, _ in real_said], real=True)
        values["discriminator"] += mean_hinge([logits for logits, _ in made_said], real=False)
        values["discriminator"].backward(retain_graph=True)  # type: ignore[no-untyped-call]
        self.judge_optimizer.step()
        for scheduler in self.schedulers:
            scheduler.step()
        return {name: value.item() for name, value in values.items()}

    def _judge(self, wave: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """Logits and features, each ``(B, C, T, K)``, of each sub-discriminator."""
        said = []
        for picture, judge in zip(self.pictures, self.judges, strict=True):
            spectrum = picture(wave)
            x = torch.cat([spectrum.real, spectrum.imag], dim=1).transpose(2, 3)
            features = []
            for convolution in judge.hidden:
                x = F.leaky_relu(convolution(x), SLOPE)
                features.append(x)
            said.append((judge.last(x), features))
        return said


def adam(recipe: OptimizerConfig, model: nn.Module) -> torch.optim.Adam:
    """Adam as it comes."""
    return torch.optim.Adam(
        model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps
    )


def mel_distance(term: MelLossConfig, output: Tensor, target: Tensor, sample_rate: int) -> Tensor:
    """Distance of log mel spectra of signals ``(B, 1, N)``, everything made anew."""
    hops = term.hops or tuple(window // 4 for window in term.windows)
    total = torch.zeros(())
    for window, bands, hop in zip(term.windows, term.bands, hops, strict=True):
        fft_size = term.fft_size or window
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero")
            banks = [
                torchaudio.functional.melscale_fbanks(
                    fft_size // 2 + 1,
                    term.f_min,
                    term.f_max or sample_rate / 2,
                    bands,
                    sample_rate,
                    norm="slaney",
                    mel_scale="slaney",
                )
                for _ in range(2)
            ]
        log_y, log_x = (
            log_mel(term, signal.squeeze(1), fft_size, window, hop, bank)
            for signal, bank in zip((output, target), banks, strict=True)
        )
        total = total + F.l1_loss(log_y, log_x) + term.squared * F.mse_loss(log_y, log_x)
    return total


def log_mel(
    term: MelLossConfig, signal: Tensor, fft_size: int, window: int, hop: int, bands: Tensor
) -> Tensor:
    """Logarithm of the mel spectra ``(B, T, M)`` of signals ``(B, N)``."""
    padding = (fft_size - hop) // 2
    padded = F.pad(signal.unsqueeze(1), (padding, padding), mode="reflect").squeeze(1)
    spectrum = torch.stft(
        padded,
        fft_size,
        hop_length=hop,
        win_length=window,
        window=torch.hann_window(window),
        center=False,
        return_complex=True,
    )
    if term.power == 2:
        size = spectrum.abs().pow(2)
    else:
        size = torch.sqrt(torch.view_as_real(spectrum).pow(2).sum(-1) + term.epsilon)
    mel = torch.clamp(size.transpose(1, 2) @ bands, min=term.floor)
    return torch.log(mel) if term.natural_log else torch.log10(mel)


def mean_hinge(logits: Sequence[Tensor], real: bool) -> Tensor:
    """Mean over sub-discriminators of ``mean relu(1 - D)``, or of ``mean relu(1 + D)``."""
    sign = -1 if real else 1
    return torch.stack([F.relu(1 + sign * x).mean() for x in logits]).mean()


def feature_distance(
    real: Sequence[tuple[Tensor, list[Tensor]]], made: Sequence[tuple[Tensor, list[Tensor]]]
) -> Tensor:
    """Mean over layers of the relative distance of features; real ones carry a gradient, too."""
    distances = [
        F.l1_loss(x, y) / x.abs().mean()
        for (_, real_maps), (_, made_maps) in zip(real, made, strict=True)
        for x, y in zip(real_maps, made_maps, strict=True)
    ]
    return torch.stack(distances).mean()


@dataclass(frozen=True)
class Duration:
    """Seconds of one step.

    Attributes:
        cpu: of the processor, all threads.
        wall: of the clock.
    """

    cpu: float
    wall: float


@dataclass(frozen=True)
class Comparison:
    """Steps of both, taken in turn on the same batches.

    Attributes:
        ours: of each step.
        theirs: of each step of the straightforward way.
        losses: of both on the first batch.
    """

    ours: list[Duration]
    theirs: list[Duration]
    losses: dict[str, tuple[float, float]]

    def summary(self) -> dict[str, Any]:
        """Medians, and the ratio of the pairs: median, least and greatest."""
        result: dict[str, Any] = {"pairs": len(self.ours)}
        for kind in ("cpu", "wall"):
            ours = [getattr(duration, kind) for duration in self.ours]
            theirs = [getattr(duration, kind) for duration in self.theirs]
            ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
            result |= {
                f"{kind}_ours": statistics.median(ours),
                f"{kind}_straightforward": statistics.median(theirs),
                f"{kind}_ratio": [statistics.median(ratios), ratios[0], ratios[-1]],
            }
        return result


def compare(config: RunConfig, batches: Sequence[Tensor]) -> Comparison:
    """Train both on the same batches, in turn; the first batch is to warm up and to agree on.

    Raises:
        UsageError: the config is not SuperCodec's.
        AssertionError: the two do not compute the same losses.
    """
    ours = Trainer(config, torch.device("cpu"))
    theirs = StraightforwardTrainer(config)
    settle_codewords(ours, theirs, batches[0])
    losses = agree(ours, theirs, batches[0])
    times: dict[str, list[Duration]] = {"ours": [], "theirs": []}
    for number, batch in enumerate(batches[1:]):
        steps: list[tuple[str, Callable[[], object]]] = [
            ("ours", lambda batch=batch: our_step(ours, batch)),  # type: ignore[misc]
            ("theirs", lambda batch=batch: theirs.step(batch)),  # type: ignore[misc]
        ]
        # who goes first takes turns, too
        for name, step in steps if number % 2 == 0 else steps[::-1]:
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            times[name].append(Duration(time.process_time() - cpu, time.perf_counter() - wall))
    return Comparison(times["ours"], times["theirs"], losses)


@torch.no_grad()
def settle_codewords(ours: Trainer, theirs: StraightforwardTrainer, batch: Tensor) -> None:
    """Give both the same codewords at random, as far out as the latents of crops ``(B, 1, N)``.

    By itself the first step would cluster its batch. A latent that is a cluster of its own leaves
    nothing for the next stage, and nothing is as near to ``r`` as to ``-r``, which a cluster of two
    leaves: such ties are exact, rounding alone decides them, and losses then differ by more than
    rounding.
    """
    model = cast(SuperCodec, cast(Any, theirs.model).model)
    spread = model.latent(batch).std()
    generator = torch.Generator().manual_seed(0)
    for stage in model.rq.layers:
        codebook = cast(EuclideanCodebook, stage)
        codebook.embed.copy_(spread * torch.randn(codebook.embed.shape, generator=generator))
        codebook.cluster_size.fill_(1)
        codebook.embed_avg.copy_(codebook.embed)
        codebook.initted.fill_(1)
    ours.model.load_state_dict(theirs.model.state_dict())


def agree(
    ours: Trainer, theirs: StraightforwardTrainer, batch: Tensor
) -> dict[str, tuple[float, float]]:
    """Let both take a step and make sure that their losses are the same.

    Raises:
        AssertionError: they are not.
    """
    torch.manual_seed(0)
    found = our_step(ours, batch)
    torch.manual_seed(0)
    losses = {name: (found[name], value) for name, value in theirs.step(batch).items()}
    for name, (one, other) in losses.items():
        same = math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-6)
        assert same, f"{name}: {one} is not {other}"
    return losses


def our_step(trainer: Trainer, batch: Tensor) -> dict[str, float]:
    """The next step of a run that ends by steps."""
    assert trainer.config.max_steps is not None
    return trainer.step(batch, trainer.steps / trainer.config.max_steps).values


def upstream_form(config: RunConfig, steps: int) -> RunConfig:
    """The recipe as the authors train: discriminators from the start, on the whole crops.

    Raises:
        UsageError: the config is not SuperCodec's.
    """
    adversarial = replace(has_upstream_form(config), start=0.0, segment_size=None)
    recipe = replace(config.training, adversarial=adversarial, max_steps=steps, max_epochs=None)
    return replace(config, training=recipe)


def has_upstream_form(config: RunConfig) -> AdversarialConfig:
    """The discriminators' part of a config of SuperCodec; UsageError if it is of another form."""
    chosen = config.training.adversarial
    if config.family == "supercodec" and chosen is not None and config.training.ema is None:
        families = [family.kind for family in chosen.discriminators]
        alike = chosen.loss == "hinge" and chosen.mean and chosen.relative_features
        if alike and families == ["complex_stft"] and chosen.balance is None:
            return chosen
    raise UsageError("only SuperCodec's own recipe is written the straightforward way, too")
