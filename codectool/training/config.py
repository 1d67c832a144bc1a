"""Training configs: `RunConfig` is one JSON file, `TrainingConfig` its section ``training``.

Sizes are in samples. The configs of losses, discriminators and optimizers are beside their code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta
from msgspec.structs import replace

from codectool.codecs.registry import FAMILIES, all_families, get_family
from codectool.codecs.trainable import CropSpec, TrainableCodec
from codectool.errors import ConfigError, UsageError
from codectool.messages import shorten, shorten_repr
from codectool.schema import (
    Config,
    Count,
    NonNegativeFloat,
    PositiveFloat,
    from_json,
    parse_json,
    read_json,
    to_json,
)
from codectool.training.adversarial import AdversarialConfig
from codectool.training.data import CropConfig
from codectool.training.losses import AnyLossConfig
from codectool.training.optimizer import OptimizerConfig, ScheduleConfig

# Former names of keys and of values of `kind` in the section `training`, which are still read.
OLD_NAMES = {
    "penalties": "auxiliary_losses",
    "early_start": "start_padding_prob",
    "silence": "silence_prob",
    "whiteness": "decorrelation",
    "coherence": "phase_coherence",
}
# Keys that determine the shapes of networks.
SHAPE_KEYS = ("family", "model.", "training.freeze", "training.adversarial.discriminators")


# Keys of the section `training` that need the encoder, or audio that differs from the clips, and
# the values that turn them off.
WITHOUT_ENCODER: dict[str, Any] = {
    "gain_db": None,
    "start_padding_prob": 0.0,
    "silence_prob": 0.0,
    "auxiliary_losses": {},
    "dead_code_threshold": 0.0,
}


def set_with_encoder(training: Mapping[str, Any]) -> list[str]:
    """Return the keys of `WITHOUT_ENCODER` that a section ``training`` does not turn off."""
    return [key for key, off in WITHOUT_ENCODER.items() if training.get(key, off) != off]


class TrainingConfig(CropConfig, frozen=True, kw_only=True):
    """How a codec is trained.

    Attributes:
        batch_size: crops of one step, over all processes and accumulated parts.
        generator: optimizer of the codec.
        losses: reconstruction losses.
        auxiliary_losses: weights of the quantizer's losses by name.
        max_steps: length of the run in steps; either this or `max_epochs`.
        max_epochs: length of the run in passes over the data.
        discriminator: optimizer of the discriminators; null for the settings of `generator`.
        adversarial: adversarial training; null for none.
        schedule: learning rate of both optimizers.
        dead_code_threshold: replace codewords whose moving average of uses per batch is below this
            number; 0 for none. Only for codebooks that follow the data by moving averages.
        clip_norm: largest gradient norm; null for no clipping.
        ema: decay of the moving average of the weights, which is what is validated and stored; null
            for none.
        accumulation: number of parts of a batch whose gradients are accumulated.
        freeze: ``"encoder"`` trains the decoder alone: encoder and quantizer keep the weights that
            the run starts with, and the tokens of the data are computed once; null trains all.
        precision: precision of matrix products and convolutions: ``"fp32"``, ``"bf16"`` or
            ``"fp16"``.
        compile: compile the model, which takes minutes at the start and makes steps faster.
        num_workers: processes that read audio.
        log_every: steps between lines of the metrics log.
        validate_every: steps between validations.
        valid_clips: clips of a validation, spread over the list.
        save_every: steps between checkpoints.
        keep: number of numbered checkpoints that are kept.
        max_bad_steps: consecutive steps with a non-finite loss or gradient that end the run.
    """

    batch_size: Count
    generator: OptimizerConfig
    losses: Annotated[tuple[AnyLossConfig, ...], Meta(min_length=1)]
    auxiliary_losses: Mapping[str, NonNegativeFloat]
    max_steps: Count | None = None
    max_epochs: Count | None = None
    discriminator: OptimizerConfig | None = None
    adversarial: AdversarialConfig | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    dead_code_threshold: NonNegativeFloat = 0.0
    clip_norm: PositiveFloat | None = None
    ema: Annotated[float, Meta(gt=0, lt=1)] | None = None
    accumulation: Count = 1
    freeze: Literal["encoder"] | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    num_workers: Annotated[int, Meta(ge=0, le=256)] = 2
    log_every: Count = 20
    validate_every: Count = 1000
    valid_clips: Count = 32
    save_every: Count = 1000
    keep: Annotated[int, Meta(ge=0)] = 3
    max_bad_steps: Count = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.max_steps is None) == (self.max_epochs is None):
            raise ConfigError("set either max_steps or max_epochs, not both and not none")
        if self.batch_size % self.accumulation:
            raise ConfigError(
                f"batch_size {self.batch_size} is not a multiple of accumulation "
                f"{self.accumulation}"
            )
        if self.adversarial is not None:
            self._check_adversarial(self.adversarial)
        if self.freeze is not None:
            for key in set_with_encoder(to_json(self)):
                raise ConfigError(
                    f"{key} has no use with a fixed encoder: `freeze`, which takes tokens of the "
                    f"unchanged clips; set it to {json.dumps(WITHOUT_ENCODER[key])}"
                )

    def _check_adversarial(self, adversarial: AdversarialConfig) -> None:
        size = adversarial.segment_size
        if size is not None and size > self.segment_size:
            raise ConfigError(
                f"adversarial.segment_size {size} is longer than segment_size {self.segment_size}"
            )
        if adversarial.balance is None:
            return
        kinds = {config.__struct_config__.tag for config in get_args(AnyLossConfig)}
        unknown = sorted(set(adversarial.balance) - kinds - {"adversarial", "features"})
        if unknown:
            raise ConfigError(f"adversarial.balance: unknown loss {', '.join(unknown)}")
        present = {*(loss.kind for loss in self.losses), "adversarial", "features"}
        missing = sorted(present - set(adversarial.balance))
        if missing:
            raise ConfigError(f"adversarial.balance has no norm for {', '.join(missing)}")

    def in_steps(self, items_per_epoch: int) -> TrainingConfig:
        """Return the same config with all lengths in steps, given the crops of an epoch."""
        steps = max(1, items_per_epoch // self.batch_size)
        schedule = self.schedule
        if schedule.warmup_epochs:
            warmup = schedule.warmup_epochs * steps
            schedule = replace(schedule, warmup_steps=warmup, warmup_epochs=0)
        if self.max_epochs is None:
            return replace(self, schedule=schedule)
        return replace(self, schedule=schedule, max_steps=self.max_epochs * steps, max_epochs=None)


class DataConfig(Config, frozen=True):
    """Speech: folders, or lists of files.

    Attributes:
        train: speech to train on.
        valid: speech of other speakers to validate on; null for no validation.
        token_cache: folder for the tokens of the data if the encoder is fixed, which several runs
            can share; null for the folder `tokens` of the run.
    """

    train: str
    valid: str | None = None
    token_cache: str | None = None


class RunConfig(Config, frozen=True):
    """All that describes a training run.

    Attributes:
        family: codec family.
        model: config of the model, in the layout of the family.
        training: how the model is trained.
        data: speech; options of the command line replace it.
        description: free text.
    """

    family: str
    model: Mapping[str, Any]
    training: TrainingConfig
    data: DataConfig | None = None
    description: str = ""

    def __post_init__(self) -> None:
        """Raise `ConfigError` if the model is wrong or cannot be trained this way."""
        trainable, crops, training = self.trainable, self.crop_spec(), self.training
        hop, size = crops.hop_length, training.segment_size
        if size % hop:
            near = max(crops.min_frames, round(size / hop)) * hop
            raise ConfigError(
                f"`training.segment_size` {size} is not a multiple of the hop length {hop}; use "
                f"{near}"
            )
        if size < crops.min_frames * hop:
            shortest = crops.min_frames * hop
            raise ConfigError(
                f"`training.segment_size` {size} is too short for this model, which needs "
                f"{shortest} samples ({shortest / crops.sample_rate:.2f} s)"
            )
        for number, loss in enumerate(training.losses):
            if loss.needs_source and crops.source_frame is None:
                raise ConfigError(
                    f"`training.losses[{number}]`: {loss.kind} is for decoders with a source; add "
                    "`model.source`, or remove this loss"
                )
            try:
                loss.check_rate(crops.sample_rate)
            except ConfigError as error:
                raise ConfigError(f"`training.losses[{number}]`: {error}") from error
        if training.dead_code_threshold and not trainable.has_ema_codebooks:
            raise ConfigError(
                f"`training.dead_code_threshold`: {self.family} has no codebooks of moving "
                "averages; remove this key"
            )
        adversarial = training.adversarial
        if crops.source_frame is not None and adversarial is not None and adversarial.balance:
            raise ConfigError(
                "`training.adversarial.balance` weighs the gradients at one output, but a decoder "
                "with a source has two in training; set it to null"
            )
        known = trainable.auxiliary_loss_names
        unknown = sorted(set(training.auxiliary_losses) - set(known))
        if unknown:
            raise ConfigError(
                f"`training.auxiliary_losses`: {self.family} has no loss {unknown[0]!r}; choose "
                f"from {', '.join(known)}"
            )

    @property
    def trainable(self) -> type[TrainableCodec]:
        """The class of the model in training."""
        if self.family not in FAMILIES:
            names = ", ".join(map(repr, FAMILIES))
            raise ConfigError(f"`family` must be one of {names}, not {self.family!r:.60}")
        return get_family(self.family).trainable_class()

    @property
    def pitch_frame(self) -> int | None:
        """Samples from one value of the pitch of crops to the next; None if no loss needs it."""
        needed = any(loss.needs_pitch for loss in self.training.losses)
        return self.crop_spec().source_frame if needed else None

    def crop_spec(self) -> CropSpec:
        """Return what the model requires of crops."""
        try:
            return self.trainable.crop_spec(self.model)
        except ConfigError as error:
            raise ConfigError(f"`model`: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that `parse` reads."""
        values: dict[str, Any] = to_json(self)
        return values


