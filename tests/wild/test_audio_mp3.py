"""MP3 from pipes and radio streams, joined, cut and damaged."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio.files import read_crop
from codectool.audio.source import open_audio
from codectool.errors import AudioError
from tests.signals import speechlike
from tests.wild.reading import read, read_all_ways

RATE = 24000
FRAME = 576
SECONDS = 4.0
LENGTH = round(SECONDS * RATE)
KBPS_MPEG1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KBPS_MPEG2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
ID3 = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)


def encoded(rate: int = RATE, channels: int = 1, mode: str = "VARIABLE") -> bytes:
    """Return an MP3 file with a Xing header, as libsndfile writes it with LAME."""
    file = io.BytesIO()
    wave = speechlike(SECONDS, rate, channels).T
    soundfile.write(file, wave, rate, format="MP3", bitrate_mode=mode, compression_level=0.6)
    return file.getvalue()


def frames_of(data: bytes) -> list[tuple[int, int]]:
    """Return start and end of all frames, the one with the Xing header first."""
    bounds = []
    at = 0
    while at < len(data):
        assert data[at] == 0xFF
        version, bits = data[at + 1] >> 3 & 3, data[at + 2]
        rate = (44100, 48000, 32000)[bits >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]
        kbps = (KBPS_MPEG1 if version == 3 else KBPS_MPEG2)[(bits >> 4) - 1]
        size = (144 if version == 3 else 72) * 1000 * kbps // rate + (bits >> 1 & 1)
        bounds.append((at, at + size))
        at += size
    return bounds


def without_tag(data: bytes) -> bytes:
    return data[frames_of(data)[0][1] :]


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT", "AVERAGE"])
@pytest.mark.parametrize(("rate", "channels"), [(24000, 1), (44100, 2), (8000, 1), (48000, 1)])
def test_streams_without_xing_header_are_read_whole(
    tmp_path: Path, mode: str, rate: int, channels: int
) -> None:
    data = encoded(rate, channels, mode)
    samples = 1152 if rate > 24000 else 576
    reading = read_all_ways(without_tag(data), tmp_path)
    assert (reading.length, reading.rate) == ((len(frames_of(data)) - 1) * samples, rate)
    assert reading.warnings == []
    whole = read(io.BytesIO(data)).samples
    delay = 576 + 529  # of LAME; the header says so
    kept = reading.samples[:, delay : delay + whole.shape[1]]
    np.testing.assert_allclose(kept, whole, atol=1e-6)


def test_files_with_right_header_are_decoded_as_by_libsndfile(tmp_path: Path) -> None:
    data = encoded()
    reading = read_all_ways(ID3 + data + b"TAG" + bytes(125), tmp_path)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_allclose(reading.samples[0], expected, rtol=0, atol=1e-6)
    assert (reading.length, reading.warnings) == (LENGTH, [])


def test_files_are_decoded_without_a_seam_between_chunks(tmp_path: Path) -> None:
    """`SoundFile.read` seeks after each read, which damages what follows."""
    file = io.BytesIO()
    soundfile.write(file, speechlike(9.0, RATE).T, RATE, format="MP3", bitrate_mode="VARIABLE")
    reading = read_all_ways(file.getvalue(), tmp_path)
    expected, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")  # in one call
    np.testing.assert_allclose(reading.samples[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stated", [0, 10])
def test_wrong_number_of_frames_in_xing_header_is_corrected(tmp_path: Path, stated: int) -> None:
    data = bytearray(encoded())
    at = data.index(b"Xing") + 8
    data[at : at + 4] = stated.to_bytes(4, "big")
    reading = read_all_ways(bytes(data), tmp_path)
    assert reading.length == (len(frames_of(encoded())) - 1) * FRAME - 1105
    assert reading.warnings == []


def test_joined_files_are_read_whole(tmp_path: Path) -> None:
    data = encoded()
    frames = len(frames_of(data))
    joined = read_all_ways(data + data, tmp_path)
    assert joined.length == (2 * frames - 1) * FRAME - 1105  # as ffmpeg
    bare = without_tag(data)
    tagged = bare + b"TAG" + bytes(125) + ID3 + bare
    assert read_all_ways(tagged, tmp_path).length == 2 * (frames - 1) * FRAME
    assert read_all_ways(tagged, tmp_path).warnings == []


@pytest.mark.parametrize("junk", [b"", b"RADIO" * 100, bytes(3000)])
def test_streams_that_begin_within_a_frame_are_read(tmp_path: Path, junk: bytes) -> None:
    data = encoded()
    bounds = frames_of(data)
    start = bounds[20][0] + 7
    reading = read_all_ways(junk + data[start:], tmp_path)
    assert reading.length == (len(bounds) - 21) * FRAME
    assert reading.warnings == []
    whole = read(io.BytesIO(without_tag(data))).samples
    late = 20 * FRAME  # frames whose data were lost are silent
    np.testing.assert_allclose(
        reading.samples[:, late:], whole[:, -reading.length + late :], atol=1e-6
    )


def test_cut_files_give_a_warning_with_both_lengths(tmp_path: Path) -> None:
    data = encoded()
    reading = read_all_ways(data[: len(data) // 2], tmp_path)
    assert any(f"promises {SECONDS:.2f} s ({LENGTH} samples)" in line for line in reading.warnings)
    bare = without_tag(data)
    reading = read_all_ways(bare[: len(bare) // 2 + 3], tmp_path)
    assert any("ends within a frame" in line for line in reading.warnings)


def test_damage_gives_a_warning_and_nothing_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded()
    bounds = frames_of(data)
    start, stop = bounds[50][0], bounds[60][0]
    removed = read_all_ways(data[: start + 9] + data[stop + 5 :], tmp_path)
    zeros = read_all_ways(data[:start] + bytes(stop - start) + data[stop:], tmp_path)
    noise = np.random.default_rng(1).bytes(stop - start)
    overwritten = read_all_ways(data[:start] + noise + data[stop:], tmp_path)
    inserted = read_all_ways(data[:start] + noise + data[start:], tmp_path)
    for reading in (removed, zeros, overwritten, inserted):
        assert reading.warnings
    assert inserted.length == LENGTH
    assert LENGTH - 13 * FRAME <= removed.length < LENGTH
    content = bytearray(data)  # headers stay intact
    for begin, end in bounds[30:60]:
        content[begin + 30 : end] = np.random.default_rng(begin).bytes(end - begin - 30)
    with suppress(AudioError):  # may be too loud to be audio
        read(io.BytesIO(bytes(content)))
    assert capfd.readouterr() == ("", "")


def test_a_change_of_the_sampling_rate_is_refused(tmp_path: Path) -> None:
    data = without_tag(encoded(24000)) + without_tag(encoded(16000))
    with pytest.raises(AudioError, match=r"changes after 4\.\d\d s; split the file there"):
        read(io.BytesIO(data))


def test_frames_of_unknown_size_are_refused() -> None:
    """Free format: the bit rate in the header is 0."""
    data = bytearray(without_tag(encoded()))
    for begin, _ in frames_of(bytes(data)):
        data[begin + 2] &= 0x0F
    with pytest.raises(AudioError, match="in: "):
        read(io.BytesIO(bytes(data)))


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("rate", [48000, 22050, 8000])
@pytest.mark.parametrize("tag", [True, False])
def test_crops_equal_crops_of_the_whole_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str, rate: int, tag: bool
) -> None:
    """A crop needs the bit reservoir of frames before it."""
    data = encoded(rate, 1, mode)
    path = tmp_path / "a.mp3"
    path.write_bytes(data if tag else without_tag(data))
    whole = read(path).samples
    for start in (0, 5000, 17_777, whole.shape[1] // 2, whole.shape[1] - 3000):
        crop = read_crop(path, start, 2000, rate)
        np.testing.assert_array_equal(crop, whole[:, start : start + 2000])
    assert capfd.readouterr() == ("", "")


def test_a_source_can_be_read_again_and_from_any_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(without_tag(encoded()))
    with open_audio(path, "a") as audio:
        first = np.concatenate([*audio.chunks()], axis=1)
        late = np.concatenate([*audio.chunks(50_000, 999)], axis=1)
        again = np.concatenate([*audio.chunks()], axis=1)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(late, first[:, 50_000:50_999], atol=1e-6)
