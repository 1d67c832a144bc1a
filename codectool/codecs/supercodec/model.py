"""SuperCodec: 16 kHz speech at 1 kbps with two codebooks of 1024 entries (arXiv 2407.20530).

Back-projected down- and upsampling blocks, each with a gate that pools over all of time: every
token depends on the whole input. Letters used in shapes: B batch, D latent width, F frames,
K codebooks, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codectool.codecs.base import CodecModel, Context, Latency
from codectool.codecs.hyper import Fields
from codectool.codecs.segments import segment_decoder, segment_encoder
from codectool.codecs.stream import Stream
from codectool.codecs.supercodec.blocks import (
    CausalConv,
    DownBlock,
    Ends,
    Half,
    UpBlock,
)
from codectool.codecs.supercodec.chunked import lay_out_by_taps, run
from codectool.codecs.supercodec.quantizer import EuclideanCodebook
from codectool.errors import CheckpointError, ConfigError
from codectool.nn.loading import load_tensors, skip_init
from codectool.nn.quantize import ResidualQuantizer
from codectool.nn.weight_norm import fold_weight_norm
from codectool.tokens import MAX_CODEBOOKS, MAX_SAMPLE_RATE

BASE_WIDTH = 32  # fixed in the authors' code, not in their config
SEGMENT_SECONDS = 60  # up to a minute is one whole; longer inputs are cut
WHOLE_CHUNK_FRAMES = 1000  # codes looked up at once by `decode_whole`
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
            rq_num_quantizers=fields.integer("rq_num_quantizers", MAX_CODEBOOKS),
        )


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
        self.encoder = Half(
            CausalConv(1, widths[0], 7),
            *(DownBlock(narrow, wide, stride) for narrow, wide, stride in steps),
            CausalConv(widths[-1], latent, 3),
        )
        self.rq = ResidualQuantizer(
            EuclideanCodebook(latent, config.codebook_size) for _ in range(config.rq_num_quantizers)
        )
        self.decoder = Half(
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
        with skip_init(state):
            model = cls(SuperCodecConfig.from_published(config))
        load_tensors(model, state)
        for stage, codebook in enumerate(model.rq.layers):
            if not bool(cast(EuclideanCodebook, codebook).initted.item()):
                raise CheckpointError(
                    f"codebook {stage} was never initialised (`initted` is 0): "
                    "this checkpoint was saved before training began"
                )
        fold_weight_norm(model)
        lay_out_by_taps(model)
        return model.eval()

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """The config as JSON values."""
        return asdict(self.config)

    def latent(self, wave: Tensor) -> Tensor:
        """Encoder output ``(B, D, F)`` before quantization, float32."""
        return self._through(self.encoder, wave)

    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """On a CPU one after another, else as one batch; each of F >= 3 frames."""
        if waves and not self._in_windows(waves[0]):
            return self.encode_padded(waves)
        return [self._quantized(self.latent(wave[None]).mT)[0] for wave in waves]

    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """On a CPU one after another, else as one batch; each of F >= 7 frames."""
        if codes and not self._in_windows(codes[0]):
            return self.decode_padded(codes)
        return [self._through(self.decoder, self.rq.lookup(item[None]).mT)[0] for item in codes]

    def encode_padded(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """`encode` as one batch that is as long as the longest."""
        frames = [wave.shape[-1] // self.hop_length for wave in waves]
        batch = pad_sequence([wave[0] for wave in waves], batch_first=True)
        latent: Tensor = self.encoder(batch[:, None], Ends(frames, batch.device))
        codes = self._quantized(latent.float().mT)
        return [item[:, :length] for item, length in zip(codes, frames, strict=True)]

    def decode_padded(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """`decode` as one batch that is as long as the longest."""
        frames = [item.shape[-1] for item in codes]
        batch = pad_sequence([item.mT for item in codes], batch_first=True)
        latent = self.rq.lookup(batch.mT).mT
        audio: Tensor = self.decoder(latent, Ends(frames, batch.device))
        lengths = [length * self.hop_length for length in frames]
        return [item[:, :n] for item, n in zip(audio.float(), lengths, strict=True)]

    @torch.no_grad()
    def encode_whole(self, read: Callable[[], Iterable[Tensor]]) -> Iterator[Tensor]:
        """A pass over the signal for each block and one more; F >= 3 frames in all."""
        for latent in run(self.encoder, lambda: (wave[0].T for wave in read()), keep=False):
            yield self._quantized(latent[None])

    @torch.no_grad()
    def decode_whole(self, codes: Tensor) -> Iterator[Tensor]:
        """A pass over the codes for each block and one more, F >= 7."""
        parts = torch.split(codes, WHOLE_CHUNK_FRAMES, dim=-1)
        for wave in run(self.decoder, lambda: (self.rq.lookup(c)[0] for c in parts), keep=False):
            yield wave.T[None]

    def _through(self, half: Half, x: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, C', T')``, float32."""
        if not self._in_windows(x):
            return cast(Tensor, half(x)).float()
        items = [torch.cat(list(run(half, partial(iter, [item.T]), keep=True))) for item in x]
        return torch.stack(items).mT

    def _in_windows(self, x: Tensor) -> bool:
        """Whether the work is done piece by piece, in the processor's cache and partly in place."""
        return (
            x.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )

    def _quantized(self, latent: Tensor) -> Tensor:
        """Codes ``(B, K, F)`` of ``(B, F, D)``."""
        with torch.autocast(latent.device.type, enabled=False):
            codes, _ = self.rq(latent)
        return cast(Tensor, codes)

    @property
    def latency(self) -> Latency:
        """Every token depends on all of its segment."""
        return Latency(encoder=None, decoder=None)

    def stream_encoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        """Segment after segment, by default of a minute."""
        return segment_encoder(self, chunk_frames or self.segment_frames)

    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        """Segment after segment, by default of a minute."""
        return segment_decoder(self, chunk_frames or self.segment_frames)

    def reference_frames(self, num_samples: int) -> int:
        """The script drops what does not fill a hop."""
        return num_samples // self.hop_length
