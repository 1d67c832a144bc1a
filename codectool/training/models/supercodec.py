"""SuperCodec as it is trained (arXiv 2407.20530, section 2)."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from codectool.codecs.supercodec.config import SuperCodecConfig
from codectool.codecs.supercodec.model import SuperCodec
from codectool.codecs.supercodec.quantizer import EuclideanCodebook
from codectool.training.models.unfolded import UnfoldedTrainee
from codectool.training.trainee import Reconstruction


class SuperCodecTrainee(UnfoldedTrainee):
    """Encoder, residual quantizer, decoder; the codebooks follow the data by moving averages.

    The first training step clusters its batch into codewords. Unlike the authors' program, every
    crop has the gates of its own mean, and all ranks learn the same codebooks from all crops.

    Shapes: ``(B, 1, N)`` with N a multiple of the hop, at least seven frames, to a
    `Reconstruction` of as many samples.

    Args:
        config: hyper-parameters of the model.
        dead_code_threshold: see `EuclideanCodebook`; 0 replaces no codeword, like the authors.
    """

    penalty_names = ("commitment",)
    model: SuperCodec

    def __init__(self, config: SuperCodecConfig, dead_code_threshold: float = 0.0) -> None:
        super().__init__(SuperCodec(config))
        for codebook in self.model.rq.layers:
            cast(EuclideanCodebook, codebook).dead_code_threshold = dead_code_threshold

    def forward(self, wave: Tensor) -> Reconstruction:
        """Code crops and decode them again."""
        output = self.model.rq.forward_train(self.model.latent(wave).transpose(1, 2))
        audio: Tensor = self.model.decoder(output.quantized.transpose(1, 2))
        return Reconstruction(audio.float(), wave, output.losses, output.codes)

    def decayed(self, name: str, parameter: Tensor) -> bool:
        """No weight decay, like the authors."""
        return False
