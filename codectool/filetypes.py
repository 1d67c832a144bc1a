"""Name what a file is from its first bytes, for messages about files that are something else."""

from __future__ import annotations

import re

START_BYTES = 512  # that `describe_foreign` looks at

MAGIC_NUMBERS = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ\0": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes; convert it to safetensors",
    b"GGUF": "a GGUF file; get the weights as safetensors or from PyTorch",
    b"\x93NUMPY": "a NumPy array; save the weights as safetensors",
    b"HCD\x01": "a .hcd file",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\x7fELF": "a program",
}
AUDIO = {
    b"RIFF": "a RIFF file (WAV audio, for example)",
    b"fLaC": "FLAC audio",
    b"OggS": "an Ogg file",
    b"ID3": "MP3 audio",
}
# A protobuf: field 1, the version, as a small number; field 2, the producer, as a string.
ONNX_START = re.compile(rb"\x08[\x01-\x20]\x12[\x01-\x40][\x20-\x7e]", re.DOTALL)


def describe_foreign(start: bytes, wanted: str = "the weights") -> str | None:
    """Return what a file is, with an article and what to do; None if it may be what is wanted.

    Args:
        start: the first `START_BYTES` bytes, or all of a shorter file.
        wanted: what the file was taken for, such as "the audio".
    """
    if not start:
        return "empty (0 bytes); copy or download it again"
    if start[5:9] == b"\0\0\0{":  # safetensors, whose length of the header may look like anything
        return None
    others = MAGIC_NUMBERS if "audio" in wanted else MAGIC_NUMBERS | AUDIO
    for magic, what in others.items():
        if start.startswith(magic):
            return what
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return f"a Git LFS pointer, not {wanted}; run `git lfs pull`"
    if start[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model; get the weights as safetensors or from PyTorch"
    if ONNX_START.match(start):
        return "an ONNX model; get the weights as safetensors or from PyTorch"
    return _describe_text(start, wanted)


def _describe_text(start: bytes, wanted: str) -> str | None:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    again = f"not {wanted}; download it again, and check the address and the login"
    if re.match(rb"<!doctype html|<html|<head|<script", text):
        return f"a web page (HTML), {again}"
    if text.startswith((b"<?xml", b"<error")):
        return f"an XML document (an error of a server?), {again}"
    if text.startswith(b"{") and _is_text(start) and re.match(rb'\{\s*("|\}$)', text):
        return f"JSON text, {again}"
    return None


def _is_text(start: bytes) -> bool:
    return not re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", start)
