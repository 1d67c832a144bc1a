"""What tokens carry, as tables for people and as CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from codectool.evaluation.tables import Rows, as_text
from codectool.evaluation.tokens.usage import BitsUse, CodebookUse, TokenUse

MODELS = ("model", "clips", "seconds", "frames", "kbps", "carried", "bits", "carried")
CODEBOOKS = ("codebook", "size", "used", "dead", "by chance", "perplexity", "bits", "carried")
BITS = ("binary stream", "least", "mean", "distinct", "given previous", "bits", "carried")
ABOUT = """\
carried: what an ideal entropy coder of order 0 would need; of codebooks the entropy of the codes'
frequencies with the Miller-Madow correction, of binary streams that of groups of six bits."""
ABOUT_CODEBOOKS = """\
by chance: codes that so few tokens would leave unused, were all used alike."""
ABOUT_BITS = """\
least, mean: entropy of single bits; given previous: sum over the bits, each given the one that it
was a frame earlier."""


def token_tables(models: Sequence[TokenUse]) -> list[Rows]:
    """Tables of models, of their codebooks and of their binary streams, as far as there are any.

    Args:
        models: at least one.
    """
    streams = [
        (f"{model.name} {number}" if len(model.streams) > 1 else model.name, stream)
        for model in models
        for number, stream in enumerate(model.streams, 1)
    ]
    tables = [
        [MODELS, *map(_model, models)],
        [CODEBOOKS, *(_codebook(name, s) for name, s in streams if isinstance(s, CodebookUse))],
        [BITS, *(_bits(name, s) for name, s in streams if isinstance(s, BitsUse))],
    ]
    return [[list(row) for row in rows] for rows in tables if len(rows) > 1]


def token_text(models: Sequence[TokenUse]) -> str:
    """The tables for a terminal, and what their words mean."""
    kinds = {type(stream) for model in models for stream in model.streams}
    about = [ABOUT, *([ABOUT_CODEBOOKS] if CodebookUse in kinds else [])]
    about += [ABOUT_BITS] if BitsUse in kinds else []
    return "\n\n".join([*map(as_text, token_tables(models)), "\n".join(about)])


def token_csv(models: Sequence[TokenUse]) -> str:
    """A line per stream; what a stream has not is left empty, and single bits are left out."""
    lines = [
        {**model.to_json(), "stream": number, **{f"stream_{k}": v for k, v in values.items()}}
        for model in models
        for number, values in enumerate((stream.to_json() for stream in model.streams), 1)
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


def _model(model: TokenUse) -> tuple[str, ...]:
    return (
        model.name,
        f"{model.clips:,}",
        f"{model.seconds:,.1f}",
        f"{model.frames:,}",
        f"{model.kbps_sent:.3f}",
        f"{model.kbps_carried:.3f}",
        str(model.bits_sent),
        f"{model.bits_carried:.2f}",
    )


def _codebook(name: str, stream: CodebookUse) -> tuple[str, ...]:
    return (
        name,
        f"{stream.size:,}",
        f"{stream.used:,}",
        f"{stream.dead:,}",
        f"{stream.dead_by_chance:,.0f}",
        f"{stream.perplexity:,.1f}",
        str(stream.bits),
        f"{stream.carried:.2f}",
    )


def _bits(name: str, stream: BitsUse) -> tuple[str, ...]:
    return (
        name,
        f"{stream.least:.3f}",
        f"{stream.mean:.3f}",
        f"{stream.distinct:,}",
        f"{sum(stream.given_previous):.2f}",
        str(stream.bits),
        f"{stream.carried:.2f}",
    )
