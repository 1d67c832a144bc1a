"""Token statistics as tables and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from codectool.evaluation.tables import Rows, as_text
from codectool.evaluation.tokens.usage import BinaryUsage, TokenUsage

# Heading and format of each column after the name.
MODELS = {
    "clips": "{0.clips:,}",
    "seconds": "{0.seconds:,.1f}",
    "frames": "{0.frames:,}",
    "kbps": "{0.coded_kbps:.3f}",
    "entropy kbps": "{0.entropy_kbps:.3f}",
    "bits": "{0.coded_bits}",
    "entropy": "{0.entropy:.2f}",
}
CODEBOOKS = {
    "size": "{0.size:,}",
    "used": "{0.used:,}",
    "dead": "{0.dead:,}",
    "by chance": "{0.dead_by_chance:,.0f}",
    "perplexity": "{0.perplexity:,.1f}",
    "bits": "{0.coded_bits}",
    "entropy": "{0.entropy:.2f}",
}
BINARY_CODEBOOKS = {
    "min": "{0.bit_entropy_min:.3f}",
    "mean": "{0.bit_entropy_mean:.3f}",
    "distinct": "{0.distinct:,}",
    "conditional": "{0.conditional_entropy:.2f}",
    "bits": "{0.coded_bits}",
    "entropy": "{0.entropy:.2f}",
}
LEGENDS = {
    "model": """\
bits: coded bits per frame. entropy: bits that an ideal entropy coder of order 0 would need, with
the Miller-Madow correction; of binary codebooks, summed over groups of six bits.""",
    "codebook": """\
dead: entries that do not occur. by chance: entries expected not to occur if all were equally
likely.""",
    "binary codebook": """\
min, mean: entropy of single bits. conditional: sum of the entropies of the bits, each given the
same bit one frame earlier.""",
}


def token_tables(models: Sequence[TokenUsage]) -> list[Rows]:
    """Make tables of the models, codebooks and binary codebooks, without empty tables."""
    codebooks: list[tuple[str, object]] = []
    binary: list[tuple[str, object]] = []
    for model in models:
        for number, usage in enumerate(model.codebooks, 1):
            name = f"{model.name} {number}" if len(model.codebooks) > 1 else model.name
            (binary if isinstance(usage, BinaryUsage) else codebooks).append((name, usage))
    tables = (
        _table("model", MODELS, [(model.name, model) for model in models]),
        _table("codebook", CODEBOOKS, codebooks),
        _table("binary codebook", BINARY_CODEBOOKS, binary),
    )
    return [rows for rows in tables if len(rows) > 1]


def _table(kind: str, columns: dict[str, str], named: Sequence[tuple[str, object]]) -> Rows:
    rows = [[name, *(text.format(usage) for text in columns.values())] for name, usage in named]
    return [[kind, *columns], *rows]


def token_text(models: Sequence[TokenUsage]) -> str:
    """Format the tables for a terminal, with a legend."""
    tables = token_tables(models)
    legend = [LEGENDS[rows[0][0]] for rows in tables]
    return "\n\n".join([*map(as_text, tables), "\n".join(legend)])


def token_csv(models: Sequence[TokenUsage]) -> str:
    """Format the statistics as CSV with a line per codebook, without lists of bits.

    Columns of a codebook have the prefix ``codebook_``; others are empty.
    """
    lines = [
        {**model.to_json(), "codebook": number, **{f"codebook_{k}": v for k, v in values.items()}}
        for model in models
        for number, values in enumerate((usage.to_json() for usage in model.codebooks), 1)
    ]
    names = dict.fromkeys(name for line in lines for name in line)
    scalars = [
        name for name in names if not any(isinstance(line.get(name), list) for line in lines)
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, scalars, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()
