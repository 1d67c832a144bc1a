"""`encode --normalize` and `decode --keep-loudness` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import codectool
from codectool.audio.loudness import amplify
from tests.cli.conftest import Options, Run
from tests.signals import speechlike


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    path = tmp_path / "quiet.wav"
    soundfile.write(path, amplify(speechlike(1.5, 16000), -30.0).T, 16000, "FLOAT")
    return path


def rms(path: Path) -> float:
    return float(np.sqrt(np.mean(soundfile.read(path)[0] ** 2)))


def test_normalize_and_keep_loudness(run: Run, hac: Options, quiet: Path, tmp_path: Path) -> None:
    packed = tmp_path / "x.hcd"
    assert run("encode", quiet, packed, "--normalize", *hac).code == 0
    gain = codectool.read(packed).gain_db
    assert 20 < gain < 40
    assert (
        f"gain      {gain:+.2f} dB before encoding; `decode` undoes it" in run("info", packed).text
    )
    assert json.loads(run("info", "--json", packed).text)["gain_db"] == gain
    assert run("verify", packed).code == 0
    undone, kept = tmp_path / "undone.wav", tmp_path / "kept.wav"
    assert run("decode", packed, undone, *hac, "--subtype", "FLOAT").code == 0
    assert run("decode", packed, kept, *hac, "--subtype", "FLOAT", "--keep-loudness").code == 0
    assert 20 * np.log10(rms(kept) / rms(undone)) == pytest.approx(gain, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["--normalize", "IN", "OUT"], -23.0),
        (["--normalize", "-30", "IN", "OUT"], -30.0),
        (["--normalize=-30.5", "IN", "OUT"], -30.5),
        (["IN", "OUT", "--normalize"], -23.0),
        (["IN", "--normalize", "-18", "OUT"], -18.0),
        (["--normalize", "--", "IN", "OUT"], -23.0),
    ],
)
def test_the_number_may_be_left_out(
    arguments: list[str], target: float, run: Run, hac: Options, quiet: Path, tmp_path: Path
) -> None:
    places = {"IN": quiet, "OUT": tmp_path / "x.hcd"}
    done = run("encode", *hac, *(places.get(argument, argument) for argument in arguments))
    assert done.code == 0, done.err
    wave, rate = soundfile.read(quiet, dtype="float32")
    expected = codectool.load(checkpoint=hac[1], device="cpu").encode(wave, rate, normalize=target)
    assert codectool.read(tmp_path / "x.hcd").gain_db == expected.gain_db


def test_pipes_are_read_whole(run: Run, hac: Options, quiet: Path, tmp_path: Path) -> None:
    run("encode", quiet, tmp_path / "x.hcd", "--normalize", *hac)
    piped = run("encode", "-", "-", "--normalize", *hac, stdin=quiet.read_bytes())
    assert piped.code == 0
    assert piped.out == (tmp_path / "x.hcd").read_bytes()


def test_folders_and_reconstruct(run: Run, hac: Options, quiet: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    quiet.rename(tmp_path / "in" / "a.wav")
    assert run("encode", tmp_path / "in", tmp_path / "out", "--normalize", *hac).code == 0
    tokens = codectool.read(tmp_path / "out" / "a.hcd")
    assert tokens.gain_db > 20
    assert run("decode", tmp_path / "out", tmp_path / "audio", *hac).code == 0
    once = tmp_path / "once.wav"
    assert run("reconstruct", tmp_path / "in" / "a.wav", once, "--normalize", *hac).code == 0
    assert once.read_bytes() == (tmp_path / "audio" / "a.wav").read_bytes()
    loud = tmp_path / "loud.wav"
    options = ("--normalize", "--keep-loudness", *hac)
    assert run("reconstruct", tmp_path / "in" / "a.wav", loud, *options).code == 0
    assert rms(loud) > 10 * rms(once)
    assert run("reconstruct", tmp_path / "in", tmp_path / "again", "--normalize", *hac).code == 0
    assert once.read_bytes() == (tmp_path / "again" / "a.wav").read_bytes()
    # without the option, the outputs are not those of the last run
    assert run("encode", tmp_path / "in", tmp_path / "out", *hac).code == 0
    assert codectool.read(tmp_path / "out" / "a.hcd").gain_db == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--normalize", "--live"], "`--normalize` needs the whole input"),
        (["--normalize", "5"], "5.0 is not in the range -70.0<=x<=0.0"),
        (["--normalize=loud"], "'loud' is not a valid float"),
        (["--normalize", "nan"], "unexpected extra argument"),
    ],
)
def test_bad_values_are_refused(
    options: list[str], message: str, run: Run, hac: Options, quiet: Path, tmp_path: Path
) -> None:
    failed = run("encode", quiet, tmp_path / "x.hcd", *options, *hac)
    assert failed.code == 2
    assert message in failed.err
    assert failed.err.count("\n") == 1
    assert not (tmp_path / "x.hcd").exists()
