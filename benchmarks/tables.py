"""Markdown tables of the values that `benchmarks.codecs` writes as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Rows = list[list[str]]
DIRECTIONS = ("encode", "decode")
FORMS = ("codectool", "plain", "reference")


def render(results: dict[str, Any]) -> str:
    """Return all tables that have values."""
    parts = [_machine(results)]
    for title, head, rows in _tables(results):
        if rows:
            parts.append(f"**{title}**\n\n{table(head, rows)}")
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table with aligned columns."""
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
    forms = ["codectool", "plain modules", "reference", "plain / codectool"]
    head = ["model", "direction", "threads", *forms, "reference / codectool"]
    yield (
        "One file: seconds per second of audio, and share of the arithmetic floor",
        [*head, "floor", "share"],
        [
            [name, direction, threads, *_times(row[direction]), *_floor(row[direction])]
            for name, model in models.items()
            for threads, row in model.get("one_file", {}).items()
            for direction in DIRECTIONS
        ],
    )
    yield (
        "Short files: codectool in batches, the others one by one",
        [*head, "clips"],
        [
            [name, direction, model["threads"], *_times(row[direction]), str(row["clips"])]
            for name, model in models.items()
            for row in _present(model, "short_files")
            for direction in DIRECTIONS
        ],
    )
    yield (
        "Shares of time by kind of operator, on one thread",
        ["model", "direction", "form", *_kinds(models)],
        [
            [name, direction, form, *(f"{100 * share:.0f} %" for share in row[direction].values())]
            for name, model in models.items()
            for form, row in model.get("profile", {}).items()
            for direction in DIRECTIONS
        ],
    )
    yield "Tokens", ["model", "compared", *TOKEN_HEAD], _token_rows(models)
    yield (
        "Memory of a `codectool` process, weights included",
        ["weights", "audio", "encode", "decode", "encode time", "decode time"],
        [
            [row["weights"], row["audio"], *_memory(row)]
            for model in models.values()
            for row in model.get("memory", [])
        ],
    )
    yield (
        "Streams in pushes of 20 ms",
        [
            *("model", "form", "chunk", "first code", "first sample"),
            *("encode", "decode", "slowest push"),
        ],
        [
            _stream(name, form, row)
            for name, model in models.items()
            for row in model.get("streams", [])
            for form in FORMS[:2]
        ],
    )
    yield (
        "Bit packing: millions of tokens per second",
        ["model", "pack", "unpack"],
        [
            [name, f"{row['pack'] / 1e6:.0f}", f"{row['unpack'] / 1e6:.0f}"]
            for name, model in models.items()
            for row in _present(model, "packing")
        ],
    )
    yield (
        "File size in bytes, mono",
        ["model", "audio", "file", "tokens", "overhead", "share", "kbps"],
        [[name, *_size(row)] for name, model in models.items() for row in model.get("sizes", [])],
    )
    yield (
        "Seconds per command",
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
            rows += [[name, what, form, *_tokens(found)] for form, found in row["tokens"].items()]
        for row in _present(model, "short_files"):
            rows.append([name, "short files", "reference", *_tokens(row["tokens"])])
        for row in model.get("streams", []):
            for form in FORMS[:2]:
                if row[form]["tokens"]:
                    what = f"stream, {_chunk(row)}, {form}"
                    rows.append([name, what, "whole file", *_tokens(row[form]["tokens"])])
        for row in _present(model, "parity"):
            for form, found in row.items():
                if form != "clips":
                    rows.append([name, f"{row['clips']} clips: {form}", "alone", *_tokens(found)])
    return rows


def _kinds(models: dict[str, Any]) -> list[str]:
    profiles = (model["profile"]["codectool"] for model in models.values() if "profile" in model)
    return next((list(profile["encode"]) for profile in profiles), [])


def _present(model: dict[str, Any], part: str) -> list[Any]:
    return [model[part]] if part in model else []


def _times(row: dict[str, Any]) -> list[str]:
    times = [f"{row['rtf'][form]:.4f}" if form in row["rtf"] else "" for form in FORMS]
    ratios = []
    for form in FORMS[1:]:
        if form in row["ratios"]:
            ratio, low, high = row["ratios"][form]
            ratios.append(f"{ratio:.2f} ({low:.2f} to {high:.2f})")
        else:
            ratios.append("")
    return times + ratios


def _floor(row: dict[str, Any]) -> list[str]:
    return [f"{row['floor']:.4f}", f"{100 * row['share']:.0f} %"]


def _tokens(row: dict[str, Any]) -> list[str]:
    gap = "" if row["largest_gap"] is None else f"{row['largest_gap']:.1e}"
    ties = {True: "yes", False: "no", None: "unknown"}[row["ties"]] if row["differing"] else ""
    return [str(row["tokens"]), str(row["differing"]), gap, ties]


def _memory(row: dict[str, Any]) -> list[str]:
    sizes = [f"{row[name]['bytes'] / 1e6:.0f} MB" for name in DIRECTIONS]
    return [*sizes, *(f"{row[name]['seconds']:.1f} s" for name in DIRECTIONS)]


def _size(row: dict[str, Any]) -> list[str]:
    overhead = row["file"] - row["tokens"]
    return [
        f"{row['seconds']} s",
        str(row["file"]),
        str(row["tokens"]),
        str(overhead),
        f"{100 * overhead / row['file']:.2f} %",
        f"{8 * row['file'] / row['seconds'] / 1000:.3f}",
    ]


def _chunk(row: dict[str, Any]) -> str:
    frames = row["chunk_frames"]
    return "default" if frames is None else f"{frames} frame{'s' * (frames != 1)}"


def _stream(name: str, form: str, row: dict[str, Any]) -> list[str]:
    def after(seconds: float | None) -> str:
        return "at the end" if seconds is None else f"{1000 * seconds:.0f} ms"

    values = row[form]
    return [
        name,
        form,
        _chunk(row),
        after(values["first_code_after"]),
        after(values["first_sample_after"]),
        f"{values['encode']:.3f}",
        "" if values["decode"] is None else f"{values['decode']:.3f}",
        f"{1000 * values['slowest_push']:.1f} ms",
    ]
