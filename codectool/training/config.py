"""What a training run is told: typed, checked, and read from JSON.

A config file holds the codec family, its hyper-parameters (``model``) and the recipe
(``training``). All sizes are in samples, all shares between 0 and 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from codectool.errors import ConfigError, UsageError
from codectool.schema import Config, TaggedConfig, from_json, parse_json, read_json, to_json

MAX_SIZE = 65536  # of a window, a width, a number of bands
BALANCED = {
    *("mel", "stft", "coherence", "envelope", "waveform", "whisper"),
    *("adversarial", "features"),
}


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _check_sizes(owner: Any, *names: str, least: int = 1) -> None:
    """Check fields that hold a size or a list of them, none of which may be empty or absurd."""
    for name in names:
        value = getattr(owner, name)
        sizes = value if isinstance(value, tuple) else (value,)
        _check(len(sizes) > 0, f"{name} is empty")
        good = all(least <= size <= MAX_SIZE for size in sizes)
        _check(good, f"{name} must be from {least} to {MAX_SIZE}")


def _check_even_windows(owner: Any) -> None:
    _check_sizes(owner, "windows", least=4)
    _check(all(size % 2 == 0 for size in owner.windows), "windows must be even")


def _check_weights(owner: Any, *names: str) -> None:
    for name in names:
        _check(getattr(owner, name) >= 0, f"{name} must not be below 0")


class MelTerm(TaggedConfig, tag="mel", frozen=True):
    """Distance of logarithmic mel spectra at several resolutions.

    Attributes:
        weight: in the sum of losses.
        windows: lengths of the Hann windows.
        bands: number of mel bands of each.
        fft_size: of all transforms; None is each window's length.
        hops: of each window; None is a quarter of the window.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band in Hz; None is half the sampling rate.
        power: 1 for magnitudes, 2 for powers.
        padding: ``"none"``, ``"centre"`` (half a transform on both ends) or ``"same"`` (as many
            frames as hops), by reflection.
        unit_sum: every band's weights sum to 1 (else Slaney's normalisation by width).
        full_scale: a sine of full scale has magnitude 1.
        epsilon: added to the power before the root.
        floor: smallest value under the logarithm.
        natural_log: instead of base 10.
        squared: weight of the mean squared beside the mean absolute difference.
        mean: over the windows, instead of the sum.
    """

    weight: float
    windows: tuple[int, ...]
    bands: tuple[int, ...]
    fft_size: int | None = None
    hops: tuple[int, ...] | None = None
    f_min: float = 0.0
    f_max: float | None = None
    power: Literal[1, 2] = 1
    padding: Literal["none", "centre", "same"] = "none"
    unit_sum: bool = False
    full_scale: bool = False
    epsilon: float = 0.0
    floor: float = 1e-5
    natural_log: bool = False
    squared: float = 0.0
    mean: bool = False

    def __post_init__(self) -> None:
        _check_weights(self, "weight", "f_min", "epsilon", "squared")
        _check_sizes(self, "windows", least=4)
        _check_sizes(self, "bands")
        if self.hops is not None:
            _check_sizes(self, "hops")
        for name, other in (("bands", self.bands), ("hops", self.hops)):
            same = other is None or len(other) == len(self.windows)
            _check(same, f"windows and {name} differ in length")
        fits = self.fft_size is None or max(self.windows) <= self.fft_size <= MAX_SIZE
        _check(fits, f"fft_size {self.fft_size} is shorter than a window, or above {MAX_SIZE}")
        transforms = self.windows if self.fft_size is None else (self.fft_size,)
        _check(all(size % 2 == 0 for size in transforms), "transforms must be of even size")
        above = self.f_max is None or self.f_max > self.f_min
        _check(above, f"f_max {self.f_max} is not above f_min {self.f_min}")
        _check(self.floor > 0, "floor must be above 0")


class StftTerm(TaggedConfig, tag="stft", frozen=True):
    """Distance of magnitude spectra at several resolutions (Parallel WaveGAN's pair).

    Attributes:
        weight: in the sum of losses.
        windows: lengths of the Hann windows; a hop is a quarter of them.
    """

    weight: float
    windows: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_weights(self, "weight")
        _check_even_windows(self)


class CoherenceTerm(TaggedConfig, tag="coherence", frozen=True):
    """Difference of phases at low frequencies: tells a decoder how a voice shall swing.

    Attributes:
        weight: in the sum of losses.
        windows: lengths of the Hann windows; a hop is a quarter of them.
        f_min: the lowest frequency that counts, in Hz.
        f_max: the highest, in Hz.
    """

    weight: float
    windows: tuple[int, ...]
    f_min: float = 60.0
    f_max: float = 1000.0

    def __post_init__(self) -> None:
        _check_weights(self, "weight", "f_min")
        _check_even_windows(self)
        _check(self.f_max > self.f_min, f"f_max {self.f_max} is not above f_min {self.f_min}")


class EnvelopeTerm(TaggedConfig, tag="envelope", frozen=True):
    """Correlation of the envelopes of third-octave bands, as STOI and ESTOI take it.

    Attributes:
        weight: in the sum of losses.
        window: length of the Hann window; a hop is a half of it.
        frames: of a segment that is looked at as one.
        f_min: centre of the lowest band in Hz.
        f_max: no band reaches above it, in Hz.
        spectra: compare spectra freed of the bands' levels (ESTOI) instead of each band (STOI).
    """

    weight: float
    window: int = 640
    frames: int = 30
    f_min: float = 150.0
    f_max: float = 5000.0
    spectra: bool = False

    def __post_init__(self) -> None:
        _check_weights(self, "weight")
        _check_sizes(self, "window", least=4)
        _check_sizes(self, "frames", least=2)
        _check(self.window % 2 == 0, "window must be even")
        _check(self.f_min > 0, "f_min must be above 0")
        _check(self.f_max > self.f_min, f"f_max {self.f_max} is not above f_min {self.f_min}")


class WaveformTerm(TaggedConfig, tag="waveform", frozen=True):
    """Mean absolute difference of samples.

    Attributes:
        weight: in the sum of losses.
        relative: divide by the standard deviation of each target.
    """

    weight: float
    relative: bool = False

    def __post_init__(self) -> None:
        _check_weights(self, "weight")


class WhisperTerm(TaggedConfig, tag="whisper", frozen=True):
    """Distance of the hidden states of a frozen Whisper encoder (HAC ver. 01).

    Attributes:
        weight: in the sum of losses.
        folder: local folder of a Whisper model in the layout of ``transformers``.
        blocks: how many of its encoder's blocks are looked at.
    """

    weight: float
    folder: str
    blocks: int = 4

    def __post_init__(self) -> None:
        _check_weights(self, "weight")
        _check_sizes(self, "blocks")


Term = MelTerm | StftTerm | CoherenceTerm | EnvelopeTerm | WaveformTerm | WhisperTerm


class Periods(TaggedConfig, tag="periods", frozen=True):
    """Multi-period discriminator (HiFi-GAN, arXiv 2010.05646)."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    channels: int = 16
    factor: int = 4
    max_channels: int = 512

    def __post_init__(self) -> None:
        _check_sizes(self, "periods", "channels", "factor", "max_channels")


class MagnitudeStft(TaggedConfig, tag="magnitude_stft", frozen=True):
    """Multi-resolution discriminator on magnitude spectra (BigCodec)."""

    fft_sizes: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    channels: int = 32
    max_channels: int = 512

    def __post_init__(self) -> None:
        _check_sizes(self, "fft_sizes", "channels", "max_channels")


class ComplexStft(TaggedConfig, tag="complex_stft", frozen=True):
    """Multi-scale discriminator on complex spectra (EnCodec, arXiv 2210.13438).

    Attributes:
        windows: lengths of the Hann windows; a hop is a quarter of them.
        channels: of the five hidden layers.
        norm_first: whether the first layer has weight norm, too.
    """

    windows: tuple[int, ...] = (512, 1024, 2048)
    channels: tuple[int, ...] = (8, 8, 16, 32, 64)
    norm_first: bool = True

    def __post_init__(self) -> None:
        _check_sizes(self, "windows", "channels")


class FilterBands(TaggedConfig, tag="filter_bands", frozen=True):
    """Multi filter-band discriminator (HILCodec, arXiv 2405.04752).

    Attributes:
        bands: numbers of bands; 1 is the wave itself.
        channels: of the five hidden layers.
    """

    bands: tuple[int, ...] = (1, 2, 3, 5, 7, 11)
    channels: tuple[int, ...] = (16, 32, 64, 128, 128)

    def __post_init__(self) -> None:
        _check_sizes(self, "bands", "channels")


Discriminator = Periods | MagnitudeStft | ComplexStft | FilterBands


class Adversarial(Config, frozen=True):
    """How discriminators take part.

    Attributes:
        discriminators: the families, each of several sub-discriminators.
        loss: ``"hinge"`` or ``"least_squares"``.
        start: share of the run after which they begin.
        every: they take part in every n-th step.
        segment_size: samples of a random piece of each crop that they see; None for all.
        mean: average over the sub-discriminators of a family instead of adding them up.
        weight: of the generator's adversarial loss of each family.
        feature_weight: of the feature matching loss of each family.
        relative_features: divide each layer's difference by the size of the real features.
        balance: gradient norms by name of the term (``mel``, ``stft``, ``coherence``,
            ``envelope``, ``waveform``, ``whisper``, ``adversarial``, ``features``) that replace
            all weights but those of the penalties once discriminators take part (EnCodec's
            balancer); None adds losses up by their weights.
    """

    discriminators: tuple[Discriminator, ...]
    loss: Literal["hinge", "least_squares"] = "hinge"
    start: float = 0.0
    every: int = 1
    segment_size: int | None = None
    mean: bool = False
    weight: float = 1.0
    feature_weight: float = 1.0
    relative_features: bool = True
    balance: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        _check(len(self.discriminators) > 0, "discriminators is empty; use null for none at all")
        _check(0 <= self.start <= 1, f"start {self.start} is no share between 0 and 1")
        _check(1 <= self.every <= 2**40, "every must be 1 or more")
        _check_weights(self, "weight", "feature_weight")
        norms = self.balance or {}
        unknown = sorted(set(norms) - BALANCED)
        _check(not unknown, f"balance: unknown term {', '.join(unknown)}")
        _check(min(norms.values(), default=0) >= 0, "balance: no norm is below 0")


class Optimizer(Config, frozen=True):
    """Adam, or Adam with decoupled weight decay (AdamW, arXiv 1711.05101)."""

    kind: Literal["adam", "adamw"]
    learning_rate: float
    betas: tuple[float, float]
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self.learning_rate > 0, "learning_rate must be above 0")
        _check(all(0 <= beta < 1 for beta in self.betas), "betas must be from 0 up to below 1")
        _check_weights(self, "eps", "weight_decay")


