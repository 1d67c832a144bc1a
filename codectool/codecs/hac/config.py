"""Hyper-parameters of the two kinds of HAC: on samples and on short-time spectra."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from operator import floordiv
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from codectool.errors import ConfigError
from codectool.schema import Config, TaggedConfig, from_json
from codectool.tokens import MAX_CODEBOOK_BITS, MAX_SAMPLE_RATE

# The limits are far above anything sensible: a config from elsewhere must not exhaust memory.
Size = Annotated[int, Meta(ge=1, le=65_536)]
Sizes = Annotated[tuple[Size, ...], Meta(max_length=16)]
NumUnits = Annotated[int, Meta(ge=1, le=64)]
NumBits = Annotated[int, Meta(ge=1, le=MAX_CODEBOOK_BITS)]
SampleRate = Annotated[int, Meta(ge=1, le=MAX_SAMPLE_RATE)]


class SourceConfig(Config, frozen=True, omit_defaults=True):
    """Source of harmonics and noise for the upper band of the decoder.

    Attributes:
        stage: decoder stage, counted from 0, whose output controls the source.
        cutoff: limit in Hz of the band that the network makes alone.
        pitch_hidden: width of the network that predicts the pitch.
        pitch_kernel: frames that each of its convolutions sees.
        pitch_bins: number of pitches that it distinguishes, from 60 Hz on, 24 per octave.
        hidden: width of the layer that predicts the gains.
        bands: number of bands, evenly spaced on a mel-like scale.
        fft_size: size of the FFT of the filters in samples; a frame of the stage is shorter.
        filter_delay: delay of the filters in samples, so that they can respond ahead of a segment.
        context: width of a residual unit that lets the gains depend on earlier frames; 0 for none.
        context_kernel: frames that it sees.
        sharpening: factor of the deviations of the levels from levels smoothed over frequency that
            is added to the levels.
        phase_advance: samples from the start of a frame to where its tracked phase belongs.
        voiced_noise_from: frequency in Hz below which voiced sounds get no noise; 0 for none.
    """

    stage: Annotated[int, Meta(ge=0, le=15)]
    cutoff: Annotated[float, Meta(gt=0)]
    pitch_hidden: Size
    pitch_kernel: Annotated[int, Meta(ge=2, le=65_536)]
    pitch_bins: Annotated[int, Meta(ge=5, le=1024)]
    hidden: Size
    bands: Annotated[int, Meta(ge=2, le=256)]
    fft_size: Annotated[int, Meta(ge=4, le=8192, multiple_of=2)]
    filter_delay: Annotated[int, Meta(ge=0, le=8192)]
    context: Annotated[int, Meta(ge=0, le=65_536)] = 0
    context_kernel: Annotated[int, Meta(ge=2, le=64)] = 7
    sharpening: Annotated[float, Meta(ge=0, le=10)] = 0.0
    phase_advance: Annotated[int, Meta(ge=-65_536, le=65_536)] = 0
    voiced_noise_from: Annotated[float, Meta(ge=0)] = 0.0


class HacConfig(TaggedConfig, tag="waveform", frozen=True, omit_defaults=True):
    """HAC on samples: 75 tokens of 18 bits per second in the published presets.

    Encoder stages are listed from the stem to the tokens, decoder stages from the tokens to the
    head. Stage i of the encoder starts with stride i; the decoder undoes the strides in reverse.

    Attributes:
        sample_rate: sampling rate in Hz.
        num_bits: bits per token.
        lookahead: later tokens that the decoder needs for the samples of a token.
        strides: the first belongs to stem and head; their product is the hop length.
        taps: strides of samples that one frame of the stem or the head spans.
        kernel: frames that the depthwise convolution of a residual unit sees.
        token_kernel: tokens that the decoder's first layer sees.
        encoder_channels: width of each stage.
        encoder_hidden: width inside the residual units of each stage.
        encoder_dilations: dilations of the residual units of each stage, one unit per number.
        decoder_channels: width of each stage.
        decoder_hidden: width inside the residual units of each stage.
        decoder_dilations: dilations of the residual units of each stage.
        source: source of the upper band, which the network makes itself if there is none.
    """

    extra_frames: ClassVar[int] = 0  # tokens needed beyond those that the samples fill

    sample_rate: SampleRate
    num_bits: NumBits
    lookahead: Annotated[int, Meta(ge=0, le=75)]
    strides: Sizes
    taps: Size
    kernel: Size
    token_kernel: Size
    encoder_channels: Sizes
    encoder_hidden: Sizes
    encoder_dilations: Annotated[tuple[Sizes, ...], Meta(max_length=16)]
    decoder_channels: Sizes
    decoder_hidden: Sizes
    decoder_dilations: Annotated[tuple[Sizes, ...], Meta(max_length=16)]
    source: SourceConfig | None = None

    def __post_init__(self) -> None:
        names = ["channels", "hidden", "dilations"]
        _check_stages(
            self,
            "strides",
            *(f"{part}_{name}" for part in ("encoder", "decoder") for name in names),
        )
        if self.source is not None:
            self._check_source(self.source)

    def _check_source(self, source: SourceConfig) -> None:
        if source.stage >= len(self.strides) - 1:
            raise ConfigError(
                f"source.stage {source.stage} is not below {len(self.strides) - 1}, the last stage"
            )
        frame = self.source_frame
        if frame % 2 or not frame < source.fft_size <= 16 * frame:
            raise ConfigError(
                f"source.fft_size {source.fft_size} does not suit the frames of stage "
                f"{source.stage}, {frame} samples: frames must be even, the FFT longer"
            )
        if 3 * source.cutoff >= self.sample_rate:
            raise ConfigError(
                f"source.cutoff {source.cutoff:g} is too high for {self.sample_rate} Hz"
            )

    @property
    def source_frame(self) -> int:
        """Samples per frame of the stage that controls the source."""
        assert self.source is not None
        return math.prod(self.strides[: len(self.strides) - self.source.stage])

    @property
    def hop_length(self) -> int:
        """Samples per token."""
        return math.prod(self.strides)

    @property
    def delay_frames(self) -> int:
        """Frames by which the decoder's samples are late."""
        return self.lookahead


