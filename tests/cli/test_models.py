"""`codectool models`, and the offer to download weights that are missing."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import codectool
from codectool import models
from codectool.checkpoints import registry
from codectool.cli import models as command
from tests.checkpoints.weight_server import WeightServer, serve
from tests.cli.conftest import Run
from tests.cli.test_bad_input import assert_refused
from tests.conftest import GOLDEN

pytest.importorskip("pooch", reason="needs codectool[hub]")

MICRO = GOLDEN / "bigcodec_micro.pt"
FINGERPRINT, TOKENS = "218b61c7", "9214f883"
CPU = ("--device", "cpu")


@pytest.fixture
def server() -> WeightServer:
    """Serve small weights as those of `bigcodec`."""
    with serve(MICRO.read_bytes()) as running:
        registry.record("bigcodec", source=f"{running.url}/bigcodec.pt")
        yield running


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A file made with weights that are not in the registry."""
    path = tmp_path / "packed.hcd"
    codec = codectool.load(checkpoint=MICRO, device="cpu")
    codectool.write(path, codec.encode([0.0] * 2000, 16000))
    return path


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_list_shows_the_models_of_the_package_and_the_user(run: Run) -> None:
    registry.record("mine", family="hac", source="/gone/mine.safetensors")
    result = run("models", "list")
    assert result.code == 0
    header, *rows = result.text.splitlines()
    assert header.split()[:2] == ["NAME", "CODEC"]
    assert rows[0].split()[:5] == ["hac", "hac", "24000", "Hz", "1.35"]
    assert rows[-1].split() == ["mine", "hac", "no"]
    data = {str(line["name"]): line for line in lines(run("models", "list", "--json").text)}
    assert data["hac"]["bundled"] is True
    assert data["hac"]["path"] == str(registry.named("hac").locate())  # type: ignore[union-attr]
    assert data["bigcodec"]["how_to_get"] == "run `codectool models pull bigcodec` (about 638 MB)"
    assert data["mine"]["how_to_get"].startswith("/gone/mine.safetensors is gone")  # type: ignore[attr-defined]


def test_show_prints_what_is_known(run: Run) -> None:
    result = run("models", "show", "bigcodec", "hac")
    assert result.code == 0
    assert "hf://Alethia/BigCodec/bigcodec.pt" in result.text
    assert "not known yet" in result.text
    assert "docs/models/hac.md" in result.text
    (data,) = lines(run("models", "show", "--json", "hac").text)
    assert (data["fingerprint"], data["sample_rate"]) == ("ffcef39f", 24000)


@pytest.mark.parametrize("action", ["show", "pull", "remove", "verify"])
def test_unknown_name_suggests_a_similar_one(run: Run, action: str) -> None:
    assert_refused(run("models", action, "bigcodek"), "bigcodek", "did you mean `bigcodec`?")
    assert_refused(run("models", action, "zzz"), "zzz", "codectool models list")


def test_pull_prints_the_place(run: Run, server: WeightServer) -> None:
    result = run("models", "pull", "bigcodec")
    assert result.code == 0
    assert result.err == ""
    path = registry.named("bigcodec").locate()  # type: ignore[union-attr]
    assert (
        result.text == f"bigcodec: bigcodec, fingerprint {FINGERPRINT}, tokens {TOKENS}, {path}\n"
    )
    (data,) = lines(run("models", "pull", "bigcodec", "--json").text)
    assert data["path"] == str(path)
    assert len(server.ranges()) == 1


def test_failed_pull_is_one_line(run: Run, server: WeightServer) -> None:
    server.behavior = "missing"
    assert_refused(run("models", "pull", "bigcodec"), "there is no such file", server.url)


def test_encode_without_weights_names_the_command_and_downloads_nothing(
    run: Run, server: WeightServer, speech: Path
) -> None:
    result = run("encode", speech, "--model", "bigcodec", *CPU)
    assert_refused(result, "run `codectool models pull bigcodec`", "`--checkpoint PATH`")
    assert server.requests == []
    assert not speech.with_suffix(".hcd").exists()


