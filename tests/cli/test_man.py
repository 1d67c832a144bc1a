"""`codectool man`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from codectool.cli import COMMANDS
from tests.cli.conftest import Run


@pytest.fixture
def pages(run: Run, tmp_path: Path) -> list[Path]:
    assert run("man", tmp_path / "share" / "man1").code == 0
    return sorted(tmp_path.rglob("*.1"))


def rendered(page: Path) -> tuple[str, str]:
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    done = subprocess.run(
        ["man", "--local-file", "--warnings", page],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def test_there_is_a_page_for_every_command(pages: list[Path]) -> None:
    names = {path.stem for path in pages}
    assert {"codectool", *(f"codectool-{name}" for name in COMMANDS)} <= names


def test_man_renders_all_pages_without_warnings(pages: list[Path]) -> None:
    for page in pages:
        text, errors = rendered(page)
        assert errors == ""
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SEE ALSO"):
            assert f"\n{section}\n" in text, page.name


def test_page_has_usage_options_and_examples_of_the_help(pages: list[Path]) -> None:
    (page,) = [path for path in pages if path.stem == "codectool-decode"]
    text, _ = rendered(page)
    assert "codectool-decode - Decode INPUT, a .hcd file, to OUTPUT" in text
    assert "codectool decode [OPTIONS] INPUT [OUTPUT]" in text
    assert "  codectool decode talk.hcd minute.flac --start 1:00:00 --duration 60\n" in text
    assert "--precision [auto|fp32|bf16|fp16]\n" in text
    assert "codectool-encode(1)" in text


def test_pages_are_the_same_every_time(run: Run, pages: list[Path]) -> None:
    before = [page.read_bytes() for page in pages]
    assert run("man", pages[0].parent).code == 0
    assert [page.read_bytes() for page in pages] == before


def test_folder_that_cannot_be_made_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("man", tmp_path / "file" / "man1")
    assert result.code == 2
    assert "file/man1: cannot be created" in result.err
