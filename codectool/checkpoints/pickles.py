"""Safe reading of PyTorch checkpoints: no code that a file names is run.

`torch.save` writes a pickle, which may name any function to run. The reader here rebuilds tensors
and replaces every other object by an inert placeholder, for example the config in a checkpoint of
PyTorch Lightning, which `torch.load(weights_only=True)` refuses. It allocates no more memory than
the file holds. Files in the format before PyTorch 1.6 are read by `torch.load(weights_only=True)`
after the names in them were checked.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

from codectool.errors import CheckpointError, UnsafeCheckpointError

MAX_DIMENSIONS = 8
OLD_FORMAT_PICKLES = 5  # magic number, version, machine, content, storage keys
PROTOCOLS = {bytes([number]) for number in range(2, 6)}

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# Plain values in configurations and optimizer states; they become placeholders. Any other name of
# the guarded libraries is refused, as only an attack needs it. Classes of all other libraries
# become placeholders without being imported.
HARMLESS_NAMES = {
    "builtins": {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int",
                 "list", "long", "object", "set", "str", "tuple", "type", "unicode"},
    "collections": {"Counter", "defaultdict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath"},
    "torch": {"bfloat16", "device", "float16", "float32", "float64", "int32", "int64"},
    "typing": {"Any", "Dict", "List", "Optional", "Tuple", "Union"},
}  # fmt: skip
GUARDED_LIBRARIES = sys.stdlib_module_names | {"numpy", "torch"}


class Inert:
    """Placeholder for an object of a foreign class; accepts every call and does nothing."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Inert:
        """Accept any arguments."""
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    append = extend = add = __setitem__ = __setstate__ = __init__


def read_torch_file(path: Path) -> dict[str, Any]:
    """Read the dictionary that `torch.save` wrote; anything but plain values is `Inert`.

    Raises:
        UnsafeCheckpointError: The pickle names code to run.
        CheckpointError: The file is damaged or not a PyTorch checkpoint.
    """
    try:
        content = _read_archive(path) if zipfile.is_zipfile(path) else _read_old_format(path)
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # hostile bytes can raise almost anything in the unpickler
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a damaged one") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dictionary")
    return content


def _read_archive(path: Path) -> Any:
    """Read the current format: a zip archive with one pickle and a record per storage."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise pickle.UnpicklingError("two records have the same name")
        return _TensorUnpickler(archive).load()


def _read_old_format(path: Path) -> Any:
    """Read the format before PyTorch 1.6: a sequence of pickles, then the storages."""
    with path.open("rb") as file:
        for _ in range(OLD_FORMAT_PICKLES):
            for opcode, argument, _position in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    module, name = check_name(*str(argument).split(" ", 1))
                    if name not in TENSOR_NAMES.get(module, {}):  # torch.load has no placeholders
                        raise UnsafeCheckpointError(_refusal(module, name))
                elif opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                    raise UnsafeCheckpointError(_refusal("an object", opcode.name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the age of the format
        return torch.load(path, map_location="cpu", weights_only=True)


def check_name(module: str, name: str) -> tuple[str, str]:
    """Return the module and the name in Python 3 of a name in a pickle.

    Raises:
        UnsafeCheckpointError: It names code to run.
    """
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    module = IMPORT_MAPPING.get(module, module)
    known = name in TENSOR_NAMES.get(module, {}) or name in HARMLESS_NAMES.get(module, ())
    if module.split(".")[0] in GUARDED_LIBRARIES and not known:
        raise UnsafeCheckpointError(_refusal(module, name))
    return module, name


def _refuse_bytearray(_unpickler: Any) -> None:
    raise pickle.UnpicklingError("a bytearray, which no checkpoint needs")


# Not the unpickler in C, which allocates as much memory as a memo index in the file says.
class _TensorUnpickler(pickle._Unpickler):
    """Unpickler for tensors, plain containers and placeholders; it imports no names."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {  # opcode -> method
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: _refuse_bytearray,  # Python allocates it before reading its bytes
    }

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._storages: dict[str, Tensor] = {}
        record = next(name for name in archive.namelist() if re.fullmatch(r"[^/]*/data\.pkl", name))
        self._prefix = record.removesuffix("data.pkl")
        super().__init__(self._open("data.pkl"), encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a class or function, or refuse it."""
        module, name = check_name(module, name)
        return TENSOR_NAMES.get(module, {}).get(name, Inert)

    def persistent_load(self, pid: Any) -> Tensor:
        """Return a storage as a flat tensor."""
        kind, dtype, key, _location, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("unknown kind of persistent object")
        if key not in self._storages:
            data = self._open(f"data/{key}").getbuffer()
            flat = torch.frombuffer(data, dtype=dtype) if len(data) else torch.empty(0, dtype=dtype)
            self._storages[key] = flat
        if self._storages[key].numel() != count or self._storages[key].dtype != dtype:
            raise pickle.UnpicklingError("size or type of a storage differs from the pickle")
        return self._storages[key]

    def _open(self, record: str) -> io.BytesIO:
        info = self._archive.getinfo(self._prefix + record)
        # PyTorch never compresses records; a compressed one could unpack to any size.
        if info.compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError("compressed record")
        return io.BytesIO(self._archive.read(info))


def _refusal(module: str, name: str) -> str:
    return (
        f"refused: its pickle wants to run `{module}.{name}`, which no checkpoint needs; nothing "
        "was run. Ask the publisher for safetensors or a plain state dict"
    )


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_hooks: Any
) -> Tensor:
    numbers = (offset, *size, *stride)
    if len(size) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("impossible tensor")
    return storage.as_strided(size, stride, offset)  # checks the bounds


# Replacements for the names that tensors are made of.
TENSOR_NAMES: dict[str, dict[str, Any]] = {
    "collections": {"OrderedDict": OrderedDict},
    "torch": {"Size": tuple, **DTYPES},
    "torch._utils": {
        "_rebuild_tensor_v2": _rebuild_tensor,
        "_rebuild_parameter": lambda data, *_rest: data,
    },
}


def is_torch_file(file: BinaryIO) -> bool:
    """Return whether a file starts like a zip archive or a pickle, as `torch.save` writes."""
    start = file.read(9)
    if start[8:] == b"{":  # a safetensors file, whose header length may look like a pickle
        return False
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in PROTOCOLS)
