"""What tokens carry: cases that can be worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest

from codectool.evaluation.tokens.usage import BitsUse, CodebookUse, code_use, token_use
from codectool.tokens import TokenLayout, Tokens

FINGERPRINT = "0123abcd"
ALL_ONES = 2**18 - 1


def clip(
    codes: npt.ArrayLike,
    bits_per_codebook: tuple[int, ...],
    family: str = "bigcodec",
    fingerprint: str = FINGERPRINT,
) -> Tokens:
    """Tokens ``(K, F)`` or ``(C, K, F)``, 80 frames per second."""
    array = np.asarray(codes, np.int32)
    array = array if array.ndim == 3 else array[None]
    layout = TokenLayout(family, 16000, 200, bits_per_codebook)
    return Tokens(array, layout, fingerprint, 16000, 200 * array.shape[2])


def codebook(codes: list[int], bits: int) -> CodebookUse:
    """Of one clip."""
    (model,) = token_use([("x", clip([codes], (bits,)))])
    (stream,) = model.streams
    assert isinstance(stream, CodebookUse)
    return stream


def binary(*clips: npt.ArrayLike, bits: int = 18) -> BitsUse:
    """Of one stream ``(F,)`` or ``(C, F)`` per clip."""
    arrays = (np.atleast_2d(np.asarray(codes, np.int32))[:, None] for codes in clips)
    (model,) = token_use(("x", clip(array, (bits,), "hac")) for array in arrays)
    (stream,) = model.streams
    assert isinstance(stream, BitsUse)
    return stream


def correction(used: int, tokens: int) -> float:
    """Miller and Madow's, in bits."""
    return (used - 1) / (2 * tokens * math.log(2))


def test_codes_used_alike_carry_all_that_is_sent() -> None:
    use = codebook([0, 1, 2, 3, 4, 5, 6, 7] * 5, 3)
    assert (use.tokens, use.size, use.used, use.dead) == (40, 8, 8, 0)
    assert use.counts.tolist() == [5] * 8
    assert use.entropy == pytest.approx(3)
    assert use.perplexity == pytest.approx(8)
    assert use.carried == 3  # the correction does not carry it beyond the bits that are sent


def test_one_code_carries_nothing() -> None:
    use = codebook([5] * 40, 3)
    assert (use.used, use.dead, use.entropy, use.carried, use.perplexity) == (1, 7, 0, 0, 1)


def test_codes_used_unevenly() -> None:
    """Shares of a half and two quarters: 1.5 bits."""
    use = codebook([6, 2, 6, 3], 3)
    assert use.counts.tolist() == [2, 1, 1]
    assert use.entropy == 1.5
    assert use.perplexity == pytest.approx(2**1.5)
    assert use.carried == pytest.approx(1.5 + correction(3, 4))


def test_dead_codes_by_chance() -> None:
    """Two throws of a coin leave a side unseen in half of all cases; none leave both."""
    assert codebook([0, 1], 1).dead_by_chance == 0.5
    assert codebook([], 4).dead_by_chance == 16
    assert codebook(list(range(8)) * 100, 3).dead_by_chance < 1e-30


def test_constant_bits_carry_nothing() -> None:
    for token in (0, 0b101101, ALL_ONES):
        use = binary([token] * 9)
        assert list(use.entropies) == [0] * 18
        assert list(use.given_previous) == [0] * 18
        assert (use.tokens, use.distinct, use.least, use.mean, use.carried) == (9, 1, 0, 0, 0)


def test_bits_stand_with_the_most_significant_first() -> None:
    use = binary([0, 1 << 17] * 8)
    assert use.entropies == (1, *[0] * 17)
    assert use.mean == pytest.approx(1 / 18)
    assert binary([0, 1] * 8).entropies == (*[0] * 17, 1)


def test_bits_that_alternate_are_no_news() -> None:
    """A cycle of two tokens: one bit each by itself, none after the frame before.

    All bits of a group of six are the same bit, which counts once.
    """
    use = binary([0, ALL_ONES] * 32)
    assert list(use.entropies) == [1] * 18
    assert list(use.given_previous) == [0] * 18
    assert use.distinct == 2
    assert use.carried == pytest.approx(3 * (1 + correction(2, 64)))


def test_only_the_bit_just_before_is_taken_as_known() -> None:
    """A cycle of four: the last bit alternates; the next comes in pairs, so that one tells nothing.

    65 frames are 64 pairs, of which each kind is as frequent as the others.
    """
    use = binary(np.arange(65) % 4)
    assert use.given_previous == (*[0] * 16, 1, 0)
    assert binary(np.arange(64) % 4).entropies == (*[0] * 16, 1, 1)


def test_every_value_once_carries_all_bits() -> None:
    """17 bits are groups of 6, 6 and 5, none of which may carry more than it has."""
    use = binary(np.arange(2**17), bits=17)
    assert list(use.entropies) == [1] * 17
    assert use.distinct == 2**17
    assert use.carried == 17


def test_streams_of_more_than_16_bits_are_binary_scalars() -> None:
    (model,) = token_use([("x", clip([[0], [0]], (16, 17)))])
    assert [type(stream) for stream in model.streams] == [CodebookUse, BitsUse]
    assert [stream.bits for stream in model.streams] == [16, 17]


def test_streams_are_counted_apart_and_added_up() -> None:
    """Two bits that are used and three that are not, 80 times a second."""
    (model,) = token_use([("x", clip([[0, 1, 2, 3] * 4, [7] * 16], (2, 3)))])
    first, second = model.streams
    assert isinstance(first, CodebookUse)
    assert isinstance(second, CodebookUse)
    assert (first.size, first.used, first.carried) == (4, 4, 2)
    assert (second.size, second.used, second.carried) == (8, 1, 0)
    assert (model.bits_sent, model.bits_carried) == (5, 2)
    assert model.kbps_sent == pytest.approx(0.4)
    assert model.kbps_carried == pytest.approx(0.16)


