"""`codectool models`: the model registry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codectool.cli.console import (
    EXIT_BAD_INPUT,
    at_terminal,
    print_data,
    report_error,
    warn,
    working,
)
from codectool.cli.options import FILE, complete_file, complete_model, debug_option
from codectool.cli.progress import ProgressBar
from codectool.errors import CheckpointError, UsageError
from codectool.messages import printable, to_json

if TYPE_CHECKING:
    from codectool.models import ModelEntry

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print a line of JSON per model."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
@debug_option
def models() -> None:
    """List, download, add and check model weights.

    Models have names, which --checkpoint takes, and two fingerprints, of all weights and of what
    makes tokens, by which `decode` finds them. Nothing is downloaded unless you ask for it.

    \b
    Examples:
      codectool models list
      codectool models pull bigcodec
      codectool models add runs/mine/model.safetensors --name mine
    """


@models.command("list")
@json_option
@debug_option
def list_(as_json: bool) -> None:
    """List all models, and which of them are on this machine.

    \b
    Examples:
      codectool models list
      codectool models list --json | jq -r 'select(.path) | .name'
    """
    from codectool.models import entries

    described = [_describe(entry) for entry in entries(strict=True).values()]
    if as_json:
        _print_json(described)
        return
    rows = [
        ("NAME", "CODEC", "RATE", "BIT RATE", "SIZE", "FINGERPRINT", "TOKENS", "ON THIS MACHINE")
    ]
    for data in described:
        rows.append(
            (
                data["name"],
                data["family"],
                _unit(data["sample_rate"], "Hz"),
                _unit(data["bit_rate"], "kbps", 1000),
                _unit(data["size"], "MB", 1e6),
                data["fingerprint"] or "",
                data["token_fingerprint"] or "",
                data["path"] or "no",
            )
        )
    widths = [
        max(len(printable(row[column])) for row in rows) for column in range(len(rows[0]) - 1)
    ]
    for row in rows:
        cells = [f"{printable(cell):{width}}" for cell, width in zip(row, widths, strict=False)]
        print_data("  ".join([*cells, printable(row[-1])]))


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_model)
@json_option
@debug_option
def show(names: tuple[str, ...], as_json: bool) -> None:
    """Show source, size, SHA-256, license and place of models.

    \b
    Examples:
      codectool models show bigcodec
      codectool models show --json hac | jq -r .path
    """
    from codectool.models import get

    described = [_describe(get(name)) for name in names]
    if as_json:
        _print_json(described)
        return
    for number, data in enumerate(described):
        print_data(("\n" if number else "") + _table(data))


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_model)
@json_option
@debug_option
def pull(names: tuple[str, ...], as_json: bool) -> None:
    """Download the weights of models and check them.

    Weights that are on this machine are not downloaded again; for the Hugging Face Hub, its own
    cache is looked in first. Size and SHA-256 must be those of the registry. Where the registry
    does not know them, they are recorded, so that they must stay the same.

    Needs codectool[hub]. HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME, HF_TOKEN and `hf auth login` work as
    in other programs.

    \b
    Examples:
      codectool models pull bigcodec
      HF_ENDPOINT=https://mirror.example codectool models pull bigcodec
    """
    from codectool.models import get

    for name in names:
        pull_with_progress(name)
        _print_changed(get(name), as_json)


@models.command()
@click.argument("source", metavar="SOURCE", shell_complete=complete_file)
@click.option("--name", metavar="NAME", show_default="CODEC-FINGERPRINT", help="Name of the model.")
@click.option(
    "--config",
    type=FILE,
    metavar="JSON",
    help="Model config, if the checkpoint does not contain it.",
)
@click.option("--copy", is_flag=True, help="Copy the file into CODECTOOL_HOME.")
@click.option("--license", metavar="TEXT", help="License of the weights.")
@click.option("--citation", metavar="TEXT", help="Paper or page that describes the weights.")
@click.option("--sha256", metavar="HEX", help="SHA-256 that the file must have.")
@json_option
@debug_option
def add(source: str, as_json: bool, **options: Any) -> None:
    """Add the checkpoint SOURCE to the registry.

    SOURCE is a file or folder, which stays where it is unless --copy is given, or an address that
    is downloaded now: hf://ORG/REPO/FILE, hf://ORG/REPO/FILE@REVISION, the address of a file on
    huggingface.co, or another URL. `decode` finds the weights by their fingerprint from then on,
    and --checkpoint takes the NAME.

    A model with the name of its codec becomes the default of the codec: after
    `codectool models add g_00400000 --name supercodec`, `--model supercodec` needs no --checkpoint.

    \b
    Examples:
      codectool models add runs/supercodec/ --name supercodec
      codectool models add hf://ORG/REPO/model.safetensors --license MIT
      codectool models add https://example.org/hac.safetensors --sha256 HEX
    """
    from codectool.models import add

    with ProgressBar(f"adding {printable(source)}") as bar:
        entry = add(source, on_progress=_on_progress(bar), **options)
    _print_changed(entry, as_json)


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_model)
@click.option("--keep-file", is_flag=True, help="Forget the model, but delete no file.")
@yes_option
@json_option
@debug_option
def remove(names: tuple[str, ...], keep_file: bool, yes: bool, as_json: bool) -> None:
    """Remove models, and weights that codectool downloaded or copied.

    Models are removed from your registry, `models.toml` in CODECTOOL_HOME.

    Files that you keep elsewhere are never deleted. Models that come with codectool stay known and
    can be downloaded again.

    \b
    Examples:
      codectool models remove bigcodec
      codectool models remove mine --keep-file --yes
    """
    from codectool.models import get, owned_file, remove

    for name in names:
        path = None if keep_file else owned_file(get(name))
        if path is not None and not yes:
            size = path.resolve().stat().st_size / 1e6
            question = f"Delete {printable(str(path))} ({size:.1f} MB)?"
            if not _can_ask():
                raise UsageError(f"{path}: would be deleted; give `--yes` or `--keep-file`")
            if not confirm(question, default=False):
                raise UsageError(f"{name}: not removed")
        deleted = remove(name, delete=path is not None)
        if as_json:
            print_data(to_json({"name": name, "deleted": str(deleted) if deleted else None}))
        else:
            print_data(
                f"{name}: removed" + (f", deleted {printable(str(deleted))}" if deleted else "")
            )


@models.command()
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=complete_model)
@json_option
@debug_option
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check size, SHA-256 and fingerprints of weights; by default, of all on this machine.

    \b
    Examples:
      codectool models verify
      codectool models verify bigcodec --json | jq .problems
    """
    from codectool.models import entries, get, verify

    chosen = names or [name for name, entry in entries(strict=True).items() if entry.find()]
    failed = False
    for name in chosen:
        get(name)
        with working(f"verifying {name}"):
            result = verify(name)
        problems = list(result.problems)
        if result.path is None:
            problems = [f"not on this machine; {result.entry.how_to_get()}"]
        failed |= bool(problems)
        if as_json:
            data = _describe(result.entry)
            print_data(to_json({**data, "ok": not problems, "problems": problems}))
            continue
        for problem in problems:
            place = (
                f"{result.path}: "
                if result.path and not problem.startswith(str(result.path))
                else ""
            )
            report_error(CheckpointError(f"{name}: {place}{problem}"))
        for sentence in result.skipped:
            warn(f"{name}: {sentence}")
        if not problems:
            print_data(f"{name}: ok, {printable(str(result.path))}")
    if failed:
        sys.exit(EXIT_BAD_INPUT)


