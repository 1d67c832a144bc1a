"""Hyper-parameters of the two kinds of HAC: one works on samples, one on spectra."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from typing import Any, TypeVar

from codectool.errors import ConfigError
from codectool.tokens import MAX_CODEBOOK_BITS, MAX_SAMPLE_RATE

MAX_SIZE = 65_536  # of any width, stride, kernel or count: far above anything sensible
MAX_ITEMS = 16  # of any list
MAX_UNITS = 64  # of one stage
COUNTS = ("encoder_units", "decoder_units", "encoder_depth", "decoder_depth")
MAX_DELAY_FRAMES = 75


@dataclass(frozen=True)
class HacConfig:
    """HAC on samples: 75 tokens of 18 bits per second in the published presets.

    Encoder stages go from the stem towards the tokens, decoder stages from the tokens towards the
    head. Stage i of the encoder starts with stride i; the decoder undoes the strides in reverse.

    Attributes:
        sample_rate: in Hz.
        num_bits: binary scalars per token.
        lookahead: tokens that the decoder waits for before it makes the samples of a token.
        strides: the first is the stem's and the head's; their product is the hop.
        taps: strides of samples that one frame of the stem or the head spans.
        kernel: frames that a unit's depthwise convolution sees.
        token_kernel: tokens that the decoder's first layer sees.
        encoder_channels: width of each stage.
        encoder_hidden: width inside the residual units of each stage.
        encoder_dilations: dilations of each stage's units, one unit per number.
        decoder_channels: likewise for the decoder.
        decoder_hidden: likewise.
        decoder_dilations: likewise.
    """

    sample_rate: int
    num_bits: int
    lookahead: int
    strides: tuple[int, ...]
    taps: int
    kernel: int
    token_kernel: int
    encoder_channels: tuple[int, ...]
    encoder_hidden: tuple[int, ...]
    encoder_dilations: tuple[tuple[int, ...], ...]
    decoder_channels: tuple[int, ...]
    decoder_hidden: tuple[int, ...]
    decoder_dilations: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero=("lookahead",))
        lists = [field.name for field in fields(self) if field.type != "int"]
        check_lengths(self, lists)
        if self.lookahead > MAX_DELAY_FRAMES:
            raise ConfigError(f"lookahead {self.lookahead} is above {MAX_DELAY_FRAMES} tokens")

    @property
    def hop_length(self) -> int:
        """Samples per token."""
        return math.prod(self.strides)

    @property
    def delay_frames(self) -> int:
        """Frames by which the decoder's samples are late."""
        return self.lookahead

    @property
    def extra_frames(self) -> int:
        """Tokens needed beyond those that the samples fill."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return to_json("waveform", self)


@dataclass(frozen=True)
class SpectralHacConfig:
    """HAC on short-time spectra: 200 tokens of 18 bits per second in the published presets.

    Stages are counted from the spectrum towards the tokens, for the decoder as well.

    Attributes:
        sample_rate: in Hz.
        num_bits: binary scalars per token.
        hop_length: samples per frame; one frame is one token.
        window: samples that one spectrum sees; its Nyquist bin is dropped.
        strides: over frequency, between two stages.
        channels: width of each stage.
        hidden: width inside the residual units of each stage.
        encoder_units: residual units of each stage of the encoder.
        decoder_units: likewise for the decoder.
        time_kernel: frames that a unit sees.
        frequency_kernel: frequencies that a unit sees.
        depth_channels: width of the stage without frequency axis next to the tokens.
        depth_hidden: width inside its units.
        depth_kernel: frames that its units see.
        encoder_depth: its units in the encoder.
        decoder_depth: its units in the decoder.
        mixing: units mix the channels between their two depthwise convolutions (v1.2).
        response_norm: units normalise the response over frequency (v1.3).
    """

    sample_rate: int
    num_bits: int
    hop_length: int
    window: int
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    encoder_units: tuple[int, ...]
    decoder_units: tuple[int, ...]
    time_kernel: int
    frequency_kernel: int
    depth_channels: int
    depth_hidden: int
    depth_kernel: int
    encoder_depth: int
    decoder_depth: int
    mixing: bool
    response_norm: bool

    def __post_init__(self) -> None:
        check_sizes(self)
        check_lengths(self, ["channels", "hidden", "encoder_units", "decoder_units"])
        if len(self.strides) != len(self.channels) - 1:
            raise ConfigError(
                f"strides has {len(self.strides)} numbers, one less than channels "
                f"would be {len(self.channels) - 1}"
            )
        if self.window % (2 * self.hop_length):
            raise ConfigError(
                f"window {self.window} is not an even multiple of hop_length {self.hop_length}"
            )
        if self.num_bins % math.prod(self.strides):
            raise ConfigError(
                f"strides {list(self.strides)} do not divide the {self.num_bins} frequencies"
            )
        if self.frequency_kernel % 2 == 0:
            raise ConfigError(f"frequency_kernel {self.frequency_kernel} is not odd")

    @property
    def num_bins(self) -> int:
        """Frequencies of a spectrum, without the Nyquist frequency."""
        return self.window // 2

    @property
    def delay_frames(self) -> int:
        """Frames by which the decoder's samples are late: the overlap of the windows."""
        return self.window // self.hop_length - 1

    @property
    def extra_frames(self) -> int:
        """Tokens needed beyond those that the samples fill, to complete the overlap."""
        return self.delay_frames

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return to_json("spectral", self)