class Schedule(Config, frozen=True):
    """Learning rate over the run, as a share of the optimizer's.

    Attributes:
        decay: ``"cosine"``, ``"linear"`` or ``"none"``.
        final: share that is left at the end of the decay.
        decay_steps: steps after the warm-up until the decay ends; None is the end of the run.
        warmup_steps: steps until the full rate.
        warmup_epochs: the same in epochs, instead.
        warmup_from: share at step 0.
        warmup_power: 1 rises linearly, 2 quadratically.
    """

    decay: Literal["cosine", "linear", "none"] = "cosine"
    final: float = 0.0
    decay_steps: int | None = None
    warmup_steps: int = 0
    warmup_epochs: int = 0
    warmup_from: float = 0.0
    warmup_power: float = 1.0

    def __post_init__(self) -> None:
        good = 0 <= self.final <= 1 and 0 <= self.warmup_from <= 1
        _check(good, "final and warmup_from are shares between 0 and 1")
        for name in ("warmup_steps", "warmup_epochs"):
            _check(0 <= getattr(self, name) <= 2**40, f"{name} must not be below 0")
        _check(self.decay_steps is None or self.decay_steps > 0, "decay_steps must be above 0")
        _check(self.warmup_power > 0, "warmup_power must be above 0")
        both = self.warmup_steps > 0 and self.warmup_epochs > 0
        _check(not both, "the warm-up lasts either warmup_steps or warmup_epochs, not both")


