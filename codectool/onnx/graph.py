"""`Graph`: an exported graph, with its metadata at once and a session when it is first run."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from codectool.checkpoints.stored import StoredTensor
from codectool.errors import CheckpointError, UsageError, memory_advice
from codectool.filetypes import ONNX_START, START_BYTES, describe_foreign
from codectool.messages import shorten
from codectool.onnx.metadata import METADATA_KEY, GraphMetadata, parse_metadata
from codectool.onnx.protobuf import external_initializers, metadata_props

Array = npt.NDArray[Any]

INSTALL = "run `pip install 'codectool[onnx]'`"
ERROR_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


class Graph:
    """An exported graph on the CPU. It can be pickled, and run by several threads at once.

    Args:
        path: the file.
        weights: the initializers that are not in the file, by name.

    Attributes:
        path: the file.
        metadata: of the file.
    """

    def __init__(self, path: Path, weights: Mapping[str, StoredTensor] | None = None) -> None:
        self.path = path
        self.metadata: GraphMetadata = read_metadata(path)
        self._weights = weights
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
        with self._failing("is not a graph that ONNX Runtime can load"):
            if self._weights is not None:
                names = external_initializers(self.path)
                arrays = [self._weights[name].to_float32() for name in names]
                values = list(map(onnxruntime.OrtValue.ortvalue_from_numpy, arrays))
                options.add_external_initializers(names, values)
            return onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )

    def _failing(self, what: str) -> _Failing:
        return _Failing(f"{self.path}: {what}")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "metadata": self.metadata, "_weights": self._weights}

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
            reason = ERROR_CODE.sub("", str(error))
            raise CheckpointError(f"{self._what} ({shorten(reason)})") from error


def read_metadata(path: Path) -> GraphMetadata:
    """Read the metadata of a graph without loading it.

    Raises:
        CheckpointError: it cannot be read or is not a graph that codectool exported.
        UnsupportedError: it was made for a later version.
        ConfigError: its metadata is damaged.
    """
    try:
        entries = metadata_props(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
        what = None if ONNX_START.match(start) else describe_foreign(start, "an ONNX graph")
        problem = f"is {what}" if what else "is not an ONNX graph, or is a damaged one"
        raise CheckpointError(f"{path}: {problem}") from error
    if METADATA_KEY not in entries:
        raise CheckpointError(
            f"{path}: is an ONNX graph, but not one that `codectool export` wrote; export the "
            "checkpoint with it"
        )
    return parse_metadata(entries[METADATA_KEY], f"{path} (metadata)")
