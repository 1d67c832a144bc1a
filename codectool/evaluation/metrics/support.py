"""Helpers for metrics that wrap third-party packages."""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from codectool.evaluation.metrics.base import MetricUndefinedError, Wave


def require_sound(reference: Wave, degraded: Wave) -> None:
    """Raise `MetricUndefinedError` if one of two signals ``(N,)`` is constant.

    Speech metrics normalise levels first; a constant signal would lead to a division by zero.
    """
    for name, wave in (("reference", reference), ("degraded clip", degraded)):
        if is_constant(wave):
            raise MetricUndefinedError(f"the {name} is silent")


def require_seconds(wave: Wave, rate: int, seconds: float = 0.5) -> None:
    """Raise `MetricUndefinedError` if a signal ``(N,)`` is shorter than ``seconds``."""
    if len(wave) < seconds * rate:
        raise MetricUndefinedError(f"shorter than {seconds} s")


def is_constant(wave: Wave) -> bool:
    """Return whether all samples of ``(N,)`` are equal."""
    return not (wave != wave[0]).any()


def split_pair(reference: Wave, degraded: Wave, max_samples: float) -> list[tuple[Wave, Wave]]:
    """Cut two signals ``(N,)`` into the fewest equal parts of at most ``max_samples``."""
    parts = math.ceil(len(reference) / max_samples)
    pair = (np.array_split(wave, parts) for wave in (reference, degraded))
    return list(zip(*pair, strict=True))


def package_file(package: str, name: str) -> Path:
    """Return the path of a file in an installed package, without importing the package.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}")
    return Path(spec.origin).parent / name


def onnx_session(package: str, name: str) -> Any:
    """Open an ONNX model that an installed package contains, to run on one CPU thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = str(package_file(package, name))
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Ignore Python warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def suppress_stderr() -> Iterator[None]:
    """Ignore Python warnings and everything written to file descriptor 2, also by C code.

    Output of other threads is lost too, so use it for short operations such as loading a model.
    """
    kept = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    os.close(devnull)
    try:
        with suppress_warnings():
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