def pull_with_progress(name: str) -> Path:
    """Download weights; show the progress on a terminal."""
    from codectool.models import pull

    with ProgressBar(f"downloading {name}") as bar:
        return pull(name, _on_progress(bar))


def confirm(question: str, default: bool = True) -> bool:
    """Ask a question on a terminal; without one, or if the user says no, return False."""
    return _can_ask() and click.confirm(printable_lines(question), default=default, err=True)


def printable_lines(text: str) -> str:
    """Return text with each line made printable."""
    return "\n".join(map(printable, text.splitlines()))


def _can_ask() -> bool:
    """Whether a user can answer: stdin and stderr are terminals, and stdin is not data."""
    return at_terminal() and sys.stdin is not None and sys.stdin.isatty()


def _on_progress(bar: ProgressBar) -> Any:
    def show(num_bytes: int, total: int | None) -> None:
        size = f"{num_bytes / 1e6:.1f}" + (f" of {total / 1e6:.1f}" if total else "") + " MB"
        bar.update(num_bytes / total if total else 0.0, size)

    return show


def _describe(entry: ModelEntry) -> dict[str, Any]:
    """Return an entry as JSON values, with the place of its weights."""
    from codectool.schema import to_json as to_values

    path = entry.find()
    return {
        **to_values(entry),
        "path": str(path) if path else None,
        "bundled": entry.is_bundled,
        "how_to_get": None if path else entry.how_to_get(),
    }


def _table(data: dict[str, Any]) -> str:
    rows = {
        "name": data["name"],
        "codec": data["family"],
        "source": data["source"],
        "on this machine": data["path"] or f"no; {data['how_to_get']}",
        "config": data["config"],
        "size": f"{data['size']} bytes" if data["size"] else "not known yet",
        "SHA-256": data["sha256"] or "not known yet",
        "fingerprint": data["fingerprint"] or "not known yet",
        "tokens": data["token_fingerprint"] or "not known yet",
        "same tokens as": ", ".join(data["same_tokens_as"]),
        "sampling rate": _unit(data["sample_rate"], "Hz"),
        "bit rate": _unit(data["bit_rate"], "kbps", 1000),
        "license": data["license"],
        "citation": data["citation"],
    }
    width = max(map(len, rows))
    return "\n".join(f"{key:{width}}  {printable(value)}" for key, value in rows.items() if value)


def _unit(value: float | None, unit: str, factor: float = 1) -> str:
    return (
        "" if value is None else f"{value / factor:.4g} {unit}" if factor > 1 else f"{value} {unit}"
    )


def _print_changed(entry: ModelEntry, as_json: bool) -> None:
    if as_json:
        _print_json([_describe(entry)])
    else:
        print_data(
            f"{entry.name}: {entry.family}, fingerprint {entry.fingerprint or 'not known yet'}, "
            f"tokens {entry.token_fingerprint or 'not known yet'}, {printable(str(entry.find()))}"
        )


def _print_json(described: Sequence[dict[str, Any]]) -> None:
    for data in described:
        print_data(to_json(data))