AnyHacConfig = HacConfig | SpectralHacConfig
_Config = TypeVar("_Config", HacConfig, SpectralHacConfig)


def parse_config(config: Mapping[str, Any]) -> AnyHacConfig:
    """Read hyper-parameters as `to_dict` gives them, or a whole preset that holds them.

    Raises:
        ConfigError: a key is missing, unknown or of the wrong type, or no such model can be.
    """
    values = dict(config)
    if isinstance(values.get("model"), Mapping):
        values = dict(values["model"])
    kind = values.pop("kind", None)
    if kind == "waveform":
        return _from_json(HacConfig, values)
    if kind == "spectral":
        return _from_json(SpectralHacConfig, values)
    raise ConfigError(f'kind of HAC must be "waveform" or "spectral", not {kind!r}')


def load_preset(name: str) -> AnyHacConfig:
    """Read the hyper-parameters of a preset that comes with codectool, for example ``hac``."""
    path = files("codectool") / "configs" / f"{name}.json"
    if not path.is_file():
        raise ConfigError(f"there is no preset {name!r}")
    preset = json.loads(path.read_text(encoding="utf-8"))
    if preset.get("family") != "hac":
        raise ConfigError(f"preset {name!r} is of family {preset.get('family')!r}, not 'hac'")
    return parse_config(preset)


def to_json(kind: str, config: AnyHacConfig) -> dict[str, Any]:
    """Fields as JSON values: tuples become lists."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return {"kind": kind, **values}


def _from_json(cls: type[_Config], values: dict[str, Any]) -> _Config:
    types = {field.name: str(field.type) for field in fields(cls)}
    for problem, names in (
        ("unknown", values.keys() - types.keys()),
        ("missing", types.keys() - values.keys()),
    ):
        if names:
            raise ConfigError(f"{problem} hyper-parameters of HAC: {', '.join(sorted(names))}")
    return cls(**{name: _typed(name, kind, values[name]) for name, kind in types.items()})


def _typed(name: str, kind: str, value: Any) -> Any:
    """Check ``value`` against the annotation ``kind``; lists become tuples."""
    if kind.startswith("tuple") and isinstance(value, list | tuple) and len(value) <= MAX_ITEMS:
        inner = kind.removeprefix("tuple[").removesuffix(", ...]")
        return tuple(_typed(name, inner, item) for item in value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    wanted = kind.replace("tuple[", "list of ").replace(", ...]", "")
    raise ConfigError(f"hyper-parameter {name} of HAC must be {wanted}, not {value!r:.60}")


def check_sizes(config: AnyHacConfig, may_be_zero: tuple[str, ...] = ()) -> None:
    """Check that every number is positive and of a sensible size."""
    limits = {"sample_rate": MAX_SAMPLE_RATE, "num_bits": MAX_CODEBOOK_BITS}
    limits |= dict.fromkeys(COUNTS, MAX_UNITS)
    for name, value in asdict(config).items():
        low = 0 if name in may_be_zero else 1
        high = limits.get(name, MAX_SIZE)
        for number in _numbers(value):
            if not low <= number <= high:
                raise ConfigError(
                    f"hyper-parameter {name} of HAC must be in {low}..{high}, not {number}"
                )


def check_lengths(config: AnyHacConfig, names: list[str]) -> None:
    """Check that lists with one entry per stage agree and are not empty."""
    lengths = {name: len(getattr(config, name)) for name in names}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ConfigError(f"stages of HAC disagree in number: {found}")


def _numbers(value: Any) -> list[int]:
    if isinstance(value, tuple):
        return [number for item in value for number in _numbers(item)]
    return [] if isinstance(value, bool) else [value]
