"""Safe reading of PyTorch checkpoints: no code that a file names is run.

`torch.save` writes a pickle, which may name any function to run, beside the bytes of the tensors.
The interpreter here executes the pickle without importing a name. It rebuilds tensors and plain
containers and replaces every other object by a placeholder, for example the config in a checkpoint
of PyTorch Lightning, which `torch.load(weights_only=True)` refuses.

A few bytes of a pickle can ask for any amount of work, so nothing here costs more than the file:

- No instruction copies, hashes or compares what earlier ones built: calls return their argument or
  a view, memo indices address a list, keys of dictionaries are short strings or small integers,
  sets are placeholders. Work and memory are therefore bounded by the number of instructions, which
  is limited, and by the size of the file.
- The result, with every shared object counted each time it occurs, is at most `MAX_GROWTH` times
  as large as the file, and its nesting is limited, so that callers may walk it without care.
"""

from __future__ import annotations

import io
import math
import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from codectool.checkpoints.archive import Archive
from codectool.errors import CheckpointError, UnsafeCheckpointError
from codectool.filetypes import START_BYTES, describe_foreign
from codectool.messages import shorten

MAX_INSTRUCTIONS = 1_000_000  # tensors take about 40 each
MAX_PICKLE_BYTES = 1 << 26
MAX_TENSORS = 1 << 16
MAX_NAME = 4096  # characters of a key or of the name of a class, which are compared again and again
MAX_INTEGER_KEYS = 10_000  # in one dictionary; integers can be chosen so that all their hashes meet
MAX_DIMENSIONS = 8
MAX_ARGUMENTS = 16
MAX_DEPTH = 64
MAX_GROWTH = 4
FREE_SIZE = 1 << 20  # allowed beyond `MAX_GROWTH`, for small files
OLD_FORMAT_MAGIC = 0x1950A86A20F9469CFC6C
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
    "_codecs": {"encode"},
    "builtins": {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int",
                 "list", "long", "object", "set", "str", "tuple", "type", "unicode"},
    "collections": {"Counter", "defaultdict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath"},
    "torch": {"bfloat16", "device", "float16", "float32", "float64", "int32", "int64",
              "ComplexDoubleStorage", "ComplexFloatStorage"},
    "torch.storage": {"UntypedStorage"},
    "typing": {"Any", "Dict", "List", "Optional", "Tuple", "Union"},
}  # fmt: skip
GUARDED_LIBRARIES = sys.stdlib_module_names | {"numpy", "torch"}


class Inert:
    """Placeholder for a foreign class or object; calling or changing it does nothing."""

    def __repr__(self) -> str:
        return "an object"


PLACEHOLDER = Inert()


def read_torch_file(path: Path) -> dict[str, Any]:
    """Read the dictionary that `torch.save` wrote; anything but plain values is `Inert`.

    Raises:
        UnsafeCheckpointError: The pickle names code to run.
        CheckpointError: The file is damaged or not a PyTorch checkpoint.
    """
    try:
        with path.open("rb") as file:
            content = read_torch(file, path.stat().st_size)
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    return content


def read_torch(file: BinaryIO, size: int) -> dict[str, Any]:
    """Read an open file of ``size`` bytes; otherwise as `read_torch_file`."""
    start = file.read(START_BYTES)
    file.seek(0)
    if (what := describe_foreign(start)) is not None:
        raise CheckpointError(f"is {what}")
    read = _read_archive if start[:2] == b"PK" else _read_old_format
    try:
        content = read(file, size)
    except CheckpointError as error:
        if isinstance(error, UnsafeCheckpointError):
            raise
        raise CheckpointError(f"not a PyTorch checkpoint, or a damaged one: {error}") from error
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # a pickle that no program writes: an empty stack, a wrong type, numbers beyond all limits
        raise CheckpointError("not a PyTorch checkpoint, or a damaged one") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {type(content).__name__}, not a dictionary")
    _measure(content, MAX_GROWTH * size + FREE_SIZE)
    return content


def _read_archive(file: BinaryIO, size: int) -> Any:
    """Read the current format: a zip archive with one pickle and a record per storage."""
    archive = Archive(file, size)
    record = next((n for n in archive.names if n.count("/") == 1 and n.endswith("/data.pkl")), None)
    if record is None:
        if any(name.endswith(".npy") for name in archive.names):
            raise CheckpointError("a NumPy archive; save the weights as safetensors")
        raise CheckpointError("a zip archive without weights (`data.pkl`); unpack it first")
    prefix = record.removesuffix("data.pkl")
    if prefix + "constants.pkl" in archive.names:
        raise CheckpointError("a TorchScript program; save its `state_dict()` instead")
    if prefix + "byteorder" in archive.names:
        _check_byte_order(archive.read(prefix + "byteorder").tobytes() == b"little")

    def load_storage(key: str, dtype: torch.dtype, _count: int) -> Tensor:
        data = archive.read(f"{prefix}data/{key}")
        return torch.frombuffer(data, dtype=dtype) if data.size else torch.empty(0, dtype=dtype)

    data = archive.read(record)
    if len(data) > MAX_PICKLE_BYTES:
        raise CheckpointError(f"its pickle is larger than {MAX_PICKLE_BYTES} bytes")
    return _Interpreter(load_storage).run(io.BytesIO(data.tobytes()))


