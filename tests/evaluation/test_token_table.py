"""Tables of what tokens carry."""

from __future__ import annotations

import csv
import io

import numpy as np

from codectool.evaluation.tokens.table import (
    ABOUT,
    ABOUT_BITS,
    ABOUT_CODEBOOKS,
    token_csv,
    token_tables,
    token_text,
)
from codectool.evaluation.tokens.usage import TokenUse, token_use
from codectool.tokens import Tokens
from tests.evaluation.test_token_use import clip

CODEBOOKS = clip([[0, 1, 2, 3] * 20, [7] * 80], (2, 3))  # a second, in which 2 of 5 bits are used
BITS = clip([[0, 2**18 - 1] * 40], (18,), "hac")


def use_of(*clips: Tokens) -> list[TokenUse]:
    return token_use(("x", tokens) for tokens in clips)


def test_a_row_for_each_model() -> None:
    models = token_tables(use_of(CODEBOOKS, CODEBOOKS, BITS))[0]
    assert models[0] == [
        "model",
        "clips",
        "seconds",
        "frames",
        "kbps",
        "carried",
        "bits",
        "carried",
    ]
    assert models[1] == ["bigcodec 0123abcd", "2", "2.0", "160", "0.400", "0.160", "5", "2.00"]
    assert models[2][:4] == ["hac 0123abcd", "1", "1.0", "80"]


def test_a_row_for_each_codebook() -> None:
    _, codebooks = token_tables(use_of(CODEBOOKS))
    assert codebooks == [
        ["codebook", "size", "used", "dead", "by chance", "perplexity", "bits", "carried"],
        ["bigcodec 0123abcd 1", "4", "4", "0", "0", "4.0", "2", "2.00"],
        ["bigcodec 0123abcd 2", "8", "1", "7", "0", "1.0", "3", "0.00"],
    ]


def test_a_row_for_each_binary_stream() -> None:
    _, bits = token_tables(use_of(BITS))
    assert bits == [
        ["binary stream", "least", "mean", "distinct", "given previous", "bits", "carried"],
        ["hac 0123abcd", "1.000", "1.000", "2", "0.00", "18", "3.03"],
    ]


def test_thousands_are_set_apart() -> None:
    models, codebooks = token_tables(use_of(clip([np.arange(4096)], (13,))))
    assert models[1][3] == "4,096"
    assert codebooks[1][1:4] == ["8,192", "4,096", "4,096"]


def test_text_explains_the_words_that_it_uses() -> None:
    one, other, both = (token_text(use_of(*c)) for c in ([CODEBOOKS], [BITS], [CODEBOOKS, BITS]))
    assert ABOUT in one
    assert ABOUT in other
    assert (ABOUT_CODEBOOKS in one, ABOUT_BITS in one) == (True, False)
    assert (ABOUT_CODEBOOKS in other, ABOUT_BITS in other) == (False, True)
    assert (ABOUT_CODEBOOKS in both, ABOUT_BITS in both) == (True, True)
    assert "\n\ncodebook " in both
    assert "\n\nbinary stream " in both


def test_csv_has_a_line_for_each_stream() -> None:
    text = token_csv(use_of(CODEBOOKS, BITS))
    first, second, third = csv.DictReader(io.StringIO(text))
    assert [line["stream"] for line in (first, second, third)] == ["1", "2", "1"]
    assert [line["codec"] for line in (first, second, third)] == ["bigcodec", "bigcodec", "hac"]
    assert (second["stream_size"], second["stream_used"]) == ("8", "1")
    assert second["stream_entropy"] == "0.0"
    assert (first["bits_sent"], first["stream_bits_sent"]) == ("5", "2")
    assert first["stream_bit_entropy_min"] == ""
    assert third["stream_bit_entropy_min"] == "1.0"
    assert third["stream_size"] == ""


def test_csv_holds_no_lists() -> None:
    text = token_csv(use_of(CODEBOOKS, BITS))
    assert "[" not in text
    assert '"' not in text
    assert len({line.count(",") for line in text.splitlines()}) == 1
