"""`Chunker` cuts a signal into the same chunks however it was pushed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from codectool.chunking import Chunker


def parts(array: Any, sizes: list[int]) -> list[Any]:
    """Cut along the first axis into parts of these sizes, repeated."""
    found, start, number = [], 0, 0
    while start < len(array):
        size = sizes[number % len(sizes)]
        found.append(array[start : start + size])
        start, number = start + size, number + 1
    return found


@pytest.mark.parametrize("sizes", [[1], [2, 0, 5], [3], [4], [100]], ids=str)
@pytest.mark.parametrize("length", [1, 3, 4, 8, 23])
@pytest.mark.parametrize("concatenate", [np.concatenate, torch.cat])
def test_chunker_returns_the_same_chunks_for_any_cut(
    sizes: list[int], length: int, concatenate: Any
) -> None:
    signal: Any = np.arange(2 * length).reshape(length, 2)
    if concatenate is torch.cat:
        signal = torch.from_numpy(signal)
    chunker: Chunker[Any] = Chunker(4, axis=0, concatenate=concatenate)
    chunks = [chunk for part in parts(signal, sizes) for chunk in chunker.push(part)]
    assert chunker.waiting == length % 4
    rest = chunker.flush()
    assert [len(chunk) for chunk in chunks] == [4] * (length // 4)
    assert len(rest) == length % 4
    np.testing.assert_array_equal(np.concatenate([*map(np.asarray, chunks), rest]), signal)


def test_chunker_cuts_along_the_last_axis() -> None:
    signal = np.arange(12).reshape(2, 6)
    chunker: Chunker[np.ndarray[Any, Any]] = Chunker(4, axis=1)
    (chunk,) = chunker.push(signal)
    np.testing.assert_array_equal(chunk, signal[:, :4])
    np.testing.assert_array_equal(chunker.flush(), signal[:, 4:])


def test_chunker_copies_what_waits() -> None:
    chunker: Chunker[np.ndarray[Any, Any]] = Chunker(4, axis=0)
    buffer = np.arange(3)
    chunker.push(buffer)
    buffer[:] = -1
    np.testing.assert_array_equal(chunker.flush(), [0, 1, 2])


def test_flush_of_an_empty_chunker_is_none() -> None:
    chunker: Chunker[np.ndarray[Any, Any]] = Chunker(4, axis=0)
    assert chunker.flush() is None
    chunker.push(np.arange(5))
    chunker.flush()
    assert (chunker.flush(), chunker.waiting) == (None, 0)
