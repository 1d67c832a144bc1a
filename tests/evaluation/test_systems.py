"""Systems under test: installed programs, invalid names, and file formats."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.alignment import RATE, find_delay
from codectool.evaluation.signals import Signal
from codectool.evaluation.systems import external, ffmpeg
from codectool.evaluation.systems.ffmpeg import FFMPEG_CODECS
from codectool.evaluation.systems.ogg import packets
from codectool.evaluation.systems.spec import CodecSpec, SystemSpec, check_names

# name, program, nominal kbit/s, maximum delay in ms
PROGRAMS = [
    ("codec2@3200", "c2enc", 3.2, 30),
    ("codec2@1300", "c2enc", 1.3, 30),
    ("codec2@700C", "c2enc", 0.7, 45),
    ("opus@6", "opusenc", 6, 1),
    ("opus@12", "opusenc", 12, 1),
    ("speex@2", "speexenc", 5.95, 15),
    ("speex@5wb", "speexenc", 16.8, 15),
    ("gsm", "ffmpeg", 13.2, 1),
]


def syllables(seconds: float, rate: int) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    rng = np.random.default_rng(0)
    pulses = np.zeros(len(time))
    pulses[:: rate // 120] = 1
    voice = np.convolve(pulses, np.exp(-np.arange(rate // 100) / (rate / 900)))[: len(time)]
    loud = np.repeat(rng.uniform(0, 1, int(seconds * 8) + 1), rate // 8)[: len(time)]
    wave = (0.2 * voice + 0.01 * rng.normal(size=len(time))) * loud
    return wave.astype(np.float32)


@pytest.mark.parametrize(("name", "program", "kbps", "max_delay"), PROGRAMS)
@pytest.mark.parametrize("rate", [16000, 44100])
def test_external_codec_has_nominal_bit_rate_and_delay(
    name: str, program: str, kbps: float, max_delay: float, rate: int
) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    clip = syllables(3.1, rate)
    coded = SystemSpec(name, name).load().code(clip, rate)
    # Opus has a variable bit rate
    assert coded.cost.payload_bits / 3100 == pytest.approx(kbps, rel=0.4 if "opus" in name else 0.2)
    assert coded.cost.payload_bits <= 8 * coded.cost.file_bytes
    assert coded.cost.encode_seconds >= 0
    assert coded.wave.dtype == np.float32
    signals = Signal(clip, rate), Signal(coded.wave, coded.rate)
    assert signals[1].seconds >= signals[0].seconds - 0.06
    delay = 1000 * find_delay(*(signal.at(RATE) for signal in signals)) / RATE
    assert -1 <= delay <= max_delay


@pytest.mark.parametrize(("name", "program", "kbps", "max_delay"), PROGRAMS)
def test_external_codec_codes_one_sample(
    name: str, program: str, kbps: float, max_delay: float
) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    coded = SystemSpec(name, name).load().code(np.full(1, 0.5, np.float32), 16000)
    assert np.isfinite(coded.wave).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("codec2@99", "write codec2@MODE with one of 3200"),
        ("codec2", "write codec2@MODE"),
        ("opus@1", "from 6 to 256"),
        ("opus@nan", "from 6 to 256"),
        ("opus", "write opus@KBPS"),
        ("opus-nolace@1", "write opus-nolace@KBPS, from 6 to 256"),
        ("speex@11", "speex@QUALITY, 0 to 10"),
        ("amrwb", "write amrwb@KBPS with one of 6.6, 8.85"),
        ("gsm@13", "write gsm without a bit rate"),
        ("mp3@64", "there is no codec `mp3@64`; examples are codec2@1300"),
    ],
)
def test_system_spec_rejects_invalid_name(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SystemSpec(name, name).load()


@pytest.mark.parametrize(
    ("name", "program", "pattern"),
    [
        ("opus@6", "opusenc", r"libopus \d+\.\d+\S*"),
        ("speex@2", "speexenc", r"version \d+\.\d+\S*"),
        ("gsm", "ffmpeg", r"ffmpeg version \S+"),
        ("codec2@1300", "c2enc", ""),
    ],
)
def test_external_codec_states_its_version(name: str, program: str, pattern: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    assert re.fullmatch(pattern, SystemSpec(name, name).version)


def test_version_of_a_program_that_prints_none_or_fails() -> None:
    assert external.find_version("codectool-no-such --version", ".*") == ""
    assert external.find_version("true", r"\d+") == ""
    assert external.find_version("echo libopus 1.6-rc1, x", r"libopus [\w.-]+") == "libopus 1.6-rc1"


def test_check_names_rejects_duplicates() -> None:
    check_names(["a", "b"])
    with pytest.raises(UsageError, match="two systems have the name `a`; write NAME=PATH"):
        check_names(["a", "b", "a"])


def test_missing_program_is_reported_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"no program `c2enc` on PATH; .* package `codec2`"):
        SystemSpec("x", "codec2@1300").load()


def test_ffmpeg_without_the_encoder_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external.shutil, "which", lambda name: name)
    monkeypatch.setattr(ffmpeg, "_encoders", set)
    with pytest.raises(UsageError, match="built without the encoder libvo_amrwbenc"):
        SystemSpec("x", "amrwb@6.6").load()


def test_run_reports_a_failing_or_missing_program(tmp_path: Path) -> None:
    with pytest.raises(CodectoolError, match=r"`sh -c echo no >&2; exit 3` failed: no"):
        external.run(["sh", "-c", "echo no >&2; exit 3"], tmp_path)
    with pytest.raises(CodectoolError, match="`codectool-no-such` cannot be run"):
        external.run(["codectool-no-such"], tmp_path)


def ogg_page(segments: list[int]) -> bytes:
    return b"OggS" + bytes(22) + bytes([len(segments), *segments]) + bytes(sum(segments))


def test_packets_of_ogg_pages() -> None:
    # 255 continues a packet, also on the next page; 510 bytes end with an empty segment
    file = ogg_page([19]) + ogg_page([7, 255, 255]) + ogg_page([45, 255, 255, 0])
    assert list(map(len, packets(file))) == [19, 7, 555, 510]
    for bad in (b"RIFF" + bytes(40), file + b"OggS"):
        with pytest.raises(CodectoolError, match="no Ogg page at byte"):
            packets(bad)


def test_amr_payload_bits_by_mode() -> None:
    """RFC 4867: a mode 0 frame of AMR-WB is 132 bits in 17 bytes, of AMR 95 bits in 12."""
    wide = b"#!AMR-WB\n" + (bytes([0 << 3]) + bytes(17)) * 3 + bytes([15 << 3])
    assert FFMPEG_CODECS["amrwb"].payload_bits(wide) == 3 * 132
    narrow = b"#!AMR\n" + bytes([0]) + bytes(12) + bytes([7 << 3]) + bytes(31) + bytes([8 << 3])
    assert FFMPEG_CODECS["amrnb"].payload_bits(narrow) == 95 + 244 + 39
    with pytest.raises(CodectoolError, match="not an AMR file"):
        FFMPEG_CODECS["amrnb"].payload_bits(b"RIFF")


def test_codectool_codec_as_a_system(checkpoints: dict[str, Path]) -> None:
    spec = SystemSpec("x", codec=CodecSpec(None, checkpoints["hac"], device="cpu"))
    assert spec.on_cpu
    anywhere = SystemSpec("x", codec=CodecSpec(None, checkpoints["hac"]))
    assert anywhere.on_cpu == (anywhere.codec.load().device.type == "cpu")
    clip = syllables(1.0, 16000)
    coded = spec.load().code(clip, 16000)
    assert (len(coded.wave), coded.rate) == (16000, 16000)
    assert coded.cost.payload_bits == 75 * 18
    assert coded.cost.file_bytes > 75 * 18 / 8
