"""Files given as weights that are something else are named as what they are."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from codectool.audio.source import open_audio
from codectool.checkpoints.load import load_model
from codectool.container import Reader
from codectool.errors import AudioError, CheckpointError, NotHcdError
from codectool.filetypes import describe_foreign

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 125857553\n"


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("bigcodec.pt"))
    return file.getvalue()


def zip_of(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(2))
    return file.getvalue()


FILES = {
    "pointer": (POINTER, "is a Git LFS pointer, not the weights; run `git lfs pull`"),
    "empty": (b"", "is empty (0 bytes)"),
    "page": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page (HTML)"),
    "page with mark": (b"\xef\xbb\xbf\n <HTML lang=en>", "is a web page (HTML)"),
    "server error": (b'{"error": "Repository not found"}', "is JSON text"),
    "storage error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "is an XML"),
    "gzip": (gzip.compress(b"x"), "is a gzip archive; unpack it"),
    "tar": (tar(), "is a tar archive; unpack it"),
    "zip": (zip_of("bigcodec.pt"), "a zip archive without weights (`data.pkl`); unpack it"),
    "npz": (npz(), "a NumPy archive"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0:", "is an ONNX model"),
    "tflite": (b"\x1c\0\0\0TFL3", "is a TensorFlow Lite model"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file, as Keras writes"),
    "gguf": (b"GGUF\3\0\0\0", "is a GGUF file"),
    "hcd": (b"HCD\1\1\1", "is a .hcd file"),
    "wav": (b"RIFF\x24\0\0\0WAVEfmt ", "is a RIFF file (WAV audio, for example)"),
}


@pytest.mark.parametrize("suffix", ["pt", "ckpt", "safetensors"])
@pytest.mark.parametrize("name", FILES)
def test_foreign_file_is_named(tmp_path: Path, name: str, suffix: str) -> None:
    data, message = FILES[name]
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 250


@pytest.mark.parametrize("name", ["pointer", "page", "gzip", "keras", "hcd"])
def test_foreign_file_given_as_audio_or_container_is_named(name: str) -> None:
    data, message = FILES[name]
    if name != "hcd":
        with pytest.raises(NotHcdError, match=r"^x\.hcd: not a \.hcd file: it is a"):
            Reader(io.BytesIO(data), "x.hcd")
    expected = re.escape(message.replace("the weights", "the audio"))
    with (
        pytest.raises(AudioError, match=rf"^x\.wav: {expected}"),
        open_audio(io.BytesIO(data), "x.wav"),
    ):
        pass


@pytest.mark.parametrize("name", ["model.safetensors", "g_00000001", "bigcodec.pt"])
def test_pointer_in_a_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=f"{name}: is a Git LFS pointer"):
        load_model(tmp_path)


@pytest.mark.parametrize("start", [b"\x1f\x8b", b"\x1f\x8b\x08", b"BZh", b"ID3"])
def test_length_of_a_header_is_no_magic_number(start: bytes) -> None:
    assert describe_foreign(start + bytes(20)) is not None
    assert describe_foreign(start.ljust(8, b"\0") + b'{"a":') is None
