"""What `info --model` says, held against the models."""

from __future__ import annotations

import pytest
import torch

import codectool
from codectool.codec import bits_per_codebook
from codectool.codecs.base import CodecModel
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.registry import FAMILIES, get_family
from codectool.codecs.supercodec.model import SuperCodec
from tests.recipe import BIGCODEC, SUPERCODEC


def full_size(family: str) -> CodecModel:
    if family == "hac":
        return codectool.load("hac", device="cpu").model
    with torch.device("meta"):
        return BigCodec(BIGCODEC) if family == "bigcodec" else SuperCodec(SUPERCODEC)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_facts_are_those_of_the_model(family: str) -> None:
    model, facts = full_size(family), get_family(family).published
    assert facts is not None
    assert facts.layout.family == model.family
    assert facts.layout.sample_rate == model.sample_rate
    assert facts.layout.hop_length == model.hop_length
    assert facts.layout.bits_per_codebook == bits_per_codebook(model)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert (facts.encoder_lookahead, facts.decoder_lookahead) == (
        model.latency.encoder,
        model.latency.decoder,
    )
    if facts.segment_seconds is None:
        assert model.segment_frames is None
    else:
        seconds = (model.segment_frames or 0) * model.hop_length / model.sample_rate
        assert seconds == facts.segment_seconds
