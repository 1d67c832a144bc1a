"""Reading the tokens of many files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codectool.container import write
from codectool.errors import UsageError
from codectool.evaluation.tokens.files import read_tokens
from tests.cli.test_start import modules_after
from tests.evaluation.token_clips import clip

Damage = Callable[[bytes], bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files, each of one token that is its number."""
    for number, name in enumerate(["b.hcd", "a/c.HCD", "a/b/d.hcd"]):
        path = tmp_path / "coded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, clip([[number]], (2,)))
    return tmp_path / "coded"


def no_errors(name: str, reason: str) -> None:
    raise AssertionError(f"{name}: {reason}")


def test_read_tokens_of_a_folder_and_its_subfolders(folder: Path) -> None:
    (folder / "notes.txt").write_text("no tokens")
    (folder / ".hidden.hcd").write_text("no tokens")
    found = [tokens.codes.tolist() for tokens in read_tokens(folder, None, no_errors)]
    assert found == [[[[2]]], [[[1]]], [[[0]]]]


def test_read_tokens_of_a_list_keeps_its_order(folder: Path) -> None:
    names = ["b.hcd", str(folder / "a/b/d.hcd")]
    found = [tokens.codes.tolist() for tokens in read_tokens(folder, names, no_errors)]
    assert found == [[[[0]]], [[[2]]]]


def test_read_tokens_of_a_file_without_frames(tmp_path: Path) -> None:
    write(tmp_path / "empty.hcd", clip(np.zeros((2, 0)), (2, 3)))
    (tokens,) = read_tokens(tmp_path, None, no_errors)
    assert tokens.codes.shape == (1, 2, 0)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "ends after 0 bytes"),
        (lambda data: b"RIFF" + data, "not a .hcd file"),
        (lambda data: data[:-1], "bytes"),
        (lambda data: data[:-6] + bytes([data[-6] ^ 1]) + data[-5:], "damaged"),
    ],
    ids=["empty", "another format", "truncated", "a flipped bit"],
)
def test_read_tokens_reports_a_bad_file_and_reads_the_others(
    folder: Path, damage: Damage, reason: str
) -> None:
    path = folder / "a/c.HCD"
    path.write_bytes(damage(path.read_bytes()))
    errors: list[tuple[str, str]] = []
    found = list(read_tokens(folder, None, lambda *error: errors.append(error)))
    assert [tokens.codes.tolist() for tokens in found] == [[[[2]]], [[[0]]]]
    ((name, why),) = errors
    assert name == "a/c.HCD"
    assert reason in why
    assert "c.HCD" not in why  # the name is not repeated
    assert "\n" not in why


def test_read_tokens_reports_a_listed_file_that_does_not_exist(tmp_path: Path) -> None:
    errors: list[tuple[str, str]] = []
    assert list(read_tokens(tmp_path, ["gone.hcd"], lambda *error: errors.append(error))) == []
    assert errors == [("gone.hcd", "No such file or directory")]


def test_read_tokens_refuses_a_folder_without_tokens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains no .hcd files; make some with `encode`"):
        next(read_tokens(tmp_path, None, no_errors))
    with pytest.raises(UsageError, match="gone: no such file or directory"):
        next(read_tokens(tmp_path / "gone", None, no_errors))


def test_token_statistics_import_no_torch(folder: Path) -> None:
    loaded = modules_after(
        "from pathlib import Path\n"
        "from codectool.evaluation.tokens.files import read_tokens\n"
        "from codectool.evaluation.tokens.table import token_csv, token_text\n"
        "from codectool.evaluation.tokens.usage import token_usage\n"
        f"models = token_usage(read_tokens(Path({str(folder)!r}), None, print))\n"
        "assert models[0].clips == 3\n"
        "token_text(models), token_csv(models)"
    )
    assert "numpy" in loaded
    assert not loaded & {"torch", "torchaudio", "soundfile", "soxr", "matplotlib", "PIL"}
