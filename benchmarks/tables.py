"""The figures as Markdown tables, which also read well on a terminal.

The input is what `benchmarks.speed` writes as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.speed_profile import KINDS

Rows = list[list[str]]
DIRECTIONS = ("encode", "decode")


def render(results: dict[str, Any]) -> str:
    """All tables for which there are figures."""
    parts = [_machine(results)]
    for title, head, rows in _tables(results):
        if rows:
            parts.append(f"**{title}**\n\n{table(head, rows)}")
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Rows) -> str:
    """A Markdown table with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    text = (
        f"{machine['cores']} cores, {machine['processor']}, {machine['vectors']}; "
        f"PyTorch {machine['torch']}, Python {machine['python']}."
    )
    for count, rates in results["peaks"].items():
        sgemm, convolution = (rates[name] / 1e9 for name in ("sgemm", "convolution"))
        text += (
            f" {count} thread{'s' * (count != '1')}: matrix product {sgemm:.0f} GFLOP/s, "
            f"convolution {convolution:.0f}."
        )
    return text


def _tables(results: dict[str, Any]) -> Iterator[tuple[str, list[str], Rows]]:
    models = {model["name"]: model for model in results["models"].values()}
    pair = ["model", "direction", "threads", "ours", "upstream way", "ratio", "of turns"]
    yield (
        "One file: seconds of work for a second of audio, and the share of the floor",
        [*pair, "floor", "share"],
        [
            [name, direction, threads, *_pair(row[direction]), *_floor(row[direction])]
            for name, model in models.items()
            for threads, row in model.get("one_file", {}).items()
            for direction in DIRECTIONS
        ],
    )
    yield (
        "Short files: ours in batches, the upstream way one by one",
        [*pair, "clips"],
        [
            [name, direction, model["threads"], *_pair(row[direction]), str(row["clips"])]
            for name, model in models.items()
            for row in _present(model, "short_files")
            for direction in DIRECTIONS
        ],
    )
    yield (
        "Where the time goes, on one thread",
        ["model", "direction", "way", *KINDS],
        [
            [name, direction, way, *(f"{100 * row[direction][kind]:.0f} %" for kind in KINDS)]
            for name, model in models.items()
            for way, row in model.get("profile", {}).items()
            for direction in DIRECTIONS
        ],
    )
    yield "Tokens", ["model", "compared", *TOKEN_HEAD], _token_rows(models)
    yield (
        "Memory of a process of `codectool`, weights included",
        ["weights", "audio", "encode", "decode", "encode took", "decode took"],
        [
            [row["weights"], f"{row['seconds']:g} s", *_memory(row)]
            for model in models.values()
            for row in model.get("memory", [])
        ],
    )
    yield (
        "Streams in pushes of 20 ms",
        ["model", "block", "first code", "first sample", "encode", "decode", "slowest push"],
        [_stream(name, row) for name, model in models.items() for row in model.get("streams", [])],
    )
    yield (
        "Bits: millions of tokens a second",
        ["model", "pack", "unpack"],
        [
            [name, f"{row['pack'] / 1e6:.0f}", f"{row['unpack'] / 1e6:.0f}"]
            for name, model in models.items()
            for row in _present(model, "packing")
        ],
    )
    yield (
        "Seconds until the shell is back",
        ["weights", *next((list(m["start"]) for m in models.values() if "start" in m), [])],
        [
            [name, *(f"{seconds:.2f}" for seconds in row.values())]
            for name, model in models.items()
            for row in _present(model, "start")
        ],
    )


TOKEN_HEAD = ["with", "tokens", "differing", "largest gap", "all ties"]


def _token_rows(models: dict[str, Any]) -> Rows:
    rows = []
    for name, model in models.items():
        for threads, row in model.get("one_file", {}).items():
            what = f"one file, {threads} thread{'s' * (threads != '1')}"
            rows.append([name, what, "upstream way", *_tokens(row["tokens"])])
        for row in _present(model, "short_files"):
            rows.append([name, "short files", "upstream way", *_tokens(row["tokens"])])
        for row in model.get("streams", []):
            if row["offline"]:
                what = f"stream, block {_block(row)}"
                rows.append([name, what, "whole file", *_tokens(row["offline"])])
        for row in _present(model, "parity"):
            for way in ("batch", "stream", "upstream"):
                if way in row:
                    rows.append([name, f"{row['clips']} clips: {way}", "alone", *_tokens(row[way])])
    return rows


def _present(model: dict[str, Any], part: str) -> list[Any]:
    return [model[part]] if part in model else []


def _pair(row: dict[str, Any]) -> list[str]:
    ours = f"{row['ours']:.4f}"
    if "upstream" not in row:
        return [ours, "", "", ""]
    low, high = row["ratios"]
    return [ours, f"{row['upstream']:.4f}", f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]


def _floor(row: dict[str, Any]) -> list[str]:
    return [f"{row['floor']:.4f}", f"{100 * row['share']:.0f} %"]


def _tokens(row: dict[str, Any]) -> list[str]:
    gap = "" if row["largest_gap"] is None else f"{row['largest_gap']:.1e}"
    ties = {True: "yes", False: "no", None: "unknown"}[row["ties"]] if row["differing"] else ""
    return [str(row["tokens"]), str(row["differing"]), gap, ties]


def _memory(row: dict[str, Any]) -> list[str]:
    sizes = [f"{row[name]['bytes'] / 1e6:.0f} MB" for name in DIRECTIONS]
    return [*sizes, *(f"{row[name]['took']:.1f} s" for name in DIRECTIONS)]


def _block(row: dict[str, Any]) -> str:
    return "of its own" if row["block_frames"] is None else f"{row['block_frames']} frames"


def _stream(name: str, row: dict[str, Any]) -> list[str]:
    def after(seconds: float | None) -> str:
        return "at the end" if seconds is None else f"{1000 * seconds:.0f} ms"

    decode = "" if row["decode"] is None else f"{row['decode']:.3f}"
    return [
        name,
        _block(row),
        after(row["first_code_after"]),
        after(row["first_sample_after"]),
        f"{row['encode']:.3f}",
        decode,
        f"{1000 * row['slowest_push']:.1f} ms",
    ]
