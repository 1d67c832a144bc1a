"""The training step, from a batch of crops to new weights.

One step, for a codec G and discriminators D::

    y, auxiliary losses = G(x)
    L_D = sum over D of the hinge or least-squares loss of D(x), D(y)
    L_G = reconstruction losses(y, x) + adversarial(D(y)) + features(D(y), D(x)) + auxiliary losses

Both losses use the same weights of D, so D(x) is computed once for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from codectool.codecs.trainable import CropTokens, Reconstruction
from codectool.errors import CheckpointError, ConfigError, TrainingError
from codectool.messages import first_few, shorten
from codectool.nn.distributed import all_reduce_sum, world_size
from codectool.training.adversarial import AdversarialLoss
from codectool.training.average import WeightAverage
from codectool.training.checkpoint import (
    OptimizerState,
    load_moments,
    load_parameters,
    load_weights,
)
from codectool.training.config import RunConfig, shape_change
from codectool.training.losses.base import ReconstructionLoss
from codectool.training.optimizer import load_optimizer
from codectool.training.parallel import average_gradients, broadcast_parameters

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepReport:
    """Losses and gradient norms of a step by name, of the batch of all processes."""

    values: dict[str, float]
    # names of losses, norms and gradients that were not finite; if any, the step was skipped
    not_finite: tuple[str, ...] = ()

    @property
    def skipped(self) -> bool:
        """Whether the weights were not changed, because a loss or gradient was not finite."""
        return bool(self.not_finite)


class Trainer:
    """Weights, optimizers and everything else that a step changes.

    Args:
        run_config: the model and how it is trained, with lengths in steps.
        device: where to train.

    Attributes:
        config: how the model is trained.
        model: the codec.
        reconstruction: the reconstruction losses.
        adversarial: the discriminators; None without adversarial training.
        modules: all that has weights or buffers.
        average: moving average of the codec's weights, or None.
        steps: number of steps done, including skipped steps.
        bad_steps: number of consecutive skipped steps.
        skipped: number of skipped steps.
    """

    def __init__(self, run_config: RunConfig, device: torch.device) -> None:
        self.run_config, self.device = run_config, device
        self.config = config = run_config.training
        torch.manual_seed(config.seed)
        self.model = run_config.trainable.from_config(run_config.model)
        if config.freeze is not None:
            self.model.freeze_encoder()
        self.model.to(device)
        if config.dead_code_threshold:
            self.model.set_dead_code_threshold(config.dead_code_threshold)
        self.reconstruction = ReconstructionLoss(config.losses, self.model.sample_rate).to(device)
        self.modules: list[nn.Module] = [self.model]
        self.adversarial: AdversarialLoss | None = None
        if config.adversarial is not None:
            self.adversarial = AdversarialLoss(config.adversarial).to(device)
            self.modules.append(self.adversarial)
        for module in self.modules:
            broadcast_parameters(module)
        self.average = WeightAverage(self.model, config.ema) if config.ema else None

        self.optimizer = config.generator.build(self._parameter_groups())
        self.discriminator_optimizer: torch.optim.Optimizer | None = None
        if self.adversarial is not None:
            parameters = list(self.adversarial.parameters())
            optimizer = config.discriminator or config.generator
            self.discriminator_optimizer = optimizer.build([{"params": parameters}])
        # fp16 gradients vanish unless the loss is scaled up
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.steps = self.bad_steps = self.skipped = 0
        self._check_crop_length()
        if config.compile:
            self.model.compile_parts()

    def step(
        self,
        batch: Tensor,
        progress: float,
        tokens: CropTokens | None = None,
        pitch: Tensor | None = None,
    ) -> StepReport:
        """Train on a batch of crops.

        Args:
            batch: float32 ``(B, 1, N)``, this process's part of the batch.
            progress: fraction of the run done, 0 to 1, for schedules.
            tokens: tokens of the batch, if the encoder is fixed.
            pitch: pitch of the batch, if a loss needs it, as in `Reconstruction`.

        Raises:
            TrainingError: Too many consecutive steps had a non-finite loss or gradient.
        """
        config, adversarial = self.config, self.adversarial
        if adversarial is not None and not adversarial.config.is_active(self.steps, progress):
            adversarial = None
        optimizers = [self.optimizer]
        if adversarial is not None and self.discriminator_optimizer is not None:
            optimizers.append(self.discriminator_optimizer)
        self._set_learning_rates(progress)
        self.model.train().prepare_step(self.steps, progress)
        before = [buffer.clone() for buffer in self._buffers()]
        sums: dict[str, Tensor] = {}

        parts = zip_parts(batch, tokens, pitch, config.accumulation)
        for part, part_tokens, part_pitch in parts:
            with self._autocast():
                output = replace(self.reconstruct(part, part_tokens), pitch=part_pitch)
            losses: dict[str, Tensor] = {}
            if adversarial is not None:
                crops = adversarial.crop(output.audio, output.target, config.seed + self.steps)
                with self._autocast(wide_range=True):
                    losses, discriminator_loss = adversarial(*crops)
                torch.autograd.backward(discriminator_loss / config.accumulation)
                add_up(sums, {"discriminator": discriminator_loss}, config.accumulation)
            plain, weighted = self.reconstruction(output)
            total = reconstruction = sum(weighted.values(), output.audio.new_zeros(()))
            if adversarial is not None:
                total = adversarial.combine(weighted, losses, output.audio)
            auxiliary = total.new_zeros(())
            for name, value in output.auxiliary_losses.items():
                auxiliary = auxiliary + config.auxiliary_losses.get(name, 0.0) * value
            torch.autograd.backward(self.scaler.scale((total + auxiliary) / config.accumulation))
            values = {**plain, **losses, **output.auxiliary_losses}
            values["loss"] = reconstruction + auxiliary
            add_up(sums, values, config.accumulation)

        trained: dict[str, nn.Module] = {"grad_norm": self.model}
        if adversarial is not None:
            trained["discriminator_grad_norm"] = adversarial
        for module in trained.values():
            average_gradients(module.parameters())
        self.scaler.unscale_(self.optimizer)
        for name, module in trained.items():
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            sums[name] = nn.utils.get_total_norm(gradients)
        # the only wait for the device in a step; all processes find the same values non-finite
        means = all_reduce_sum(torch.stack(list(sums.values()))) / world_size()
        metrics = dict(zip(sums, means.tolist(), strict=True))
        not_finite = [name for name, value in metrics.items() if not math.isfinite(value)]
        if not not_finite:
            for name, module in trained.items():
                limit = config.clip_norm or math.inf
                nn.utils.clip_grads_with_norm_(module.parameters(), limit, sums[name])
            self.scaler.step(self.optimizer)
            for optimizer in optimizers[1:]:
                optimizer.step()
            if self.average is not None:
                self.average.update()
        else:
            if trained.keys() >= set(not_finite):  # of the losses, all are finite
                not_finite += _not_finite_gradients(trained.values())
            # the forward pass has updated the running statistics
            for buffer, kept in zip(self._buffers(), before, strict=True):
                buffer.copy_(kept)
        self.scaler.update()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self.skipped += bool(not_finite)
        self.bad_steps = self.bad_steps + 1 if not_finite else 0
        if self.bad_steps >= config.max_bad_steps:
            raise TrainingError(
                f"{self.bad_steps} consecutive steps had a loss or gradient that is not finite "
                f"({', '.join(first_few(not_finite))}); stopped at the last good weights: try a "
                "lower learning rate, or fp32"
            )
        metrics["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        return StepReport(metrics, tuple(not_finite))

    def reconstruct(self, crops: Tensor, tokens: CropTokens | None) -> Reconstruction:
        """Encode and decode crops ``(B, 1, N)``, or decode their tokens."""
        if tokens is not None:
            return self.model.decode_crops(tokens, crops)
        output: Reconstruction = self.model(crops)
        return output

    def not_finite_weight(self) -> str | None:
        """Return the name of a weight or running statistic that is not finite, or None."""
        tensors = [(name, t) for module in self.modules for name, t in module.state_dict().items()]
        tensors += self.average.tensors.items() if self.average is not None else []
        for name, tensor in tensors:
            if not tensor.isfinite().all():
                return name
        return None

    def _set_learning_rates(self, progress: float) -> None:
        config = self.config
        assert config.max_steps is not None, "lengths are in steps"
        factor = config.schedule.factor(self.steps, config.max_steps, progress)
        pairs = [(self.optimizer, config.generator)]
        if self.discriminator_optimizer is not None:
            pairs.append((self.discriminator_optimizer, config.discriminator or config.generator))
        for optimizer, settings in pairs:
            for group in optimizer.param_groups:
                group["lr"] = factor * settings.learning_rate

    def _autocast(self, wide_range: bool = False) -> torch.autocast:
        """Use the config's precision; ``wide_range`` excludes fp16."""
        precision = self.config.precision
        enabled = precision != "fp32" and not (wide_range and precision == "fp16")
        return torch.autocast(self.device.type, DTYPES[precision], enabled=enabled)

    def _buffers(self) -> list[Tensor]:
        return [buffer for module in self.modules for buffer in module.buffers()]

    @torch.no_grad()
    def _check_crop_length(self) -> None:
        """Raise `ConfigError` if a loss or a discriminator needs more samples than a crop has."""
        crop = torch.zeros(1, 1, self.config.segment_size, device=self.device)
        self.model.eval()
        tokens = self._zero_tokens() if self.config.freeze is not None else None
        output = self.reconstruct(crop, tokens)
        if output.source is not None:
            pitch = torch.zeros(*output.source.voicing.shape, 2, device=self.device)
            output = replace(output, pitch=pitch)
        try:
            self.reconstruction(output)
        except ConfigError as error:
            raise ConfigError(f"`training.losses`: {error}") from error
        if self.adversarial is None:
            return
        try:
            for discriminator in self.adversarial.discriminators:
                discriminator(self.adversarial.crop(output.audio, output.target, seed=0)[0])
        except ConfigError as error:
            raise ConfigError(f"`training.adversarial`: {error}") from error

    def _zero_tokens(self) -> CropTokens:
        """Return tokens of one crop, all zero."""
        before, after = self.model.crop_context()
        frames = self.config.segment_size // self.run_config.crop_spec().hop_length + after
        codebooks = self.run_config.crop_spec().num_codebooks
        tokens = CropTokens(
            codes=torch.zeros(1, codebooks, before + frames, dtype=torch.int64),
            starts=torch.tensor([False]),
            num_frames=torch.tensor([frames]),
            before=before,
            after=after,
        )
        return tokens.to(self.device)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters with weight decay, then the parameters without."""
        decayed: dict[str, Any] = {"params": []}
        other: dict[str, Any] = {"params": [], "weight_decay": 0.0}
        for name, parameter in self.model.named_parameters():
            group = decayed if self.model.has_weight_decay(name, parameter) else other
            if parameter.requires_grad:
                group["params"].append(parameter)
        return [group for group in (decayed, other) if group["params"]]

    def start_from(
        self,
        state: Mapping[str, Tensor],
        crops: Callable[[], tuple[Tensor, CropTokens | None]],
        optimizers: OptimizerState | None = None,
    ) -> None:
        """Start with the weights of a checkpoint, or with all that a published training left.

        Args:
            state: tensors by canonical name, in the order of the file.
            crops: returns crops ``(B, 1, N)`` of the training data, the same in all processes, and
                their tokens, if the encoder is fixed.
            optimizers: discriminators, moments and number of steps. A decoder trained alone takes
                only the discriminators and their moments, and starts at step 0.

        Raises:
            CheckpointError: The checkpoint is of another model.
        """
        frozen = self.config.freeze is not None
        names = load_weights(self.model, self.run_config.family, state, frozen)
        self.model.calibrate(lambda: to_device(*crops(), self.device))
        if self.average is not None:
            self.average = WeightAverage(self.model, self.average.decay)
        if optimizers is None:
            return
        try:
            if not frozen:
                ordered = self.model.parameters_in_order(names)
                load_moments(self.optimizer, ordered, optimizers.generator_moments)
            if self.adversarial is not None and self.discriminator_optimizer is not None:
                parameters = list(self.adversarial.parameters())
                load_parameters(parameters, optimizers.discriminator)
                moments = optimizers.discriminator_moments
                load_moments(self.discriminator_optimizer, parameters, moments)
        except CheckpointError as error:
            raise CheckpointError(
                f"{optimizers.path}: {error}; move this file away to start with the weights alone"
            ) from error
        if not frozen:
            self.steps = optimizers.steps

    def state(self) -> dict[str, Any]:
        """Return all that `load_state` needs to continue as if the run had not stopped."""
        adversarial, optimizer = self.adversarial, self.discriminator_optimizer
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "config": self.run_config.to_json(),
            "steps": self.steps,
            "bad_steps": self.bad_steps,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "average": self.average.state() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "discriminators": adversarial.discriminators.state_dict() if adversarial else None,
            "discriminator_optimizer": optimizer.state_dict() if optimizer else None,
            "balancer": adversarial.balancer.state_dict() if adversarial else None,
            "scaler": self.scaler.state_dict(),
            "random": random,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load what `state` returned.

        The training config may be another: what it adds starts now, what it lacks is ignored.

        Raises:
            ConfigError: The state is of another model, or of other discriminators.
            CheckpointError: Something is missing.
        """
        try:
            self._load(state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            change = shape_change(state.get("config"), self.run_config.to_json())
            if change is not None:
                raise ConfigError(f"the run was started with {change}") from error
            raise CheckpointError(
                "the state of the training run is incomplete "
                f"({shorten(str(error).strip().rpartition(chr(10))[2], 100)})"
            ) from error

    def _load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.average is not None:
            self.average = WeightAverage(self.model, self.average.decay)
            if state["average"]:  # else the average starts now
                self.average.load_state(**state["average"])
        optimizer, moments = self.discriminator_optimizer, state["discriminator_optimizer"]
        if self.adversarial is not None and optimizer is not None and moments:
            self.adversarial.discriminators.load_state_dict(state["discriminators"])
            self.adversarial.balancer.load_state_dict(state["balancer"], strict=False)
            load_optimizer(optimizer, moments)
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.steps = int(state["steps"])
        self.bad_steps, self.skipped = int(state["bad_steps"]), int(state["skipped"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)


def _not_finite_gradients(modules: Iterable[nn.Module]) -> list[str]:
    """Return the names of the parameters whose gradients are not finite."""
    return [
        f"gradient of {name}"
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]


def zip_parts(
    batch: Tensor, tokens: CropTokens | None, pitch: Tensor | None, count: int
) -> list[tuple[Tensor, CropTokens | None, Tensor | None]]:
    """Split a batch, its tokens and its pitch into parts."""
    nothing = [None] * len(batch.chunk(count))
    return list(
        zip(
            batch.chunk(count),
            nothing if tokens is None else tokens.chunk(count),
            nothing if pitch is None else pitch.chunk(count),
            strict=True,
        )
    )


def to_device(
    crops: Tensor, tokens: CropTokens | None, device: torch.device
) -> tuple[Tensor, CropTokens | None]:
    """Return crops and their tokens on a device."""
    moved = None if tokens is None else tokens.to(device)
    return crops.to(device, non_blocking=True), moved


def add_up(sums: dict[str, Tensor], values: Mapping[str, Tensor], num_parts: int) -> None:
    """Add the values of a part of the batch to the sums over parts."""
    for name, value in values.items():
        share = value.detach().float() / num_parts
        sums[name] = sums[name] + share if name in sums else share
