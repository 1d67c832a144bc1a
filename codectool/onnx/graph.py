"""`Graph`: an exported graph, with its metadata at once and a session when it is first run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from codectool.errors import CheckpointError, UsageError, memory_advice
from codectool.filetypes import ONNX_START, START_BYTES, describe_foreign
from codectool.messages import shorten
from codectool.onnx.metadata import METADATA_KEY, GraphMetadata, parse_metadata

Array = npt.NDArray[Any]
Weights = Mapping[str, npt.NDArray[np.float32]]

INSTALL = "run `pip install 'codectool[onnx]'`"
MAX_METADATA_BYTES = 1 << 20
METADATA_FIELD = 14  # of ModelProto: `metadata_props`, of which each has a key and a value
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Graph:
    """An exported graph on the CPU. It can be pickled, and run by several threads at once.

    Args:
        path: the file.
        read_weights: returns the initializers that are not in the file, by name.

    Attributes:
        path: the file.
        metadata: of the file.
    """

    def __init__(self, path: Path, read_weights: Callable[[], Weights] | None = None) -> None:
        self.path = path
        self.metadata: GraphMetadata = read_metadata(path)
        self._read_weights = read_weights
        self._start()

    def _start(self) -> None:
        self._session: Any = None
        self._threads = 0
        self._lock = threading.Lock()

    def run(self, threads: int, inputs: Mapping[str, Array]) -> list[Array]:
        """Return all outputs in order.

        Args:
            threads: number of CPU threads.
            inputs: all inputs by name.

        Raises:
            CheckpointError: the graph cannot be loaded or run.
            UsageError: ONNX Runtime is missing.
        """
        with self._lock:
            if self._session is None or self._threads != threads:
                self._session, self._threads = self._open(threads), threads
            session = self._session
        with self._failing("cannot be run"):
            outputs: list[Array] = session.run(None, dict(inputs))
            return outputs

    def _open(self, threads: int) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError(f"the package onnxruntime is missing; {INSTALL}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what fails raises an exception, too
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._read_weights is not None:
            weights = self._read_weights()
            values = map(onnxruntime.OrtValue.ortvalue_from_numpy, weights.values())
            options.add_external_initializers(list(weights), list(values))
        with self._failing("is not a graph that ONNX Runtime can load"):
            return onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )

    def _failing(self, what: str) -> _Failing:
        return _Failing(f"{self.path}: {what}")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "metadata": self.metadata, "_read_weights": self._read_weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._start()


class _Failing:
    """Turn exceptions of ONNX Runtime, which have no common base class, into `CheckpointError`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception) and memory_advice(error) is None:
            reason = str(error).partition(" : ")[2] or str(error)
            raise CheckpointError(f"{self._what} ({shorten(reason)})") from error


def read_metadata(path: Path) -> GraphMetadata:
    """Read the metadata of a graph without loading it.

    Raises:
        CheckpointError: it cannot be read or is not a graph that codectool exported.
        UnsupportedError: it was made for a later version.
        ConfigError: its metadata is damaged.
    """
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
            size = os.fstat(file.fileno()).st_size
            entries = dict(_metadata_entries(file, size))
    except OSError as error:
        raise CheckpointError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        what = None if ONNX_START.match(start) else describe_foreign(start, "an ONNX graph")
        problem = f"is {what}" if what else "is not an ONNX graph, or is a damaged one"
        raise CheckpointError(f"{path}: {problem}") from error
    if METADATA_KEY not in entries:
        raise CheckpointError(
            f"{path}: is an ONNX graph, but not one that `codectool export` wrote; export the "
            "checkpoint with it"
        )
    return parse_metadata(entries[METADATA_KEY], f"{path} (metadata)")


def _metadata_entries(file: BinaryIO, size: int) -> Iterator[tuple[str, str]]:
    """Yield keys and values; skip the graph, which may be large. Raise `ValueError` if damaged."""
    file.seek(0)
    while file.tell() < size:
        number, kind = divmod(_varint(file), 8)
        if kind == VARINT:
            _varint(file)
            continue
        length = _varint(file) if kind == BYTES else {FIXED32: 4, FIXED64: 8}.get(kind, size + 1)
        stop = file.tell() + length
        if not number or stop > size:
            raise ValueError("damaged")
        if number == METADATA_FIELD and kind == BYTES:
            if length > MAX_METADATA_BYTES:
                raise ValueError("damaged")
            entry = {}
            while file.tell() < stop:
                key = _varint(file) // 8
                entry[key] = file.read(min(_varint(file), stop - file.tell())).decode()
            yield entry.get(1, ""), entry.get(2, "")
        file.seek(stop)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("damaged")