def test_no_pair_reaches_from_one_clip_into_the_next() -> None:
    """Ones, then zeros: each clip stands still; joined, one pair would be news."""
    ones, zeros = [ALL_ONES] * 4, [0] * 4
    assert sum(binary(ones + zeros).given_previous) > 1
    assert list(binary(ones, zeros).given_previous) == [0] * 18
    assert list(binary(ones, zeros).entropies) == [1] * 18


def test_no_pair_reaches_from_one_channel_into_the_next() -> None:
    assert list(binary([[ALL_ONES] * 4, [0] * 4]).given_previous) == [0] * 18


def test_clips_of_one_frame_have_no_pairs() -> None:
    use = binary([ALL_ONES], [0], [0])
    assert use.tokens == 3
    assert list(use.given_previous) == [0] * 18


def test_clips_add_up() -> None:
    """Channels count one by one; half a second is 40 frames."""
    mono, stereo = clip([[0, 1] * 20], (1,)), clip([[[0] * 40], [[1] * 40]], (1,))
    (model,) = token_use([("a", mono), ("b", stereo)])
    assert (model.clips, model.frames, model.seconds) == (2, 120, 1.5)
    (stream,) = model.streams
    assert isinstance(stream, CodebookUse)
    assert stream.counts.tolist() == [60, 60]


def test_the_order_of_the_clips_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 2**18, size) for size in (5, 300, 1)]
    assert binary(*clips) == binary(*reversed(clips))


@pytest.mark.parametrize("bits", [3, 18])
def test_without_tokens_all_is_nothing(bits: int) -> None:
    (model,) = token_use([("x", clip([[]], (bits,)))])
    assert (model.clips, model.frames, model.seconds) == (1, 0, 0)
    assert (model.bits_sent, model.bits_carried, model.kbps_carried) == (bits, 0, 0)
    (values,) = model.to_json()["streams"]
    assert values["tokens"] == 0
    if bits == 3:
        assert (values["used"], values["dead"], values["perplexity"]) == (0, 8, 0)
    else:
        assert (values["distinct"], values["bits_given_previous"]) == (0, 0)


def test_an_empty_clip_changes_nothing_but_the_number_of_clips() -> None:
    full, empty = clip([[1, 2, 3], [4, 4, 4]], (2, 18)), clip([[], []], (2, 18))
    (alone,), (both,) = (token_use(enumerated(*clips)) for clips in ([full], [empty, full, empty]))
    assert both.to_json() == {**alone.to_json(), "clips": 3}


def test_without_clips_there_are_no_models() -> None:
    assert token_use([]) == []


def test_each_model_stands_alone_in_order_of_appearance() -> None:
    """Other weights, fewer codebooks, or another family are another model."""
    clips = [
        clip([[0, 1]], (1,), fingerprint="bbbbbbbb"),
        clip([[0, 0]], (1,), fingerprint="aaaaaaaa"),
        clip([[0, 0], [1, 1]], (1, 1), fingerprint="aaaaaaaa"),
        clip([[0, 0]], (1,), "supercodec", "aaaaaaaa"),
        clip([[1, 1]], (1,), fingerprint="aaaaaaaa"),
    ]
    models = token_use(enumerated(*clips))
    assert [(model.name, model.bits_sent, model.frames) for model in models] == [
        ("bigcodec bbbbbbbb", 1, 2),
        ("bigcodec aaaaaaaa", 1, 4),
        ("bigcodec aaaaaaaa", 2, 2),
        ("supercodec aaaaaaaa", 1, 2),
    ]
    assert [model.bits_carried for model in models] == [1, 1, 0, 0]


def test_training_and_evaluation_tell_the_same() -> None:
    """`code_use` has all tokens at hand; here sums grow clip by clip."""
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, 16, 500) ** 2 // 16, rng.integers(0, 2**18, 500) & 0x3F0F3])
    (model,) = token_use([("x", clip(codes, (4, 18)))])
    expected = code_use(codes, (16, 2**18))
    first, second = model.streams
    assert isinstance(first, CodebookUse)
    assert isinstance(second, BitsUse)
    assert first.perplexity == pytest.approx(expected["perplexity_0"])
    assert first.dead == expected["dead_codes_0"]
    assert second.least == expected["bit_entropy_min"]
    assert second.mean == pytest.approx(expected["bit_entropy_mean"])
    assert second.distinct / 500 == expected["distinct"]
    assert sum(second.given_previous) == pytest.approx(expected["bits_given_previous"])


def test_json_holds_plain_figures() -> None:
    models = token_use(enumerated(clip([[0, 1], [5, 6]], (3, 18)), clip([[]], (3,))))
    values = json.loads(json.dumps([model.to_json() for model in models], allow_nan=False))
    assert [stream["kind"] for stream in values[0]["streams"]] == ["codebook", "bits"]
    assert len(values[0]["streams"][1]["bit_entropy"]) == 18
    assert values[0]["codec"] == "bigcodec"
    assert values[0]["weights"] == FINGERPRINT
    assert (values[0]["model_sample_rate"], values[0]["frame_rate"]) == (16000, 80)


def enumerated(*clips: Tokens) -> list[tuple[str, Tokens]]:
    """With names that do not matter."""
    return [(str(number), tokens) for number, tokens in enumerate(clips)]
