"""Reading hyper-parameters out of JSON: every wrong, missing or unknown key is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from codectool.errors import ConfigError

# No published codec comes near; a stranger's config must not make us allocate without bound.
MAX_VALUE = 1 << 24


class Fields:
    """One JSON object whose keys are taken out one by one."""

    def __init__(self, values: Mapping[str, Any], name: str, ignored: Collection[str] = ()):
        self._values = values
        self._name = name
        self._known = set(ignored)

    def _take(self, key: str) -> Any:
        self._known.add(key)
        if key not in self._values:
            raise ConfigError(f"{self._name}: key `{key}` is missing")
        return self._values[key]

    def _wrong(self, key: str, wanted: str) -> ConfigError:
        return ConfigError(f"{self._name}: `{key}` must be {wanted}, not {self._values[key]!r:.60}")

    def integer(self, key: str, most: int = MAX_VALUE) -> int:
        """A positive integer of at most ``most``."""
        value = self._take(key)
        if type(value) is not int or value < 1:
            raise self._wrong(key, "a positive integer")
        if value > most:
            raise self._wrong(key, f"at most {most}")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of positive integers, at most 16 of them."""
        value = self._take(key)
        if (
            not isinstance(value, list | tuple)
            or not 1 <= len(value) <= 16
            or not all(type(item) is int and 1 <= item <= MAX_VALUE for item in value)
        ):
            raise self._wrong(key, "a short list of positive integers")
        return tuple(value)

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def section(self, key: str) -> Mapping[str, Any]:
        """An object inside this one."""
        value = self._take(key)
        if not isinstance(value, Mapping):
            raise self._wrong(key, "an object")
        return value

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        unknown = sorted(set(self._values) - self._known)
        if unknown:
            raise ConfigError(f"{self._name}: unknown key `{unknown[0]}`")
