"""Dataclasses out of JSON: every missing, unknown or mistyped key is named by its full path."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from codectool.errors import ConfigError

MAX_CONFIG_BYTES = 1 << 20
MAX_ITEMS = 64  # of any list
LARGEST = sys.float_info.max
T = TypeVar("T")


def from_json(cls: type[T], value: Any, path: str = "") -> T:
    """Build a dataclass from a JSON object.

    Fields may be bool, int, float (an int is taken too), str, Literal, tuples, other dataclasses,
    mappings of names to one of these, None, and unions of dataclasses that differ in the literal
    value of their field ``kind``.

    Args:
        cls: what to build; its ``__post_init__`` may raise `ConfigError` for values that make no
            sense together.
        value: what JSON held.
        path: where it stood, for messages: ``training.generator``.

    Raises:
        ConfigError: a key is missing, unknown or of the wrong type.
    """
    if not isinstance(value, Mapping):
        raise _wrong(path, "an object", value)
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cast(Any, cls))}
    for key in value:
        if key not in known:
            raise ConfigError(
                f"unknown key `{_join(path, str(key)[:60])}`{_did_you_mean(key, known)}"
            )
    found = {}
    for name, field in known.items():
        if name in value:
            found[name] = _read(hints[name], value[name], _join(path, name))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"key `{_join(path, name)}` is missing")
    try:
        return cls(**found)
    except ConfigError as error:
        raise ConfigError(f"`{path}`: {error}" if path else str(error)) from error


def to_json(value: Any) -> Any:
    """Undo `from_json`: dataclasses become objects, tuples lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object.

    Raises:
        ConfigError: the file cannot be read, is larger than 1 MiB, or holds no JSON object.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:  # a path may hold what no path can
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: {reason}") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes, which no config is")
    return parse_json(raw, str(path))


def parse_json(raw: bytes | str, name: str) -> Mapping[str, Any]:
    """Parse a JSON object that calls itself ``name`` in messages."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: not JSON ({error})") from error
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: must hold a JSON object, not {type(value).__name__}")
    return value


def _read(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, path)
    if origin is Literal:
        # by type, too: Python takes true for 1
        if not any(type(value) is type(known) and value == known for known in arguments):
            raise _wrong(path, "one of " + ", ".join(map(repr, arguments)), value)
        return value
    if origin is tuple:
        return _read_tuple(arguments, value, path)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping) or len(value) > MAX_ITEMS:
            raise _wrong(path, "an object", value)
        return {str(k): _read(arguments[1], item, _join(path, str(k))) for k, item in value.items()}
    if is_dataclass(hint):
        return from_json(cast(type, hint), value, path)
    return _read_plain(hint, value, path)


def _read_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if type(None) in options and value is None:
        return None
    options = tuple(option for option in options if option is not type(None))
    if len(options) == 1:
        return _read(options[0], value, path)
    kinds = {get_args(get_type_hints(option)["kind"])[0]: option for option in options}
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise _wrong(_join(path, "kind"), "one of " + ", ".join(map(repr, kinds)), kind)
    return from_json(kinds[kind], value, path)


def _read_tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
        raise _wrong(path, "a list", value)
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise _wrong(path, f"a list of {len(arguments)}", value)
    pairs = zip(arguments, value, strict=True)
    return tuple(_read(inner, item, f"{path}[{i}]") for i, (inner, item) in enumerate(pairs))


def _read_plain(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not -LARGEST <= value <= LARGEST:  # nor is NaN
            raise _wrong(path, "a finite number", value)
        return float(value)
    if hint in (int, bool, str) and type(value) is hint:
        return value
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
    raise _wrong(path, names[hint], value)


def _wrong(path: str, wanted: str, value: Any) -> ConfigError:
    return ConfigError(f"`{path}` must be {wanted}, not {value!r:.60}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _did_you_mean(key: Any, known: Mapping[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(str(key), known, 1)
    return f"; did you mean `{close[0]}`?" if close else ""
