"""FLAC and Ogg files that do not state their length, are joined, cut or damaged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio.files import read_crop
from tests.signals import speechlike
from tests.wild.reading import read, read_all_ways, refusal

RATE = 24000
ID3 = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)


def encoded(
    form: str, subtype: str = "PCM_16", seconds: float = 3.0, rate: int = RATE, channels: int = 1
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speechlike(seconds, rate, channels).T, rate, subtype, format=form)
    return file.getvalue()


def with_total(data: bytes, total: int) -> bytes:
    """Return a FLAC file whose header states a number of samples."""
    fields = int.from_bytes(data[18:26], "big") >> 36 << 36 | total
    return data[:18] + fields.to_bytes(8, "big") + data[26:]


@pytest.mark.parametrize("stated", [0, 1, 50_000])
@pytest.mark.parametrize(("subtype", "channels"), [("PCM_16", 1), ("PCM_24", 2)])
def test_flac_is_read_to_its_last_frame(
    tmp_path: Path, subtype: str, channels: int, stated: int
) -> None:
    data = encoded("FLAC", subtype, channels=channels)
    reading = read_all_ways(with_total(data, stated), tmp_path)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(reading.samples, expected.T)
    assert reading.warnings == []
    crop = read_crop(tmp_path / "audio", 60_000, 5000, RATE)
    np.testing.assert_allclose(crop[0], expected[60_000:65_000].mean(axis=1), atol=1e-6)


def test_tags_around_flac_are_skipped(tmp_path: Path) -> None:
    data = ID3 + with_total(encoded("FLAC"), 0) + b"TAG" + bytes(125)
    reading = read_all_ways(data, tmp_path)
    assert (reading.length, reading.warnings) == (72_000, [])


@pytest.mark.parametrize("stated", [0, 72_000])
def test_cut_flac_is_read_to_its_last_complete_frame(tmp_path: Path, stated: int) -> None:
    data = encoded("FLAC")
    reading = read_all_ways(with_total(data, stated)[: len(data) // 2], tmp_path)
    whole = read(io.BytesIO(data)).samples
    assert 30_000 < reading.length < 42_000
    assert reading.length % 4096 == 0
    np.testing.assert_array_equal(reading.samples, whole[:, : reading.length])
    expected = "promises 3.00 s (72000 samples)" if stated else "ends within a frame"
    assert expected in reading.warnings[0]


def test_damaged_flac_is_refused() -> None:
    data = bytearray(encoded("FLAC"))
    data[len(data) // 2] ^= 255
    assert "is damaged" in refusal(bytes(data))


OGG = [("VORBIS", 16000, 2), ("VORBIS", 44100, 1), ("OPUS", 48000, 1), ("OPUS", 24000, 2)]


@pytest.mark.parametrize(("subtype", "rate", "channels"), OGG)
def test_chained_streams_are_read_one_after_another(
    tmp_path: Path, subtype: str, rate: int, channels: int
) -> None:
    parts = [encoded("OGG", subtype, seconds, rate, channels) for seconds in (3.0, 0.7, 2.0)]
    reading = read_all_ways(b"".join(parts), tmp_path)
    expected = [read(io.BytesIO(part)).samples for part in parts]
    np.testing.assert_array_equal(reading.samples, np.concatenate(expected, axis=1))
    assert (reading.length, reading.warnings) == (round(5.7 * rate), [])
    for start in (round(2.9 * rate), round(4.0 * rate)):
        crop = read_crop(tmp_path / "audio", start, rate, rate)
        mono = reading.samples[:, start : start + rate].mean(axis=0)
        np.testing.assert_allclose(crop[0], mono, atol=1e-5)


def test_chained_streams_of_different_rates_are_refused() -> None:
    data = encoded("OGG", "VORBIS", 1.0, 16000) + encoded("OGG", "VORBIS", 1.0, 24000)
    assert "2 streams of different sampling rates" in refusal(data)


@pytest.mark.parametrize(("subtype", "rate", "channels"), OGG)
def test_crops_of_ogg_equal_crops_of_the_whole_file(
    tmp_path: Path, subtype: str, rate: int, channels: int
) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(encoded("OGG", subtype, 6.0, rate, channels))
    whole = read(path).samples.mean(axis=0)
    for start in (0, 1, rate, 3 * rate, len(whole) - 700, len(whole) - 200):
        crop = read_crop(path, start, 600, rate)
        np.testing.assert_allclose(crop[0], whole[start : start + 600], atol=1e-5)


def pages_of(data: bytes) -> list[tuple[int, int]]:
    starts = [at for at in range(len(data)) if data[at : at + 5] == b"OggS\0"]
    return list(zip(starts, [*starts[1:], len(data)], strict=True))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_damaged_and_cut_ogg_give_a_warning(tmp_path: Path, subtype: str) -> None:
    data = encoded("OGG", subtype, 8.0)
    pages = pages_of(data)
    start, stop = pages[-3]
    damaged = bytearray(data)
    damaged[(start + stop) // 2] ^= 255
    cut = data[: pages[-2][1] - 100]
    for broken in (bytes(damaged), data[:start] + data[stop:], cut, data[: pages[-2][1]]):
        reading = read_all_ways(broken, tmp_path)
        assert reading.warnings
        assert reading.length <= 8 * RATE


def test_audio_beside_other_streams_is_read(tmp_path: Path) -> None:
    """As in videos; two audio streams that play at the same time are refused."""
    data = encoded("OGG", "VORBIS", 2.0)
    pages = pages_of(data)
    first = data[slice(*pages[0])]
    other = bytearray(first)
    other[14:18] = b"abcd"  # serial number of the stream
    assert "2 audio streams" in refusal(first + rechecked(other) + data[pages[0][1] :])
    other[28:35] = b"\x80theora"
    mixed = first + rechecked(other) + data[pages[0][1] :]
    reading = read_all_ways(mixed, tmp_path)
    np.testing.assert_array_equal(reading.samples, read(io.BytesIO(data)).samples)


def rechecked(page: bytearray) -> bytes:
    """Return a page with the right checksum."""
    page[22:26] = bytes(4)
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    page[22:26] = crc.to_bytes(4, "little")
    return bytes(page)


def test_ogg_full_of_damaged_pages_is_refused_without_checking_bytes_again_and_again() -> None:
    page = b"OggS\0\0" + b"\xff" * 21
    data = b"OggS\0\2" + bytes(20) + b"\xff" + page * 40_000
    assert "damaged in too many places" in refusal(data)
