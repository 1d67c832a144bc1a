"""SuperCodec as it is trained (arXiv 2407.20530, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor
from typing_extensions import override

from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.codecs.supercodec.model import SuperCodec
from codectool.codecs.supercodec.quantizer import EuclideanCodebook
from codectool.codecs.trainable import CropSpec, Reconstruction, TrainableCodec


class TrainableSuperCodec(TrainableCodec):
    """Encoder, residual quantizer and decoder; the codebooks follow the data by moving averages.

    The first training step clusters its batch into codewords. Unlike in the reference
    implementation, each crop has the gates of its own mean, and all processes train the same
    codebooks on all crops.
    """

    parse_config = staticmethod(SuperCodecConfig.from_published)
    auxiliary_loss_names = ("commitment",)
    has_ema_codebooks = True
    model: SuperCodec

    def __init__(self, config: SuperCodecConfig) -> None:
        super().__init__()
        self.model = SuperCodec(config)
        self.sample_rate = self.model.sample_rate

    @classmethod
    @override
    def crop_spec(cls, config: Mapping[str, Any]) -> CropSpec:
        parsed = cls.parse_config(config)
        return CropSpec(parsed.sampling_rate, parsed.hop_length, SuperCodec.min_frames)

    @override
    def forward(self, wave: Tensor) -> Reconstruction:
        output = self.model.rq.forward_train(self.model.latent(wave))
        audio: Tensor = self.model.decoder(output.quantized.mT)
        return Reconstruction(audio.float(), wave, output.losses)

    @override
    def set_dead_code_threshold(self, threshold: float) -> None:
        for codebook in self.model.rq.layers:
            cast(EuclideanCodebook, codebook).dead_code_threshold = threshold

    @override
    def has_weight_decay(self, name: str, parameter: Tensor) -> bool:
        return False  # as in the reference implementation
