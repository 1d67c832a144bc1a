"""SuperCodec as it is trained (arXiv 2407.20530, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor
from typing_extensions import override

from codectool.codecs.supercodec.blocks import RES_FOUR, RES_ONE
from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.codecs.supercodec.model import SuperCodec
from codectool.codecs.supercodec.quantizer import EuclideanCodebook
from codectool.codecs.trainable import CropSpec, Reconstruction, TrainableCodec

KERNEL = 7  # of the decoder's first and last convolution


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
        return CropSpec(
            *(parsed.sampling_rate, parsed.hop_length, SuperCodec.min_frames),
            num_codebooks=parsed.rq_num_quantizers,
        )

    @override
    def crop_context(self) -> tuple[int, int]:
        """Return the reach of the convolutions; the gates depend on the mean of what is decoded."""
        before, after = KERNEL - 1, 0  # of the last convolution, in samples
        for stride in self.model.config.strides:
            # the three resamplers of a block see one column more of the past each
            before = -(-(before + sum(RES_FOUR)) // stride) + sum(RES_ONE) + 3
            after = -(-(after + sum(RES_FOUR)) // stride) + sum(RES_ONE)
        return before + KERNEL - 1, after

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
