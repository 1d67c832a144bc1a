"""Token stability, with a codec whose tokens are known."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from codectool.errors import AudioError
from codectool.evaluation.tokens.stability import (
    CHANGES,
    TokenStability,
    stability_csv,
    stability_table,
    stability_text,
)
from codectool.tokens import TokenLayout, Tokens

RATE, HOP = 8000, 80
LAYOUT = TokenLayout("bigcodec", RATE, HOP, (1, 18))


class LevelCodec:
    """Codes the sign of each frame's first sample, and its size in 18 bits."""

    sample_rate, hop_length, layout, fingerprint = RATE, HOP, LAYOUT, "0123abcd"

    def check_rate(self, rate: int) -> None:
        if rate < 100:
            raise AudioError("the rate is too low")

    def encode_chunks(
        self, chunks: list[np.ndarray], rate: int, channels: int, *, checked: bool
    ) -> Tokens:
        (wave,) = chunks
        assert (rate, channels, checked) == (RATE, len(wave), True)
        first = wave[:, ::HOP]
        size = np.minimum(np.abs(first) * 2**16, 2**18 - 1)
        codes = np.stack([first > 0, size], axis=1).astype(np.int32)
        return Tokens(codes, LAYOUT, self.fingerprint, rate, wave.shape[1])

    def decode(self, tokens: Tokens) -> np.ndarray:
        sign = 2 * tokens.codes[:, 0] - 1
        wave = np.repeat(sign * tokens.codes[:, 1] / 2**16, HOP, axis=1)
        return wave[:, : tokens.num_samples].astype(np.float32)


def measure(*clips: np.ndarray, rate: int = RATE) -> TokenStability:
    codec: Any = LevelCodec()
    model = TokenStability("mine", codec.layout, codec.fingerprint)
    for clip in clips:
        model.add(codec, clip.astype(np.float32), rate)
    return model


def steps(signs: list[int], channels: int = 1) -> np.ndarray:
    """Return frames of 0.25 or -0.25."""
    return np.tile(np.repeat(0.25 * np.array(signs), HOP), (channels, 1))


def test_stability_counts_tokens_frames_and_bits_by_codebook() -> None:
    model = measure(steps([1, -1, 1, 1, -1]), steps([1, 1], channels=2))
    assert (model.clips, model.seconds) == (2, (5 + 4) * HOP / RATE)
    scaled = model.shares("gain_-6_db")
    assert (scaled["codebooks"], scaled["frames"]) == ([1, 0], 0)
    assert scaled["tokens"] == 0.5
    before, after = 2**14, int(np.float32(0.25 * np.float32(10**-0.3)) * 2**16)
    assert scaled["bits"] == [1, pytest.approx(1 - (before ^ after).bit_count() / 18)]
    twice = model.shares("coded_twice")
    assert (twice["codebooks"], twice["tokens"], twice["frames"]) == ([1, 1], 1, 1)
    assert model.frames["coded_twice"] == 5 + 2 * 2
    assert model.shares("noise_30_db")["codebooks"][0] == 1


def test_stability_compares_tokens_that_are_nearest_in_time() -> None:
    model = measure(steps([1, -1, 1, 1, -1, -1, -1, 1]))
    for change in ("shift_0.125_hop", "shift_0.5_hop", "shift_1_hop"):
        assert model.shares(change)["frames"] == 1, change
    assert (model.frames["shift_0.5_hop"], model.frames["shift_1_hop"]) == (8, 7)


def test_stability_of_short_and_empty_clips() -> None:
    model = measure(steps([1])[:, : HOP // 4])
    assert model.frames["shift_0.25_hop"] == model.frames["shift_1_hop"] == 0
    assert model.shares("shift_1_hop") == dict.fromkeys(("codebooks", "tokens", "frames", "bits"))
    assert [row[CHANGES_AT["shift_1_hop"]] for row in stability_table(model)[1:]] == ["-"] * 5
    with pytest.raises(AudioError, match="holds no samples"):
        measure(np.zeros((1, 0)))
    with pytest.raises(AudioError, match="too low"):
        measure(steps([1]), rate=50)
    assert measure(np.zeros((1, HOP))).shares("noise_30_db")["frames"] == 1, "silence has no noise"


CHANGES_AT = {change: number for number, change in enumerate(CHANGES, 1)}


def test_stability_is_reproducible() -> None:
    clip = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 50 * HOP))
    assert measure(clip).to_json() == measure(clip).to_json()


def test_stability_tables_and_csv() -> None:
    model = measure(steps([1, -1, 1]))
    head, *rows = stability_table(model)
    assert head == ["% that stay", *CHANGES.values()]
    assert [row[0] for row in rows] == [
        *("codebook 1", "codebook 2", "bits", "all tokens", "whole frames")
    ]
    column = CHANGES_AT["gain_-6_db"]
    assert [row[column] for row in rows][:2] == ["100.0", "0.0"]
    text = stability_text([model])
    assert text.startswith("mine (tokens 0123abcd): 1 clip, 0.0 minutes\n\n% that stay  ")
    assert text.endswith("encoded, decoded and encoded again.")
    lines = list(csv.DictReader(io.StringIO(stability_csv([model]))))
    assert len(lines) == 2 * len(CHANGES)
    assert lines[0].keys() == {
        *("system", "token_fingerprint", "change", "compared_frames", "codebook", "tokens", "bits")
    }
    found = next(
        line for line in lines if (line["change"], line["codebook"]) == ("coded_twice", "2")
    )
    assert (found["compared_frames"], found["tokens"], found["bits"]) == ("3", "1.0", "1.0")