def bundled() -> list[str]:
    """Return the names of the bundled training configs."""
    names = [path.name for path in (files("codectool") / "configs").iterdir()]
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def load(source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config.

    Args:
        source: name of a bundled config, or path of a JSON file in codectool's layout or in the
            published layout of a codec.
        overrides: ``key=value`` with dotted keys, applied before the config is checked.

    Raises:
        ConfigError: There is no such config, or it is wrong; the message names file and key.
        UsageError: An override has another form, or its key does not exist.
    """
    path = Path(source)
    if path.suffix == ".json" or path.exists():
        values, name = read_json(path), str(path)
    else:
        resource = files("codectool") / "configs" / f"{source}.json"
        if source not in bundled():
            raise ConfigError(
                f"{source}: neither a file nor a bundled config; choose from {', '.join(bundled())}"
            )
        values, name = parse_json(resource.read_bytes(), source), source
    try:
        return parse(override(values, overrides))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def parse(values: Mapping[str, Any]) -> RunConfig:
    """Check the JSON values of a config.

    Raises:
        ConfigError: The config is wrong; the message names the key.
    """
    if "family" not in values:
        layouts = (family.translate_training_config(values) for family in all_families())
        values = next((layout for layout in layouts if layout is not None), values)
    return from_json(RunConfig, rename_old(values))


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` settings to a copy; values are JSON, or strings if they are not JSON.

    Examples:
        >>> override({"training": {"batch_size": 8}}, ["training.batch_size=4"])
        {'training': {'batch_size': 4}}

    Raises:
        UsageError: An assignment has another form, or its key does not exist.
        ConfigError: Objects are nested too deep.
    """
    try:
        result: dict[str, Any] = rename_old(json.loads(json.dumps(values)))
    except RecursionError as error:
        raise ConfigError("objects are nested too deep") from error
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        steps = key.strip().split(".")
        if not equals or not all(steps):
            raise UsageError(f"--set takes KEY=VALUE, not {assignment!r:.60}")
        if steps[0] == "training":
            steps = [OLD_NAMES.get(step, step) for step in steps]
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        _assign(result, steps, value, assignment)
    return result


def _assign(place: Any, steps: Sequence[str], value: Any, assignment: str) -> None:
    for step in steps[:-1]:
        key = _key(place, step, assignment)
        inside = place.get(key) if isinstance(place, dict) else place[key]
        if inside is None:
            inside = place[key] = {}
        place = inside
    place[_key(place, steps[-1], assignment)] = value


def _key(place: Any, step: str, assignment: str) -> str | int:
    if isinstance(place, dict):
        return step
    if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
        return int(step)
    raise UsageError(f"--set {assignment:.60}: there is no key `{step}`")


def rename_old(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose section ``training`` has no names of `OLD_NAMES`."""

    def renamed(value: Any) -> Any:
        if isinstance(value, list):
            return [renamed(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        for key in OLD_NAMES.keys() & value.keys():
            if OLD_NAMES[key] in value:
                raise ConfigError(f"`training`: `{key}` is the old name of `{OLD_NAMES[key]}`")
        items = {OLD_NAMES.get(key, key): renamed(item) for key, item in value.items()}
        if isinstance(items.get("kind"), str):
            items["kind"] = OLD_NAMES.get(items["kind"], items["kind"])
        return items

    return {key: renamed(item) if key == "training" else item for key, item in values.items()}


def shape_change(old: Any, new: Any) -> str | None:
    """Return the first key that changes the shapes of networks from one config to another.

    Examples:
        >>> shape_change({"family": "hac", "model": {"num_bits": 18}},
        ...              {"family": "hac", "model": {"num_bits": 12}})
        '`model.num_bits` 18, the config says 12'
    """
    change = first_difference(old, new, SHAPE_KEYS)
    return None if change is None else "`{}` {}, the config says {}".format(*change)


def first_difference(
    old: Any, new: Any, prefixes: tuple[str, ...] = ("",)
) -> tuple[str, str, str] | None:
    """Return the first key with one of the prefixes that differs, and both values, for messages."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    for key in before | after:
        if key.startswith(prefixes) and before.get(key) != after.get(key):
            values = (shorten_repr(each.get(key), 60) for each in (before, after))
            return shorten(key), *values  # type: ignore[return-value]
    return None


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}[{number}]")
    else:
        yield path, value
