"""`--decoder`: the decoder of another checkpoint with the same encoder; files of version 0.1."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import codectool
from codectool.checkpoints import registry
from codectool.checkpoints.convert import read
from codectool.checkpoints.load import load_model
from codectool.checkpoints.native import write_native
from codectool.errors import FingerprintError
from tests.cli.conftest import Run
from tests.cli.test_bad_input import assert_refused
from tests.signals import speechlike

CPU = ("--device", "cpu")
OFFSETS = {"hac": "decoder.restore.offset", "bigcodec": "generator.model.8.bias"}


def write_decoder(
    source: Path | str, target: Path, name: str = OFFSETS["hac"], lists: bool = True
) -> Path:
    """Write a checkpoint whose output has another offset, as if its decoder had been trained."""
    weights = read(source)
    state = {**weights.state, name: weights.state[name] + 0.25}
    same = load_model(Path(source)).token_names if lists else ()
    write_native(target, weights.family, weights.config, state, None, same_tokens_as=same)
    return target


@dataclasses.dataclass(frozen=True)
class Setup:
    """An old file, checkpoints with another decoder, and what they make of it."""

    packed: Path
    decoder: Path
    other: Path
    audio: np.ndarray[Any, Any]


@pytest.fixture
def setup(checkpoints: dict[str, Path], tmp_path: Path) -> Setup:
    codec = codectool.load(checkpoint=checkpoints["hac"], device="cpu")
    tokens = codec.encode(speechlike(2.0, 24000), 24000)
    packed = tmp_path / "old.hcd"
    codectool.write(packed, dataclasses.replace(tokens, fingerprint=codec.fingerprint))
    decoder = write_decoder(checkpoints["hac"], tmp_path / "decoder.safetensors")
    weights = read(checkpoints["hac"])
    name = next(name for name in weights.state if name.startswith("encoder."))
    state = {**weights.state, name: weights.state[name] + 0.25}
    other = tmp_path / "other.safetensors"
    write_native(other, weights.family, weights.config, state, None)
    audio = codectool.load(checkpoint=decoder, device="cpu").decode(tokens)
    assert not np.allclose(audio, codec.decode(tokens), atol=0.05)
    return Setup(packed, decoder, other, audio)


def samples(data: Path | bytes) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any]
    found, _ = soundfile.read(io.BytesIO(data) if isinstance(data, bytes) else data)
    return found


def test_old_file_decodes_with_a_new_decoder(run: Run, setup: Setup, tmp_path: Path) -> None:
    for option in ("--decoder", "--checkpoint"):
        out = tmp_path / f"{option}.wav"
        result = run("decode", setup.packed, out, option, setup.decoder, *CPU)
        assert result.code == 0, result.err
        assert "warning" not in result.err
        np.testing.assert_allclose(samples(out), setup.audio[0].clip(-1, 1), atol=1e-4)


def test_range_and_pipes(run: Run, setup: Setup, tmp_path: Path) -> None:
    chosen = ("--decoder", setup.decoder, *CPU)
    part = ("--start", "0.5", "--duration", "0.5")
    assert run("decode", setup.packed, tmp_path / "a.wav", *part, *chosen).code == 0
    expected = setup.audio[0].clip(-1, 1)
    np.testing.assert_allclose(samples(tmp_path / "a.wav"), expected[12000:24000], atol=1e-4)
    piped = run("decode", "-", "-", *chosen, stdin=setup.packed.read_bytes())
    assert piped.code == 0, piped.err
    data = np.frombuffer(piped.out[44:], "<i2") / 32768
    np.testing.assert_allclose(data, expected, atol=1e-4)


def test_live_stream(run: Run, setup: Setup, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    soundfile.write(sound, speechlike(2.0, 24000)[0], 24000)
    chosen = ("--checkpoint", checkpoints["hac"], *CPU)
    live = run("encode", "-", "-", "--live", *chosen, stdin=sound.read_bytes())
    assert live.code == 0, live.err
    decoded = run("decode", "-", "-", "--decoder", setup.decoder, *CPU, stdin=live.out)
    assert decoded.code == 0, decoded.err
    data = np.frombuffer(decoded.out[44:], "<i2") / 32768
    assert abs(data.mean() - setup.audio.clip(-1, 1).mean()) < 0.02


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_folder(run: Run, setup: Setup, tmp_path: Path, workers: tuple[str, ...]) -> None:
    tree, out = tmp_path / "in", tmp_path / "out"
    tree.mkdir()
    for name in "ab":
        (tree / f"{name}.hcd").write_bytes(setup.packed.read_bytes())
    result = run("decode", tree, out, "--decoder", setup.decoder, *workers, *CPU)
    assert result.code == 0, result.err
    expected = setup.audio[0].clip(-1, 1)
    np.testing.assert_allclose(samples(out / "b.wav"), expected, atol=1e-4)


def test_folder_is_decoded_again_with_another_decoder(
    run: Run, setup: Setup, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    tree, out = tmp_path / "in", tmp_path / "out"
    tree.mkdir()
    setup.packed.rename(tree / "a.hcd")
    assert run("decode", tree, out, "--checkpoint", checkpoints["hac"], *CPU).code == 0
    before = samples(out / "a.wav")
    assert run("decode", tree, out, "--decoder", setup.decoder, *CPU).code == 0
    assert not np.allclose(samples(out / "a.wav"), before, atol=0.05)


def test_other_tokens_are_refused(
    run: Run, setup: Setup, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "x.wav"
    old, tokens = load_model(checkpoints["hac"]), load_model(setup.other).token_fingerprint
    result = run("decode", setup.packed, out, "--decoder", setup.other, *CPU)
    assert_refused(result, str(setup.packed), old.fingerprint, tokens, "--force")
    both = ("--checkpoint", checkpoints["hac"], "--decoder", setup.other)
    for command in (("decode", setup.packed), ("reconstruct", tmp_path / "a.wav")):
        soundfile.write(tmp_path / "a.wav", np.zeros(2400), 24000)
        result = run(*command, out, *both, *CPU)
        assert_refused(result, f"decodes tokens {tokens}", f"makes {old.token_fingerprint}")
    assert not out.exists()
    assert_refused(
        run("decode", setup.packed, out, "--decoder", checkpoints["bigcodec"], *CPU),
        "is a bigcodec checkpoint",
    )
    forced = run("decode", setup.packed, out, "--decoder", setup.other, "--force", *CPU)
    assert forced.code == 0


def test_reconstruct_with_a_decoder(
    run: Run, setup: Setup, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    sound, out = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(sound, speechlike(2.0, 24000)[0], 24000)
    chosen = ("--checkpoint", checkpoints["hac"], "--decoder", setup.decoder)
    result = run("reconstruct", sound, out, *chosen, *CPU)
    assert result.code == 0, result.err
    assert abs(samples(out).mean() - setup.audio.clip(-1, 1).mean()) < 0.02


@pytest.mark.parametrize("family", ["hac", "bigcodec"])
def test_load_with_a_decoder(family: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = checkpoints[family]
    target = write_decoder(source, tmp_path / "x.safetensors", OFFSETS[family], lists=False)
    codec = codectool.load(family, source, decoder=target, device="cpu")
    original = codectool.load(family, source, device="cpu")
    wave = speechlike(0.5, codec.sample_rate)
    tokens = codec.encode(wave, codec.sample_rate)
    expected = original.encode(wave, codec.sample_rate)
    assert np.array_equal(tokens.codes, expected.codes)
    assert tokens.fingerprint == expected.fingerprint
    assert codec.checkpoint == target
    with pytest.raises(FingerprintError, match="decodes tokens .*, but hac makes f8b188d4"):
        codectool.load("hac", decoder=checkpoints["hac"], device="cpu")


def test_registry_entry_without_token_fingerprint_is_searched(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Registry files of version 0.1 know only fingerprints of all weights."""
    path = checkpoints["bigcodec"]
    codec = codectool.load(checkpoint=path, device="cpu")
    packed = tmp_path / "new.hcd"
    codectool.write(packed, codec.encode(np.zeros(4000, np.float32), 16000))
    registry.record("mine", family="bigcodec", source=str(path), fingerprint=codec.fingerprint)
    assert run("decode", packed, tmp_path / "a.wav", *CPU).code == 0
    entry = registry.named("mine")
    assert entry is not None
    assert entry.token_fingerprint == codec.token_fingerprint
    assert "mine" in run("info", packed).text


