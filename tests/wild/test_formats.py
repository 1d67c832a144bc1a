"""Formats that FFmpeg reads, through PyAV: other people's files, playlists, damage, no PyAV."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.audio.source import open_audio
from codectool.errors import AudioError
from tests.signals import Pipe, speechlike

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
RATE = 24000


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments], check=True)


def wav(path: Path, seconds: float = 1.0, rate: int = RATE) -> Path:
    soundfile.write(path, speechlike(seconds, rate)[0], rate)
    return path


def convert(path: Path, *options: str, seconds: float = 1.0) -> Path:
    ffmpeg("-i", wav(path.with_name("source.wav"), seconds), *options, path)
    path.with_name("source.wav").unlink()
    return path


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    with open_audio(path, str(path)) as audio:
        return np.concatenate(list(audio.chunks()), axis=1), audio.warnings


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)


def test_ranges_equal_the_whole_file(tmp_path: Path) -> None:
    path = convert(tmp_path / "a.m4a", seconds=5.0)
    whole, warnings = read(path)
    assert not warnings
    with open_audio(path, "a") as audio:
        assert audio.seekable
        for first, count in ((0, 1000), (70000, 12345), (100000, None), (10**9, 5)):
            stop = None if count is None else first + count
            chunks = [np.zeros((1, 0), np.float32), *audio.chunks(first, count)]
            np.testing.assert_array_equal(np.concatenate(chunks, axis=1), whole[:, first:stop])


def test_chunks_are_neither_tiny_nor_the_whole_file(tmp_path: Path) -> None:
    with open_audio(convert(tmp_path / "a.m4a", seconds=10.0), "a") as audio:
        sizes = [chunk.shape[1] for chunk in audio.chunks()]
    assert len(sizes) > 2
    assert all(1 << 16 <= size < 1 << 17 for size in sizes[:-1])


def test_pipe_is_read_to_its_end_first(tmp_path: Path) -> None:
    path = convert(tmp_path / "a.m4a")  # with its index at the end
    whole, _ = read(path)
    pipe = io.BufferedReader(Pipe(path.read_bytes()))
    with open_audio(pipe, "in") as audio:  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.concatenate(list(audio.chunks()), axis=1), whole)


def test_content_decides_the_format(tmp_path: Path) -> None:
    whole, _ = read(convert(tmp_path / "a.m4a"))
    np.testing.assert_array_equal(
        read((tmp_path / "a.m4a").rename(tmp_path / "a.wav"))[0],
        whole,
    )


def test_audio_of_a_video_is_read(tmp_path: Path) -> None:
    video = ("-f", "lavfi", "-i", "testsrc=size=64x64:duration=4")
    source = wav(tmp_path / "source.wav")
    for name in ("a.mp4", "a.mkv", "a.webm"):
        ffmpeg(*video, "-i", source, tmp_path / name)
        samples, warnings = read(tmp_path / name)
        assert abs(samples.shape[1] - (48000 if name == "a.webm" else RATE)) < 2048
        assert not warnings  # the video is longer, which is no fault of the audio


def test_second_audio_stream_is_warned_about(tmp_path: Path) -> None:
    first, second = wav(tmp_path / "1.wav", 1.0), wav(tmp_path / "2.wav", 2.0)
    ffmpeg("-i", first, "-i", second, "-map", "0", "-map", "1", tmp_path / "a.m4a")
    samples, warnings = read(tmp_path / "a.m4a")
    assert abs(samples.shape[1] - RATE) < 2048
    assert warnings == [f"{tmp_path / 'a.m4a'}: the first of 2 audio streams was read"]


def test_video_without_audio_is_refused(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x64:duration=1", tmp_path / "a.mp4")
    with pytest.raises(AudioError, match=r"a\.mp4: holds no audio$"):
        read(tmp_path / "a.mp4")


@pytest.mark.parametrize("suffix", ["m3u8", "m4a", "wav"])
@pytest.mark.parametrize("kind", ["hls", "m3u", "ffconcat", "sdp", "image2"])
def test_playlists_open_no_other_file(tmp_path: Path, kind: str, suffix: str) -> None:
    part = tmp_path / "part.ts"
    convert(part, "-f", "mpegts")
    text = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{part}\n#EXT-X-ENDLIST\n",
        "m3u": f"#EXTM3U\n{part}\n",
        "ffconcat": f"ffconcat version 1.0\nfile {part}\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        "image2": f"file:{part}\n",
    }[kind]
    path = tmp_path / f"list.{suffix}"
    path.write_text(text)
    with pytest.raises(AudioError, match=f"list.{suffix}: not audio"):
        read(path)


def test_change_of_rate_is_refused(tmp_path: Path) -> None:
    ffmpeg("-i", wav(tmp_path / "1.wav", rate=24000), tmp_path / "1.aac")
    ffmpeg("-i", wav(tmp_path / "2.wav", rate=48000), tmp_path / "2.aac")
    both = tmp_path / "both.aac"
    both.write_bytes((tmp_path / "1.aac").read_bytes() + (tmp_path / "2.aac").read_bytes())
    with pytest.raises(
        AudioError, match=r"both\.aac: sampling rate or channels change after 1\.. s"
    ):
        read(both)


@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "a.wma", "a.tta"])
def test_cut_file_is_warned_about(tmp_path: Path, name: str) -> None:
    path = convert(tmp_path / name, "-movflags", "faststart", seconds=3.0)
    assert not read(path)[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    samples, warnings = read(path)
    assert 0 < samples.shape[1] < 2.0 * RATE
    assert "its header states" in warnings[-1]


def test_whole_delay_of_opus_is_skipped(tmp_path: Path) -> None:
    # FFmpeg 8 counts it at the rate that the container states, ffmpeg 5 does so in mp4
    waves = []
    for name in ("a.webm", "a.mp4"):
        ffmpeg("-i", wav(tmp_path / "source.wav", rate=16000), "-c:a", "libopus", tmp_path / name)
        waves.append(read(tmp_path / name)[0])
    assert waves[0].shape == (1, 48000)
    np.testing.assert_array_equal(waves[0], waves[1][:, :48000])


def test_damaged_packets_are_warned_about(tmp_path: Path) -> None:
    path = convert(tmp_path / "a.aac", seconds=3.0)
    data = bytearray(path.read_bytes())
    middle = data.index(b"\xff\xf1", len(data) // 2)
    data[middle + 8 : middle + 40] = bytes(range(100, 132))
    path.write_bytes(data)
    _, warnings = read(path)
    assert warnings
    assert "packets are damaged" in warnings[0]


@pytest.mark.usefixtures("without_av")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.m4a", "MP4"),
        ("a.webm", "Matroska"),
        ("a.wma", "ASF"),
        ("a.aac", "AAC"),
        ("a.ac3", "AC-3"),
        ("a.wv", "WavPack"),
        ("a.tta", "TTA"),
    ],
)
def test_without_pyav_the_message_says_what_to_do(tmp_path: Path, name: str, kind: str) -> None:
    path = convert(tmp_path / name)
    with pytest.raises(AudioError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: is {kind}")
    assert "pip install 'codectool[formats]'" in message
    assert f"ffmpeg -i {path} {path}.wav" in message


@pytest.mark.parametrize("content", [b"", b"text\n" * 100, b"\0" * 4000, b"\1\2\3\4" * 50])
def test_other_content_is_not_audio(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"a\.wav: (not audio|is empty)"):
        read(path)
