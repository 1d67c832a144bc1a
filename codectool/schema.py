"""Typed configs read from JSON: one reader for models and training.

A config is a subclass of `Config`: its annotations say what JSON must hold, `__post_init__`
checks values against each other, and the key ``kind`` selects the member of a union::

    class Circle(TaggedConfig, tag="circle", frozen=True):
        radius: PositiveFloat

    class Square(TaggedConfig, tag="square", frozen=True):
        side: PositiveFloat

    class Drawing(Config, frozen=True):
        shapes: tuple[Circle | Square, ...]
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, overload

import msgspec

from codectool.errors import ConfigError
from codectool.filetypes import START_BYTES, describe_foreign
from codectool.messages import shorten, shorten_repr

MAX_CONFIG_BYTES = 1 << 20
MAX_ITEMS = 64  # in any list or object
MAX_DEPTH = 16
SURROGATE = re.compile(r"[\ud800-\udfff]")  # alone it is no character, but JSON can state it
KEY = re.compile(r"[\w.:/ -]{1,100}")  # others would end up in messages
LARGEST = sys.float_info.max
T = TypeVar("T")

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
NonNegativeFloat = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]

MAX_COUNT = 1 << 40  # of steps, epochs, files: beyond it arithmetic would lose precision
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]

MAX_SIZE = 65_536  # of a width, kernel, stride, window or count: far above anything sensible
Size = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIZE)]
EvenSize = Annotated[int, msgspec.Meta(ge=4, le=MAX_SIZE, multiple_of=2)]
Sizes = Annotated[tuple[Size, ...], msgspec.Meta(min_length=1)]
EvenSizes = Annotated[tuple[EvenSize, ...], msgspec.Meta(min_length=1)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all configs; `__post_init__` raises `ConfigError` for contradicting values.

    The types and limits of the annotations are checked by `from_json`, not by the constructor.
    """


class TaggedConfig(Config, tag_field="kind", frozen=True):
    """Base of the members of a union: each subclass sets ``tag="..."``, the value of ``kind``."""

    @property
    def kind(self) -> str:
        """Value of the key ``kind``."""
        return cast(str, self.__struct_config__.tag)


@overload
def from_json(cls: type[T], value: Any, path: str = "") -> T: ...
@overload
def from_json(cls: types.UnionType, value: Any, path: str = "") -> Any: ...
def from_json(cls: Any, value: Any, path: str = "") -> Any:
    """Build a config from JSON values.

    Args:
        cls: `Config`, or a union of configs with different tags.
        value: JSON values: objects, lists, strings, finite numbers, booleans and null.
        path: where the value stands in its file, for messages: ``training.generator``.

    Raises:
        ConfigError: A key is missing, unknown, of the wrong type or out of range.
    """
    try:
        _check_values(value, path)
        return msgspec.convert(value, cls)
    except msgspec.ValidationError as error:
        raise _explain(error, cls, value, path) from error


def to_json(value: Any) -> Any:
    """Undo `from_json`: configs become objects, tuples lists."""
    return json.loads(json.dumps(msgspec.to_builtins(value)))


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ConfigError: The file cannot be read, is larger than 1 MiB, or holds no JSON object.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: the path holds a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: {reason}") from error
    what = describe_foreign(raw[:START_BYTES], "a config")
    if what is not None and not what.startswith("JSON"):
        raise ConfigError(f"{path}: is {what}")
    return parse_json(raw, str(path))


def parse_json(raw: bytes | str, name: str) -> Mapping[str, Any]:
    """Parse a JSON object of at most 1 MiB; ``name`` stands for it in messages."""
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{name}: larger than {MAX_CONFIG_BYTES} bytes, the limit for a config")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: not JSON ({shorten(str(error))})") from error
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: must hold a JSON object, not {type(value).__name__}")
    return value


