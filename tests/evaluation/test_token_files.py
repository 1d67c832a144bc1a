"""Reading the tokens of many files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codectool.container import io as hcd
from codectool.errors import UsageError
from codectool.evaluation.tokens.files import tokens_of
from tests.cli.test_start import modules_after
from tests.evaluation.test_token_use import clip

Harm = Callable[[bytes], bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files, each of one token that is its number."""
    for number, name in enumerate(["b.hcd", "a/c.HCD", "a/b/d.hcd"]):
        path = tmp_path / "coded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hcd.write(path, clip([[number]], (2,)))
    return tmp_path / "coded"


def never(name: str, reason: str) -> None:
    raise AssertionError(f"{name}: {reason}")


def test_a_folder_and_those_below_it(folder: Path) -> None:
    (folder / "notes.txt").write_text("no tokens")
    (folder / ".hidden.hcd").write_text("no tokens")
    found = [(name, tokens.codes.tolist()) for name, tokens in tokens_of(folder, never)]
    assert found == [("a/b/d.hcd", [[[2]]]), ("a/c.HCD", [[[1]]]), ("b.hcd", [[[0]]])]


def test_a_list_keeps_its_order(folder: Path) -> None:
    paths = [folder / "b.hcd", folder / "a/b/d.hcd"]
    assert [name for name, _ in tokens_of(paths, never)] == list(map(str, paths))


def test_files_without_frames_are_read_like_others(tmp_path: Path) -> None:
    hcd.write(tmp_path / "empty.hcd", clip(np.zeros((2, 0)), (2, 3)))
    ((name, tokens),) = tokens_of(tmp_path, never)
    assert (name, tokens.codes.shape) == ("empty.hcd", (1, 2, 0))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda data: b"", "ends after 0 bytes"),
        (lambda data: b"RIFF" + data, "not a .hcd file"),
        (lambda data: data[:-1], "bytes"),
        (lambda data: data[:-6] + bytes([data[-6] ^ 1]) + data[-5:], "damaged"),
    ],
    ids=["empty", "another format", "cut off", "a bit flipped"],
)
def test_a_bad_file_is_named_and_the_others_are_read(folder: Path, harm: Harm, reason: str) -> None:
    path = folder / "a/c.HCD"
    path.write_bytes(harm(path.read_bytes()))
    complaints: list[tuple[str, str]] = []
    names = [name for name, _ in tokens_of(folder, lambda *told: complaints.append(told))]
    assert names == ["a/b/d.hcd", "b.hcd"]
    ((name, why),) = complaints
    assert name == "a/c.HCD"
    assert reason in why
    assert "c.HCD" not in why  # the name is told once
    assert "\n" not in why


def test_a_listed_file_that_is_gone_is_named(tmp_path: Path) -> None:
    complaints: list[tuple[str, str]] = []
    path = tmp_path / "gone.hcd"
    assert list(tokens_of([path], lambda *told: complaints.append(told))) == []
    assert complaints == [(str(path), "No such file or directory")]


def test_a_folder_without_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no .hcd files; make some with `encode`"):
        next(tokens_of(tmp_path, never))
    with pytest.raises(UsageError, match="gone: no such file or directory"):
        next(tokens_of(tmp_path / "gone", never))


def test_reading_needs_no_torch(folder: Path) -> None:
    loaded = modules_after(
        "from pathlib import Path\n"
        "from codectool.evaluation.tokens.files import tokens_of\n"
        "from codectool.evaluation.tokens.table import token_csv, token_text\n"
        "from codectool.evaluation.tokens.usage import token_use\n"
        f"models = token_use(tokens_of(Path({str(folder)!r}), print))\n"
        "assert models[0].clips == 3\n"
        "token_text(models), token_csv(models)"
    )
    assert "numpy" in loaded
    assert not loaded & {"torch", "torchaudio", "soundfile", "soxr", "matplotlib", "PIL"}