class Training(Config, frozen=True):
    """The recipe.

    Attributes:
        segment_size: samples of a crop.
        batch_size: crops of one step, over all processes and accumulated parts.
        generator: optimizer of the codec.
        losses: what the reconstruction is judged by.
        penalties: weights of the quantizer's own losses.
        max_steps: length of the run; either this or `max_epochs`.
        max_epochs: length of the run in passes over the data.
        discriminator: optimizer of the discriminators; None as `generator`.
        adversarial: the discriminators; None for none.
        schedule: learning rate of both optimizers.
        dead_code_threshold: codewords that fewer vectors than this choose (by moving average) are
            replaced (SuperCodec); 0 for never.
        clip_norm: gradients are scaled down to this norm; None for never.
        ema: decay of the running average of the weights, which is what is stored; None for none.
        accumulation: parts that a batch is worked off in.
        sampling: every clip once per epoch (``"clips"``) or every second equally often.
        gain_db: range of random gain; None for none.
        early_start: share of crops that begin before their clip does.
        silence: share of crops that are silence or faint noise.
        precision: of matrix products and convolutions: fp32, bf16 or fp16.
        compile: compile the model: minutes at the start, faster steps.
        seed: of weights, crops and everything else that is drawn.
        num_workers: processes that read audio.
        log_every: steps between lines of the log.
        validate_every: steps between validations.
        valid_clips: clips that a validation uses, spread over the list.
        save_every: steps between checkpoints.
        keep: numbered checkpoints that stay.
        max_bad_steps: steps in a row with a loss or gradient that is not finite before giving up.
    """

    segment_size: int
    batch_size: int
    generator: Optimizer
    losses: tuple[Term, ...]
    penalties: Mapping[str, float]
    max_steps: int | None = None
    max_epochs: int | None = None
    discriminator: Optimizer | None = None
    adversarial: Adversarial | None = None
    schedule: Schedule = Schedule()
    dead_code_threshold: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    accumulation: int = 1
    sampling: Literal["clips", "seconds"] = "seconds"
    gain_db: tuple[float, float] | None = None
    early_start: float = 0.0
    silence: float = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    seed: int = 1234
    num_workers: int = 2
    log_every: int = 20
    validate_every: int = 1000
    valid_clips: int = 32
    save_every: int = 1000
    keep: int = 3
    max_bad_steps: int = 20

    def __post_init__(self) -> None:
        counts = ("segment_size", "batch_size", "accumulation", "log_every")
        for name in (*counts, "validate_every", "valid_clips", "save_every", "max_bad_steps"):
            value = getattr(self, name)
            _check(1 <= value <= 2**40, f"{name} must be 1 or more, not {value}")
        for name in ("max_steps", "max_epochs"):
            value = getattr(self, name)
            _check(value is None or 1 <= value <= 2**40, f"{name} must be 1 or more, not {value}")
        _check(
            (self.max_steps is None) != (self.max_epochs is None),
            "how long the run is must be said by max_steps or by max_epochs, and not by both",
        )
        _check(0 <= self.num_workers <= 256, "num_workers must be from 0 to 256")
        _check(0 <= self.seed < 2**63, "seed must be from 0 to 2^63 - 1")
        _check(self.keep >= 0, "keep must not be below 0")
        _check(len(self.losses) > 0, "losses is empty: nothing would be learned")
        _check(
            self.batch_size % self.accumulation == 0,
            f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}",
        )
        _check(self.ema is None or 0 < self.ema < 1, "ema must be between 0 and 1")
        _check(self.clip_norm is None or self.clip_norm > 0, "clip_norm must be above 0")
        for name in ("early_start", "silence"):
            _check(0 <= getattr(self, name) <= 1, f"{name} must be from 0 to 1")
        _check(
            self.gain_db is None or self.gain_db[0] <= self.gain_db[1],
            "gain_db goes from low to high",
        )
        _check_weights(self, "dead_code_threshold")
        _check(min(self.penalties.values(), default=0) >= 0, "penalties: no weight is below 0")
        if self.adversarial is not None:
            self._check_adversarial(self.adversarial)

    def _check_adversarial(self, adversarial: Adversarial) -> None:
        piece = adversarial.segment_size
        _check(piece is None or piece >= 1, "adversarial.segment_size must be 1 or more")
        _check(
            piece is None or piece <= self.segment_size,
            f"adversarial.segment_size {piece} is longer than segment_size {self.segment_size}",
        )
        if adversarial.balance is not None:
            present = {*(term.kind for term in self.losses), "adversarial", "features"}
            lacking = sorted(present - set(adversarial.balance))
            _check(not lacking, f"adversarial.balance has no norm for {', '.join(lacking)}")

    def in_steps(self, items_per_epoch: int) -> Training:
        """The same recipe with all lengths in steps.

        Args:
            items_per_epoch: crops that one pass over the data yields.
        """
        steps = max(1, items_per_epoch // self.batch_size)
        schedule = self.schedule
        if schedule.warmup_epochs:
            warmup = schedule.warmup_epochs * steps
            schedule = replace(schedule, warmup_steps=warmup, warmup_epochs=0)
        if self.max_epochs is None:
            return replace(self, schedule=schedule)
        return replace(self, schedule=schedule, max_steps=self.max_epochs * steps, max_epochs=None)


class Data(Config, frozen=True):
    """Where speech lies: folders, or lists of files.

    Attributes:
        train: to learn from.
        valid: to measure progress on, of other speakers; None for no validation.
    """

    train: str
    valid: str | None = None


class TrainingConfig(Config, frozen=True):
    """A whole config.

    Attributes:
        family: codec family.
        model: hyper-parameters as the family's own config has them.
        training: the recipe.
        data: speech; what the command line names comes before it.
        description: for people.
    """

    family: Literal["hac", "bigcodec", "supercodec"]
    model: Mapping[str, Any]
    training: Training
    data: Data | None = None
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values that `parse` takes."""
        return {
            "family": self.family,
            "description": self.description,
            "model": to_json(self.model),
            "training": to_json(self.training),
            "data": to_json(self.data),
        }


def shipped() -> list[str]:
    """Names of the configs that come with codectool and hold a recipe."""
    folder = files("codectool") / "configs"
    texts = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
    return sorted(
        name.removesuffix(".json")
        for name, text in texts.items()
        if name.endswith(".json") and "training" in json.loads(text)
    )


def load(source: str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a config.

    Args:
        source: name of a shipped one, or a path to a JSON file: ours, or SuperCodec's released one.
        overrides: ``key=value`` with dotted keys, applied before anything is checked.

    Raises:
        ConfigError: no such config, or a wrong one; the message names the file and the key.
        UsageError: an override is none.
    """
    path = Path(source)
    if path.suffix == ".json" or path.exists():
        values, name = read_json(path), str(path)
    else:
        resource = files("codectool") / "configs" / f"{source}.json"
        if source not in shipped():
            raise ConfigError(
                f"{source}: neither a file nor one of the shipped configs: {', '.join(shipped())}"
            )
        values, name = parse_json(resource.read_bytes(), source), source
    try:
        return parse(override(values, overrides))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def parse(values: Mapping[str, Any]) -> TrainingConfig:
    """Check a config.

    Raises:
        ConfigError: the message names the key.
    """
    from codectool.training.models import check_model
    from codectool.training.published import is_supercodec, translate_supercodec

    if is_supercodec(values):
        values = translate_supercodec(values)
    config = from_json(TrainingConfig, values)
    check_model(config)
    return config


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` settings to a copy; values are JSON, or text where they are not.

    Examples:
        >>> override({"training": {"batch_size": 8}}, ["training.batch_size=4"])
        {'training': {'batch_size': 4}}

    Raises:
        UsageError: not of that form, or the key leads to nothing that is there.
        ConfigError: objects lie in objects too deep.
    """
    try:
        result: dict[str, Any] = json.loads(json.dumps(to_json(values)))
    except RecursionError as error:
        raise ConfigError("objects in objects without end") from error
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        steps = key.strip().split(".")
        if not equals or not all(steps):
            raise UsageError(f"--set takes KEY=VALUE, not {assignment!r:.60}")
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
    raise UsageError(f"--set {assignment:.60}: there is no `{step}` to be set there")


def shape_change(old: Any, new: Any) -> str | None:
    """First key in which two configs, as JSON values, describe other networks; None for none.

    Examples:
        >>> shape_change({"family": "hac", "model": {"num_bits": 18}},
        ...              {"family": "hac", "model": {"num_bits": 12}})
        '`model.num_bits` 18, the config says 12'
    """
    before, after = dict(_leaves(_shape(old))), dict(_leaves(_shape(new)))
    for key in before | after:
        if before.get(key) != after.get(key):
            return f"`{key}` {before.get(key)!r:.60}, the config says {after.get(key)!r:.60}"
    return None


def _shape(values: Any) -> dict[str, Any]:
    names = ("family", "model", "training.adversarial.discriminators")
    found = {}
    for name in names:
        part = values
        for key in name.split("."):
            part = part.get(key) if isinstance(part, Mapping) else None
        found[name] = part
    return found


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}[{number}]")
    else:
        yield path, value