def test_encode_with_yes_downloads(run: Run, server: WeightServer, speech: Path) -> None:
    result = run("encode", speech, "--model", "bigcodec", "--yes", *CPU)
    assert result.code == 0, result.err
    assert codectool.read(speech.with_suffix(".hcd")).fingerprint == TOKENS
    assert run("encode", speech, "--model", "bigcodec", "--overwrite", *CPU).code == 0
    assert len(server.ranges()) == 1
    assert codectool.load("bigcodec", device="cpu").fingerprint == FINGERPRINT


@pytest.mark.parametrize("answer", [b"y\n", b"n\n", b""])
def test_encode_on_a_terminal_offers_to_download(
    run: Run, server: WeightServer, speech: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(command, "_can_ask", lambda: True)
    result = run("encode", speech, "--model", "bigcodec", *CPU, stdin=answer)
    assert result.out == b""  # the question is on stderr
    assert "Download them now? [Y/n]" in result.err
    assert result.code == {b"y\n": 0, b"n\n": 2, b"": 130}[answer], result.err
    assert len(server.ranges()) == (answer == b"y\n")


def test_decode_gets_the_weights_of_a_known_fingerprint(
    run: Run, server: WeightServer, packed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "back.wav"
    assert_refused(run("decode", packed, out, *CPU), f"tokens {TOKENS}; no weights")
    registry.record("bigcodec", fingerprint=FINGERPRINT, token_fingerprint=TOKENS)
    result = run("decode", packed, out, *CPU)
    assert_refused(result, str(packed), "made with the weights bigcodec", "models pull bigcodec")
    assert server.requests == []
    assert run("decode", packed, out, "--yes", *CPU).code == 0
    assert out.exists()


def test_decode_of_a_folder_gets_the_weights(
    run: Run, server: WeightServer, packed: Path, tmp_path: Path
) -> None:
    registry.record("bigcodec", fingerprint=FINGERPRINT, token_fingerprint=TOKENS)
    (tmp_path / "in").mkdir()
    packed.rename(tmp_path / "in" / "a.hcd")
    assert run("decode", tmp_path / "in", tmp_path / "out", "--yes", *CPU).code == 0
    assert (tmp_path / "out" / "a.wav").exists()


def test_wrong_weights_are_not_used(run: Run, server: WeightServer, speech: Path) -> None:
    registry.record("bigcodec", sha256="0" * 64)
    result = run("encode", speech, "--model", "bigcodec", "--yes", *CPU)
    assert_refused(result, "bigcodec: the file from", "was deleted", "SHA-256")
    assert not speech.with_suffix(".hcd").exists()


def test_checkpoint_takes_any_name(run: Run, speech: Path, own_home: Path) -> None:
    added = run("models", "add", MICRO, "--name", "micro")
    assert added.code == 0
    assert added.text == f"micro: bigcodec, fingerprint {FINGERPRINT}, tokens {TOKENS}, {MICRO}\n"
    assert run("encode", speech, "--checkpoint", "micro", *CPU).code == 0
    out = run("decode", speech.with_suffix(".hcd"), speech.with_name("back.wav"), *CPU)
    assert out.code == 0, out.err
    assert "micro" in run("info", speech.with_suffix(".hcd")).text
    assert codectool.load(checkpoint="micro", device="cpu").fingerprint == FINGERPRINT


def test_added_model_with_the_name_of_its_codec_is_the_default(run: Run, speech: Path) -> None:
    folder = GOLDEN / "supercodec_micro"
    (data,) = lines(run("models", "add", folder, "--name", "supercodec", "--json").text)
    assert (data["family"], data["path"]) == ("supercodec", str(folder))
    assert run("encode", speech, "--model", "supercodec", *CPU).code == 0


def test_add_keeps_a_config(run: Run, tmp_path: Path, speech: Path) -> None:
    (weights,) = (GOLDEN / "supercodec_micro").glob("g_*")
    (tmp_path / weights.name).write_bytes(weights.read_bytes())
    config = GOLDEN / "supercodec_micro" / "config.json"
    arguments = ("models", "add", tmp_path / weights.name, "--name", "small")
    assert run(*arguments).code == 2
    assert run(*arguments, "--config", config).code == 0
    assert run("encode", speech, "--checkpoint", "small", *CPU).code == 0
    assert run("models", "verify", "small").code == 0


def test_add_refuses_what_is_no_checkpoint(run: Run, tmp_path: Path, own_home: Path) -> None:
    (tmp_path / "x.pt").write_text("<html>")
    assert_refused(run("models", "add", tmp_path / "x.pt"), "x.pt", "web page")
    assert_refused(run("models", "add", tmp_path / "none.pt"), "none.pt: no such file")
    assert_refused(run("models", "add", MICRO, "--name", "hac"), "--name")
    assert_refused(run("models", "add", MICRO, "--name", "../x"), "../x: is not a name")
    assert_refused(run("models", "add", MICRO, "--sha256", "12"), "is not a SHA-256")
    assert_refused(run("models", "add", MICRO, "--sha256", "0" * 64), "has another SHA-256")
    assert_refused(run("models", "add", "hf://x"), "hf://ORG/REPO/FILE")
    assert_refused(run("models", "add", GOLDEN / "supercodec_micro", "--copy"), "is a folder")
    assert not (own_home / "models.toml").exists()


def test_add_of_known_weights_that_were_missing_finds_them_by_their_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = registry.named("hac-1d8631bb").locate()  # type: ignore[union-attr]
    monkeypatch.setattr(registry, "REPOSITORY", tmp_path / "site")
    assert run("models", "add", path).text.startswith(
        "hac-1d8631bb: hac, fingerprint 1d8631bb, tokens 1ec5e85b, "
    )
    assert registry.find("1d8631bb").find() == path  # type: ignore[union-attr]


def test_remove_never_deletes_files_of_the_user(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "mine.pt"
    copy.write_bytes(MICRO.read_bytes())
    run("models", "add", copy, "--name", "mine")
    assert run("models", "remove", "mine").text == "mine: removed\n"
    assert copy.exists()
    assert registry.named("mine") is None


def test_remove_asks_before_it_deletes_a_copy(
    run: Run, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("models", "add", MICRO, "--name", "mine", "--copy")
    path = registry.named("mine").locate()  # type: ignore[union-attr]
    assert path == own_home / "models" / "mine" / "bigcodec_micro.pt"
    assert_refused(run("models", "remove", "mine"), str(path), "`--yes`")
    monkeypatch.setattr(command, "_can_ask", lambda: True)
    refused = run("models", "remove", "mine", stdin=b"n\n")
    assert (refused.code, path.exists()) == (2, True)
    assert run("models", "remove", "mine", stdin=b"y\n").code == 0
    assert not path.parent.exists()
    run("models", "add", MICRO, "--name", "mine", "--copy")
    assert run("models", "remove", "mine", "--keep-file").code == 0
    assert path.exists()


def test_removed_model_of_the_package_stays_known(run: Run, server: WeightServer) -> None:
    run("models", "pull", "bigcodec")
    path = registry.named("bigcodec").locate()  # type: ignore[union-attr]
    (data,) = lines(run("models", "remove", "bigcodec", "--yes", "--json").text)
    assert data == {"name": "bigcodec", "deleted": str(path)}
    assert not path.exists()
    assert registry.named("bigcodec").find() is None  # type: ignore[union-attr]


def test_model_of_the_package_cannot_be_removed(run: Run) -> None:
    result = run("models", "remove", "hac", "--yes")
    assert_refused(result, "hac: comes with codectool; there is nothing to remove")


def test_verify_checks_everything_on_this_machine(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "mine.pt"
    copy.write_bytes(MICRO.read_bytes())
    run("models", "add", copy, "--name", "mine")
    result = run("models", "verify")
    assert result.code == 0
    assert [line.split(":")[0] for line in result.text.splitlines()] == [
        *("hac", "hac-7391a4ee", "hac-1d8631bb", "hac-2c307f6d", "hac-1110df23", "mine")
    ]
    content = bytearray(MICRO.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    damaged = run("models", "verify", "mine")
    assert damaged.code == 2
    assert "mine: " in damaged.err
    assert str(copy) in damaged.err
    (data,) = lines(run("models", "verify", "mine", "--json").text)
    assert data["ok"] is False
    assert data["problems"]


def test_verify_of_absent_weights_fails(run: Run) -> None:
    result = run("models", "verify", "bigcodec")
    assert_refused(result, "bigcodec: not on this machine; run `codectool models pull bigcodec`")


def test_verify_records_what_was_not_known(run: Run) -> None:
    registry.record("mine", family="bigcodec", source=str(MICRO))
    assert run("models", "verify", "mine").code == 0
    entry = models.get("mine")
    assert (entry.fingerprint, entry.size) == (FINGERPRINT, MICRO.stat().st_size)


def test_invalid_registry_file_is_refused_by_name(run: Run, own_home: Path, speech: Path) -> None:
    (own_home / "models.toml").write_text("[hac\n")
    assert_refused(run("models", "list"), str(own_home / "models.toml"), "TOML")
    assert run("encode", speech, *CPU).code == 0  # bundled weights do not need it


def test_info_shows_the_models_of_a_codec(run: Run) -> None:
    text = run("info", "--model", "bigcodec").text
    assert "run `codectool models pull bigcodec`" in text
    assert "hac-1d8631bb" in run("info", "--model", "hac").text
    (data,) = lines(run("info", "--model", "hac", "--json").text)
    assert data["weights_name"] == "hac"


def test_names_from_files_cannot_control_the_terminal(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31m\u202egnp.pt"
    path.write_bytes(MICRO.read_bytes())
    run("models", "add", path, "--name", "mine", "--license", "\x1b[0m")
    for result in (run("models", "list"), run("models", "show", "mine"), run("models", "verify")):
        assert "\x1b" not in result.text
        assert "\u202e" not in result.text


def test_listing_imports_no_torch() -> None:
    program = (
        "import sys\nfrom codectool.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    for arguments in (["models", "list"], ["models", "show", "bigcodec"], ["models", "--help"]):
        command = [sys.executable, "-c", program, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test_question_is_asked_on_a_real_terminal_only(
    server: WeightServer, speech: Path, own_home: Path
) -> None:
    """With a pipe as stdin, which may be data, nothing is asked."""
    command = [sys.executable, "-m", "codectool", "models", "remove", "mine"]
    models.add(MICRO, "mine", copy=True)
    primary, secondary = pty.openpty()
    try:
        os.write(primary, b"n\n")
        done = subprocess.run(
            command, stdin=secondary, stderr=secondary, stdout=subprocess.PIPE, timeout=60
        )
        shown = os.read(primary, 10000).decode()
    finally:
        os.close(primary)
        os.close(secondary)
    assert done.returncode == 2
    assert "Delete " in shown
    assert "[y/N]" in shown
    piped = subprocess.run(command, input=b"y\n", capture_output=True, timeout=60)
    assert piped.returncode == 2
    assert b"give `--yes`" in piped.stderr


def test_other_weights_at_the_place_of_a_model_are_refused(
    run: Run, tmp_path: Path, speech: Path, checkpoints: dict[str, Path]
) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(checkpoints["hac"].read_bytes())
    assert run("models", "add", path, "--name", "mine").code == 0
    path.write_bytes(registry.named("hac").locate().read_bytes())  # type: ignore[union-attr]
    result = run("encode", speech, "--checkpoint", "mine", *CPU)
    assert_refused(result, str(path), "has the fingerprint ffcef39f, not ", "models add")


def test_weights_are_pulled_without_torch(
    run: Run, server: WeightServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and SHA-256 are recorded; the fingerprint follows with `verify`."""
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    assert run("models", "pull", "bigcodec").code == 0
    entry = models.get("bigcodec")
    assert (entry.size, entry.fingerprint) == (MICRO.stat().st_size, None)
    result = run("models", "verify", "bigcodec")
    assert result.code == 0
    assert "the fingerprint was not checked, which needs PyTorch" in result.err
    monkeypatch.setattr(models, "find_spec", find_spec)
    assert run("models", "verify", "bigcodec").code == 0
    assert models.get("bigcodec").fingerprint == FINGERPRINT
