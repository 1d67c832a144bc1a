"""Checkpoints whose pickles ask for far more memory or time than the file has bytes.

Each file is read by a process whose memory is limited.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attacks.limited_loader import LimitedLoader

REDUCE, NEWOBJ, BUILD, STOP = b"R", b"\x81", b"b", b"."
TUPLE_1, TUPLE_2, TUPLE_3 = b"\x85", b"\x86", b"\x87"
ORDERED_DICT = b"ccollections\nOrderedDict\n"
SIZE = b"ctorch\nSize\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
PARAMETER = b"ctorch._utils\n_rebuild_parameter\n"
FLOATS = b"ctorch\nFloatStorage\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def storage(key: str = "0", count: int = 4, dtype: bytes = FLOATS) -> bytes:
    return (
        b"("
        + text("storage")
        + dtype
        + text(key)
        + text("cpu")
        + b"J"
        + count.to_bytes(4, "little")
        + b"tQ"
    )


def tensor(size: bytes, stride: bytes, values: bytes | None = None) -> bytes:
    values = storage() if values is None else values
    return TENSOR + b"(" + values + b"K\0" + size + stride + b"\x89)t" + REDUCE


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def archive(path: Path, pickled: bytes, records: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickled)
        for name, data in (records or {"0": struct.pack("<4f", 1, 2, 3, 4)}).items():
            file.writestr(f"x/data/{name}", data)
    return path


def doubled(times: int) -> bytes:
    """A tuple that holds 2 ** times integers, in two bytes per level."""
    return b"K\1" + (b"2" + TUPLE_2) * times


def shared_lists(times: int) -> bytes:
    """The same with lists, which refer to each other through the memo."""
    levels = (b"](" + get(level) * 2 + b"e" + put(level + 1) + b"0" for level in range(times))
    return b"K\1" + put(0) + b"0" + b"".join(levels) + get(times)


COLLIDING = b"".join(b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N"
                     for k in range(1, 40_000))  # fmt: skip
MANY_NUMBERS = b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(100_000))
DEEP = 200_000
LONG_STRIDE = b"(" + b"K\1" * 100_000 + b"t" + put(1)

# What follows `{"state_dict": ` in the pickle, and what the message says.
BOMBS = {
    "tuples as a key": (b"}" + doubled(60) + b"Ns", "a tuple, not a string"),
    "frozensets as a key": (b"}" + b"(" * 41 + b"K\1\x91" + b"2\x86\x91" * 40 + b"Ns", "frozenset"),
    "size as a key": (b"}" + SIZE + doubled(60) + TUPLE_1 + REDUCE + b"Ns", "a tuple"),
    "set of tuples": (b"\x8f(" + doubled(60) + b"\x90", "is not a dictionary"),
    "frozenset of tuples": (b"(" + doubled(60) + b"\x91", "is not a dictionary"),
    "tuples as a value": (doubled(60), "far larger than the file"),
    "lists as a value": (shared_lists(60), "far larger than the file"),
    "dictionaries as a value": (
        b"}" + put(0) + b"0"
        + b"".join(
            b"}(" + text("a") + get(n) + text("b") + get(n) + b"u" + put(n + 1) + b"0"
            for n in range(60)
        )
        + get(60),
        "far larger than the file",
    ),
    "a string many times": (
        text("x" * 1_000_000) + put(0) + b"0](" + get(0) * 100_000 + b"e", "far larger"
    ),
    "list in itself": (b"]" + put(0) + b"h\0a", "nested more than"),
    "deep lists": (b"]" * DEEP + b"a" * (DEEP - 1), "nested more than"),
    "deep tuples": (b")" + TUPLE_1 * DEEP, "nested more than"),
    "size of bytes": (
        b"B" + struct.pack("<I", 1 << 20) + bytes(1 << 20) + put(0) + SIZE + put(1)
        + (b"h\1h\0" + TUPLE_1 + REDUCE) * 3000,
        "PyTorch checkpoint",
    ),
    "ordered dictionary of a list": (
        b"](" + b"K\1K\2\x86" * 50_000 + b"e" + put(0) + ORDERED_DICT + put(1)
        + b"(" + (b"h\1h\0" + TUPLE_1 + REDUCE) * 30_000 + b"l",
        "PyTorch checkpoint",
    ),
    "integers with equal hashes": (b"}(" + COLLIDING + b"u", "a key of a dictionary"),
    "many integers": (b"}(" + MANY_NUMBERS + b"u", "integer keys"),
    "integer of a megabyte as a key": (
        b"}\x8b" + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20) + b"Ns", "a key of"
    ),
    "integer of a megabyte": (
        b"}" + text("a") + b"\x8b" + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20) + b"s",
        "entry a is not a named tensor",
    ),
    "memo index": (b"}" + put(0xFFFFFFFF), "memo index"),
    "long strides": (
        LONG_STRIDE + storage() + put(2) + TENSOR + put(3)
        + b"](" + (b"h\3(h\2K\0h\1h\1\x89)t" + REDUCE) * 20_000 + b"e",
        "impossible tensor",
    ),
    "many arguments": (
        LONG_STRIDE + PARAMETER + put(2) + b"](" + (b"h\2h\1" + REDUCE) * 20_000 + b"e",
        "too many arguments",
    ),
    "stride of zero": (
        b"}" + text("model.CodecEnc.w")
        + tensor(b"\x8a\x05\0\0\0\0\x10" + TUPLE_1, b"K\0" + TUPLE_1) + b"s",
        "claims 68719476736 values",
    ),
    "more values than a number can count": (
        tensor(b"\x8a\x07" + b"\0" * 6 + b"\x10" + b"2" + TUPLE_2, b"K\0K\0" + TUPLE_2),
        "PyTorch checkpoint",
    ),
    "length of bytes": (b"\x8e" + struct.pack("<Q", 1 << 60), "PyTorch checkpoint"),
    "length of a bytearray": (b"\x96" + struct.pack("<Q", 1 << 40), "the instruction"),
    "extension code": (b"\x82\1", "the instruction"),
    "number in decimal": (b"L" + b"9" * 1_000_000 + b"L\n", "the instruction"),
    "string with escapes": (b"S'\\d'\n", "the instruction"),
    "a million dictionaries": (b"}" * 999_990, "a key of a dictionary is a dict"),
    "a million marks": (b"(" * 999_990 + b"t", "is not a dictionary"),
    "a million tensors": (
        tensor(b")", b")") + put(0) + b"0" + TENSOR + put(1) + b"0"
        + b"(" + storage() + b"K\0))\x89)t" + put(2)
        + (b"h\1h\2" + REDUCE) * 300_000,
        "more than 65536 tensors",
    ),
    "a million memo entries": (
        b"]" + b"".join(b"]" + put(n) for n in range(400_000)), "PyTorch checkpoint"
    ),
    "two million instructions": (b"N0" * 1_000_000 + b"}", "more than 1000000 instructions"),
    "long name of a class": (b"cos\n" + b"x" * 1_000_000 + b"\n", "too long"),
    "long name of a function": (b"cos\n" + b"x" * 4000 + b"\n", "refused"),
    "a module of a megabyte many times": (
        text("os." * 350_000) + put(0) + text("x") + put(1)
        + b"](" + b"h\0h\1\x93" * 300_000 + b"e",
        "too long",
    ),
    "equal keys of a megabyte many times": (
        text("x" * 1_000_000) + put(0) + text("x" * 1_000_000) + put(1) + b"}h\0Ns"
        + b"(" + b"h\1N" * 300_000 + b"u",
        "a key of a dictionary has 1000000 characters",
    ),
    "equal keys many times": (
        text("x" * 4096) + put(0) + text("x" * 4096) + put(1) + b"}h\0Ns"
        + b"(" + b"h\1N" * 300_000 + b"u",
        "PyTorch checkpoint",
    ),
    "long name of a tensor": (b"}" + text("A" * 4000) + b"Ns", "is not a named tensor"),
    "long name": (b"}" + text("A" * 4000) + tensor(b")", b")") + b"s", "Lightning"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_pickle_bomb_is_refused(tmp_path: Path, loader: LimitedLoader, name: str) -> None:
    body, message = BOMBS[name]
    pickled = b"\x80\x04}" + text("state_dict") + body + b"s."
    error = loader.load(archive(tmp_path / "bomb.pt", pickled))
    assert error is not None
    assert message in error
    assert "A" * 201 not in error
    assert len(error) < 2 * 800


@pytest.mark.parametrize("key", ["A" * 4000, "x\n" * 2000])
def test_messages_show_little_of_long_keys(tmp_path: Path, loader: LimitedLoader, key: str) -> None:
    error = loader.load(archive(tmp_path / "x.pt", b"\x80\x04}" + text(key) + b"Ns."))
    assert error is not None
    assert "unknown layout" in error
    assert len(error) < 1000


def test_storage_shared_by_many_tensors_is_refused(tmp_path: Path, loader: LimitedLoader) -> None:
    """Each half-precision tensor becomes a copy in float32, so 700 of 1 MB become 1.4 GB."""
    halves = storage(count=1 << 19, dtype=b"ctorch\nHalfStorage\n") + put(0)
    size, stride = b"J\0\0\x08\0" + TUPLE_1, b"K\1" + TUPLE_1
    entries = (
        text(f"model.generator.{n}") + tensor(size, stride, b"h\0" if n else halves)
        for n in range(700)
    )
    pickled = b"\x80\x04}" + text("state_dict") + b"}(" + b"".join(entries) + b"us."
    path = archive(tmp_path / "x.pt", pickled, {"0": bytes(1 << 20)})
    error = loader.load(path)
    assert error is not None
    assert "far larger than the file" in error


def test_shared_values_of_honest_checkpoints_are_read(
    tmp_path: Path, loader: LimitedLoader
) -> None:
    from codectool.checkpoints.pickles import read_torch_file

    betas, weight = (0.9, 0.999), torch.arange(10.0)
    group = {"lr": 1e-3, "betas": betas, "params": list(range(50))}
    state = {"a.weight": weight, "a.tied": weight}
    optimizer = {"state": {n: {"step": 1.0, "exp_avg": weight} for n in range(50)}}
    content = {"state_dict": state, "model": state, "groups": [group] * 8, "optimizer": optimizer}
    torch.save(content, tmp_path / "x.pt")
    found = read_torch_file(tmp_path / "x.pt")
    assert found["groups"] == content["groups"]
    assert list(found["optimizer"]["state"]) == list(range(50))
    torch.testing.assert_close(found["model"], state)


# Steps that turn the value on top of the stack, which is also memo entry `n`, into a larger one.
def step_bytes(kind: str, n: int) -> bytes:
    value = get(n)
    return {
        "pair": b"2" + TUPLE_2,
        "triple": b"22" + TUPLE_3,
        "wrapped": TUPLE_1,
        "tuple": b"(" + value * 5 + b"t",
        "list": b"](" + value * 5 + b"e",
        "appended": b"]" + value + b"a" + value + b"a",
        "dict": b"}(" + text("a") + value + text("b") + value + b"u",
        "key": b"}" + value + b"Ns",
        "both": b"}" + value + value + b"s",
        "set": b"\x8f(" + value * 2 + b"\x90",
        "frozenset": b"(" + value * 2 + b"\x91",
        "size": SIZE + value + TUPLE_1 + REDUCE,
        "sizes": SIZE + value + b"2" + TUPLE_2 + REDUCE,
        "size arguments": SIZE + value + REDUCE,
        "new size": SIZE + value + NEWOBJ,
        "ordered": ORDERED_DICT + b")" + REDUCE + b"(" + text("k") + value + b"u",
        "ordered of": ORDERED_DICT + value + TUPLE_1 + REDUCE,
        "ordered pairs": ORDERED_DICT + b"](" + value * 2 + b"e" + TUPLE_1 + REDUCE,
        "state": ORDERED_DICT + b")" + REDUCE + value + BUILD,
        "foreign": b"cyours\nClass\n" + value + TUPLE_1 + REDUCE + value + BUILD,
        "foreign items": b"cyours\nClass\n)" + REDUCE + b"(" + value * 2 + b"u",
        "default": b"ccollections\ndefaultdict\n" + value + TUPLE_1 + REDUCE,
        "bytearray": b"cbuiltins\nbytearray\n" + value + TUPLE_1 + REDUCE,
        "parameter": PARAMETER + b"(" + value + b"\x89)t" + REDUCE,
        "tensor of": TENSOR + b"(" + value + b"K\0))\x89)t" + REDUCE,
        "tensor of size": tensor(value, value),
        "tensor of sizes": tensor(b"(" + value * 3 + b"t", b"(" + value * 3 + b"t"),
        "tensor": value + b"0" + tensor(b"K\2" + TUPLE_1, b"K\0" + TUPLE_1),
        "identity": b"(" + text("storage") + FLOATS + value + value + value + b"tQ",
        "type": b"(" + text("storage") + value + text("0") + value + b"K\4tQ",
        "name": b"\x8c\2os" + value + b"\x93",
        "text": text("t" * 4000),
        "number": b"\x8b" + struct.pack("<I", 5000) + b"\x7f" * 5000,
        "key of number": b"}\x8b" + struct.pack("<I", 5000) + b"\x7f" * 5000 + value + b"s",
        "call": value + value + REDUCE,
        "append to": value + value + b"a",
        "set item of": value + value + value + b"s",
    }[kind]


KINDS = [
    *("pair", "triple", "wrapped", "tuple", "list", "appended", "dict", "key", "both", "set"),
    *("frozenset", "size", "sizes", "size arguments", "new size", "ordered", "ordered of"),
    *("ordered pairs", "state", "foreign", "foreign items", "default", "bytearray", "parameter"),
    *("tensor of", "tensor of size", "tensor of sizes", "tensor", "identity", "type", "name"),
    *("text", "number", "key of number", "call", "append to", "set item of"),
]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 50)), min_size=1, max_size=8)
PLACES = st.sampled_from(["value", "key", "tensor", "list", "all"])


def program(steps: list[tuple[str, int]], place: str) -> bytes:
    """Return a pickle that applies steps, each a number of times, to a value, and places it."""
    made, n = b"K\1" + put(0), 0
    for kind, times in steps:
        for _ in range(times):
            made += step_bytes(kind, n) + put(n + 1)
            n += 1
    value = get(n)
    content = {
        "value": text("state_dict") + value + b"s",
        "key": value + value + b"s",
        "tensor": text("state_dict") + b"}" + text("model.CodecEnc.a") + value + b"ss",
        "list": text("generator") + b"](" + value * 1000 + b"es",
        "all": text("trainer") + b"}(" + b"".join(
            text(f"model{i}") + get(i) for i in range(n + 1)) + b"us",
    }[place]  # fmt: skip
    return b"\x80\x04" + made + b"}" + content + STOP


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, place=PLACES)
def test_any_growing_pickle_is_bounded(
    loader: LimitedLoader, tmp_path_factory: pytest.TempPathFactory, steps: list, place: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "generated.pt"
    error = loader.load(archive(path, program(steps, place)))
    assert error is not None  # no codec
    assert len(error) < 1600


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, place=PLACES, data=st.data())
def test_damaged_growing_pickle_is_bounded(
    loader: LimitedLoader,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list,
    place: str,
    data: st.DataObject,
) -> None:
    pickled = bytearray(program(steps, place))
    for _ in range(data.draw(st.integers(1, 5))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "generated.pt"
    loader.load(archive(path, bytes(pickled)))


def old_format(content: bytes, keys: list[str], storages: bytes) -> bytes:
    file = io.BytesIO()
    torch.save({}, file, _use_new_zipfile_serialization=False)
    start = file.getvalue()
    start = start[: start.rindex(b"\x80\2}q\0.")]
    names = b"\x80\2](" + b"".join(map(text, keys)) + b"e."
    return start + content + names + storages


def test_old_format_is_bounded(tmp_path: Path, loader: LimitedLoader) -> None:
    path = tmp_path / "old.pt"
    head = b"\x80\2}" + text("state_dict")
    count = struct.pack("<q", 4)
    cases = {
        old_format(head + doubled(60) + b"s.", [], b""): "far larger",
        old_format(head + b"}" + doubled(60) + b"Nss.", [], b""): "a tuple",
        old_format(head + b"}" + text("a") + tensor(b")", b")", storage(count=1 << 30)) + b"ss.",
                   ["0"], count): "cut off",
        old_format(head + b"}" + text("a") + tensor(b")", b")") + b"ss.",
                   ["0"], count + bytes(15)): "cut off",
        old_format(head + b"}" + text("a") + tensor(b")", b")") + b"ss.",
                   ["0"], struct.pack("<q", 1 << 60) + bytes(16)): "size of a storage",
        old_format(head + b"}" + text("a") + tensor(b")", b")") + b"ss.", [], b""): "missing",
    }  # fmt: skip
    for data, message in cases.items():
        path.write_bytes(data)
        error = loader.load(path)
        assert error is not None
        assert message in error
    path.write_bytes(
        old_format(head + b"}" + text("a") + tensor(b")", b")") + b"ss.", ["0"], count + bytes(16))
    )
    assert "Lightning" in str(loader.load(path))
