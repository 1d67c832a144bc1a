"""Pipes: output is written while samples arrive."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

import codectool
from codectool.audio.wav import RAW_FORMATS as READABLE
from codectool.cli.encode import RAW_FORMATS
from tests.cli.conftest import Options, Run
from tests.signals import speechlike

RATE = 24000


@contextmanager
def running(*arguments: object, **files: object) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "codectool", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **(pipes | files)) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def pcm(seconds: float) -> bytes:
    return (speechlike(seconds, RATE)[0] * 32767).astype("<i2").tobytes()


def raw(rate: int = RATE) -> Options:
    return "--input-format", "s16le", "--input-rate", rate


def test_live_encoder_and_decoder_write_while_input_arrives(
    checkpoints: dict[str, Path], hac: Options
) -> None:
    """Decoded audio arrives before the encoder has seen the end of its input."""
    with (
        running("encode", "-", "-", "--live", *raw(), *hac) as encoder,
        running("decode", "-", "-", *hac, stdin=encoder.stdout) as decoder,
    ):
        assert encoder.stdin is not None
        assert decoder.stdout is not None
        sound = pcm(2.0)
        encoder.stdin.write(sound[:RATE])  # half a second
        encoder.stdin.flush()
        early = decoder.stdout.read(44 + 2000)  # header and samples
        assert early.startswith(b"RIFF")
        encoder.stdin.write(sound[RATE:])
        encoder.stdin.close()
        heard = early + decoder.stdout.read()
        assert (encoder.wait(), decoder.wait()) == (0, 0)
    samples, rate = soundfile.read(io.BytesIO(heard), dtype="float32")
    assert (len(samples), rate) == (2 * RATE, RATE)
    codec = codectool.load("hac", checkpoints["hac"], device="cpu")
    wave = np.frombuffer(sound, "<i2").astype(np.float32) / 32768
    whole = codec.decode(codec.encode(wave, RATE))[0]
    assert np.abs(samples - whole).mean() < 1e-3  # a bit within rounding of zero may differ


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_live_recording_with_a_complete_file(
    tmp_path: Path, hac: Options, number: int
) -> None:
    target = tmp_path / "talk.hcd"
    with running(
        "encode", "-", target, "--live", *raw(), *hac,
    ) as recorder:  # fmt: skip
        assert recorder.stdin is not None
        recorder.stdin.write(pcm(1.0))
        recorder.stdin.flush()
        # The program has read all of it once a block of the unfinished file is on the disk.
        deadline = time.monotonic() + 60
        while sum(path.stat().st_size for path in tmp_path.glob(".talk*")) < 150:
            assert time.monotonic() < deadline
            assert recorder.poll() is None
            time.sleep(0.05)
        recorder.send_signal(number)
        assert recorder.wait(60) == 0
    tokens = codectool.read(target)
    assert tokens.num_samples == RATE
    assert list(tmp_path.iterdir()) == [target]


def test_pipe_to_pipe_writes_blocks_of_one_second(
    run: Run, tmp_path: Path, hac: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.wav"
    soundfile.write(source, speechlike(3.2, RATE).T, RATE)
    whole = tmp_path / "whole.hcd"
    assert run("encode", source, whole, *hac).code == 0
    with running("encode", "-", "-", *hac) as encoder:
        out, errors = encoder.communicate(source.read_bytes())
    assert (encoder.returncode, errors) == (0, b"")
    np.testing.assert_array_equal(
        codectool.read(io.BytesIO(out)).codes, codectool.read(whole).codes
    )
    metadata = run("info", "-", stdin=out).text
    assert "4 blocks of 75 frames" in metadata


def test_encode_reads_raw_samples(run: Run, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    assert list(READABLE) == list(RAW_FORMATS)
    source, target = tmp_path / "in.raw", tmp_path / "out.hcd"
    source.write_bytes(np.zeros((2, 8000), "<f4").tobytes())
    raw_pairs = ("--input-format", "f32le", "--input-rate", 8000, "--input-channels", 2)
    chosen = ("--checkpoint", checkpoints["bigcodec"], "--device", "cpu")
    done = run("encode", source, target, *raw_pairs, *chosen)
    assert (done.code, done.err) == (0, "")
    tokens = codectool.read(target)
    assert (tokens.num_samples, tokens.num_channels, tokens.sample_rate) == (8000, 2, 8000)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--input-rate", 16000), "raw input needs `--input-format` and `--input-rate`"),
        (("--input-format", "s16le"), "raw input needs `--input-format` and `--input-rate`"),
        (("--live", "--exact"), "`--live` cannot be combined with"),
        (("--live", "--padding", "reference"), "`--live` cannot be combined with"),
        ((*raw(900),), "a sampling rate of 900 Hz cannot carry speech"),
    ],
)
def test_encode_refuses_contradictory_options(
    run: Run, tmp_path: Path, speech: Path, hac: Options,
    options: Options, why: str,
) -> None:  # fmt: skip
    result = run("encode", speech, tmp_path / "out.hcd", *hac, *options)
    assert result.code == 2
    assert why in result.err
    assert not (tmp_path / "out.hcd").exists()


def test_exact_refuses_a_pipe(run: Run, speech: Path, checkpoints: dict[str, Path]) -> None:
    chosen = ("--checkpoint", checkpoints["supercodec"], "--device", "cpu")
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        os.write(writing, speech.read_bytes())
        os.close(writing)
        with running("encode", "-", "-", "--exact", *chosen, stdin=pipe) as process:
            _, errors = process.communicate()
    assert process.returncode == 2
    assert errors == (
        b"error: <stdin>: `--exact` reads its input several times, which a pipe cannot do; "
        b"give a file\n"
    )


def test_exact_encodes_long_files_without_segments(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    """A file longer than a segment; other models have no segments."""
    source = tmp_path / "in.wav"
    soundfile.write(source, speechlike(61.0, 16000).T, 16000)
    for family in ("supercodec", "bigcodec"):
        packed, back = tmp_path / f"{family}.hcd", tmp_path / f"{family}.wav"
        chosen = ("--checkpoint", checkpoints[family], "--device", "cpu")
        assert run("encode", source, packed, "--exact", *chosen).code == 0
        assert codectool.read(packed).segment_frames is None
        assert run("decode", packed, back).code == 0
        assert soundfile.info(back).frames == 61 * 16000


def test_only_a_bare_dash_is_a_pipe(
    run: Run, tmp_path: Path, speech: Path, hac: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the name `-` is given as `./-`."""
    monkeypatch.chdir(tmp_path)
    dash = tmp_path / "-"
    packed, back = tmp_path / "packed.hcd", tmp_path / "back.wav"
    speech.rename(dash)
    assert run("encode", "./-", packed, *hac).code == 0
    for name in ("./-", ".//-", "./././-"):
        assert run("compare", name, name, "--metric", "si_sdr_db").code == 0
    assert run("reconstruct", "./-", back, *hac).code == 0
    result = run("encode", "./-", "./-", *hac, "--overwrite")
    assert "is the input itself" in result.err
    dash.write_bytes(packed.read_bytes())
    for command in ("info", "verify"):
        result = run(command, "./-")
        assert (result.code, str(dash) in result.text) == (0, True)
    assert run("decode", "./-", back, "--overwrite", *hac).code == 0
    dash.unlink()
    for command in (
        ("decode", packed, "./-", *hac),
        ("encode", back, "./-", *hac, "--overwrite"),
        ("filelist", tmp_path, "-o", "./-", "--overwrite", "--min-seconds", 0),
    ):
        result = run(*command)
        assert (result.code, result.out, dash.exists()) == (0, b"", True), result
    listed = dash.read_bytes()
    in_list = ("--files-from", "./-", *hac)
    assert run("encode", tmp_path, "out", *in_list, stdin=b"nonsense").code == 0
    assert listed.startswith(b"back.wav\t")
    assert (tmp_path / "out/back.hcd").exists()
    report = run("encode", tmp_path, "out", *in_list, "--report", "./-")
    assert (report.code, dash.read_bytes().startswith(b'{"source"')) == (0, True)
    result = run("encode", tmp_path, "out", *hac, "--report", "-")
    assert (result.code, "give a file name for `--report`" in result.err) == (2, True)
