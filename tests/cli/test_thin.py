"""`codectool thin`: fewer codebooks of a file without its model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import codectool
from codectool.thinning import thin_file
from tests.cli.conftest import Options, Run
from tests.conftest import GOLDEN
from tests.signals import speechlike

SUPERCODEC = ("--checkpoint", GOLDEN / "supercodec_micro", "--device", "cpu")
BIGCODEC = ("--checkpoint", GOLDEN / "bigcodec_micro.pt", "--device", "cpu")


@pytest.mark.parametrize("options", [SUPERCODEC, BIGCODEC], ids=["supercodec", "bigcodec"])
@pytest.mark.parametrize("block", [(), ("--block-seconds", 0.1)], ids=["default", "short"])
@pytest.mark.parametrize("extra", [(), ("--tag", "a=b", "--normalize", "-30")])
def test_thin_writes_what_encode_writes(
    run: Run, speech: Path, tmp_path: Path, options: Options, block: Options, extra: Options
) -> None:
    full, thin, direct = (tmp_path / f"{name}.hcd" for name in ("full", "thin", "direct"))
    assert run("encode", speech, full, *options, *block, *extra).code == 0
    done = run("thin", full, thin, "--codebooks", 1)
    assert (done.code, done.out, done.err) == (0, b"", "")
    assert run("encode", speech, direct, *options, *block, *extra, "--codebooks", 1).code == 0
    assert thin.read_bytes() == direct.read_bytes()
    assert run("decode", thin, tmp_path / "x.wav", *options).code == 0


def test_pipes_and_streams(run: Run, speech: Path, tmp_path: Path) -> None:
    live = run("encode", "-", "-", "--live", *BIGCODEC, stdin=speech.read_bytes()).out
    direct = run(
        "encode", "-", "-", "--live", "--codebooks", 1, *BIGCODEC, stdin=speech.read_bytes()
    ).out
    assert run("thin", "-", "-", "--codebooks", 1, stdin=live).out == direct
    (tmp_path / "live.hcd").write_bytes(live)
    assert run("thin", tmp_path / "live.hcd", "-", "--codebooks", 1).out == direct


def test_folders_are_resumed(run: Run, speech: Path, hac: Options, tmp_path: Path) -> None:
    folder, out = tmp_path / "tokens", tmp_path / "thin"
    (folder / "deep").mkdir(parents=True)
    assert run("encode", speech, folder / "a.hcd", *SUPERCODEC).code == 0
    assert run("encode", speech, folder / "deep" / "b.hcd", *SUPERCODEC).code == 0
    assert run("thin", folder, out, "--codebooks", 1).code == 0
    assert codectool.read(out / "deep" / "b.hcd").codes.shape[1] == 1
    assert run("encode", speech, folder / "c.hcd", *hac).code == 0
    again = run("thin", folder, out, "--codebooks", 1, "--json")
    assert again.code == 1
    assert json.loads(again.text)["skipped"] == 2
    assert "c.hcd: hac has 1 codebook here; the bits of a frame belong together" in again.err
    assert run("thin", folder, folder, "--codebooks", 1).code == 2


def test_codebooks_that_are_not_there_are_refused(
    run: Run, speech: Path, hac: Options, tmp_path: Path
) -> None:
    full, target = tmp_path / "x.hcd", tmp_path / "y.hcd"
    for options, count, message in (
        (SUPERCODEC, 2, "x.hcd: supercodec has 2 codebooks here; choose 1 to 1"),
        (SUPERCODEC, 0, "0 is not in the range x>=1"),
        (hac, 1, "x.hcd: hac has 1 codebook here; the bits of a frame belong together"),
    ):
        assert run("encode", speech, full, "--overwrite", *options).code == 0
        failed = run("thin", full, target, "--codebooks", count)
        assert failed.code == 2
        assert message in failed.err
        assert failed.err.count("\n") == 1
    damaged = bytearray(full.read_bytes())
    assert run("encode", speech, full, "--overwrite", *SUPERCODEC).code == 0
    damaged = bytearray(full.read_bytes())
    damaged[-20] ^= 1
    full.write_bytes(damaged)
    assert "block 0" in run("thin", full, target, "--codebooks", 1).err
    assert "not a .hcd file" in run("thin", speech, target, "--codebooks", 1).err
    assert not target.exists()


def test_thin_file_from_python(codecs: dict[str, codectool.Codec], tmp_path: Path) -> None:
    tokens = codecs["supercodec"].encode(speechlike(0.5, 16000), 16000)
    codectool.write(tmp_path / "x.hcd", tokens)
    assert thin_file(tmp_path / "x.hcd", tmp_path / "y.hcd", 1).seconds == 0.5
    np.testing.assert_array_equal(codectool.read(tmp_path / "y.hcd").codes, tokens.codes[:, :1])


def test_thin_does_not_import_torch() -> None:
    code = (
        "import sys, codectool.cli.thin, codectool.pipeline.operations, codectool.thinning\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
