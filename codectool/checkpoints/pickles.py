"""Opening PyTorch checkpoints from strangers without running anything they name.

`torch.load(weights_only=True)` reads what the authors released. A training checkpoint of PyTorch
Lightning also pickles its configuration objects, which that refuses; for it there is a reader here
that rebuilds tensors and puts an inert stand-in in the place of every other object. A pickle that
names a function to run is refused by both.
"""

from __future__ import annotations

import io
import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from codectool.errors import CheckpointError, UnsafeCheckpointError

MAX_DIMENSIONS = 8

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

# Plain values that configurations and optimizers are made of; they become stand-ins as well. Any
# other name of these libraries can only be there to be run. Classes of other libraries are unknown
# to us: they become stand-ins, and whatever they would have done is not done.
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
    """Stands for an object of a foreign class; takes everything and does nothing."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Inert:
        """Accept any arguments, as any class might have taken."""
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...

    def __setitem__(self, _key: Any, _value: Any) -> None: ...

    def append(self, _item: Any) -> None:
        """Forget the item."""

    def extend(self, _items: Any) -> None:
        """Forget the items."""

    def add(self, _item: Any) -> None:
        """Forget the item."""


def read_torch_file(path: Path) -> dict[str, Any]:
    """Read the dictionary that `torch.save` wrote.

    Args:
        path: the checkpoint.

    Returns:
        Its top level. Tensors are real; anything but plain values and tensors is `Inert`.

    Raises:
        UnsafeCheckpointError: the pickle names code to run.
        CheckpointError: this is no PyTorch checkpoint, or a damaged one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols that load all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        content = _read_with_stand_ins(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises whatever its parts raise on damaged data
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a damaged one") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dictionary")
    return content


def _read_with_stand_ins(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return _TensorUnpickler(archive).load()
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{path}: {error}") from error
    except Exception as error:  # hostile bytes make the pickle machine raise almost anything
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a damaged one") from error


# The machine written in Python, not the one in C: that one trusts memo indices in the file and
# allocates whatever they say.
class _TensorUnpickler(pickle._Unpickler):
    """Builds tensors, plain containers and stand-ins; resolves no name by importing it."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._prefix = _prefix(archive)
        self._storages: dict[str, Tensor] = {}
        super().__init__(self._open("data.pkl"), encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        """Map a name in the pickle to one of our own, or refuse it."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        guarded = module.split(".")[0] in GUARDED_LIBRARIES
        if guarded and name not in HARMLESS_NAMES.get(module, ()):
            raise UnsafeCheckpointError(_refusal(module, name))
        return Inert

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage: its bytes as a flat tensor."""
        kind, dtype, key, _location, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("unknown kind of persistent object")
        if key not in self._storages:
            data = self._open(f"data/{key}").getbuffer()
            flat = torch.frombuffer(data, dtype=dtype) if len(data) else torch.empty(0, dtype=dtype)
            self._storages[key] = flat
        if self._storages[key].numel() != count or self._storages[key].dtype != dtype:
            raise pickle.UnpicklingError("a storage has another size or type than the pickle says")
        return self._storages[key]

    def _open(self, record: str) -> io.BytesIO:
        info = self._archive.getinfo(self._prefix + record)
        # PyTorch stores records as they are; a compressed one could unpack to any size.
        if info.compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError("compressed record")
        return io.BytesIO(self._archive.read(info))


def _prefix(archive: zipfile.ZipFile) -> str:
    for name in archive.namelist():
        if name.endswith("/data.pkl") and name.count("/") == 1:
            return name.removesuffix("data.pkl")
    raise pickle.UnpicklingError("no data.pkl")


def _refusal(module: str, name: str) -> str:
    return (
        f"refused: its pickle wants to run `{module}.{name}`, which no checkpoint needs; nothing "
        "was run. Ask for the weights as safetensors or a plain state dict"
    )


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_hooks: Any
) -> Tensor:
    numbers = (offset, *size, *stride)
    if len(size) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("impossible tensor")
    return storage.as_strided(size, stride, offset)  # checks the bounds


def _rebuild_parameter(data: Tensor, *_rest: Any) -> Tensor:
    return data


def looks_like_torch_file(file: BinaryIO) -> bool:
    """Whether the first bytes are those of a zip archive or of an old-style pickle."""
    start = file.read(4)
    return start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"
