"""Old public names keep working with a `DeprecationWarning`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codectool.codec import Codec
from codectool.loading import load
from codectool.tokens import TokenLayout


def test_load_accepts_old_keywords(checkpoints: dict[str, Path]) -> None:
    path = checkpoints["supercodec"]
    with pytest.warns(DeprecationWarning, match="`quantizers` is deprecated; use `codebooks`"):
        codec = load("supercodec", path, device="cpu", quantizers=1)  # type: ignore[call-arg]
    assert codec.layout.num_codebooks == 1
    for old, new in (("whole", "lossless"), ("upstream", "reference")):
        with pytest.warns(DeprecationWarning, match="`framing` is deprecated; use `padding`"):
            codec = load("supercodec", path, device="cpu", framing=old)  # type: ignore[call-arg]
        assert codec.padding == new
        with pytest.warns(DeprecationWarning, match="`framing` is deprecated; use `padding`"):
            assert codec.framing == old


def test_load_rejects_old_and_new_keyword_together(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(TypeError, match="`quantizers` is the old name of `codebooks`"):
        load("hac", checkpoints["hac"], quantizers=1, codebooks=1)  # type: ignore[call-arg]


def test_streams_accept_block_frames(codecs: dict[str, Codec]) -> None:
    codec = codecs["hac"]
    with pytest.warns(DeprecationWarning, match="`block_frames` is deprecated; use `chunk_frames`"):
        encoder = codec.stream_encoder(block_frames=1)  # type: ignore[call-arg]
    codes = encoder.push(np.zeros(3 * codec.hop_length, np.float32))
    assert codes.shape == (1, 1, 3)
    with pytest.warns(DeprecationWarning, match="`block_frames` is deprecated; use `chunk_frames`"):
        decoder = codec.stream_decoder(block_frames=1)  # type: ignore[call-arg]
    assert decoder.push(codes).shape[0] == 1


def test_token_layout_has_old_properties() -> None:
    layout = TokenLayout("supercodec", 16000, 320, (10, 10))
    with pytest.warns(DeprecationWarning, match="`num_streams` is deprecated; use `num_codebooks`"):
        assert layout.num_streams == 2
    with pytest.warns(DeprecationWarning, match="use `bits_per_codebook`"):
        assert layout.stream_bits == (10, 10)