class SpectralHacConfig(TaggedConfig, tag="spectral", frozen=True):
    """HAC on short-time spectra: 200 tokens of 18 bits per second in the published presets.

    Stages are listed from the spectrum to the tokens, for the decoder too.

    Attributes:
        sample_rate: sampling rate in Hz.
        num_bits: bits per token.
        hop_length: samples per frame; one frame is one token.
        window: samples that one spectrum sees; its Nyquist bin is dropped.
        strides: strides over frequency between the stages.
        channels: width of each stage.
        hidden: width inside the residual units of each stage.
        encoder_units: residual units of each stage of the encoder.
        decoder_units: residual units of each stage of the decoder.
        time_kernel: frames that a residual unit sees.
        frequency_kernel: frequencies that a residual unit sees.
        depth_channels: width of the stage next to the tokens, which has no frequency axis.
        depth_hidden: width inside the residual units of this stage.
        depth_kernel: frames that these residual units see.
        encoder_depth: number of these residual units in the encoder.
        decoder_depth: number of these residual units in the decoder.
        mixing: whether units mix the channels between their two depthwise convolutions (v1.2).
        response_norm: whether units normalise the response over frequency (v1.3).
    """

    sample_rate: SampleRate
    num_bits: NumBits
    hop_length: Size
    window: Size
    strides: Sizes
    channels: Sizes
    hidden: Sizes
    encoder_units: Annotated[tuple[NumUnits, ...], Meta(max_length=16)]
    decoder_units: Annotated[tuple[NumUnits, ...], Meta(max_length=16)]
    time_kernel: Size
    frequency_kernel: Size
    depth_channels: Size
    depth_hidden: Size
    depth_kernel: Size
    encoder_depth: NumUnits
    decoder_depth: NumUnits
    mixing: bool
    response_norm: bool

    def __post_init__(self) -> None:
        _check_stages(self, "channels", "hidden", "encoder_units", "decoder_units")
        if len(self.strides) != len(self.channels) - 1:
            raise ConfigError(
                f"strides must have {len(self.channels) - 1} numbers, one less than channels, "
                f"not {len(self.strides)}"
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
        """Frequency bins of a spectrum, without the Nyquist bin."""
        return self.window // 2

    @property
    def stage_bins(self) -> list[int]:
        """Frequency bins of each stage."""
        return list(accumulate(self.strides, floordiv, initial=self.num_bins))

    @property
    def delay_frames(self) -> int:
        """Frames by which the decoder's samples are late: the overlap of the windows."""
        return self.window // self.hop_length - 1

    @property
    def extra_frames(self) -> int:
        """Tokens needed beyond those that the samples fill, to complete the overlap."""
        return self.delay_frames


AnyHacConfig = HacConfig | SpectralHacConfig


def parse_config(values: Mapping[str, Any]) -> AnyHacConfig:
    """Read hyper-parameters of either kind from JSON values.

    Raises:
        ConfigError: A key is missing, unknown or wrong, or two values contradict each other.
    """
    config: AnyHacConfig = from_json(AnyHacConfig, values)
    return config


def _check_stages(config: AnyHacConfig, *names: str) -> None:
    """Check that the lists with one entry per stage are equally long and not empty."""
    lengths = {name: len(getattr(config, name)) for name in names}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ConfigError(f"lists with one entry per stage must have equal lengths: {found}")
