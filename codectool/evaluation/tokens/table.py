"""Token statistics as tables and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from codectool.evaluation.tables import Rows, as_text
from codectool.evaluation.tokens.usage import BinaryUsage, CodebookUsage, TokenUsage

MODELS = ("model", "clips", "seconds", "frames", "kbps", "entropy kbps", "bits", "entropy")
CODEBOOKS = ("codebook", "size", "used", "dead", "by chance", "perplexity", "bits", "entropy")
BINARY = ("binary codebook", "min", "mean", "distinct", "conditional", "bits", "entropy")
LEGEND = """\
bits: coded bits per frame. entropy: bits that an ideal entropy coder of order 0 would need, with
the Miller-Madow correction; of binary codebooks, summed over groups of six bits."""
LEGEND_CODEBOOKS = """\
dead: entries that do not occur. by chance: entries expected not to occur if all were equally
likely."""
LEGEND_BINARY = """\
min, mean: entropy of single bits. conditional: sum of the entropies of the bits, each given the
same bit one frame earlier."""


def token_tables(models: Sequence[TokenUsage]) -> list[Rows]:
    """Make tables of the models, codebooks and binary codebooks, without empty tables.

    Args:
        models: at least one.
    """
    codebooks = [
        (f"{model.name} {number}" if len(model.codebooks) > 1 else model.name, usage)
        for model in models
        for number, usage in enumerate(model.codebooks, 1)
    ]
    tables = [
        [MODELS, *map(_model, models)],
        [CODEBOOKS, *(_codebook(name, u) for name, u in codebooks if isinstance(u, CodebookUsage))],
        [BINARY, *(_binary(name, u) for name, u in codebooks if isinstance(u, BinaryUsage))],
    ]
    return [[list(row) for row in rows] for rows in tables if len(rows) > 1]


def token_text(models: Sequence[TokenUsage]) -> str:
    """Format the tables for a terminal, with a legend."""
    kinds = {type(usage) for model in models for usage in model.codebooks}
    legend = [LEGEND, *([LEGEND_CODEBOOKS] if CodebookUsage in kinds else [])]
    legend += [LEGEND_BINARY] if BinaryUsage in kinds else []
    return "\n\n".join([*map(as_text, token_tables(models)), "\n".join(legend)])


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


def _model(model: TokenUsage) -> tuple[str, ...]:
    return (
        model.name,
        f"{model.clips:,}",
        f"{model.seconds:,.1f}",
        f"{model.frames:,}",
        f"{model.coded_kbps:.3f}",
        f"{model.entropy_kbps:.3f}",
        str(model.coded_bits),
        f"{model.entropy:.2f}",
    )


def _codebook(name: str, usage: CodebookUsage) -> tuple[str, ...]:
    return (
        name,
        f"{usage.size:,}",
        f"{usage.used:,}",
        f"{usage.dead:,}",
        f"{usage.dead_by_chance:,.0f}",
        f"{usage.perplexity:,.1f}",
        str(usage.coded_bits),
        f"{usage.entropy:.2f}",
    )


def _binary(name: str, usage: BinaryUsage) -> tuple[str, ...]:
    return (
        name,
        f"{usage.bit_entropy_min:.3f}",
        f"{usage.bit_entropy_mean:.3f}",
        f"{usage.distinct:,}",
        f"{usage.conditional_entropy:.2f}",
        str(usage.coded_bits),
        f"{usage.entropy:.2f}",
    )
