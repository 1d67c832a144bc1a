"""Metadata of the published models, as `info --model` shows them, match the models."""

from __future__ import annotations

import pytest
import torch

import codectool
from codectool.codec import model_layout
from codectool.codecs.base import CodecModel
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.registry import FAMILIES, get_family
from codectool.codecs.supercodec.model import SuperCodec
from tests.full_size_weights import BIGCODEC, SUPERCODEC


def full_size(family: str) -> CodecModel:
    if family == "hac":
        return codectool.load("hac", device="cpu").model
    with torch.device("meta"):
        return BigCodec(BIGCODEC) if family == "bigcodec" else SuperCodec(SUPERCODEC)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_published_metadata_match_the_model(family: str) -> None:
    model, metadata = full_size(family), get_family(family).published
    assert metadata is not None
    assert metadata.layout == model_layout(model)
    assert metadata.parameters == sum(p.numel() for p in model.parameters())
    assert (metadata.encoder_lookahead, metadata.decoder_lookahead) == (
        model.latency.encoder,
        model.latency.decoder,
    )
    if metadata.segment_seconds is None:
        assert model.segment_frames is None
    else:
        seconds = (model.segment_frames or 0) * model.hop_length / model.sample_rate
        assert seconds == metadata.segment_seconds
