"""Audio to .hcd to audio by the commands."""

from __future__ import annotations

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

import codectool
from tests.cli.conftest import Options, Run
from tests.conftest import shared

FAMILIES = ["bigcodec", "supercodec", "hac"]


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_info_verify_decode(
    run: Run, speech: Path, tmp_path: Path, checkpoints: dict[str, Path], family: str
) -> None:
    packed, back = tmp_path / "out.hcd", tmp_path / "back.wav"
    result = run("encode", speech, packed, "--model", family, "--checkpoint", checkpoints[family],
                 "--tag", "speaker=p253", "--tag", "text=a=b", "--device", "cpu")  # fmt: skip
    assert (result.code, result.out, result.err) == (0, b"", "")

    metadata = json.loads(run("info", packed, "--json").text)
    assert metadata["codec"] == family
    assert metadata["num_samples"] == 11025
    assert (metadata["sample_rate"], metadata["channels"]) == (22050, 2)
    assert metadata["tags"] == {"speaker": "p253", "text": "a=b"}
    assert metadata["file_bytes"] == packed.stat().st_size
    assert metadata["checkpoint"].startswith(str(checkpoints[family].resolve()))

    assert run("verify", packed).text == f"{packed}: ok, 1 block, 0.500 s\n"

    # without --model and --checkpoint: the file names its weights, and encode registered them
    assert run("decode", packed, back, "--device", "cpu").code == 0
    audio, rate = soundfile.read(back, dtype="float32")
    assert (audio.shape, rate) == ((11025, 2), 22050)
    assert soundfile.info(back).subtype == "PCM_16"
    codec = codectool.load(family, checkpoints[family], device="cpu")
    # channels in one batch differ by rounding, which may cross a step of 16 bits
    np.testing.assert_allclose(
        audio.T, np.clip(codec.decode(codectool.read(packed)), -1, 1), atol=2**-15 + 1e-6
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_and_decode_through_pipes(
    run: Run, speech: Path, checkpoints: dict[str, Path], family: str
) -> None:
    chosen = ("--checkpoint", checkpoints[family], "--device", "cpu")
    packed = run("encode", "-", "-", *chosen, stdin=speech.read_bytes())
    assert packed.code == 0
    assert packed.out.startswith(b"HCD\x01")
    metadata = json.loads(run("info", "-", "--json", stdin=packed.out).text)
    assert (metadata["file"], metadata["file_bytes"]) == ("<stdin>", len(packed.out))
    assert run("verify", "-", stdin=packed.out).code == 0
    for container in ("wav", "flac"):
        back = run("decode", "-", "-", "--format", container, "--device", "cpu", stdin=packed.out)
        audio, rate = soundfile.read(io.BytesIO(back.out))
        assert (audio.shape, rate) == ((11025, 2), 22050)


def test_encode_reads_named_pipes(run: Run, speech: Path, tmp_path: Path, hac: Options) -> None:
    """A shell passes such a name for `<(...)`; it can be read once."""
    pipe, out = tmp_path / "pipe", tmp_path / "out.hcd"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pipe.write_bytes, speech.read_bytes())
        done = run("encode", pipe, out, *hac)
    assert (done.code, done.err) == (0, "")
    assert codectool.read(out).num_samples == 11025


def test_encode_and_decode_write_to_named_pipes(
    run: Run, speech: Path, tmp_path: Path, hac: Options
) -> None:
    """A named pipe as OUTPUT is written to and not replaced."""
    pipe, packed = tmp_path / "pipe", tmp_path / "out.hcd"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pipe.read_bytes)
        done = run("encode", speech, pipe, *hac)
        packed.write_bytes(reading.result(10))
        assert (done.code, done.err) == (0, "")
        assert run("verify", packed).code == 0
        reading = pool.submit(pipe.read_bytes)
        assert run("decode", packed, pipe, *hac).code == 0
        assert soundfile.info(io.BytesIO(reading.result(10))).frames == 11025
    assert pipe.is_fifo()


def test_default_output_names(run: Run, speech: Path, hac: Options) -> None:
    assert run("encode", speech, *hac).code == 0
    packed = speech.with_suffix(".hcd")
    assert packed.exists()
    assert run("decode", packed, "--format", "flac", "--device", "cpu").code == 0
    assert soundfile.info(speech.with_suffix(".flac")).format == "FLAC"


@pytest.mark.parametrize("container", ["flac", "ogg", "mp3"])
def test_encode_reads_other_formats(run: Run, tmp_path: Path, hac: Options, container: str) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    source = tmp_path / f"x.{container}"
    soundfile.write(source, wave, 16000)
    expected = soundfile.info(source).frames
    out = tmp_path / "x.hcd"
    assert run("encode", source, out, *hac).code == 0
    assert codectool.read(out).num_samples == expected


def test_decode_output_formats(run: Run, speech: Path, tmp_path: Path, hac: Options) -> None:
    packed = tmp_path / "x.hcd"
    run("encode", speech, packed, *hac)
    float_wav, flac = tmp_path / "f.wav", tmp_path / "f.flac"
    assert run("decode", packed, float_wav, "--subtype", "float", "--device", "cpu").code == 0
    assert soundfile.info(float_wav).subtype == "FLOAT"
    assert run("decode", packed, flac, "--subtype", "PCM_24", "--device", "cpu").code == 0
    assert (soundfile.info(flac).format, soundfile.info(flac).subtype) == ("FLAC", "PCM_24")
    refused = run("decode", packed, tmp_path / "g.flac", "--subtype", "DOUBLE", "--device", "cpu")
    assert refused.code == 2
    assert "flac cannot hold subtype DOUBLE; it can hold" in refused.err


