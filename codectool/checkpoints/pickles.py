"""Opening PyTorch checkpoints from strangers without running anything they name.

What `torch.save` writes is a pickle, which may name any function to be run. The reader here
rebuilds tensors and puts an inert stand-in in the place of every other object, such as the
configuration in a training checkpoint of PyTorch Lightning, which `torch.load(weights_only=True)`
refuses. It also allocates nothing that the file does not hold. Files of the old format go through
`torch.load(weights_only=True)`, once the names in them have been looked at.
"""

from __future__ import annotations

import io
import pickle
import pickletools
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
OLD_FORMAT_PICKLES = 5  # magic number, version, machine, content, names of the storages
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
        content = _read_archive(path) if zipfile.is_zipfile(path) else _read_old_format(path)
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # hostile bytes make the pickle machine raise almost anything
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a damaged one") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dictionary")
    return content


def _read_archive(path: Path) -> Any:
    """Read the format of today: a zip archive of one pickle and a record for each storage."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise pickle.UnpicklingError("two records have the same name")
        return _TensorUnpickler(archive).load()


def _read_old_format(path: Path) -> Any:
    """Read the format before PyTorch 1.6: pickles one after the other, then the storages."""
    with path.open("rb") as file:
        for _ in range(OLD_FORMAT_PICKLES):
            for opcode, argument, _position in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    module, name = check_name(*str(argument).split(" ", 1))
                    if name not in TENSOR_NAMES.get(module, {}):  # here nothing stands in for it
                        raise UnsafeCheckpointError(_refusal(module, name))
                elif opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                    raise UnsafeCheckpointError(_refusal("an object", opcode.name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the age of the format
        return torch.load(path, map_location="cpu", weights_only=True)


def check_name(module: str, name: str) -> tuple[str, str]:
    """Refuse a name that can only be there to be run.

    Args:
        module: as the pickle writes it, perhaps by its name in Python 2.
        name: what it takes from there.

    Returns:
        Both, by their names of today.

    Raises:
        UnsafeCheckpointError: it is refused.
    """
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    module = IMPORT_MAPPING.get(module, module)
    known = name in TENSOR_NAMES.get(module, {}) or name in HARMLESS_NAMES.get(module, ())
    if module.split(".")[0] in GUARDED_LIBRARIES and not known:
        raise UnsafeCheckpointError(_refusal(module, name))
    return module, name


# The machine written in Python, not the one in C: that one trusts memo indices in the file and
# allocates whatever they say.
class _TensorUnpickler(pickle._Unpickler):
    """Builds tensors, plain containers and stand-ins; resolves no name by importing it."""

    # Opcode -> method of Python's machine, with one opcode refused.
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: lambda self: self.refuse_bytearray(),
    }

    def refuse_bytearray(self) -> None:
        """Python takes memory for this one before it looks whether the bytes are there."""
        raise pickle.UnpicklingError("a bytearray, which no checkpoint holds")

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._prefix = _prefix(archive)
        self._storages: dict[str, Tensor] = {}
        super().__init__(self._open("data.pkl"), encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        """Map a name in the pickle to one of our own, or refuse it."""
        module, name = check_name(module, name)
        return TENSOR_NAMES.get(module, {}).get(name, Inert)

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


# What tensors are made of, by module and name, and what takes its place here.
TENSOR_NAMES: dict[str, dict[str, Any]] = {
    "collections": {"OrderedDict": OrderedDict},
    "torch": {"Size": tuple, **DTYPES},
    "torch._utils": {
        "_rebuild_tensor_v2": _rebuild_tensor,
        "_rebuild_parameter": _rebuild_parameter,
    },
}


def looks_like_torch_file(file: BinaryIO) -> bool:
    """Whether the first bytes are those of a zip archive or of an old-style pickle.

    A safetensors file begins with the length of its header, which may look like a pickle; its
    ninth byte tells it.
    """
    start = file.read(9)
    if start[8:] == b"{":
        return False
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in PROTOCOLS)
