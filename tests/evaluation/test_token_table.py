"""Tables and CSV of token statistics."""

from __future__ import annotations

import csv
import io

import numpy as np

from codectool.evaluation.tokens.table import LEGENDS, token_csv, token_tables, token_text
from codectool.evaluation.tokens.usage import token_usage
from tests.evaluation.token_clips import clip

CODEBOOKS = clip([[0, 1, 2, 3] * 20, [7] * 80], (2, 3))  # a second in which 2 of 5 bits are used
BITS = clip([[0, 2**18 - 1] * 40], (18,), "hac")


def test_token_tables_have_a_row_per_model() -> None:
    models = token_tables(token_usage([CODEBOOKS, CODEBOOKS, BITS]))[0]
    assert models[0] == [
        "model",
        "clips",
        "seconds",
        "frames",
        "kbps",
        "entropy kbps",
        "bits",
        "entropy",
    ]
    assert models[1] == ["bigcodec 0123abcd", "2", "2.0", "160", "0.400", "0.160", "5", "2.00"]
    assert models[2][:4] == ["hac 0123abcd", "1", "1.0", "80"]


def test_token_tables_have_a_row_per_codebook() -> None:
    _, codebooks = token_tables(token_usage([CODEBOOKS]))
    assert codebooks == [
        ["codebook", "size", "used", "dead", "by chance", "perplexity", "bits", "entropy"],
        ["bigcodec 0123abcd 1", "4", "4", "0", "0", "4.0", "2", "2.00"],
        ["bigcodec 0123abcd 2", "8", "1", "7", "0", "1.0", "3", "0.00"],
    ]


def test_token_tables_have_a_row_per_binary_codebook() -> None:
    _, bits = token_tables(token_usage([BITS]))
    assert bits == [
        ["binary codebook", "min", "mean", "distinct", "conditional", "bits", "entropy"],
        ["hac 0123abcd", "1.000", "1.000", "2", "0.00", "18", "3.03"],
    ]


def test_token_tables_separate_thousands() -> None:
    models, codebooks = token_tables(token_usage([clip([np.arange(4096)], (13,))]))
    assert models[1][3] == "4,096"
    assert codebooks[1][1:4] == ["8,192", "4,096", "4,096"]


def test_token_text_explains_its_columns() -> None:
    one, other, both = (
        token_text(token_usage(clips)) for clips in ([CODEBOOKS], [BITS], [CODEBOOKS, BITS])
    )
    assert [legend in one for legend in LEGENDS.values()] == [True, True, False]
    assert [legend in other for legend in LEGENDS.values()] == [True, False, True]
    assert [legend in both for legend in LEGENDS.values()] == [True, True, True]
    assert "\n\ncodebook " in both
    assert "\n\nbinary codebook " in both


def test_token_csv_has_a_line_per_codebook() -> None:
    text = token_csv(token_usage([CODEBOOKS, BITS]))
    first, second, third = csv.DictReader(io.StringIO(text))
    assert [line["codebook"] for line in (first, second, third)] == ["1", "2", "1"]
    assert [line["codec"] for line in (first, second, third)] == ["bigcodec", "bigcodec", "hac"]
    assert (second["codebook_size"], second["codebook_used"]) == ("8", "1")
    assert second["codebook_entropy"] == "0.0"
    assert (first["coded_bits"], first["codebook_coded_bits"]) == ("5", "2")
    assert first["codebook_bit_entropy_min"] == ""
    assert third["codebook_bit_entropy_min"] == "1.0"
    assert third["codebook_size"] == ""


def test_token_csv_contains_no_lists() -> None:
    text = token_csv(token_usage([CODEBOOKS, BITS]))
    assert "[" not in text
    assert '"' not in text
    assert len({line.count(",") for line in text.splitlines()}) == 1
