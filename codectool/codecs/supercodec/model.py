"""SuperCodec: 16 kHz speech at 1 kbps with two codebooks of 1024 entries (arXiv 2407.20530).

Its blocks resample with back-projection and fuse two signals with weights that depend on the mean
over time, so every token depends on the whole input. D is the width of the latent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from codectool.codecs.base import CodecModel, Stream
from codectool.codecs.properties import Context, Latency
from codectool.codecs.segments import segment_decoder, segment_encoder
from codectool.codecs.supercodec.blocks import (
    CausalConv,
    DownBlock,
    LengthMask,
    MaskedSequential,
    UpBlock,
)
from codectool.codecs.supercodec.chunked import PackedStack, run_chunked
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.codecs.supercodec.quantizer import EuclideanCodebook
from codectool.errors import CheckpointError, ConfigError
from codectool.nn.derived import Derived
from codectool.nn.loading import load_tensors, skip_init
from codectool.nn.quantize import ResidualQuantizer
from codectool.nn.weight_norm import fold_weight_norm

BASE_WIDTH = 32  # fixed in the authors' code, not in their config
SEGMENT_SECONDS = 60  # longer inputs are encoded in segments
LOOKUP_FRAMES = 1000  # codes looked up at once by `decode_whole`
MIN_FRAMES = 7  # the first layer of the decoder mirrors six frames, which needs seven


class SuperCodec(CodecModel):
    """Convolutional encoder and decoder around a residual quantizer.

    On a CPU, signals are processed one by one in chunks, otherwise as a padded batch.
    """

    family = "supercodec"
    config: SuperCodecConfig
    min_frames = MIN_FRAMES
    segment_frames: int
    decode_context = Context(before=None, after=None)
    latency = Latency(encoder=None, decoder=None)

    def __init__(self, config: SuperCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = config.sampling_rate
        self.hop_length = config.hop_length
        self.codebook_sizes = (config.codebook_size,) * config.rq_num_quantizers
        self.latent_channels = config.codebook_dim
        self.segment_frames = max(MIN_FRAMES, SEGMENT_SECONDS * self.sample_rate // self.hop_length)
        widths = [BASE_WIDTH, *(BASE_WIDTH * mult for mult in config.channel_mults)]
        latent = config.codebook_dim
        steps = list(zip(widths[:-1], widths[1:], config.strides, strict=True))
        self.encoder = MaskedSequential(
            CausalConv(1, widths[0], 7),
            *(DownBlock(narrow, wide, stride) for narrow, wide, stride in steps),
            CausalConv(widths[-1], latent, 3),
        )
        self.rq = ResidualQuantizer(
            EuclideanCodebook(latent, config.codebook_size) for _ in range(config.rq_num_quantizers)
        )
        self.decoder = MaskedSequential(
            CausalConv(latent, widths[-1], 7),
            *(UpBlock(wide, narrow, stride) for narrow, wide, stride in reversed(steps)),
            CausalConv(widths[0], 1, 7),
        )
        self._packed_encoder: Derived[PackedStack] = Derived()
        self._packed_decoder: Derived[PackedStack] = Derived()
        self._bf16_decoder: Derived[PackedStack] = Derived()

    @classmethod
    @override
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> SuperCodec:
        if config is None:  # the sampling rate is written nowhere else
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
        return model.eval()

    @override
    def reference_frames(self, num_samples: int) -> int:
        return num_samples // self.hop_length  # the script drops an incomplete frame

    @override
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        if self._in_chunks:
            return [self.quantize(self.latent(wave[None]))[0] for wave in waves]
        if not waves:
            return []
        frames = [wave.shape[-1] // self.hop_length for wave in waves]
        batch = pad_sequence([wave[0] for wave in waves], batch_first=True)
        latent: Tensor = self.encoder(batch[:, None], LengthMask(frames, batch.device))
        codes = self.quantize(latent.mT)
        return [item[:, :length] for item, length in zip(codes, frames, strict=True)]

    @override
    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        if self._in_chunks:
            return [self._run(self.decoder, self.dequantize(item[None]).mT)[0] for item in codes]
        if not codes:
            return []
        frames = [item.shape[-1] for item in codes]
        batch = pad_sequence([item.mT for item in codes], batch_first=True).mT
        audio: Tensor = self.decoder(self.dequantize(batch).mT, LengthMask(frames, batch.device))
        lengths = [length * self.hop_length for length in frames]
        return [item[:, :length] for item, length in zip(audio.float(), lengths, strict=True)]

    @override
    def latents(self, waves: Sequence[Tensor]) -> list[Tensor]:
        return [self.latent(wave[None])[0].mT for wave in waves]

    @override
    def stream_encoder(
        self, chunk_frames: int | None = None, *, latents: bool = False
    ) -> Stream[None]:
        return segment_encoder(self, chunk_frames or self.segment_frames, latents)

    @override
    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[None]:
        return segment_decoder(self, chunk_frames or self.segment_frames)

    @torch.no_grad()
    def encode_whole(self, read: Callable[[], Iterable[Tensor]]) -> Iterator[Tensor]:
        """Implement `WholeSignalModel`: one pass per block and one more; F >= 3 frames."""
        stack = self._packed(self.encoder)
        for latent in run_chunked(stack, lambda: (x[0].T for x in read()), keep=False):
            yield self.quantize(latent[None])

    @torch.no_grad()
    def decode_whole(self, codes: Tensor) -> Iterator[Tensor]:
        """Implement `WholeSignalModel`: one pass per block and one more; F >= 7 frames."""

        def read() -> Iterator[Tensor]:
            return (self.dequantize(chunk)[0] for chunk in torch.split(codes, LOOKUP_FRAMES, -1))

        for wave in run_chunked(self._packed(self.decoder), read, keep=False):
            yield wave.T[None]

    def latent(self, wave: Tensor) -> Tensor:
        """Return the latent ``(B, F, D)`` of ``(B, 1, N)``, float32."""
        return self._run(self.encoder, wave).mT

    @override
    def quantize(self, latent: Tensor) -> Tensor:
        with torch.autocast(latent.device.type, enabled=False):
            codes, _ = self.rq(latent.float())
        return cast(Tensor, codes)

    @override
    def dequantize(self, codes: Tensor) -> Tensor:
        return self.rq.lookup(codes)

    @property
    @override
    def has_bf16_decoder(self) -> bool:
        return self.cpu_fast_path

    @property
    def _in_chunks(self) -> bool:
        return (
            self.cpu_fast_path
            and self.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )

    def _run(self, layers: MaskedSequential, x: Tensor) -> Tensor:
        """Run the encoder or the decoder on signals of one length, without a mask."""
        if not self._in_chunks:
            return cast(Tensor, layers(x)).float()
        stack = self._packed(layers)
        items = [
            torch.cat(list(run_chunked(stack, partial(iter, [item.T]), keep=True))) for item in x
        ]
        return torch.stack(items).mT

    def _packed(self, layers: MaskedSequential) -> PackedStack:
        if layers is self.encoder:
            return self._packed_encoder.get(layers, lambda: PackedStack(layers))
        in_fp32 = self.decoder_dtype == torch.float32
        kept = self._packed_decoder if in_fp32 else self._bf16_decoder
        return kept.get(layers, lambda: PackedStack(layers, self.decoder_dtype))
