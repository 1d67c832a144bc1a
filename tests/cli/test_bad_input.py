"""Bad input: one line on stderr, exit code 2, no output file."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import codectool
from codectool.cli import main
from tests.cli.conftest import Options, Result, Run
from tests.conftest import GOLDEN


def assert_refused(result: Result, *parts: str) -> None:
    """Check for exit code 2 and one line on stderr with all parts."""
    assert result.code == 2, result
    assert result.out == b""
    assert result.err.startswith("error: "), result.err
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in result.err


@pytest.fixture
def packed(tmp_path: Path, codecs: dict[str, codectool.Codec]) -> Path:
    """Return a small file with five blocks and a tag."""
    wave = np.random.default_rng(1).normal(0, 0.1, 4000).astype(np.float32)
    path = tmp_path / "small.hcd"
    tokens = codecs["bigcodec"].encode(wave, 16000)
    codectool.write(path, tokens, {"k": "v"}, block_frames=5)
    return path


def wave_file(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    return path


def wav_that_promises(frames: int) -> bytes:
    """Return a WAV header that promises samples which do not follow."""
    size = min(frames * 2, 0xFFFFFFFF)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    return b"RIFF" + struct.pack("<I", size) + b"WAVE" + form + b"data" + struct.pack("<I", size)


def test_encode_refuses_files_that_are_not_audio(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    cases = {
        "text.wav": (b"hello, this is not audio at all", "not audio that libsndfile can read"),
        "empty.wav": (b"", "is empty (0 bytes)"),
        "cut.wav": (b"RIFF\x24\x00\x00\x00WAVEfm", "ends within its WAV header"),
    }
    out = tmp_path / "out.hcd"
    for name, (content, reason) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        chosen = ("--checkpoint", checkpoints["bigcodec"])
        assert_refused(run("encode", path, out, *chosen), str(path), reason)
        assert_refused(run("encode", "-", out, *chosen, stdin=content), "<stdin>", reason)
    assert_refused(run("encode", tmp_path / "no.wav", out, *chosen), "no.wav", "no such file")
    assert not out.exists()


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_encode_refuses_nan_and_infinite_samples(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path], bad: float, word: str
) -> None:
    samples = np.zeros((100, 2), np.float32)
    samples[17, 1] = bad
    path = wave_file(tmp_path / "nan.wav", samples)
    result = run("encode", path, "--checkpoint", checkpoints["bigcodec"])
    assert_refused(result, "nan.wav", f"sample 17 of channel 1 is {word}")
    assert not path.with_suffix(".hcd").exists()


def test_encode_does_not_trust_the_length_in_wav_headers(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    path, out = tmp_path / "huge.wav", tmp_path / "huge.hcd"
    path.write_bytes(wav_that_promises(1 << 31) + bytes(2000))
    chosen = ("--checkpoint", checkpoints["bigcodec"], "--device", "cpu")
    assert run("encode", path, out, *chosen).code == 0
    assert codectool.read(out).num_samples == 1000


def test_encode_refuses_a_checkpoint_of_another_family(
    run: Run, speech: Path, checkpoints: dict[str, Path]
) -> None:
    for family in checkpoints:
        for other, path in checkpoints.items():
            if other != family:
                result = run("encode", speech, "--model", family, "--checkpoint", path)
                assert_refused(result, f"is a {other} checkpoint; use `--model {other}`")


def test_encode_refuses_unusable_checkpoints(run: Run, speech: Path, tmp_path: Path) -> None:
    state = torch.load(GOLDEN / "bigcodec_micro.pt", weights_only=True)
    del state["generator"]["model.0.bias"]
    state["CodecEnc"]["extra"] = torch.zeros(1)
    state["CodecEnc"]["block.0.bias"] = torch.zeros(9)
    path = tmp_path / "bad.pt"
    torch.save(state, path)
    result = run("encode", speech, "--checkpoint", path)
    assert_refused(
        result,
        "bad.pt",
        "1 missing: generator.model.0.bias",
        "1 unexpected: CodecEnc.extra",
        "CodecEnc.block.0.bias (9,) instead of (2,)",
    )
    assert not speech.with_suffix(".hcd").exists()


def test_encode_refuses_a_pickle_that_runs_code(run: Run, speech: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"

    class Evil:
        def __reduce__(self) -> object:
            return os.system, (f"touch {proof}",)

    torch.save({"CodecEnc": Evil(), "generator": {}}, tmp_path / "evil.pt")
    result = run("encode", speech, "--checkpoint", tmp_path / "evil.pt")
    assert_refused(result, "evil.pt", "refused", "system", "nothing was run")
    assert not proof.exists()


def test_encode_without_weights_names_the_option(run: Run, speech: Path) -> None:
    pull = "run `codectool models pull bigcodec`"
    assert_refused(run("encode", speech, "--model", "bigcodec"), pull, "--checkpoint")
    assert_refused(run("encode", speech, "--model", "supercodec"), "g_XXXXXXXX", "--checkpoint")
    missing = run("encode", speech, "--checkpoint", "nowhere.pt")
    assert_refused(missing, "nowhere.pt: no such file or folder")


def test_outputs_are_not_overwritten(run: Run, speech: Path, hac: Options) -> None:
    out = speech.with_name("out.hcd")
    out.write_bytes(b"precious")
    assert_refused(run("encode", speech, out, *hac), "exists", "--overwrite")
    assert out.read_bytes() == b"precious"
    assert run("encode", speech, out, *hac, "--overwrite").code == 0
    assert out.read_bytes().startswith(b"HCD")
    assert_refused(run("encode", speech, speech, *hac, "--overwrite"), "is the input itself")
    assert_refused(run("encode", speech, speech.parent, *hac), "is a folder")
    assert_refused(run("encode", speech, speech.parent / "no" / "x.hcd", *hac), "no folder")


def test_newer_format_version_is_refused(run: Run, packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[:3] + b"\x02" + data[4:])
    for command in (("info", packed), ("verify", packed), ("decode", packed, tmp_path / "x.wav")):
        assert_refused(run(*command), "later version", "update codectool")


@pytest.mark.parametrize("damage", ["truncation", "bit flip"])
def test_verify_and_decode_refuse_every_truncation_and_bit_flip(
    run: Run, packed: Path, tmp_path: Path, checkpoints: dict[str, Path], damage: str
) -> None:
    data = packed.read_bytes()
    if damage == "truncation":
        variants = [data[:size] for size in range(len(data))]
    else:
        whole = int.from_bytes(data, "big")
        variants = [(whole ^ 1 << bit).to_bytes(len(data), "big") for bit in range(8 * len(data))]
    damaged, out = tmp_path / "damaged.hcd", tmp_path / "out.wav"
    for number, variant in enumerate(variants):
        damaged.write_bytes(variant)
        assert_verify_refuses(run("verify", damaged))
        if number % 17 == 0:  # decoding takes longer
            result = run("decode", damaged, out, "--checkpoint", checkpoints["bigcodec"])
            assert_refused(result, "damaged.hcd")
            assert not out.exists()
            assert {path.name for path in tmp_path.iterdir()} == {"damaged.hcd", "small.hcd"}


def assert_verify_refuses(result: Result) -> None:
    """Check for exit code 2 and one line on stderr for each problem."""
    assert result.code == 2
    assert result.out == b""
    assert result.err
    assert all(line.startswith("error: ") for line in result.err.splitlines())


def test_header_with_huge_length_is_refused_in_little_memory(
    run: Run, packed: Path, tmp_path: Path
) -> None:
    from codectool.container import Header, Writer
    from codectool.tokens import TokenLayout

    layout = TokenLayout("bigcodec", 16000, 200, (13,))
    header = Header(layout, "00112233", 16000, num_samples=1 << 60)
    path = tmp_path / "huge.hcd"
    with path.open("wb") as file:
        writer = Writer(file, header)
        writer.write(np.zeros((1, 1, header.block_frames), np.int32))
    data = path.read_bytes()
    assert len(data) > 3000
    tracemalloc.start()
    for command in (("info",), ("verify",), ("decode",)):
        assert_refused(run(*command, path), "huge.hcd", "cut off")
        assert run(*command, "-", stdin=data).code == 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    assert not path.with_suffix(".wav").exists()


def test_decode_refuses_files_that_are_not_hcd(run: Run, speech: Path, tmp_path: Path) -> None:
    for command in (("info",), ("verify",), ("decode", "--format", "flac")):
        assert_refused(run(*command, speech), "speech.wav: not a .hcd file")
    assert_refused(run("decode", tmp_path / "none.hcd"), "no such file")
    assert_refused(run("info", tmp_path), "is a directory")


def test_decode_refuses_other_weights_unless_forced(
    run: Run, packed: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    state = torch.load(checkpoints["bigcodec"], weights_only=True)
    state["CodecEnc"]["block.0.bias"][0] += 1
    other, out = tmp_path / "other.pt", tmp_path / "x.wav"
    torch.save(state, other)
    chosen = ("--checkpoint", other, "--device", "cpu")
    assert_refused(run("decode", packed, out, *chosen), "have the fingerprint 9214f883", "--force")
    assert not out.exists()
    assert run("decode", packed, out, *chosen, "--force").code == 0
    assert_refused(run("decode", packed, "--model", "hac"), "was encoded with bigcodec, not hac")


def test_decode_refuses_a_registered_checkpoint_that_changed(
    run: Run, speech: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    moved, out = tmp_path / "model.pt", tmp_path / "x.hcd"
    shutil.copy(checkpoints["bigcodec"], moved)
    assert run("encode", speech, out, "--checkpoint", moved, "--device", "cpu").code == 0
    state = torch.load(moved, weights_only=True)
    state["CodecEnc"]["block.0.bias"][0] += 1
    torch.save(state, moved)
    assert_refused(run("decode", out), "have the fingerprint 9214f883", "decodes")
    moved.unlink()
    assert_refused(run("decode", out), "bigcodec-218b61c7", "model.pt is gone", "--checkpoint")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--start", "-1"),
        ("--start", "1:2:3:4"),
        ("--duration", "soon"),
        ("--format", "mp3"),
        ("--device", "gpu", "--checkpoint", GOLDEN / "bigcodec_micro.pt"),
        ("--precision", "int4"),
        ("--unknown",),
    ],
)
def test_decode_refuses_invalid_options(run: Run, packed: Path, arguments: Options) -> None:
    assert_refused(run("decode", packed, *arguments))


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "1e300", "x"])
def test_encode_refuses_invalid_block_lengths(run: Run, speech: Path, value: str) -> None:
    assert_refused(run("encode", speech, "--block-seconds", value))


@pytest.mark.parametrize("device", ["gpu", "cpu:", "cpu:0", "cuda:", "cuda:x", "cuda:²", "cuda:99"])
def test_encode_refuses_unknown_devices(
    run: Run, speech: Path, checkpoints: dict[str, Path], device: str
) -> None:
    chosen = ("--checkpoint", checkpoints["hac"])
    assert_refused(run("encode", speech, *chosen, "--device", device), "device")


@pytest.mark.parametrize("name", [".", "/", ""])
def test_encode_and_decode_need_an_output_for_folders(run: Run, name: str) -> None:
    assert_refused(run("encode", name), "is a folder; name a folder for the outputs too")
    assert_refused(run("decode", name), "is a folder; name a folder for the outputs too")


def test_decode_refuses_unknown_output_formats(run: Run, packed: Path, tmp_path: Path) -> None:
    assert_refused(run("decode", packed, tmp_path / "x.mp3"), "only wav and flac can be written")
    for subtype in ("IMA_ADPCM", "GSM610", "MPEG_LAYER_III", "nonsense"):
        # these work in blocks of samples and would change the length
        assert_refused(run("decode", packed, "--subtype", subtype), "it can hold")


def test_closed_standard_streams_are_refused(
    run: Run, packed: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with pytest.raises(SystemExit) as caught:
            main(["decode", str(packed), "-"])
        assert caught.value.code == 2
        patch.setattr(sys, "stdin", None)
        with pytest.raises(SystemExit) as caught:
            main(["verify", "-"])
        assert caught.value.code == 2


def test_full_disk_is_reported(
    run: Run, packed: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    """A limit on the size of files behaves like a full disk."""
    out = tmp_path / "out.wav"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        result = run("decode", packed, out, "--checkpoint", checkpoints["bigcodec"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert_refused(result, "out.wav: file too large")
    assert [path.name for path in tmp_path.iterdir()] == ["small.hcd"]


def test_unwritable_checkpoint_registry_is_a_warning(
    run: Run, speech: Path, own_home: Path, hac: Options
) -> None:
    (own_home / "models.toml").mkdir()
    result = run("encode", speech, *hac)
    assert result.code == 0
    assert result.err.startswith("warning: ")
    assert "cannot record this checkpoint: " in result.err


def test_decode_refuses_config_without_checkpoint(run: Run, packed: Path, tmp_path: Path) -> None:
    result = run("decode", packed, "--config", tmp_path / "none.json")
    assert_refused(result, "`--config` needs `--checkpoint`")


def test_encode_refuses_very_low_sampling_rates(run: Run, tmp_path: Path, hac: Options) -> None:
    """A few samples at 1 Hz would become hours at the model's rate."""
    path = tmp_path / "slow.wav"
    soundfile.write(path, np.zeros(2000, np.float32), 1)
    result = run("encode", path, *hac)
    assert_refused(result, "a sampling rate of 1 Hz cannot carry speech")


@pytest.mark.parametrize("tag", ["novalue", "=x"])
def test_encode_refuses_malformed_tags(run: Run, speech: Path, tag: str) -> None:
    result = run("encode", speech, "--tag", tag)
    assert_refused(result, "is not KEY=VALUE", "see `codectool encode --help`")


def test_debug_prints_the_traceback(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "none.hcd"
    for arguments in (("info", path, "--debug"), ("--debug", "info", path)):
        result = run(*arguments)
        assert result.code == 2
        assert "Traceback" in result.err
        assert result.err.splitlines()[-1].startswith("error: ")


def test_missing_and_unknown_commands_and_arguments_are_refused(run: Run) -> None:
    assert "Usage" in run().err + run().text
    assert_refused(run("transmogrify"), "No such command 'transmogrify'")
    assert_refused(run("info"), "give a FILE, or a codec with `--model`")
    assert_refused(run("verify"), "Missing argument 'FILE...'")
