"""Generate cli.md and config.md from the code: ``python docs/reference/generate.py [--check]``."""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import msgspec

from codectool.cli import codectool
from codectool.cli.man import walk
from codectool.training.config import RunConfig

FOLDER = Path(__file__).parent


def cli() -> str:
    """Return cli.md: the ``--help`` text of every command."""
    root = click.Context(codectool, info_name="codectool", **codectool.context_settings)
    parts = ["# Command line\n\nGenerated from `--help` by `make reference`.\n"]
    for context in walk(root):
        text = context.command.get_help(context)
        parts.append(f"## {context.command_path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def config() -> str:
    """Return config.md: every key of a training config with type, default and meaning."""
    parts = [
        "# Config reference\n\n"
        "Generated from the config classes by `make reference`. A run config is a JSON file;\n"
        "bundled ones are in `codectool/configs/`. `--set training.batch_size=16` changes a key,\n"
        "`--print-config` shows the whole config. Keys without a default are required.\n"
    ]
    for cls in _classes(RunConfig):
        parts.append(_table(cls))
    return "\n".join(parts)


def _classes(root: type) -> Iterator[type]:
    """Yield a config class and all classes it refers to, each once."""
    queue, seen = [root], set()
    while queue:
        cls = queue.pop(0)
        if cls in seen:
            continue
        seen.add(cls)
        yield cls
        for hint in get_type_hints(cls, include_extras=True).values():
            queue += [inner for inner in _inner(hint) if inner not in seen]


def _inner(hint: Any) -> list[type]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [cls for argument in get_args(hint) for cls in _inner(argument)]


def _table(cls: type) -> str:
    documented = _attributes(cls)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    hints = get_type_hints(cls)
    for field in msgspec.structs.fields(cls):
        meaning = documented.get(field.name, "")
        assert meaning, f"{cls.__name__}.{field.name} has no description"
        default = "" if field.required else f"`{_default(field)}`"
        rows.append(f"| `{field.name}` | {_type(hints[field.name])} | {default} | {meaning} |")
    summary = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return f"## {_title(cls)}\n\n{summary}\n\n" + "\n".join(rows) + "\n"


def _attributes(cls: type) -> dict[str, str]:
    """Return the descriptions in the `Attributes:` section of a docstring."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(base.__doc__ or "") if issubclass(base, msgspec.Struct) else ""
        _, _, section = text.partition("Attributes:\n")
        for match in re.finditer(r"^    (\w+): (.*(?:\n      .*)*)", section, re.MULTILINE):
            text = re.sub(r"\s+", " ", match[2]).replace("|", "\\|").replace("``", "`")
            found[match[1]] = text[0].upper() + text[1:]
    return found


def _default(field: Any) -> Any:
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    return json.dumps(msgspec.to_builtins(value))


def _type(hint: Any) -> str:
    """Return a type in words; config classes become links."""
    arguments = get_args(hint)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return (
            f"list of ({_type(arguments[0])})"
            if get_args(arguments[0])
            else (f"list of {_type(arguments[0])}")
        )
    if origin is tuple:
        return f"[{', '.join(map(_type, arguments))}]"
    if origin is not None:
        return f"object of {_type(arguments[1])}" if arguments[1] is not Any else "object"
    if hint is type(None):
        return "`null`"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        title = _title(hint)
        anchor = re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-")
        return f"[{title.replace('`', '')}](#{anchor})"
    return {int: "integer", float: "number", bool: "boolean", str: "string"}[hint]


def _title(cls: type) -> str:
    tag = cls.__struct_config__.tag
    return (
        f'`"kind": "{tag}"`'
        if tag
        else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__).capitalize()
    )


PAGES = {"cli.md": cli, "config.md": config}

if __name__ == "__main__":
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if "--check" in sys.argv:
            if path.read_text("utf-8") != text:
                sys.exit(f"{path}: not current; run `make reference`")
        else:
            path.write_text(text, "utf-8")
