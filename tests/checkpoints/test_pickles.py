"""Untrusted pickles: tensors are read, and no code runs."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from codectool.checkpoints.pickles import read_torch_file
from codectool.checkpoints.published import read_published
from codectool.errors import CheckpointError, UnsafeCheckpointError


class Calls:
    """An object whose pickle calls a function when it is opened."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def state() -> dict[str, torch.Tensor]:
    return {"model.CodecEnc.block.0.bias": torch.arange(3.0)}


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("where", ["top", "beside tensors"])
def test_code_is_refused_and_not_run(tmp_path: Path, new_format: bool, where: str) -> None:
    proof = tmp_path / "proof"
    evil = Calls(os.system, f"touch {proof}")
    content = evil if where == "top" else {"state_dict": state(), "x": evil}
    path = tmp_path / "evil.pt"
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UnsafeCheckpointError, match=r"evil\.pt: refused.* `posix\.system`"):
        read_torch_file(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    "function",
    [eval, exec, getattr, __import__, print, torch.load, torch.hub.load, open, subprocess.Popen],
)
@pytest.mark.parametrize("new_format", [True, False])
def test_any_function_is_refused(tmp_path: Path, function: Any, new_format: bool) -> None:
    path = tmp_path / "evil.pt"
    content = {"state_dict": state(), "x": Calls(function, "x")}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UnsafeCheckpointError, match=r"refused: its pickle wants to run"):
        read_torch_file(path)


def test_foreign_classes_become_placeholders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training checkpoint holds a configuration whose library may not be installed."""
    module = types.ModuleType("some_config_library")
    made: list[str] = []

    class Config(dict):  # type: ignore[type-arg]
        def __init__(self) -> None:
            made.append("made")

        def __setstate__(self, state: Any) -> None:
            made.append("state")

        def __reduce__(self) -> Any:
            return Config, (), {"a": 1}, None, iter([("k", "v")])

    Config.__module__, Config.__qualname__ = module.__name__, "Config"
    module.Config = Config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    content = {
        "state_dict": state(),
        "hyper_parameters": {"cfg": Config(), "kinds": collections.defaultdict(list, a=[1])},
        "epoch": 3,
    }
    path = tmp_path / "run.ckpt"
    torch.save(content, path)
    made.clear()
    found = read_torch_file(path)
    assert made == []
    assert found["epoch"] == 3
    torch.testing.assert_close(found["state_dict"], state())
    family, tensors, _ = read_published(path)
    assert family == "bigcodec"
    assert list(tensors) == ["CodecEnc.block.0.bias"]


def archive(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("x/data.pkl", pickled)
        file.writestr("x/data/0", struct.pack("<4f", 1, 2, 3, 4))
        file.writestr("x/version", "3\n")
    return path


def tensor_pickle(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of `{"state_dict": {"t": tensor}, "x": foreign}` with the given geometry."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if isinstance(obj, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", 4)
            return None

    rebuild = torch._utils._rebuild_tensor_v2
    hooks: Any = collections.OrderedDict()
    tensor = Calls(rebuild, Storage(), offset, size, stride, False, hooks)
    buffer = io.BytesIO()
    # an old protocol, as PyTorch writes it; the placeholder needs the own unpickler
    foreign = Calls(collections.defaultdict, list)
    Pickler(buffer, 2).dump({"state_dict": {"t": tensor}, "x": foreign})
    return buffer.getvalue()


@pytest.mark.parametrize("new_format", [True, False])
def test_bytearray_bomb_is_harmless(tmp_path: Path, new_format: bool) -> None:
    """`bytearray(n)` runs no code but turns a few bytes into n."""
    path = tmp_path / "bomb.pt"
    content = {"state_dict": state(), "x": Calls(bytearray, 1 << 36)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    torch.testing.assert_close(read_torch_file(path)["state_dict"], state())


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_formats_and_dtypes_are_read(tmp_path: Path, new_format: bool, dtype: torch.dtype) -> None:
    wanted = {
        "plain": torch.arange(12, dtype=dtype).reshape(3, 4),
        "strided": torch.arange(12, dtype=dtype).reshape(3, 4).t()[1:],
        "parameter": torch.nn.Parameter(torch.ones(2, dtype=dtype)),
        "empty": torch.zeros(0, 3, dtype=dtype),
        "scalar": torch.tensor(2.0, dtype=dtype),
    }
    path = tmp_path / "x.pt"
    torch.save(wanted, path, _use_new_zipfile_serialization=new_format)
    found = read_torch_file(path)
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name].detach(), tensor.detach())


def test_sparse_and_meta_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"t": torch.eye(3).to_sparse()}, path)
    with pytest.raises(UnsafeCheckpointError, match="_rebuild_sparse_tensor"):
        read_torch_file(path)
    torch.save({"t": torch.zeros(3, device="meta")}, path)
    with pytest.raises(UnsafeCheckpointError, match="_rebuild_meta_tensor"):
        read_torch_file(path)


def test_duplicate_record_names_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", tensor_pickle(0, (4,), (1,)))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("x/data.pkl", tensor_pickle(0, (2,), (1,)))
    with pytest.raises(CheckpointError, match="damaged"):
        read_torch_file(path)


def test_own_unpickler_reads_tensors(tmp_path: Path) -> None:
    path = archive(tmp_path / "good.pt", tensor_pickle(0, (2, 2), (2, 1)))
    found = read_torch_file(path)["state_dict"]["t"]
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (1 << 40, 1 << 40), (1, 1)),
        (1 << 62, (1,), (1,)),
    ],
)
def test_tensors_cannot_reach_beyond_their_storage(
    tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    path = archive(tmp_path / "bad.pt", tensor_pickle(offset, size, stride))
    with pytest.raises(CheckpointError, match="damaged"):
        read_torch_file(path)


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    pickled = tensor_pickle(0, (4,), (1,))
    path = archive(tmp_path / "bomb.pt", pickled, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="damaged"):
        read_torch_file(path)


def test_length_bomb_is_harmless(tmp_path: Path) -> None:
    """An opcode that states a byte count, which Python would allocate at once."""
    bomb = b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x."
    path = archive(tmp_path / "bomb.pt", bomb)
    with pytest.raises(CheckpointError, match="damaged"):
        read_torch_file(path)


def test_memo_bomb_is_harmless(tmp_path: Path) -> None:
    """An opcode that asks for a memo of four billion entries."""
    bomb = b"\x80\x02ccollections\ndefaultdict\n" + b"N" + b"r\xff\xff\xff\xff" + b"."
    path = archive(tmp_path / "bomb.pt", bomb)
    with pytest.raises(CheckpointError):
        read_torch_file(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80", b"hello", b"\x80\x02}q\x00."])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file\.pt"):
        read_published(path)


def test_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save({"state_dict": state(), "x": collections.defaultdict(list)}, whole)
    data = whole.getvalue()
    path = tmp_path / "cut.pt"
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"cut\.pt"):
            read_torch_file(path)
