"""SuperCodec as modules for export: a whole segment at once."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.codecs.exportable import ExportPart, lookup_present
from codectool.codecs.supercodec.model import SuperCodec
from codectool.codecs.supercodec.quantizer import EuclideanCodebook


def export_parts(model: SuperCodec) -> list[ExportPart]:
    """Return encoder and decoder."""
    return [
        ExportPart("encoder", SegmentEncoder(model)),
        ExportPart("decoder", SegmentDecoder(model)),
    ]


class SegmentEncoder(nn.Module):
    """A segment ``(1, 1, N)`` to codes ``(1, K, F)``."""

    def __init__(self, model: SuperCodec) -> None:
        super().__init__()
        self.encoder, self.rq = model.encoder, model.rq

    @override
    def forward(self, audio: Tensor) -> Tensor:
        residual = self.encoder(audio).mT
        codes = []
        for stage in self.rq.layers:
            codewords = cast(EuclideanCodebook, stage).embed[0]
            # The squared norm of the latent is the same for all codewords.
            distance = codewords.square().sum(-1) - 2 * (residual @ codewords.T)
            nearest = distance.argmin(-1)
            residual = residual - F.embedding(nearest, codewords)
            codes.append(nearest)
        return torch.stack(codes, 1)


class SegmentDecoder(nn.Module):
    """Codes ``(1, K, F)`` to a segment ``(1, 1, N)``."""

    def __init__(self, model: SuperCodec) -> None:
        super().__init__()
        self.rq, self.decoder = model.rq, model.decoder

    @override
    def forward(self, codes: Tensor) -> Tensor:
        audio: Tensor = self.decoder(lookup_present(self.rq, codes).mT)
        return audio
