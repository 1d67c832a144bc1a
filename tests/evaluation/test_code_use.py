"""Use of codebooks and of bits, with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codectool.evaluation.tokens.usage import code_use, corrected_entropy, entropy


def test_entropy_of_known_counts() -> None:
    assert entropy(np.array([2, 0, 1, 1])) == 1.5
    assert entropy(np.array([5])) == 0
    assert entropy(np.array([0, 0])) == 0


def test_use_of_codebooks() -> None:
    codes = np.array([[0, 1, 2, 3] * 10, [5] * 40])
    assert code_use(codes, (8, 16)) == {
        "perplexity_0": pytest.approx(4),
        "dead_codes_0": 4,
        "perplexity_1": pytest.approx(1),
        "dead_codes_1": 15,
        "bits_per_token": pytest.approx(2),
    }
    assert code_use(np.zeros((2, 0), np.int32), (8, 16)) == {}


def test_use_of_bits() -> None:
    """18 bits of which all but three stand still: one alternates, one is its twin, one is rare."""
    alternating = np.arange(257) % 2
    rare = (np.arange(257) == 100).astype(int)
    codes = (alternating << 17) + (alternating << 16) + rare
    use = code_use(codes[None], (2**18,))
    of_rare = -(1 / 257) * math.log2(1 / 257) - (256 / 257) * math.log2(256 / 257)
    nearly_1 = -sum(p * math.log2(p) for p in (128 / 257, 129 / 257))
    assert use["bit_entropy_min"] == 0
    assert use["bit_entropy_mean"] == pytest.approx((2 * nearly_1 + of_rare) / 18)
    assert use["distinct"] == 3 / 257
    # the twins lie in one group and count once; the rare bit lies in another
    assert use["bits_per_token"] == pytest.approx(nearly_1 + of_rare)
    # after a known bit the alternating one is certain, and the rare one nearly as rare as before
    pairs = -(254 / 256) * math.log2(254 / 256) - 2 * (1 / 256) * math.log2(1 / 256)
    before = -(1 / 256) * math.log2(1 / 256) - (255 / 256) * math.log2(255 / 256)
    assert use["bits_given_previous"] == pytest.approx(pairs - before)
    assert set(use) == {
        "bit_entropy_min",
        "bit_entropy_mean",
        "distinct",
        "bits_given_previous",
        "bits_per_token",
    }


def test_random_bits_carry_all_they_can() -> None:
    codes = np.random.default_rng(0).integers(0, 2**18, (1, 20000))
    use = code_use(codes, (2**18,))
    assert use["bit_entropy_min"] > 0.999
    assert 17.98 < use["bits_per_token"] <= 18
    assert 17.99 < use["bits_given_previous"] <= 18
    # of n draws from N, N (1 - (1 - 1/N)^n) differ
    assert use["distinct"] == pytest.approx(2**18 * (1 - (1 - 2**-18) ** 20000) / 20000, abs=0.005)


def test_corrected_entropy_of_known_counts() -> None:
    assert corrected_entropy(np.array([2, 0, 1, 1])) == 1.5 + 2 / (2 * 4 * math.log(2))
    assert corrected_entropy(np.array([5, 0])) == 0
    assert corrected_entropy(np.array([0, 0])) == 0


def test_the_correction_takes_most_of_the_bias_away() -> None:
    """1000 tokens of 256 codes used alike: 8 bits, of which the frequencies show 7.8."""
    rng = np.random.default_rng(0)
    samples = [np.bincount(rng.integers(0, 256, 1000), minlength=256) for _ in range(50)]
    assert np.mean([entropy(counts) for counts in samples]) < 7.85
    assert np.mean([corrected_entropy(counts) for counts in samples]) == pytest.approx(8, abs=0.03)
