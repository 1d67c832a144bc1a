"""The model registry: models of the package and the user, and the file of version 0.1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from codectool.checkpoints import registry
from codectool.checkpoints.load import load_model
from codectool.errors import CheckpointError, ConfigError, UsageError, WeightsMissingError
from tests.conftest import GOLDEN

BIGCODEC = GOLDEN / "bigcodec_micro.pt"


def read(home: Path) -> str:
    return (home / registry.FILE_NAME).read_text("utf-8")


def test_remembered_checkpoint_is_found_while_it_exists(own_home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(BIGCODEC.read_bytes())
    assert registry.find("01234567") is None
    registry.remember("01234567", "hac", copy)
    entry = registry.find("01234567")
    assert entry is not None
    assert (entry.name, entry.find()) == ("hac-01234567", copy)
    assert registry.named("hac-01234567") == entry
    copy.unlink()
    assert entry.find() is None
    with pytest.raises(WeightsMissingError, match=r"copy\.pt is gone; name them with `--checkp"):
        entry.locate()
    registry.remember("01234567", "hac", BIGCODEC)  # seen at another place
    assert registry.find("01234567").find() == BIGCODEC  # type: ignore[union-attr]
    assert read(own_home).count("[hac-01234567]") == 1


def test_remembering_known_weights_does_not_write(own_home: Path) -> None:
    registry.remember("01234567", "hac", BIGCODEC)
    before = (own_home / registry.FILE_NAME).stat().st_mtime_ns
    registry.remember("01234567", "hac", BIGCODEC)
    assert (own_home / registry.FILE_NAME).stat().st_mtime_ns == before


def test_user_entries_add_to_those_of_the_package(own_home: Path) -> None:
    text = f'[bigcodec]\npath = "{BIGCODEC}"\n[mine]\nfamily = "hac"\nsource = "/gone"\n'
    (own_home / registry.FILE_NAME).write_text(text)
    found = registry.entries(strict=True)
    assert list(found)[-2:] == ["bigcodec", "mine"]
    assert found["bigcodec"].source == "hf://Alethia/BigCodec/bigcodec.pt"
    assert found["bigcodec"].find() == BIGCODEC


def test_package_file_is_valid(own_home: Path) -> None:
    assert registry.entries(strict=True)
    for entry in registry.entries().values():
        assert entry.source
        assert entry.license
        assert entry.citation
        assert entry.sample_rate
        assert entry.bit_rate


@pytest.mark.parametrize(
    "name", ['a "quoted" \\ name', "tab\tand\x7f", "emoji \U0001f600", "ünïcode", "line\nbreak"]
)
def test_any_text_survives_the_file(own_home: Path, name: str) -> None:
    registry.record("my.model-1", family="hac", source="/x", citation=name, bit_rate=1350.5)
    registry.record("other", family="hac", downloaded=True, size=3)
    found = registry.entries(strict=True)
    assert found["my.model-1"].citation == name
    assert found["my.model-1"].bit_rate == 1350.5
    assert found["other"].downloaded
    registry.record("other", size=None)
    registry.forget("my.model-1")
    assert list(registry.entries(strict=True))[-1] == "other"
    assert registry.entries()["other"].size is None


def test_file_name_that_is_not_utf8_is_refused(own_home: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.pt"))
    with pytest.raises(UsageError, match="not UTF-8 cannot be recorded"):
        registry.remember("01234567", "hac", path)
    assert not (own_home / registry.FILE_NAME).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[hac", "cannot be read as TOML"),
        ("a = 1", "key 'a' stands outside of a table"),
        ("[mine]\nfamily = 3", "[mine]: `family` must be a string, not 3"),
        ("[mine]\nsource = '/x'", "[mine]: key `family` is missing"),
        ("[mine]\nfamily = 'hac'\nshasum = 'x'", "[mine]: unknown key `shasum`"),
        ("[mine]\nfamily = 'hac'\nsha256 = 'x'", "[mine]: `sha256` must be"),
        ("['a/b']\nfamily = 'hac'", "[a/b]: `name` must be"),
        ("[hac]\nsize = 2021-01-01", "[hac]: `size` must be"),
        ("x = " + "[" * 100_000, "cannot be read as TOML"),
        ("\0", "cannot be read as TOML"),
    ],
)
def test_invalid_user_file_is_ignored_by_codecs_and_kept(
    own_home: Path, text: str, message: str
) -> None:
    (own_home / registry.FILE_NAME).write_text(text)
    assert registry.default("hac").find() is not None  # type: ignore[union-attr]
    assert registry.named("mine") is None
    for function in (lambda: registry.entries(strict=True), lambda: registry.forget("mine")):
        with pytest.raises(ConfigError) as caught:
            function()
        line = str(caught.value)
        assert message in line
        assert str(own_home / registry.FILE_NAME) in line
        assert len(line) < 500
    assert read(own_home) == text


def test_pipe_in_place_of_the_file_does_not_block(own_home: Path) -> None:
    os.mkfifo(own_home / registry.FILE_NAME)
    os.mkfifo(own_home / registry.OLD_NAME)
    assert registry.find("01234567") is None


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {"family": "hac"},
        {"family": "hac", "path": ""},
        {"family": "hac", "path": "x" * 5000},
        {"family": "hac", "path": "a\0b"},
        {"family": "hac", "path": 3},
        {"family": "../x", "path": "/x"},
    ],
)
def test_invalid_entries_of_the_old_file_are_ignored(own_home: Path, entry: Any) -> None:
    (own_home / registry.OLD_NAME).write_text(json.dumps({"01234567": entry}))
    found = registry.find("01234567")
    assert found is None or found.find() is None
    (own_home / registry.OLD_NAME).write_text("[" * 200000)
    assert registry.find("01234567") is None


def test_old_file_is_read_and_moved_to_the_new_one(own_home: Path) -> None:
    old = {
        "01234567": {"family": "hac", "path": str(BIGCODEC), "config": None},
        "89abcdef": {"family": "supercodec", "path": "/gone", "config": "/c.json"},
        "1110df23": {"family": "hac", "path": "/elsewhere"},
    }
    (own_home / registry.OLD_NAME).write_text(json.dumps(old))
    assert registry.find("01234567").find() == BIGCODEC  # type: ignore[union-attr]
    assert registry.find("89abcdef").config == "/c.json"  # type: ignore[union-attr]
    assert registry.find("1110df23").name == "hac-1110df23"  # type: ignore[union-attr]
    registry.remember("00000001", "hac", BIGCODEC)
    assert not (own_home / registry.OLD_NAME).exists()
    assert set(registry.entries(strict=True)) >= {"hac-01234567", "supercodec-89abcdef"}
    assert registry.find("01234567").find() == BIGCODEC  # type: ignore[union-attr]


def test_concurrent_writers_lose_nothing(own_home: Path) -> None:
    def write(number: int) -> None:
        registry.remember(f"{number:08x}", "hac", BIGCODEC)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    assert sum(entry.name.startswith("hac-0000") for entry in registry.entries().values()) == 24


def test_mirror_folder_has_the_files_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REPOSITORY", tmp_path / "site")
    entry = registry.named("hac-1d8631bb")
    assert entry is not None
    assert (entry.find(), entry.remote, entry.is_bundled) == (None, None, False)
    with pytest.raises(WeightsMissingError, match="CODECTOOL_MIRROR") as caught:
        entry.locate()
    assert caught.value.model is None  # nothing to download from
    copy = tmp_path / "mirror" / "assets" / "weights" / "hac-1d8631bb.safetensors"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"x")
    monkeypatch.setenv("CODECTOOL_MIRROR", str(tmp_path / "mirror"))
    assert entry.find() == copy
    monkeypatch.setenv("CODECTOOL_MIRROR", "https://example.org/codectool/")
    assert entry.remote == "https://example.org/codectool/assets/weights/hac-1d8631bb.safetensors"


def test_folder_with_the_name_of_a_codec_is_not_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import codectool

    (tmp_path / "hac").mkdir()
    monkeypatch.chdir(tmp_path)
    assert codectool.load("hac", device="cpu").fingerprint == "ffcef39f"


def test_unknown_name_points_to_the_list() -> None:
    with pytest.raises(CheckpointError, match="bigcodek: no such file or folder; `codectool mod"):
        load_model(Path("bigcodek"))


def test_registry_does_not_import_torch_or_download_code() -> None:
    program = (
        "import sys, codectool.models as models\n"
        "[entry.find() for entry in models.entries().values()]\n"
        "assert not {'torch', 'numpy', 'pooch', 'requests'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
