"""SuperCodec: 16 kHz speech at 1 kbps with two codebooks of 1024 entries (arXiv 2407.20530).

Back-projected down- and upsampling blocks, each with a gate that pools over all of time: every
token depends on the whole input. Letters used in shapes: B batch, C channels, D latent width,
F frames, K quantizers, N samples, T time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.codecs.base import CodecModel, Context, Latency, StreamDecoder, StreamEncoder
from codectool.codecs.hyper import Fields
from codectool.codecs.segments import SegmentDecoder, SegmentEncoder
from codectool.errors import CheckpointError, ConfigError
from codectool.nn.blank import BlankModel
from codectool.nn.loading import load_tensors
from codectool.nn.quantize import EuclideanCodebook, ResidualQuantizer
from codectool.nn.weight_norm import fold_weight_norm, weight_normed
from codectool.tokens import MAX_SAMPLE_RATE, MAX_STREAMS

BASE_WIDTH = 32  # fixed in the authors' code, not in their config
SEGMENT_SECONDS = 60  # up to a minute is one whole; longer inputs are cut
MIN_FRAMES = 7  # the decoder's first layer reflects six frames, which needs seven


@dataclass(frozen=True)
class SuperCodecConfig:
    """Hyper-parameters of a SuperCodec model."""

    sampling_rate: int
    strides: tuple[int, ...]
    channel_mults: tuple[int, ...]
    codebook_size: int
    codebook_dim: int
    rq_num_quantizers: int

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.channel_mults):
            raise ConfigError(
                f"strides {list(self.strides)} and channel_mults {list(self.channel_mults)} "
                "must have the same length"
            )

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> SuperCodecConfig:
        """Take the model's keys out of a ``config.json``; the training keys beside them stay.

        Raises:
            ConfigError: a key is missing or of the wrong type.
        """
        fields = Fields(config, "config")
        return cls(
            sampling_rate=fields.integer("sampling_rate", MAX_SAMPLE_RATE),
            strides=fields.integers("strides"),
            channel_mults=fields.integers("channel_mults"),
            codebook_size=fields.integer("codebook_size"),
            codebook_dim=fields.integer("codebook_dim"),
            rq_num_quantizers=fields.integer("rq_num_quantizers", MAX_STREAMS),
        )


class CausalConv(nn.Module):
    """Convolution that sees only the past; the missing past is the signal mirrored."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.past = kernel - stride
        self.conv = nn.Conv1d(c_in, c_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T // stride)``, T > kernel - stride."""
        return cast(Tensor, self.conv(F.pad(x, (self.past, 0), mode="reflect")))


class CausalTransposedConv(nn.Module):
    """Upsampling by ``stride`` whose last samples, which need the future, are dropped."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv = nn.ConvTranspose1d(c_in, c_out, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T * stride)``."""
        return cast(Tensor, self.conv(x))[..., : x.shape[-1] * self.stride]


class ResidualStack(nn.Module):
    """For each dilation: leaky ReLU, dilated convolution of width 3, plus the input."""

    def __init__(self, channels: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs = nn.ModuleList(
            weight_normed(nn.Conv1d(channels, channels, 3, padding=d, dilation=d))
            for d in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C, T)``."""
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, 0.1))
        return x


class SelectiveFusion(nn.Module):
    """Mix two signals channel by channel, with weights told by the mean of their sum over time.

    Selective kernels (arXiv 1903.06586, section 3.1). Each item of a batch has its own weights.
    The layers are stored as convolutions of width 3 that run on a signal of length one with zero
    padding: only the middle tap ever acts.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Conv1d(channels, channels, 3)
        self.select_a = nn.Conv1d(channels, channels, 3)
        self.select_b = nn.Conv1d(channels, channels, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """``(B, C, T)`` twice -> ``(B, C, T)``."""
        pooled = (a + b).mean(-1)
        hidden = F.relu(_middle_tap(self.squeeze, pooled))
        logits = torch.stack(
            (_middle_tap(self.select_a, hidden), _middle_tap(self.select_b, hidden))
        )
        weight_a, weight_b = logits.softmax(0).unsqueeze(-1).unbind(0)
        return weight_a * a + weight_b * b


def _middle_tap(conv: nn.Conv1d, x: Tensor) -> Tensor:
    return F.linear(x, conv.weight[:, :, 1], conv.bias)


class DownBlock(nn.Module):
    """Selective down-sampling with back-projection, SDBP (paper, section 2.2).

    What a first downsampling loses is found by going back up, refined, downsampled as well, and
    mixed in.
    """

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.downs_one = CausalConv(c_in, c_out, 2 * stride, stride)
        self.ups_one = CausalTransposedConv(c_out, c_in, stride)
        self.res_one = ResidualStack(c_in, (1, 3))
        self.downs_two = CausalConv(c_in, c_out, 2 * stride, stride)
        self.fuse = SelectiveFusion(c_out)
        self.res_four = ResidualStack(c_out, (1, 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T / stride)``, T a multiple of the stride."""
        a = self.downs_one(x)
        lost = self.res_one(x - self.ups_one(a))
        b = self.downs_two(lost)
        return cast(Tensor, self.res_four(self.fuse(a, b)))


class UpBlock(nn.Module):
    """Selective up-sampling with back-projection, SUBP (paper, section 2.2)."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.ups_one = CausalTransposedConv(c_in, c_out, stride)
        self.downs_one = CausalConv(c_out, c_in, 2 * stride, stride)
        self.res_one = ResidualStack(c_in, (1, 3))
        self.ups_two = CausalTransposedConv(c_in, c_out, stride)
        self.fuse = SelectiveFusion(c_out)
        self.res_four = ResidualStack(c_out, (1, 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T * stride)``."""
        a = self.ups_one(x)
        lost = self.res_one(x - self.downs_one(a))
        b = self.ups_two(lost)
        return cast(Tensor, self.res_four(self.fuse(a, b)))


class SuperCodec(CodecModel):
    """The whole codec."""

    family: ClassVar[str] = "supercodec"
    min_frames = MIN_FRAMES
    segment_frames: int
    decode_context = Context(before=None, after=None)

    def __init__(self, config: SuperCodecConfig):
        super().__init__()
        self.config = config
        self.sample_rate = config.sampling_rate
        self.hop_length = math.prod(config.strides)
        self.codebook_sizes = (config.codebook_size,) * config.rq_num_quantizers
        self.segment_frames = max(MIN_FRAMES, SEGMENT_SECONDS * self.sample_rate // self.hop_length)
        widths = [BASE_WIDTH, *(BASE_WIDTH * mult for mult in config.channel_mults)]
        latent = config.codebook_dim
        steps = list(zip(widths[:-1], widths[1:], config.strides, strict=True))
        self.encoder = nn.Sequential(
            CausalConv(1, widths[0], 7),
            *(DownBlock(narrow, wide, stride) for narrow, wide, stride in steps),
            CausalConv(widths[-1], latent, 3),
        )
        self.rq = ResidualQuantizer(
            EuclideanCodebook(latent, config.codebook_size) for _ in range(config.rq_num_quantizers)
        )
        self.decoder = nn.Sequential(
            CausalConv(latent, widths[-1], 7),
            *(UpBlock(wide, narrow, stride) for narrow, wide, stride in reversed(steps)),
            CausalConv(widths[0], 1, 7),
        )

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> SuperCodec:
        """Build from tensors and the ``config.json`` that lies beside them.

        Raises:
            ConfigError: no config: the sampling rate is written nowhere else.
            CheckpointError: tensors do not fit, or the codebooks were never initialised.
        """
        if config is None:
            raise ConfigError(
                "SuperCodec needs its config.json beside the checkpoint, or `--config FILE`"
            )
        with BlankModel(state):
            model = cls(SuperCodecConfig.from_published(config))
        load_tensors(model, state)
        for stage, codebook in enumerate(model.rq.layers):
            if not bool(cast(EuclideanCodebook, codebook).initted.item()):
                raise CheckpointError(
                    f"codebook {stage} was never initialised (`initted` is 0): "
                    "this checkpoint was saved before training began"
                )
        fold_weight_norm(model)
        return model.eval()

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """The config as JSON values."""
        return asdict(self.config)

    def latent(self, wave: Tensor) -> Tensor:
        """Encoder output ``(B, D, F)`` before quantization, float32."""
        return cast(Tensor, self.encoder(wave)).float()

    def encode(self, wave: Tensor) -> Tensor:
        """``(B, 1, N)`` -> codes ``(B, K, F)``, F >= 3."""
        latent = self.latent(wave)
        with torch.autocast(latent.device.type, enabled=False):
            codes, _ = self.rq(latent.transpose(1, 2))
        return cast(Tensor, codes)

    def decode(self, codes: Tensor) -> Tensor:
        """``(B, K', F)`` -> ``(B, 1, N)``, F >= 7."""
        latent = self.rq.lookup(codes).transpose(1, 2)
        return cast(Tensor, self.decoder(latent)).float()

    @property
    def latency(self) -> Latency:
        """Every token depends on all of its segment."""
        return Latency(encoder=None, decoder=None)

    def stream_encoder(self, block_frames: int | None = None) -> StreamEncoder:
        """Segment after segment, by default of a minute."""
        return SegmentEncoder(self, block_frames or self.segment_frames)

    def stream_decoder(self, block_frames: int | None = None) -> StreamDecoder:
        """Segment after segment, by default of a minute."""
        return SegmentDecoder(self, block_frames or self.segment_frames)

    def upstream_frames(self, num_samples: int) -> int:
        """The script drops what does not fill a hop."""
        return num_samples // self.hop_length