def _read_old_format(file: BinaryIO, size: int) -> Any:
    """Read the format before PyTorch 1.6: a sequence of pickles, then the storages."""
    unread = size
    storages: dict[str, Tensor] = {}

    def make_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        nonlocal unread
        unread -= count * dtype.itemsize
        if count < 0 or unread < 0:
            raise CheckpointError("it is cut off")
        storages[key] = torch.empty(count, dtype=dtype)
        return storages[key]

    pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    interpreter = _Interpreter(make_storage)
    if interpreter.run(pickles) != OLD_FORMAT_MAGIC:
        raise CheckpointError("it does not begin like one")
    interpreter.run(pickles)  # version of the format
    system = interpreter.run(pickles)
    _check_byte_order(system["little_endian"])
    content = interpreter.run(pickles)
    keys = interpreter.run(pickles)
    file.seek(pickles.tell())
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise CheckpointError("the list of its storages is damaged")
    for key in keys:
        storage = storages.pop(key)
        count = int.from_bytes(file.read(8), "little")
        if count != storage.numel():
            raise CheckpointError("size of a storage differs from the pickle")
        if file.readinto(storage.view(torch.uint8).numpy().data) < count * storage.itemsize:  # type: ignore[attr-defined]
            raise CheckpointError("it is cut off")
    if storages:
        raise CheckpointError("values of some tensors are missing")
    return content


def _check_byte_order(is_little_endian: object) -> None:
    if is_little_endian is not True:
        raise CheckpointError("written by a big-endian machine, which is not supported")


def check_name(module: str, name: str) -> tuple[str, str]:
    """Return the module and the name in Python 3 of a name in a pickle.

    Raises:
        UnsafeCheckpointError: It names code to run.
    """
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    module = IMPORT_MAPPING.get(module, module)
    known = name in TENSOR_NAMES.get(module, {}) or name in HARMLESS_NAMES.get(module, ())
    if module.partition(".")[0] in GUARDED_LIBRARIES and not known:
        raise UnsafeCheckpointError(
            f"refused: its pickle wants to run `{shorten(f'{module}.{name}', 100)}`, which no "
            "checkpoint needs; nothing was run. Ask the publisher for safetensors or a plain state "
            "dict"
        )
    return module, name


LoadStorage = Callable[[str, torch.dtype, int], Tensor]  # key, type and number of values


