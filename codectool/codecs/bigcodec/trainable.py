"""BigCodec as it is trained (arXiv 2409.05377, section 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from codectool.codecs.bigcodec.config import BigCodecConfig
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.trainable import CropSpec, Reconstruction, TrainableCodec

# Inference takes 8 s, after which nothing of the start is left; the loss needs less.
LSTM_WARM_UP_SECONDS = 0.5


class TrainableBigCodec(TrainableCodec):
    """Encoder, factorized quantizer and decoder, all trained by gradients.

    Weights are initialised as PyTorch does. The reference implementation meant to draw the weights
    of convolutions from a narrower distribution, but set a tensor that weight norm overwrites; only
    the biases, which start at zero, became what was intended.
    """

    parse_config = staticmethod(BigCodecConfig.from_published)
    auxiliary_loss_names = ("commitment", "codebook")
    model: BigCodec

    def __init__(self, config: BigCodecConfig) -> None:
        super().__init__()
        self.sample_rate = config.sample_rate
        self.model = BigCodec(config)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @classmethod
    @override
    def crop_spec(cls, config: Mapping[str, Any]) -> CropSpec:
        parsed = cls.parse_config(config)
        codebooks = parsed.codec_decoder.vq_num_quantizers
        return CropSpec(parsed.sample_rate, parsed.hop_length, num_codebooks=codebooks)

    @override
    def crop_context(self) -> tuple[int, int]:
        after = self.model.decoder_reach
        warm_up = LSTM_WARM_UP_SECONDS * self.sample_rate / self.model.hop_length
        return after + math.ceil(warm_up) * self.model.config.codec_decoder.use_rnn, after

    @override
    def forward(self, wave: Tensor) -> Reconstruction:
        output = self.model.quantizer.forward_train(self.model.latent(wave))
        audio: Tensor = self.model.decoder(output.quantized.mT)
        return Reconstruction(audio.float(), wave, output.losses)
