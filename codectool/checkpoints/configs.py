"""JSON files of hyper-parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codectool.errors import ConfigError

MAX_CONFIG_BYTES = 1 << 20


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