class _Interpreter:
    """Execute pickles; storages come from ``load_storage``.

    Its values are plain values, containers of them, tensors, dtypes, `PLACEHOLDER`, and the
    functions in `TENSOR_NAMES`.
    """

    def __init__(self, load_storage: LoadStorage) -> None:
        self._load_storage = load_storage
        self._storages: dict[str, Tensor] = {}
        self._instructions = self._tensors = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []  # heights of the stack
        self._memo: list[Any] = []

    def run(self, stream: io.BytesIO) -> Any:
        """Execute the pickle that begins at the position of ``stream``, and return its value."""
        self._stack, self._marks, self._memo = [], [], []
        name = None
        while name != "STOP":
            code = stream.read(1)
            if (opcode := OPCODES.get(code)) is None:
                raise CheckpointError(
                    f"its pickle has the instruction {code!r}, which PyTorch does not write"
                    if code
                    else "its pickle is cut off"
                )
            name = opcode.name
            argument = opcode.arg.reader(stream) if opcode.arg is not None else None
            self._instructions += 1
            if self._instructions > MAX_INSTRUCTIONS:
                raise CheckpointError(
                    f"its pickle has more than {MAX_INSTRUCTIONS} instructions; save only the "
                    "state dict"
                )
            if name in LITERALS:
                self._stack.append(argument)
            elif name in CONSTANTS:
                self._stack.append(CONSTANTS[name])
            else:
                ACTIONS[name](self, argument)
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        height = self._marks.pop()
        items = self._stack[height:]
        del self._stack[height:]
        return items

    def _mark(self, _argument: Any) -> None:
        self._marks.append(len(self._stack))

    def _pop(self, _argument: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _pop_mark(self, _argument: Any) -> None:
        self._pop_to_mark()

    def _duplicate(self, _argument: Any) -> None:
        self._stack.append(self._stack[-1])

    def _put(self, index: int | None) -> None:
        if index is None:
            index = len(self._memo)
        if not 0 <= index <= self._instructions:  # picklers count up
            raise CheckpointError("its pickle has an impossible memo index")
        self._memo.extend([None] * (index + 1 - len(self._memo)))
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index < 0:
            raise CheckpointError("its pickle has an impossible memo index")
        self._stack.append(self._memo[index])

    def _tuple(self, size: int) -> None:
        items = self._stack[len(self._stack) - size :]
        del self._stack[len(self._stack) - size :]
        if len(items) < size:
            raise CheckpointError("its pickle lacks values")
        self._stack.append(tuple(items))

    def _tuple_from_mark(self, _argument: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _empty_list(self, _argument: Any) -> None:
        self._stack.append([])

    def _empty_dict(self, _argument: Any) -> None:
        self._stack.append({})

    def _append(self, _argument: Any) -> None:
        self._append_items([self._stack.pop()])

    def _append_from_mark(self, _argument: Any) -> None:
        self._append_items(self._pop_to_mark())

    def _append_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(items)
        elif target is not PLACEHOLDER:
            raise CheckpointError(f"its pickle appends to a {type(target).__name__}")

    def _set_item(self, _argument: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _set_from_mark(self, _argument: Any) -> None:
        self._set_items(self._pop_to_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if target is PLACEHOLDER:
            return
        if type(target) is not dict or len(items) % 2:
            raise CheckpointError(f"its pickle sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is int and -(1 << 63) <= key < 1 << 63:
                if len(target) >= MAX_INTEGER_KEYS:
                    raise CheckpointError(
                        f"a dictionary has integer keys and more than {MAX_INTEGER_KEYS} items"
                    )
            elif type(key) is str:
                if len(key) > MAX_NAME:
                    raise CheckpointError(f"a key of a dictionary has {len(key)} characters")
            elif key is not PLACEHOLDER:
                raise CheckpointError(
                    f"a key of a dictionary is a {type(key).__name__}, not a string or an integer"
                )
            target[key] = value

    def _empty_frozenset(self, _argument: Any) -> None:
        self._pop_to_mark()
        self._stack.append(frozenset())

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._find(module, name)

    def _stack_global(self, _argument: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise CheckpointError("its pickle names a class without a string")
        self._find(module, name)

    def _find(self, module: str, name: str) -> None:
        """Push the replacement of a class or function, or refuse it."""
        if len(module) + len(name) > MAX_NAME:
            raise CheckpointError("its pickle has a name of a class that is too long")
        module, name = check_name(module, name)
        self._stack.append(TENSOR_NAMES.get(module, {}).get(name, PLACEHOLDER))

    def _call(self, _argument: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if function is PLACEHOLDER:
            self._stack.append(PLACEHOLDER)
            return
        # Every function here is one of `TENSOR_NAMES`.
        if not isinstance(function, FunctionType) or type(arguments) is not tuple:
            raise CheckpointError(f"its pickle calls a {type(function).__name__}")
        if function is _rebuild_tensor:
            self._tensors += 1
            if self._tensors > MAX_TENSORS:
                raise CheckpointError(f"it has more than {MAX_TENSORS} tensors")
        if len(arguments) > MAX_ARGUMENTS:
            raise CheckpointError("its pickle calls a function with too many arguments")
        self._stack.append(function(*arguments))

    def _call_with_keywords(self, _argument: Any) -> None:
        self._stack.pop()
        self._call(None)

    def _build(self, _argument: Any) -> None:
        """Drop a state: of a module's state dict the versions of its layers, else foreign."""
        self._stack.pop()

    def _persistent(self, _argument: Any) -> None:
        """Push a storage as a flat tensor."""
        pid = self._stack.pop()
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise CheckpointError("its pickle refers to something other than a tensor's values")
        dtype, key, _location, count = pid[1:5]
        if not isinstance(dtype, torch.dtype):
            raise CheckpointError(UNKNOWN_DTYPE)
        if type(key) is not str or type(count) is not int or (len(pid) == 6 and pid[5] is not None):
            raise CheckpointError("its pickle refers to something other than a tensor's values")
        if len(key) > MAX_NAME:
            raise CheckpointError("its pickle has a name of a storage that is too long")
        if key not in self._storages:
            self._storages[key] = self._load_storage(key, dtype, count)
        storage = self._storages[key]
        if storage.numel() != count or storage.dtype != dtype:
            raise CheckpointError("size or type of a storage differs from the pickle")
        self._stack.append(storage)

    def _ignore(self, _argument: Any) -> None: ...


LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "EMPTY_SET": PLACEHOLDER,  # a set would hash what is put into it
}
# Without the instructions of protocols 0 and 1, extension codes, bytearrays and outside buffers.
ACTIONS: dict[str, Callable[[_Interpreter, Any], None]] = {
    "PROTO": _Interpreter._ignore,
    "FRAME": _Interpreter._ignore,
    "STOP": _Interpreter._ignore,
    "MARK": _Interpreter._mark,
    "POP": _Interpreter._pop,
    "POP_MARK": _Interpreter._pop_mark,
    "DUP": _Interpreter._duplicate,
    "MEMOIZE": _Interpreter._put,
    "BINPUT": _Interpreter._put,
    "LONG_BINPUT": _Interpreter._put,
    "BINGET": _Interpreter._get,
    "LONG_BINGET": _Interpreter._get,
    "TUPLE": _Interpreter._tuple_from_mark,
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "EMPTY_LIST": _Interpreter._empty_list,
    "EMPTY_DICT": _Interpreter._empty_dict,
    "APPEND": _Interpreter._append,
    "APPENDS": _Interpreter._append_from_mark,
    "ADDITEMS": _Interpreter._append_from_mark,
    "SETITEM": _Interpreter._set_item,
    "SETITEMS": _Interpreter._set_from_mark,
    "FROZENSET": _Interpreter._empty_frozenset,
    "GLOBAL": _Interpreter._global,
    "STACK_GLOBAL": _Interpreter._stack_global,
    "REDUCE": _Interpreter._call,
    "NEWOBJ": _Interpreter._call,
    "NEWOBJ_EX": _Interpreter._call_with_keywords,
    "BUILD": _Interpreter._build,
    "BINPERSID": _Interpreter._persistent,
}

OPCODES = {
    opcode.code.encode("latin-1"): opcode
    for opcode in pickletools.opcodes
    if opcode.name in LITERALS | CONSTANTS.keys() | ACTIONS.keys()
}

UNKNOWN_DTYPE = (
    "it holds tensors of a type that no codec uses, such as float8 or complex; save them as float32"
)


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: Any
) -> Tensor:
    if not isinstance(storage, Tensor) or type(size) is not tuple or type(stride) is not tuple:
        raise CheckpointError("impossible tensor")
    if len(size) > MAX_DIMENSIONS or len(stride) != len(size):
        raise CheckpointError("impossible tensor")
    if any(type(n) is not int or not 0 <= n < 1 << 63 for n in (offset, *size, *stride)):
        raise CheckpointError("impossible tensor")
    return storage.as_strided(size, stride, offset)  # checks the bounds


def _refuse_dtype(*_arguments: Any) -> None:
    raise CheckpointError(UNKNOWN_DTYPE)


def _return_first(data: Any, *_rest: Any) -> Any:
    return data


def _make_dict() -> dict[str, Any]:
    return {}


# Replacements for the names that tensors are made of.
TENSOR_NAMES: dict[str, dict[str, Any]] = {
    "collections": {"OrderedDict": _make_dict},
    "torch": {"Size": _return_first, **DTYPES},
    "torch._utils": {
        "_rebuild_tensor_v2": _rebuild_tensor,
        "_rebuild_tensor_v3": _refuse_dtype,
        "_rebuild_parameter": _return_first,
    },
}


def _measure(content: dict[str, Any], limit: int) -> None:
    """Check the nesting and the size of a result, shared objects counted each time they occur.

    The size counts characters, bytes of tensors, and one for every other value.

    Raises:
        CheckpointError: It is nested too deep or contains itself, or is larger than ``limit``.
    """
    measured: dict[int, tuple[int, int] | None] = {}  # size and height by id; None while measuring

    def measure(value: Any, depth: int) -> tuple[int, int]:
        if isinstance(value, str | bytes):
            return len(value), 0
        if isinstance(value, Tensor):
            values = min(math.prod(value.shape), value.untyped_storage().nbytes() // value.itemsize)
            return 1 + values * value.itemsize, 0
        if not isinstance(value, dict | list | tuple):
            return 1 + (value.bit_length() // 8 if isinstance(value, int) else 0), 0
        if (known := measured.get(id(value), (0, 0))) is None or depth > MAX_DEPTH:
            raise CheckpointError(f"its values are nested more than {MAX_DEPTH} deep")
        if id(value) in measured:
            return known
        measured[id(value)] = None
        size, height = 1, 0
        for part in value if not isinstance(value, dict) else (*value, *value.values()):
            part_size, part_height = measure(part, depth + 1)
            size, height = size + part_size, max(height, part_height + 1)
            if size > limit or height > MAX_DEPTH:
                raise CheckpointError(
                    f"its values are nested more than {MAX_DEPTH} deep, or far larger than the file"
                )
        measured[id(value)] = size, height
        return size, height

    measure(content, 0)


def is_torch_file(file: BinaryIO) -> bool:
    """Return whether a file starts like a zip archive or a pickle, as `torch.save` writes."""
    start = file.read(9)
    if start[8:] == b"{":  # a safetensors file, whose header length may look like a pickle
        return False
    return start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in PROTOCOLS)