def _check_values(value: Any, path: str, depth: int = 0) -> None:
    """Refuse what msgspec accepts: NaN, infinity, and lists or objects without limit."""
    if depth > MAX_DEPTH:
        raise ConfigError(
            f"`{shorten(path)}`: objects are nested too deep (more than {MAX_DEPTH} levels)"
        )
    if isinstance(value, Mapping):
        if len(value) > MAX_ITEMS:
            raise _wrong(path, f"an object of at most {MAX_ITEMS} keys", value)
        for key, item in value.items():
            if not isinstance(key, str) or not KEY.fullmatch(key):
                raise ConfigError(f"unknown key `{_join(path, key)}`")
            _check_values(item, _join(path, key), depth + 1)
    elif isinstance(value, list | tuple):
        if len(value) > MAX_ITEMS:
            raise _wrong(path, f"a list of at most {MAX_ITEMS} items", value)
        for number, item in enumerate(value):
            _check_values(item, f"{path}[{number}]", depth + 1)
    elif isinstance(value, str) and SURROGATE.search(value):
        raise _wrong(path, "text in Unicode", value)
    elif isinstance(value, float | int) and not -LARGEST <= value <= LARGEST:  # or NaN
        raise _wrong(path, "a finite number", value)


def _explain(error: msgspec.ValidationError, cls: Any, value: Any, path: str) -> ConfigError:
    """Rewrite a message of msgspec, such as "Expected `int`, got `str` - at `$.a[0].b`"."""
    text, separator, where = str(error).rpartition(" - at `$")
    if not separator:
        text, where = where, ""
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", where):
        if name:
            fields = _fields(cls, value)
            if name not in fields:  # the tag of a union
                tags = [config.__struct_config__.tag for config in _members(cls)]
                return _wrong(_join(path, name), _one_of(tags), value[name])
            cls, value, path = fields[name], value[name], _join(path, name)
        elif index == "...":  # some key of a mapping
            cls = get_args(_members(cls)[0])[1]
            key = next(key for key, item in value.items() if not _is_valid(item, cls))
            value, path = value[key], _join(path, key)
        else:
            items = get_args(_members(cls)[0])
            cls = items[0] if items[-1] is Ellipsis else items[int(index)]
            value, path = value[int(index)], f"{path}[{index}]"
    if isinstance(error.__cause__, ConfigError):  # raised by `__post_init__`
        return ConfigError(f"`{path}`: {text}" if path else text)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", text):
        return ConfigError(f"key `{_join(path, missing[1])}` is missing")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        hint = _did_you_mean(unknown[1], _fields(cls, value))
        return ConfigError(f"unknown key `{_join(path, unknown[1])}`{hint}")
    return _wrong(path, _expected(text, cls), value)


def _members(cls: Any) -> list[Any]:
    """The types of a union other than None, without limits; of another type, itself."""
    if get_origin(cls) is Annotated:
        return _members(get_args(cls)[0])
    if get_origin(cls) in (Union, types.UnionType):
        return [inner for m in get_args(cls) if m is not type(None) for inner in _members(m)]
    return [cls]


def _fields(cls: Any, value: Mapping[str, Any]) -> dict[str, Any]:
    """Types of the keys of the config that ``value`` describes, one of the members of ``cls``."""
    for config in _members(cls):
        settings = config.__struct_config__
        if settings.tag is None or value.get(settings.tag_field, settings.tag) == settings.tag:
            return {field.name: field.type for field in msgspec.structs.fields(config)}
    return {}


def _is_valid(value: Any, cls: Any) -> bool:
    try:
        msgspec.convert(value, cls)
    except msgspec.ValidationError:
        return False
    return True


WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a string",
    "array": "a list",
    "object": "an object",
}


def _expected(text: str, cls: Any) -> str:
    """What a value must be, after msgspec's "Expected `int` >= 1" or "Invalid enum value"."""
    literals = [member for member in _members(cls) if get_origin(member) is Literal]
    if literals:
        return _one_of(get_args(literals[0]))
    found = re.match(r"Expected `([^`]+)`(.*?)(?:, got .*)?$", text)
    assert found is not None, text
    return " or ".join(WORDS.get(word, word) for word in found[1].split(" | ")) + (
        found[2].replace(" of length ", " of ")
    )


def _one_of(values: Iterable[Any]) -> str:
    return "one of " + ", ".join(map(repr, values))


def _wrong(path: str, expected: str, value: Any) -> ConfigError:
    shown = shorten_repr(value, 60)
    return ConfigError(f"`{shorten(path)}` must be {expected}, not {shown}")


def _join(path: str, key: Any) -> str:
    key = shorten(str(key), 60)
    return f"{path}.{key}" if path else key


def _did_you_mean(key: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key, list(known), 1)
    return f"; did you mean `{close[0]}`?" if close else ""
