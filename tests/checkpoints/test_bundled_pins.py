"""Bundled weights encode and decode to pinned tokens and audio, so existing files stay readable."""

from __future__ import annotations

import numpy as np
import pytest

import codectool
from codectool.checkpoints.registry import ModelEntry
from tests.checkpoints.bundled_pins import (
    CLIPS,
    GOLDEN_AUDIO,
    bundled_entries,
    encode_and_decode,
)

# SHA-256 of the int32 tokens, by fingerprint and clip
TOKENS = {
    "1110df23-24k": "90c19b52f9c2e8d88bcb144269f1d9d4af6e4becbd23591d55c5c9bb0d446f1e",
    "1110df23-16k": "980ca83e2a4be831163c93929feaaad5b22e5168003ef2e2e2703e0cc5958b26",
    "1d8631bb-24k": "704c85d42e0730ae50fe59d3b4803027fd14704e1f049e39b56e1ba5194c1887",
    "1d8631bb-16k": "82898103f6677e1a35ceb18a3272f8b0123381dac1bbaa0ebffb54e9fb85b2bc",
    "2c307f6d-24k": "c2dd2a291bc12cb3871a49c49ffea6b3385a8eddd693b68dfc6cd3499f9a662f",
    "2c307f6d-16k": "27bc653a484dbb42eb016c561cb79af1a5ebf832148a41deca1f358ce67140f9",
    "7391a4ee-24k": "b4d1787a3d0eeaa836c3b1eb3ae5c05584fbe17d4fa93fcd20b83f7f86179357",
    "7391a4ee-16k": "ab50d5062033b3bc4e20b046d45e08f0af0fd8d797241de1aede06d35f04e3e6",
    # the same tokens, another decoder
    "ffcef39f-24k": "b4d1787a3d0eeaa836c3b1eb3ae5c05584fbe17d4fa93fcd20b83f7f86179357",
    "ffcef39f-16k": "ab50d5062033b3bc4e20b046d45e08f0af0fd8d797241de1aede06d35f04e3e6",
}


def test_all_bundled_weights_are_pinned() -> None:
    names = {f"{entry.fingerprint}-{clip}" for entry in bundled_entries() for clip in CLIPS}
    assert names == set(TOKENS)


@pytest.mark.parametrize("entry", bundled_entries(), ids=lambda entry: entry.name)
def test_tokens_and_audio_of_bundled_weights_do_not_change(entry: ModelEntry) -> None:
    codec = codectool.load(checkpoint=entry.locate(), device="cpu")
    with np.load(GOLDEN_AUDIO) as golden:
        for clip in CLIPS:
            name = f"{entry.fingerprint}-{clip}"
            digest, audio = encode_and_decode(codec, clip)
            assert digest == TOKENS[name], clip
            np.testing.assert_allclose(audio, golden[name], rtol=0, atol=1e-4, err_msg=clip)
