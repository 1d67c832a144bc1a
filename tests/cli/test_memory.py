"""A lack of memory is exit code 2 and one line, or one failed file of a folder, never a bug."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from codectool.codec import Codec
from codectool.errors import UsageError, memory_advice
from tests.cli.conftest import Options, Run


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


SHORTAGES = {
    "torch": lambda *_, **__: torch.empty(1 << 50),
    "numpy": lambda *_, **__: np.empty(1 << 60, np.uint8),
    "python": _raise(MemoryError()),
    "cuda": _raise(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")),
    "cublas": _raise(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`")),
    "mps": _raise(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)")),
    "c++": _raise(RuntimeError("std::bad_alloc")),
    "thread": _raise(RuntimeError("can't start new thread")),
    "system": _raise(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))),
    "library": _raise(ImportError("x.so: failed to map segment from shared object")),
}


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_shortage_of_memory_is_one_line_with_the_file(
    run: Run,
    speech: Path,
    hac: Options,
    monkeypatch: pytest.MonkeyPatch,
    shortage: str,
) -> None:
    monkeypatch.setattr(Codec, "encode_chunks", SHORTAGES[shortage])
    advice = "not enough memory for this input; close other programs, or use smaller files"
    if shortage in ("cuda", "cublas", "mps"):
        advice = "not enough GPU memory for this input; use `--device cpu` or smaller files"
    for command in (
        ("encode", speech, *hac),
        ("reconstruct", speech, speech.with_name("back.wav"), *hac),
    ):
        result = run(*command)
        assert (result.code, result.err) == (2, f"error: {speech}: {advice}\n")
    assert os.listdir(speech.parent) == ["speech.wav"]


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_shortage_of_memory_fails_one_file_of_a_folder(
    run: Run, speech: Path, hac: Options, monkeypatch: pytest.MonkeyPatch, shortage: str
) -> None:
    (speech.parent / "in").mkdir()
    for name in ("a", "b", "c"):
        (speech.parent / f"in/{name}.wav").write_bytes(speech.read_bytes())
    soundfile.write(speech.parent / "in/b.wav", np.zeros(5000), 24000)
    encode = Codec.encode_clips

    def encode_clips(codec: Codec, clips: Any) -> Any:
        if any(clip.num_samples == 5000 for clip in clips):
            return SHORTAGES[shortage]()
        return encode(codec, clips)

    monkeypatch.setattr(Codec, "encode_clips", encode_clips)
    report = speech.parent / "report.jsonl"
    out = speech.parent / "out"
    result = run("encode", speech.parent / "in", out, *hac, "--report", report)
    assert result.code == 1
    assert result.err.startswith(f"error: {speech.parent / 'in/b.wav'}: not enough ")
    assert result.err.count("\n") == 1
    lines = map(json.loads, report.read_text().splitlines())
    assert {Path(line["source"]).stem: line["status"] for line in lines} == {
        "a": "done",
        "b": "failed",
        "c": "done",
    }


def test_shortage_of_memory_while_files_are_measured_fails_one_file(
    run: Run, speech: Path, hac: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codectool.pipeline.operations.open_audio", _raise(MemoryError()))
    result = run("encode", speech.parent, speech.parent / "out", *hac)
    assert (result.code, result.err.count("not enough memory for this input")) == (1, 1)


def test_other_errors_are_no_shortage_of_memory() -> None:
    for error in (
        RuntimeError("the size of tensor a (3) must match the size of tensor b (4)"),
        ValueError("out of memory"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        UsageError("not enough memory"),
    ):
        assert memory_advice(error) is None
