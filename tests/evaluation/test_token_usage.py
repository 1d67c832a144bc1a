"""Codebook usage and entropy of tokens whose statistics can be computed by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest

from codectool.evaluation.tokens.usage import (
    BinaryUsage,
    CodebookUsage,
    codebook_usage,
    corrected_entropy,
    empirical_entropy,
    token_usage,
)
from tests.evaluation.token_clips import FINGERPRINT, clip

ALL_ONES = 2**18 - 1


def codebook(codes: list[int], bits: int) -> CodebookUsage:
    """Return the usage of one codebook in one clip."""
    (model,) = token_usage([clip([codes], (bits,))])
    (usage,) = model.codebooks
    assert isinstance(usage, CodebookUsage)
    return usage


def binary(*clips: npt.ArrayLike, bits: int = 18) -> BinaryUsage:
    """Return the usage of one binary codebook in clips of ``(F,)`` or ``(C, F)``."""
    arrays = (np.atleast_2d(np.asarray(codes, np.int32))[:, None] for codes in clips)
    (model,) = token_usage(clip(array, (bits,), "hac") for array in arrays)
    (usage,) = model.codebooks
    assert isinstance(usage, BinaryUsage)
    return usage


def correction(used: int, tokens: int) -> float:
    """Return the Miller-Madow correction in bits."""
    return (used - 1) / (2 * tokens * math.log(2))


def test_empirical_entropy_of_known_counts() -> None:
    assert empirical_entropy(np.array([2, 0, 1, 1])) == 1.5
    assert empirical_entropy(np.array([5])) == 0
    assert empirical_entropy(np.array([0, 0])) == 0


def test_corrected_entropy_of_known_counts() -> None:
    assert corrected_entropy(np.array([2, 0, 1, 1])) == 1.5 + 2 / (2 * 4 * math.log(2))
    assert corrected_entropy(np.array([5, 0])) == 0
    assert corrected_entropy(np.array([0, 0])) == 0


def test_corrected_entropy_removes_most_of_the_bias() -> None:
    """1000 tokens of 256 equally likely codes: 8 bits, of which the frequencies show 7.8."""
    rng = np.random.default_rng(0)
    samples = [np.bincount(rng.integers(0, 256, 1000), minlength=256) for _ in range(50)]
    assert np.mean([empirical_entropy(counts) for counts in samples]) < 7.85
    corrected = [corrected_entropy(counts) for counts in samples]
    assert np.mean(corrected) == pytest.approx(8, abs=0.03)


def test_codebook_used_uniformly_has_full_entropy() -> None:
    usage = codebook([0, 1, 2, 3, 4, 5, 6, 7] * 5, 3)
    assert (usage.tokens, usage.size, usage.used, usage.dead) == (40, 8, 8, 0)
    assert usage.counts.tolist() == [5] * 8
    assert usage.empirical_entropy == pytest.approx(3)
    assert usage.perplexity == pytest.approx(8)
    assert usage.entropy == 3  # the correction is limited to the coded bits


def test_codebook_with_one_used_entry_has_no_entropy() -> None:
    usage = codebook([5] * 40, 3)
    assert (usage.used, usage.dead, usage.perplexity) == (1, 7, 1)
    assert (usage.empirical_entropy, usage.entropy) == (0, 0)


def test_codebook_used_unevenly() -> None:
    """Shares of a half and two quarters: 1.5 bits."""
    usage = codebook([6, 2, 6, 3], 3)
    assert usage.counts.tolist() == [2, 1, 1]
    assert usage.empirical_entropy == 1.5
    assert usage.perplexity == pytest.approx(2**1.5)
    assert usage.entropy == pytest.approx(1.5 + correction(3, 4))


def test_dead_by_chance_is_the_expected_number_of_unused_entries() -> None:
    assert codebook([0, 1], 1).dead_by_chance == 0.5
    assert codebook([], 4).dead_by_chance == 16
    assert codebook(list(range(8)) * 100, 3).dead_by_chance < 1e-30


def test_constant_bits_have_no_entropy() -> None:
    for token in (0, 0b101101, ALL_ONES):
        usage = binary([token] * 9)
        assert usage.bit_entropies == [0] * 18
        assert usage.conditional_entropies == [0] * 18
        assert (usage.tokens, usage.distinct, usage.entropy) == (9, 1, 0)
        assert (usage.bit_entropy_min, usage.bit_entropy_mean) == (0, 0)


def test_bit_entropies_start_with_the_most_significant_bit() -> None:
    usage = binary([0, 1 << 17] * 8)
    assert usage.bit_entropies == [1, *[0] * 17]
    assert usage.bit_entropy_mean == pytest.approx(1 / 18)
    assert binary([0, 1] * 8).bit_entropies == [*[0] * 17, 1]


def test_alternating_bits_have_no_conditional_entropy() -> None:
    """All bits of a group of six are equal, so that the group has an entropy of one bit."""
    usage = binary([0, ALL_ONES] * 32)
    assert usage.bit_entropies == [1] * 18
    assert usage.conditional_entropies == [0] * 18
    assert usage.distinct == 2
    assert usage.entropy == pytest.approx(3 * (1 + correction(2, 64)))


def test_conditional_entropy_uses_only_the_previous_frame() -> None:
    """In a cycle of four, the last bit alternates and the next one changes every second frame.

    65 frames make 64 pairs, equally many of each kind.
    """
    usage = binary(np.arange(65) % 4)
    assert usage.conditional_entropies == [*[0] * 16, 1, 0]
    assert binary(np.arange(64) % 4).bit_entropies == [*[0] * 16, 1, 1]


def test_binary_codebook_with_each_value_once_has_full_entropy() -> None:
    """17 bits are groups of 6, 6 and 5, each limited to its bits."""
    usage = binary(np.arange(2**17), bits=17)
    assert usage.bit_entropies == [1] * 17
    assert usage.distinct == 2**17
    assert usage.entropy == 17


def test_codebooks_of_more_than_16_bits_are_binary() -> None:
    (model,) = token_usage([clip([[0], [0]], (16, 17))])
    assert [type(usage) for usage in model.codebooks] == [CodebookUsage, BinaryUsage]
    assert [usage.coded_bits for usage in model.codebooks] == [16, 17]


def test_model_entropy_is_the_sum_over_codebooks() -> None:
    """Two bits that are used and three that are not, 80 times a second."""
    (model,) = token_usage([clip([[0, 1, 2, 3] * 4, [7] * 16], (2, 3))])
    first, second = model.codebooks
    assert isinstance(first, CodebookUsage)
    assert isinstance(second, CodebookUsage)
    assert (first.size, first.used, first.entropy) == (4, 4, 2)
    assert (second.size, second.used, second.entropy) == (8, 1, 0)
    assert (model.coded_bits, model.entropy) == (5, 2)
    assert model.coded_kbps == pytest.approx(0.4)
    assert model.entropy_kbps == pytest.approx(0.16)


def test_pairs_do_not_cross_clips() -> None:
    """Ones, then zeros: constant within each clip."""
    ones, zeros = [ALL_ONES] * 4, [0] * 4
    assert binary(ones + zeros).conditional_entropy > 1
    assert binary(ones, zeros).conditional_entropies == [0] * 18
    assert binary(ones, zeros).bit_entropies == [1] * 18


def test_pairs_do_not_cross_channels() -> None:
    assert binary([[ALL_ONES] * 4, [0] * 4]).conditional_entropies == [0] * 18


def test_clips_of_one_frame_have_no_pairs() -> None:
    usage = binary([ALL_ONES], [0], [0])
    assert usage.tokens == 3
    assert usage.conditional_entropies == [0] * 18


def test_clips_and_channels_are_added() -> None:
    """Half a second is 40 frames."""
    mono, stereo = clip([[0, 1] * 20], (1,)), clip([[[0] * 40], [[1] * 40]], (1,))
    (model,) = token_usage([mono, stereo])
    assert (model.clips, model.frames, model.seconds) == (2, 120, 1.5)
    (usage,) = model.codebooks
    assert isinstance(usage, CodebookUsage)
    assert usage.counts.tolist() == [60, 60]


def test_order_of_clips_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 2**18, size) for size in (5, 300, 1)]
    assert binary(*clips).to_json() == binary(*reversed(clips)).to_json()


@pytest.mark.parametrize("bits", [3, 18])
def test_usage_without_tokens_is_zero(bits: int) -> None:
    (model,) = token_usage([clip([[]], (bits,))])
    assert (model.clips, model.frames, model.seconds) == (1, 0, 0)
    assert (model.coded_bits, model.entropy, model.entropy_kbps) == (bits, 0, 0)
    (values,) = model.to_json()["codebooks"]
    assert values["tokens"] == 0
    if bits == 3:
        assert (values["used"], values["dead"], values["perplexity"]) == (0, 8, 0)
    else:
        assert (values["distinct"], values["conditional_entropy"]) == (0, 0)


def test_empty_clip_changes_only_the_number_of_clips() -> None:
    full, empty = clip([[1, 2, 3], [4, 4, 4]], (2, 18)), clip([[], []], (2, 18))
    (alone,), (both,) = (token_usage(clips) for clips in ([full], [empty, full, empty]))
    assert both.to_json() == {**alone.to_json(), "clips": 3}


def test_no_clips_have_no_models() -> None:
    assert token_usage([]) == []


def test_models_are_separate_and_in_order_of_appearance() -> None:
    """Different weights, fewer codebooks, or another family are another model."""
    clips = [
        clip([[0, 1]], (1,), fingerprint="bbbbbbbb"),
        clip([[0, 0]], (1,), fingerprint="aaaaaaaa"),
        clip([[0, 0], [1, 1]], (1, 1), fingerprint="aaaaaaaa"),
        clip([[0, 0]], (1,), "supercodec", "aaaaaaaa"),
        clip([[1, 1]], (1,), fingerprint="aaaaaaaa"),
    ]
    models = token_usage(clips)
    assert [(model.name, model.coded_bits, model.frames) for model in models] == [
        ("bigcodec bbbbbbbb", 1, 2),
        ("bigcodec aaaaaaaa", 1, 4),
        ("bigcodec aaaaaaaa", 2, 2),
        ("supercodec aaaaaaaa", 1, 2),
    ]
    assert [model.entropy for model in models] == [1, 1, 0, 0]


def test_json_contains_plain_values() -> None:
    models = token_usage([clip([[0, 1], [5, 6]], (3, 18)), clip([[]], (3,))])
    values = json.loads(json.dumps([model.to_json() for model in models], allow_nan=False))
    assert [usage["kind"] for usage in values[0]["codebooks"]] == ["codebook", "binary"]
    assert len(values[0]["codebooks"][1]["bit_entropies"]) == 18
    assert values[0]["codec"] == "bigcodec"
    assert values[0]["token_fingerprint"] == FINGERPRINT
    assert (values[0]["model_sample_rate"], values[0]["frame_rate"]) == (16000, 80)


def test_codebook_usage_of_codebooks() -> None:
    codes = np.array([[0, 1, 2, 3] * 10, [5] * 40])
    assert codebook_usage(codes, (8, 16)) == {
        "perplexity_0": pytest.approx(4),
        "dead_codes_0": 4,
        "perplexity_1": pytest.approx(1),
        "dead_codes_1": 15,
        "bits_per_token": pytest.approx(2),
    }
    assert codebook_usage(np.zeros((2, 0), np.int32), (8, 16)) == {}


def test_codebook_usage_of_size_that_is_not_a_power_of_two() -> None:
    assert codebook_usage(np.array([[0, 4]]), (5,))["dead_codes_0"] == 3


def test_codebook_usage_of_bits() -> None:
    """18 bits, all constant but three: one alternates, one equals it, one is rarely set."""
    alternating = np.arange(257) % 2
    rare = (np.arange(257) == 100).astype(int)
    codes = (alternating << 17) + (alternating << 16) + rare
    usage = codebook_usage(codes[None], (2**18,))
    of_rare = -(1 / 257) * math.log2(1 / 257) - (256 / 257) * math.log2(256 / 257)
    nearly_1 = -sum(p * math.log2(p) for p in (128 / 257, 129 / 257))
    assert usage["bit_entropy_min"] == 0
    assert usage["bit_entropy_mean"] == pytest.approx((2 * nearly_1 + of_rare) / 18)
    assert usage["distinct"] == 3 / 257
    # the equal bits are in one group and count once; the rare bit is in another
    assert usage["bits_per_token"] == pytest.approx(nearly_1 + of_rare)
    # given the previous frame, the alternating bit is certain and the rare bit nearly as rare
    pairs = -(254 / 256) * math.log2(254 / 256) - 2 * (1 / 256) * math.log2(1 / 256)
    before = -(1 / 256) * math.log2(1 / 256) - (255 / 256) * math.log2(255 / 256)
    assert usage["conditional_entropy"] == pytest.approx(pairs - before)
    assert set(usage) == {
        "bit_entropy_min",
        "bit_entropy_mean",
        "distinct",
        "conditional_entropy",
        "bits_per_token",
    }


def test_codebook_usage_of_random_bits_is_full() -> None:
    codes = np.random.default_rng(0).integers(0, 2**18, (1, 20000))
    usage = codebook_usage(codes, (2**18,))
    assert usage["bit_entropy_min"] > 0.999
    assert 17.98 < usage["bits_per_token"] <= 18
    assert 17.99 < usage["conditional_entropy"] <= 18
    # n draws from N values are N (1 - (1 - 1/N)^n) distinct ones on average
    expected = 2**18 * (1 - (1 - 2**-18) ** 20000) / 20000
    assert usage["distinct"] == pytest.approx(expected, abs=0.005)