def test_decode_range_and_native_rate(run: Run, speech: Path, tmp_path: Path, hac: Options) -> None:
    packed, out = tmp_path / "x.hcd", tmp_path / "x.wav"
    run("encode", speech, packed, *hac)
    cut = ("--start", "0:00:00.1", "--duration", "0.2")
    assert run("decode", packed, out, *cut, "--device", "cpu").code == 0
    assert soundfile.info(out).frames == 4410
    assert run("decode", packed, out, "--native-rate", "--overwrite", "--device", "cpu").code == 0
    assert (soundfile.info(out).samplerate, soundfile.info(out).frames) == (24000, 12000)


def test_encode_uses_codebooks_padding_and_block_length(
    run: Run, speech: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    out = tmp_path / "x.hcd"
    run("encode", speech, out, "--checkpoint", checkpoints["supercodec"], "--codebooks", 1,
        "--padding", "reference", "--block-seconds", 0.1, "--device", "cpu")  # fmt: skip
    metadata = json.loads(run("info", "--json", out).text)
    assert metadata["bits_per_codebook"] == metadata["bits_per_stream"] == [6]
    assert metadata["num_samples"] == 11025
    assert (metadata["block_frames"], metadata["blocks"]) == (80, 5)


def test_info_prints_a_table(run: Run, speech: Path, tmp_path: Path, hac: Options) -> None:
    out = tmp_path / "x.hcd"
    run("encode", speech, out, *hac, "--tag", "evil=\x1b[2J\n!")
    lines = dict(line.split("  ", 1) for line in run("info", out).text.splitlines())
    metadata = {key.strip(): value.strip() for key, value in lines.items()}
    assert metadata["codec"] == "hac, profile hac"
    assert metadata["audio"] == "0.500 s, 11025 samples at 22050 Hz, 2 channels"
    assert metadata["model"] == "24000 Hz, hop length 320, frame rate 75 Hz"
    assert metadata["tokens"] == "38 frames of 18 bits"
    assert metadata["tag evil"] == "\\x1b[2J\\n!"  # no control characters


def test_info_works_without_the_weights(
    run: Run, tmp_path: Path, codecs: dict[str, codectool.Codec]
) -> None:
    path = tmp_path / "x.hcd"
    codectool.write(path, codecs["hac"].encode(np.zeros(100, np.float32), 24000))
    assert "not found on this machine" in run("info", path).text
    refused = run("decode", path, tmp_path / "x.wav")
    assert refused.code == 2
    assert "no weights on this machine are known to decode them" in refused.err


def test_verify_json(run: Run, speech: Path, tmp_path: Path, hac: Options) -> None:
    good, bad = tmp_path / "good.hcd", tmp_path / "bad.hcd"
    run("encode", speech, good, *hac)
    bad.write_bytes(good.read_bytes()[:-1])
    result = run("verify", "--json", good, bad, tmp_path / "none.hcd")
    rows = [json.loads(line) for line in result.text.splitlines()]
    assert result.code == 2
    assert [row["ok"] for row in rows] == [True, False, False]
    assert "cut off" in rows[1]["errors"][0]
    assert "no such file" in rows[2]["errors"][0]


def test_decode_conceal_exits_3(run: Run, speech: Path, tmp_path: Path, hac: Options) -> None:
    packed, out = tmp_path / "x.hcd", tmp_path / "x.wav"
    run("encode", speech, packed, *hac, "--block-seconds", 0.1)
    data = bytearray(packed.read_bytes())
    data[-8] ^= 4
    packed.write_bytes(data)
    assert run("decode", packed, out, "--device", "cpu").code == 2
    assert not out.exists()
    result = run("decode", packed, out, "--conceal", "--device", "cpu")
    assert result.code == 3
    assert result.err.startswith("warning: ")
    assert "block 4 (0:00.4 to 0:00.5)" in result.err
    assert soundfile.info(out).frames == 11025


@pytest.mark.parametrize("family", FAMILIES)
def test_real_speech_round_trip(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path], family: str
) -> None:
    clips = sorted(shared("speech", "smoke").glob("*.flac"))
    assert len(clips) == 6
    for clip in clips:
        packed, back = tmp_path / f"{clip.stem}.hcd", tmp_path / f"{clip.stem}.wav"
        done = run("encode", clip, packed, "--checkpoint", checkpoints[family], "--device", "cpu")
        assert done.code == 0
        assert run("decode", packed, back, "--device", "cpu").code == 0
        before, after = soundfile.info(clip), soundfile.info(back)
        assert (after.frames, after.samplerate) == (before.frames, before.samplerate)


def test_option_names_of_earlier_versions_still_work(
    run: Run, speech: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    chosen = ("--checkpoint", checkpoints["supercodec"], "--device", "cpu")
    new = ("--codebooks", 1, "--padding", "reference")
    old = ("--quantizers", 1, "--framing", "upstream")
    for name, options in (("new", new), ("old", old)):
        assert run("encode", speech, tmp_path / f"{name}.hcd", *chosen, *options).code == 0
    assert (tmp_path / "new.hcd").read_bytes() == (tmp_path / "old.hcd").read_bytes()
    assert "--quantizers" not in run("encode", "--help").text
