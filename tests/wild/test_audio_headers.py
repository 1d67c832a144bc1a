"""WAV, AIFF, AU, CAF, W64 and NIST files whose header does not state the length, or a wrong one."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio.files import read_crop
from tests.wild.reading import read, read_all_ways, refusal

RATE = 16000
LENGTH = 5001
FORMATS = [
    ("WAV", "PCM_16", 1),
    ("WAV", "PCM_16", 3),
    ("WAV", "PCM_U8", 1),
    ("WAV", "PCM_24", 1),
    ("WAV", "FLOAT", 2),
    ("WAV", "ULAW", 1),
    ("WAVEX", "PCM_24", 2),
    ("RIFX", "PCM_16", 2),
    ("RF64", "PCM_16", 1),
    ("W64", "PCM_16", 1),
    ("W64", "FLOAT", 2),
    ("AU", "PCM_16", 2),
    ("AU", "ULAW", 1),
    ("AU_LE", "PCM_16", 1),
    ("AIFF", "PCM_16", 1),
    ("AIFF", "PCM_24", 2),
    ("CAF", "PCM_16", 1),
    ("CAF", "FLOAT", 2),
]
PACKED = [
    *(("WAV", name) for name in ("GSM610", "G721_32", "NMS_ADPCM_16", "IMA_ADPCM", "MS_ADPCM")),
    *(("AIFF", "GSM610"), ("AU", "G721_32"), ("W64", "GSM610")),
]
# sizes that programs write for want of a better one
UNKNOWN = {"0": 0, "-1": -1, "2 GiB": 0x7FFFFFFF, "ffmpeg": 0xFFFFFFFF, "sox": 0x7F000000}


def noise(channels: int = 1, length: int = LENGTH) -> np.ndarray:
    return np.random.default_rng(4).uniform(-0.5, 0.5, (length, channels)).astype(np.float32)


def stored(container: str, subtype: str, channels: int = 1, length: int = LENGTH) -> bytes:
    file = io.BytesIO()
    endian = {"RIFX": "BIG", "AU_LE": "LITTLE"}.get(container, "FILE")
    form = {"RIFX": "WAV", "AU_LE": "AU"}.get(container, container)
    soundfile.write(file, noise(channels, length), RATE, subtype, endian, form)
    return file.getvalue()


def samples_in(data: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T


def size_field(container: str, data: bytes) -> tuple[int, str, int]:
    """Return position and `struct` format of the size of the samples, and what it counts more."""
    if container == "W64":
        return data.index(b"data\xf3\xac") + 16, "<q", 24
    if container in ("AU", "AU_LE"):
        return 8, "<I" if container == "AU_LE" else ">I", 0
    if container == "AIFF":
        return data.index(b"SSND") + 4, ">I", 8
    if container == "CAF":
        return data.index(b"data") + 4, ">q", 4
    if container == "RF64":
        return data.index(b"ds64") + 16, "<q", 0
    return data.index(b"data") + 4, ">I" if container == "RIFX" else "<I", 0


def with_size(container: str, data: bytes, size: int) -> bytes:
    """Return a file whose header states a size of the samples, or -1."""
    at, form, more = size_field(container, data)
    width = struct.calcsize(form)
    value = size if size <= 0 else size + more
    field = struct.pack(form, value) if width == 8 else (value & 0xFFFFFFFF).to_bytes(4, "big")
    if width == 4 and form[0] == "<":
        field = field[::-1]
    data = data[:at] + field + data[at + width :]
    if container == "AIFF" and size == 0:  # as ffmpeg does on a pipe
        at = data.index(b"COMM") + 10
        data = data[:4] + bytes(4) + data[8:at] + bytes(4) + data[at + 4 :]
    return data


@pytest.mark.parametrize(
    ("container", "subtype", "channels", "size"),
    [
        (*form, size)
        for form in FORMATS
        for size in UNKNOWN
        if size in ("0", "-1") or form[0] not in ("RF64", "W64", "CAF")  # sizes of 64 bits
    ],
)
def test_samples_end_where_the_file_does_if_the_header_has_no_size(
    tmp_path: Path, container: str, subtype: str, channels: int, size: str
) -> None:
    data = stored(container, subtype, channels)
    data = data[: len(data) - data_padding(container, subtype, channels)]
    reading = read_all_ways(with_size(container, data, UNKNOWN[size]), tmp_path)
    np.testing.assert_array_equal(reading.samples, samples_in(stored(container, subtype, channels)))
    assert reading.warnings == []


def data_padding(container: str, subtype: str, channels: int) -> int:
    """Return the bytes that libsndfile writes after the samples."""
    data = stored(container, subtype, channels)
    at, form, more = size_field(container, data)
    size = struct.unpack_from(form, data, at)[0] - more
    start = data.index(b"data") + 8 if container == "RF64" else at + struct.calcsize(form) + more
    if container == "W64":
        start = at + 8
    if container in ("AU", "AU_LE"):
        start = 24
    return len(data) - start - size


@pytest.mark.parametrize(("container", "subtype", "channels"), FORMATS)
def test_truncated_files_are_read_with_a_warning(
    tmp_path: Path, container: str, subtype: str, channels: int
) -> None:
    data = stored(container, subtype, channels)
    frame = len(stored("RAW", subtype, channels)) // LENGTH
    reading = read_all_ways(data[: len(data) - 2000 * frame - 1], tmp_path)
    assert LENGTH - 2002 <= reading.length <= LENGTH - 2000
    whole = samples_in(data)
    np.testing.assert_array_equal(reading.samples, whole[:, : reading.length])
    assert len(reading.warnings) == 1
    assert f"promises {LENGTH / RATE:.2f} s ({LENGTH} samples), but only" in reading.warnings[0]
    crop = read_crop(tmp_path / "audio", 1000, 500, RATE)
    np.testing.assert_allclose(crop[0], reading.samples[:, 1000:1500].mean(axis=0), atol=1e-6)


def test_nist_files_are_read_and_truncated_ones_give_a_warning(tmp_path: Path) -> None:
    data = stored("NIST", "PCM_16", 2)
    assert read_all_ways(data, tmp_path).warnings == []
    reading = read_all_ways(data[: len(data) // 2], tmp_path)
    assert f"promises {LENGTH / RATE:.2f} s ({LENGTH} samples)" in reading.warnings[0]


@pytest.mark.parametrize("size", ["0", "-1"])
def test_an_empty_wav_with_other_chunks_has_no_samples(tmp_path: Path, size: str) -> None:
    data = stored("WAV", "PCM_16", 1, 0) + b"LIST\x0c\0\0\0INFOISFT\0\0\0\0"
    reading = read_all_ways(with_size("WAV", data, UNKNOWN[size]), tmp_path)
    assert (reading.length, reading.warnings) == (0, ["in: holds no samples"])


def test_chunks_around_the_samples_are_no_samples(tmp_path: Path) -> None:
    data = stored("WAV", "PCM_16")
    at = data.index(b"fmt ")
    junk = b"JUNK" + struct.pack("<I", 70000) + bytes(range(256)) * 273 + bytes(112)
    odd = b"note" + struct.pack("<I", 3) + b"abc"  # not padded, as some programs do
    data = data[:at] + junk + data[at:36] + odd + data[36:] + b"LIST\x04\0\0\0abcd"
    reading = read_all_ways(data, tmp_path)
    np.testing.assert_array_equal(reading.samples, samples_in(stored("WAV", "PCM_16")))
    assert reading.warnings == []


def test_a_second_data_chunk_gives_a_warning(tmp_path: Path) -> None:
    data = stored("WAV", "PCM_16")
    path = tmp_path / "a.wav"
    path.write_bytes(data + data[data.index(b"data") :])
    reading = read(path)
    np.testing.assert_array_equal(reading.samples, samples_in(data))
    assert len(reading.warnings) == 1
    assert "after the samples are left out" in reading.warnings[0]


def test_samples_after_the_stated_end_give_a_warning(tmp_path: Path) -> None:
    """As a recorder that crashes after it has updated the header."""
    data = with_size("WAV", stored("WAV", "PCM_16"), 8000)
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    reading = read(path)
    assert reading.length == 4000
    assert f"{2 * LENGTH - 8000} bytes after the samples are left out" in reading.warnings[0]


def test_a_header_cannot_make_the_reader_allocate(tmp_path: Path) -> None:
    data = with_size("RF64", stored("RF64", "PCM_16"), 1 << 50)
    reading = read_all_ways(data, tmp_path)
    assert reading.length == LENGTH
    assert "promises" in reading.warnings[0]


@pytest.mark.parametrize(("form", "subtype"), PACKED)
def test_packed_samples_are_read_and_cropped(tmp_path: Path, subtype: str, form: str) -> None:
    """libsndfile cannot seek in some of them."""
    data = stored(form, subtype, 1, 20_000)
    reading = read_all_ways(data, tmp_path)
    assert 20_000 <= reading.length < 21_100
    for start in (0, 4321, reading.length - 700):
        crop = read_crop(tmp_path / "audio", start, 600, RATE)
        np.testing.assert_array_equal(crop, reading.samples[:, start : start + 600])


def test_gsm_in_wav_has_no_block_of_padding(tmp_path: Path) -> None:
    """An odd number of blocks of 65 bytes is padded, and the header counts the padding."""
    data = stored("WAV", "GSM610", 1, 320 * 75)
    assert read_all_ways(data, tmp_path).length == 320 * 75


@pytest.mark.parametrize(
    "data", [b"RIFF\x24\0\0\0WAVEfmt \x10", b"fLaC\x80\0\0\x22ab", b"caff\0\1"]
)
def test_files_that_end_within_their_header_are_refused(data: bytes) -> None:
    assert refusal(data).startswith("in: ")
