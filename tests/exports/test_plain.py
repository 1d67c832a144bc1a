"""Ids that programs saved without metadata."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codectool.corpus import plain
from codectool.corpus.plain import read_plain
from codectool.errors import TokensError


def read(data: bytes, dimensions: int = 1, name: str = "ids.bin", **options: Any) -> dict[str, Any]:
    """Ids by the name of their record."""
    records = read_plain(io.BytesIO(data), name, dimensions, stem="ids", **options)
    return {record.id: np.asarray(record.tokens).tolist() for record in records}


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()


def npz(compressed: bool = True, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


ONE = {"ids": [1, 2, 3]}
TWO = {"ids-00001": [1, 2], "ids-00002": [3, 4]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (npy([1, 2, 3]), ONE),
        (npy([[1, 2, 3]]), {"ids": [[1, 2, 3]]}),
        (npy([[1, 2], [3, 4]]), TWO),
        (npy(np.asfortranarray([[1, 2], [3, 4]])), TWO),
        (npz(a=[1, 2], b=[3]), {"a": [1, 2], "b": [3]}),
        (npz(compressed=False, a=[[1, 2], [3, 4]]), {"a-00001": [1, 2], "a-00002": [3, 4]}),
        (b"1 2 3\n", ONE),
        (b"1, 2,3", ONE),
        (b"\xef\xbb\xbf1 2 3\r\n", ONE),
        (b"1 2\n\n3 4\n", TWO),
        (b"-1\t2", {"ids": [-1, 2]}),
        (b"[1, 2, 3]", ONE),
        (b"[\n  1,\n  2,\n  3\n]\n", ONE),
        (b"[1, 2]\n[3, 4]\n", TWO),
        (b"[[1, 2], [3, 4]]", TWO),
        (b"[[1, 2], [3]]", {"ids-00001": [1, 2], "ids-00002": [3]}),
        (b"[[], [3]]", {"ids-00001": [], "ids-00002": [3]}),
        (b"[]", {"ids": []}),
        (b'{"ids": [1, 2, 3]}', ONE),
        (b'{"input_ids": [[1, 2], [3, 4]]}', TWO),
        (b'{"id": "x", "tokens": [1]}\n\n{"id": "y", "tokens": [2]}', {"x": [1], "y": [2]}),
        (b'{"id": "x", "ids": [[1, 2], [3, 4]]}', {"x-00001": [1, 2], "x-00002": [3, 4]}),
        (b'{"id": 7, "ids": [1]}', {"7": [1]}),
    ],
)
def test_sequences_of_every_kind_of_file(data: bytes, expected: dict[str, Any]) -> None:
    assert read(data, name="folder/ids.txt") == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (npy([[1, 2], [3, 4]]), {"ids": [[1, 2], [3, 4]]}),
        (npy([[[1], [2]], [[3], [4]]]), {"ids-00001": [[1], [2]], "ids-00002": [[3], [4]]}),
        (b"[[1, 2], [3, 4]]", {"ids": [[1, 2], [3, 4]]}),
        (b"1 2\n3 4\n", {"ids": [[1, 2], [3, 4]]}),
        (b"1 2\n\n\n3 4\n5 6", {"ids-00001": [[1, 2]], "ids-00002": [[3, 4], [5, 6]]}),
    ],
)
def test_sequences_of_two_dimensions(data: bytes, expected: dict[str, Any]) -> None:
    assert read(data, dimensions=2, name="ids.txt") == expected


def test_other_keys_of_objects_are_kept() -> None:
    line = b'{"id": "a", "num_samples": 640, "sample_rate": 16000, "text": "hi", "x": [1, 2]}'
    (record,) = read_plain(io.BytesIO(line), "<stdin>", 1, column="x")
    assert (record.num_samples, record.sample_rate) == (640, 16000)
    assert record.columns == {"text": "hi"}


def test_long_lines_are_parsed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "WORDS_AT_ONCE", 3)
    for number in range(1, 11):
        words = list(range(number))
        assert read(b" ".join(b"%d" % word for word in words) + b" \n") == {"ids": words}


def torch_file() -> bytes:
    file = io.BytesIO()
    torch.save(torch.tensor([1, 2]), file)
    return file.getvalue()


def bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(np.zeros(1 << 24, np.int64)))
    return file.getvalue()


def declared(shape: tuple[int, ...]) -> bytes:
    """An array whose header states another size than it has."""
    file = io.BytesIO()
    header = {"descr": "<i8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(16)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ids.txt: is empty"),
        (b"hello world\n", "line 1: `hello world` is not ids separated by spaces"),
        (b"1 2\n3 x\n", "line 2: `3 x` is not ids"),
        (b"1.5 2\n", "is not ids"),
        ("1 2".encode("utf-16"), "is UTF-16 text"),
        (b"\xff\x00\x01", "is not ids"),
        (b"9" * 5000, "is not ids"),
        (b"9" * 30, "is not ids"),
        (b"[1, 2", "is not JSON"),
        (b"[1, 2]\n[3,\n", "line 2: is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": 1}', "has no key 'tokens', 'ids', 'input_ids', 'codes' with ids"),
        (b'{"ids": "1 2"}', "ids.txt.*not an array of integers"),
        (b"[1.5, 2]", "not an array of integers"),
        (b'{"ids": [1], "num_samples": -1}', "num_samples is -1"),
        (b'{"ids": [1], "num_samples": "x"}', "num_samples is 'x'"),
        (b'{"ids": [1], "tags": [1]}', "tags"),
        (npy([1, 2])[:-3], "is not a .npy file"),
        (npy(np.array([{}], dtype=object)), "is not a .npy file: holds Python objects"),
        (declared((1 << 40,)), "is not a .npy file"),
        (npz(a=[1, 2])[:-30], "is not a .npz file"),
        (torch_file(), r"is this a file of `torch.save`\? use"),
        (bomb(), "compressed too far"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "is a RIFF file|is not ids"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(TokensError, match=message):
        read(data, name="ids.txt")


def test_json_of_random_bytes_raises_only_errors_of_codectool(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = [npy([1, 2]), npz(a=[1, 2]), json.dumps([{"ids": [1, 2]}]).encode(), b"1 2\n3"]
    for data in whole:
        for _ in range(150):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                damaged[place] = rng.integers(0, 256)
            try:
                read(bytes(damaged))
            except TokensError:
                continue
