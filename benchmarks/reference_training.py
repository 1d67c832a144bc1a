"""SuperCodec's training step written directly from the paper and the published training.

`ReferenceTrainer.step` computes what `codectool.training.trainer.Trainer.step` computes, from the
same weights (arXiv 2407.20530), without its optimizations:

- windows and mel bands are rebuilt whenever a loss needs them;
- spectra come from `torch.stft` and torchaudio;
- codec and discriminators each pass real and generated speech through the discriminators;
- the codec's loss leaves unused gradients in the discriminators and a graph through real speech.

The codec is updated before the discriminators, so that both losses use the same weights.
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


class ReferenceTrainer:
    """Train SuperCodec, starting from the same weights as `Trainer`.

    Args:
        config: a config of SuperCodec with lengths in steps.

    Raises:
        UsageError: The config needs something that is not implemented here.
    """

    def __init__(self, config: RunConfig) -> None:
        self.training = training = config.training
        self.adversarial = require_reference_form(config)
        assert training.max_steps is not None
        torch.manual_seed(training.seed)
        self.model = config.trainable.from_config(config.model)
        family = self.adversarial.discriminators[0].build()
        self.discriminators = cast("list[SubDiscriminator]", list(cast(Any, family).members))
        windows = [len(cast(ComplexImage, each.image).window) for each in self.discriminators]
        self.spectrograms = [
            torchaudio.transforms.Spectrogram(
                window, hop_length=window // 4, normalized=True, center=False, power=None
            )
            for window in windows
        ]
        self.optimizer = adam(training.generator, self.model)
        self.discriminator_optimizer = adam(training.discriminator or training.generator, family)
        self.schedulers = [
            torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, training.max_steps, training.schedule.final * optimizer.defaults["lr"]
            )
            for optimizer in (self.optimizer, self.discriminator_optimizer)
        ]

    def step(self, batch: Tensor) -> dict[str, float]:
        """Train on crops ``(B, 1, N)``; return losses by their names in `Trainer.step`."""
        training, adversarial = self.training, self.adversarial
        output = self.model.train()(batch)
        fake, real = output.audio, output.target

        self.optimizer.zero_grad()
        values: dict[str, Tensor] = {}
        total = torch.zeros(())
        for loss in training.losses:
            if isinstance(loss, MelLossConfig):
                distance = mel_distance(loss, fake, real, self.model.sample_rate)
            else:
                assert isinstance(loss, WaveformLossConfig)
                distance = F.l1_loss(fake, real)
            values[loss.kind] = values.get(loss.kind, torch.zeros(())) + distance
            total = total + loss.weight * distance
        commitment = output.auxiliary_losses["commitment"]
        total = total + training.auxiliary_losses["commitment"] * commitment
        values |= {"commitment": commitment, "loss": total.detach()}
        real_outputs, fake_outputs = self._discriminate(real), self._discriminate(fake)
        values["adversarial_0"] = mean_hinge([logits for logits, _ in fake_outputs], real=True)
        values["features_0"] = feature_distance(real_outputs, fake_outputs)
        total = total + adversarial.weight * values["adversarial_0"]
        total = total + adversarial.feature_weight * values["features_0"]
        total.backward()
        self.optimizer.step()

        self.discriminator_optimizer.zero_grad()
        real_outputs, fake_outputs = self._discriminate(real), self._discriminate(fake.detach())
        values["discriminator"] = mean_hinge([logits for logits, _ in real_outputs], real=True)
        values["discriminator"] += mean_hinge([logits for logits, _ in fake_outputs], real=False)
        values["discriminator"].backward(retain_graph=True)  # type: ignore[no-untyped-call]
        self.discriminator_optimizer.step()
        for scheduler in self.schedulers:
            scheduler.step()
        return {name: value.item() for name, value in values.items()}

    def _discriminate(self, wave: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """Return logits and features, each ``(B, C, T, K)``, of each sub-discriminator."""
        outputs = []
        for spectrogram, discriminator in zip(self.spectrograms, self.discriminators, strict=True):
            spectrum = spectrogram(wave)
            x = torch.cat([spectrum.real, spectrum.imag], dim=1).transpose(2, 3)
            features = []
            for convolution in discriminator.hidden:
                x = F.leaky_relu(convolution(x), SLOPE)
                features.append(x)
            outputs.append((discriminator.last(x), features))
        return outputs


def adam(config: OptimizerConfig, model: nn.Module) -> torch.optim.Adam:
    """Return Adam for all parameters of a model."""
    return torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, betas=config.betas, eps=config.eps
    )


def mel_distance(loss: MelLossConfig, output: Tensor, target: Tensor, sample_rate: int) -> Tensor:
    """Return the distance of log-mel spectra of ``(B, 1, N)``, with nothing cached."""
    hops = loss.hops or tuple(window // 4 for window in loss.windows)
    total = torch.zeros(())
    for window, bands, hop in zip(loss.windows, loss.bands, hops, strict=True):
        fft_size = loss.fft_size or window
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero")
            banks = [
                torchaudio.functional.melscale_fbanks(
                    fft_size // 2 + 1,
                    loss.f_min,
                    loss.f_max or sample_rate / 2,
                    bands,
                    sample_rate,
                    norm="slaney",
                    mel_scale="slaney",
                )
                for _ in range(2)
            ]
        log_y, log_x = (
            log_mel(loss, signal.squeeze(1), fft_size, window, hop, bank)
            for signal, bank in zip((output, target), banks, strict=True)
        )
        total = total + F.l1_loss(log_y, log_x) + loss.squared * F.mse_loss(log_y, log_x)
    return total


def log_mel(
    loss: MelLossConfig, signal: Tensor, fft_size: int, window: int, hop: int, bands: Tensor
) -> Tensor:
    """Return the log-mel spectra ``(B, T, M)`` of ``(B, N)``."""
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
    if loss.power == 2:
        size = spectrum.abs().pow(2)
    else:
        size = torch.sqrt(torch.view_as_real(spectrum).pow(2).sum(-1) + loss.epsilon)
    mel = torch.clamp(size.transpose(1, 2) @ bands, min=loss.floor)
    return torch.log(mel) if loss.natural_log else torch.log10(mel)


def mean_hinge(logits: Sequence[Tensor], real: bool) -> Tensor:
    """Return the mean of ``relu(1 - D)`` or ``relu(1 + D)`` over the sub-discriminators."""
    sign = -1 if real else 1
    return torch.stack([F.relu(1 + sign * x).mean() for x in logits]).mean()


def feature_distance(
    real: Sequence[tuple[Tensor, list[Tensor]]], fake: Sequence[tuple[Tensor, list[Tensor]]]
) -> Tensor:
    """Return the mean relative distance of features; real features carry a gradient as well."""
    distances = [
        F.l1_loss(x, y) / x.abs().mean()
        for (_, real_maps), (_, fake_maps) in zip(real, fake, strict=True)
        for x, y in zip(real_maps, fake_maps, strict=True)
    ]
    return torch.stack(distances).mean()


@dataclass(frozen=True)
class Comparison:
    """Seconds of alternating steps on the same batches.

    Attributes:
        seconds: ``(codectool, reference)`` of each pair of steps, by ``cpu`` (all threads) and
            ``wall``.
        losses: ``(codectool, reference)`` on the first batch, by name.
    """

    seconds: dict[str, list[tuple[float, float]]]
    losses: dict[str, tuple[float, float]]

    def summary(self) -> dict[str, Any]:
        """Return medians, and the median, lowest and highest ratio of the pairs."""
        result: dict[str, Any] = {"pairs": len(self.seconds["cpu"])}
        for kind, pairs in self.seconds.items():
            codectool, reference = zip(*pairs, strict=True)
            ratios = sorted(b / a for a, b in pairs)
            result |= {
                f"{kind}_codectool": statistics.median(codectool),
                f"{kind}_reference": statistics.median(reference),
                f"{kind}_ratio": [statistics.median(ratios), ratios[0], ratios[-1]],
            }
        return result


def compare(config: RunConfig, batches: Sequence[Tensor]) -> Comparison:
    """Train both in turns on the same batches; the first batch warms up and compares losses.

    Raises:
        UsageError: The config is not SuperCodec's.
        AssertionError: The losses differ.
    """
    trainer = Trainer(config, torch.device("cpu"))
    reference = ReferenceTrainer(config)
    share_codewords(trainer, reference, batches[0])
    losses = agree(trainer, reference, batches[0])
    seconds: dict[str, list[tuple[float, float]]] = {"cpu": [], "wall": []}
    for number, batch in enumerate(batches[1:]):
        steps: list[Callable[[], object]] = [
            lambda batch=batch: trainer_step(trainer, batch),  # type: ignore[misc]
            lambda batch=batch: reference.step(batch),  # type: ignore[misc]
        ]
        times = [(0.0, 0.0), (0.0, 0.0)]
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            cpu, wall = time.process_time(), time.perf_counter()
            steps[index]()
            times[index] = time.process_time() - cpu, time.perf_counter() - wall
        for kind, pair in zip(seconds, zip(*times, strict=True), strict=True):
            seconds[kind].append(pair)
    return Comparison(seconds, losses)


@torch.no_grad()
def share_codewords(trainer: Trainer, reference: ReferenceTrainer, batch: Tensor) -> None:
    """Give both the same random codewords, with the variance of the latents of a batch.

    Otherwise the first step would cluster its batch. Clusters of one latent have a residual of
    zero, which is equally near to ``r`` and ``-r`` of a cluster of two; rounding would decide such
    ties, and losses would differ by more than rounding.
    """
    model = cast(SuperCodec, cast(Any, reference.model).model)
    spread = model.latent(batch).std()
    generator = torch.Generator().manual_seed(0)
    for stage in model.rq.layers:
        codebook = cast(EuclideanCodebook, stage)
        codebook.embed.copy_(spread * torch.randn(codebook.embed.shape, generator=generator))
        codebook.cluster_size.fill_(1)
        codebook.embed_avg.copy_(codebook.embed)
        codebook.initted.fill_(1)
    trainer.model.load_state_dict(reference.model.state_dict())


def agree(
    trainer: Trainer, reference: ReferenceTrainer, batch: Tensor
) -> dict[str, tuple[float, float]]:
    """Run one step of both and compare the losses.

    Raises:
        AssertionError: The losses differ.
    """
    torch.manual_seed(0)
    values = trainer_step(trainer, batch)
    torch.manual_seed(0)
    losses = {name: (values[name], value) for name, value in reference.step(batch).items()}
    for name, (one, other) in losses.items():
        same = math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-6)
        assert same, f"{name}: {one} != {other}"
    return losses


def trainer_step(trainer: Trainer, batch: Tensor) -> dict[str, float]:
    """Run the next step of a run whose length is given in steps."""
    assert trainer.config.max_steps is not None
    return trainer.step(batch, trainer.steps / trainer.config.max_steps).values


def reference_form(config: RunConfig, steps: int) -> RunConfig:
    """Return the config with discriminators from the start and on whole crops, as published.

    Raises:
        UsageError: The config is not SuperCodec's.
    """
    adversarial = replace(require_reference_form(config), start=0.0, segment_size=None)
    training = replace(config.training, adversarial=adversarial, max_steps=steps, max_epochs=None)
    return replace(config, training=training)


def require_reference_form(config: RunConfig) -> AdversarialConfig:
    """Return the adversarial config; raise `UsageError` if it is not SuperCodec's."""
    chosen = config.training.adversarial
    if config.family == "supercodec" and chosen is not None and config.training.ema is None:
        families = [family.kind for family in chosen.discriminators]
        supported = chosen.loss == "hinge" and chosen.mean and chosen.relative_features
        if supported and families == ["complex_stft"] and chosen.balance is None:
            return chosen
    raise UsageError("only SuperCodec's own training has a reference implementation")