def test_old_file_of_the_default_weights_decodes_with_a_new_decoder_in_onnx(
    run: Run, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    bundled = registry.named("hac")
    assert bundled is not None
    target = write_decoder(bundled.locate(), tmp_path / "new.safetensors", lists=False)
    codec = codectool.load(checkpoint=target, device="cpu")
    tokens = codec.encode(speechlike(0.5, 24000), 24000)
    packed, out = tmp_path / "old.hcd", tmp_path / "x.wav"
    codectool.write(packed, dataclasses.replace(tokens, fingerprint="7391a4ee"))
    chosen = ("--decoder", target, "--runtime", "onnx")
    result = run("decode", packed, out, *chosen)
    assert result.code == 0, result.err
    np.testing.assert_allclose(samples(out), codec.decode(tokens)[0].clip(-1, 1), atol=1e-3)


def test_thinned_file_keeps_its_fingerprint(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    source = checkpoints["supercodec"]
    codec = codectool.load(checkpoint=source, device="cpu")
    packed, thin, out = tmp_path / "a.hcd", tmp_path / "b.hcd", tmp_path / "x.wav"
    tokens = codec.encode(np.zeros(4000, np.float32), 16000)
    codectool.write(packed, dataclasses.replace(tokens, fingerprint=codec.fingerprint))
    assert run("thin", packed, thin, "--codebooks", "1").code == 0
    weights = read(source)
    name = "decoder.0.conv.bias"
    state = {**weights.state, name: weights.state[name] + 1}
    decoder = tmp_path / "new.safetensors"
    same = (codec.fingerprint,)
    write_native(decoder, weights.family, weights.config, state, None, same_tokens_as=same)
    assert run("decode", thin, out, "--decoder", decoder, *CPU).code == 0
    assert torch.isfinite(torch.tensor(samples(out))).all()


def test_info_shows_both_fingerprints(run: Run, setup: Setup, checkpoints: dict[str, Path]) -> None:
    loaded = load_model(setup.decoder)
    shown = run("info", setup.decoder, setup.packed)
    assert shown.code == 0, shown.err
    rows = dict(line.split("  ", 1) for line in shown.text.splitlines() if "  " in line)
    assert rows["also decodes"].strip() == load_model(checkpoints["hac"]).fingerprint
    assert f"tokens        {loaded.token_fingerprint}\n" in shown.text
    result = run("info", "--json", setup.decoder, setup.packed)
    checkpoint, file = map(json.loads, result.text.splitlines())
    assert checkpoint["weights"] == loaded.fingerprint
    assert checkpoint["token_fingerprint"] == loaded.token_fingerprint
    original = load_model(checkpoints["hac"])
    assert file["weights"] == file["token_fingerprint"] == original.fingerprint
    registry.remember(
        original.fingerprint, "hac", checkpoints["hac"], None, original.token_fingerprint
    )
    (file,) = map(json.loads, run("info", "--json", setup.packed).text.splitlines())
    assert file["token_fingerprint"] == loaded.token_fingerprint
    text = run("info", setup.packed).text
    assert f"{original.fingerprint} (tokens {original.token_fingerprint}), hac-" in text


def test_info_refuses_damaged_checkpoints(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\x08" + bytes(7) + b"{}      ")
    assert_refused(run("info", path), str(path), "no config in its metadata")
    path.write_bytes(b"nonsense")
    assert_refused(run("info", path), str(path), "not a safetensors file")
    write_native(path, "opus", {}, {"a": torch.zeros(1)}, overwrite=True)
    assert_refused(run("info", path), str(path), "no codec is called `opus`")


def test_info_of_a_checkpoint_does_not_import_torch(setup: Setup) -> None:
    code = (
        "import sys; from codectool.cli import main\n"
        "try: main(['info', sys.argv[1]])\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(setup.decoder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "also decodes" in done.stdout
