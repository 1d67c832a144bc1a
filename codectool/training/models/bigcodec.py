"""BigCodec as it is trained (arXiv 2409.05377, section 2)."""

from __future__ import annotations

from torch import Tensor, nn

from codectool.codecs.bigcodec.config import BigCodecConfig
from codectool.codecs.bigcodec.model import BigCodec
from codectool.training.models.unfolded import UnfoldedTrainee
from codectool.training.trainee import Reconstruction


class BigCodecTrainee(UnfoldedTrainee):
    """Encoder, factorized quantizer, decoder; all of it is learned by gradients.

    Weights begin as PyTorch makes them. The authors meant to draw those of the convolutions from a
    narrower distribution, but set a tensor that weight norm computes anew; only the biases, which
    begin at zero, became what they meant.

    Shapes: ``(B, 1, N)`` with N a multiple of the hop to a `Reconstruction` of as many samples.
    """

    penalty_names = ("commitment", "codebook")
    model: BigCodec

    def __init__(self, config: BigCodecConfig) -> None:
        super().__init__(BigCodec(config))
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, wave: Tensor) -> Reconstruction:
        """Code crops and decode them again."""
        output = self.model.quantizer.forward_train(self.model.latent(wave))
        audio: Tensor = self.model.decoder(output.quantized)
        return Reconstruction(audio.float(), wave, output.losses, output.codes)
