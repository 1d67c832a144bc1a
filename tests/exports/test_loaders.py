"""The commands and lines of the guide: each data set is loaded by the library it is for."""

from __future__ import annotations

import gc
import glob
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codectool.corpus import SequenceLayout
from codectool.corpus.formats import FORMATS
from tests.cli.conftest import Run
from tests.exports.trees import NAMES, make_tree

# The libraries leave files open.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "token-datasets.md"
TEXTS = {"p253/one": "Hello, world", "p253/two": "a | b", "p300/three": "größer"}


def sections() -> dict[str, tuple[str, str]]:
    """Command and line of each format in the guide."""
    found = re.findall(
        r"^### (.+?)\n.*?```sh\n(.+?)\n```.*?```python\n(.+?)\n```",
        GUIDE.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return {title: (command, line) for title, command, line in found}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "huggingface"))
    made = make_tree(Path("tokens"))
    rows = [f'{name}.wav,"{TEXTS[name]}",{name[:4]},{i}' for i, name in enumerate(NAMES)]
    Path("metadata.csv").write_text("\n".join(["path,text,speaker,take", *rows]), "utf-8")
    return {name: tokens.codes[0].T for name, tokens in made.items()}


def load(title: str, run: Run, **modules: Any) -> dict[str, Any]:
    """Run a command of the guide, and its line; return the variables."""
    command, line = sections()[title]
    program, *arguments = command.split()
    assert program == "codectool"
    result = run(*arguments)
    assert result.code == 0, result.err
    assert not result.err
    variables = dict(modules)
    exec(line, variables)
    return variables


def quiet(datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "huggingface")


@pytest.mark.parametrize("title", ["Parquet", "JSON Lines"])
def test_datasets_loads_parquet_and_json(
    title: str,
    run: Run,
    corpus: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datasets = pytest.importorskip("datasets")
    quiet(datasets, tmp_path, monkeypatch)
    data = load(title, run, datasets=datasets)["data"]
    assert data["id"] == list(NAMES)
    assert data["text"] == list(TEXTS.values())
    assert data["take"] == [0, 1, 2]
    assert data.features["speaker"].dtype == "string"
    arrays = data.with_format("numpy")
    for row in arrays:
        assert np.array_equal(row["tokens"], corpus[row["id"]])
    if title == "Parquet":
        assert "int32" in str(data.features["tokens"])
        folder = datasets.load_dataset(str(tmp_path / "parquet"), split="train")
        assert folder["id"] == data["id"]


def test_webdataset_loads_tar(run: Run, corpus: dict[str, Any]) -> None:
    webdataset = pytest.importorskip("webdataset")
    samples = list(load("WebDataset", run, webdataset=webdataset, glob=glob)["data"])
    gc.collect()
    assert [sample["json"]["id"] for sample in samples] == list(NAMES)
    assert [sample["json"]["text"] for sample in samples] == list(TEXTS.values())
    for sample in samples:
        assert np.array_equal(sample["npy"], corpus[sample["__key__"]])


def test_lhotse_loads_shar(run: Run, corpus: dict[str, Any]) -> None:
    lhotse = pytest.importorskip("lhotse")
    cuts = list(load("Lhotse", run, lhotse=lhotse)["cuts"])
    gc.collect()
    assert [cut.id for cut in cuts] == list(NAMES)
    for cut in cuts:
        lhotse.validate(cut)
        assert np.array_equal(cut.load_tokens(), corpus[cut.id])
        assert cut.supervisions[0].text == TEXTS[cut.id]
        assert cut.supervisions[0].speaker == cut.id[:4]
        half = cut.truncate(duration=0.12)
        assert np.array_equal(half.load_tokens(), corpus[cut.id][:9])
    assert cuts[0].custom["num_samples"] == 20 * 320 - 11


def test_numpy_maps_memmap(run: Run, corpus: dict[str, Any]) -> None:
    ids = load("Memmap", run, numpy=np)["ids"]
    layout = SequenceLayout.make("flat", [18], group_bits=9, offsets=True, dtype="uint16")
    expected = [layout.to_ids(codes.T) for codes in corpus.values()]
    assert np.array_equal(ids, np.concatenate(expected))
    starts = np.load("train.idx.npy")
    assert np.array_equal(starts, np.cumsum([0, *map(len, expected)]))


def test_numpy_loads_npy(run: Run, corpus: dict[str, Any]) -> None:
    tokens = load("NumPy files", run, numpy=np)["tokens"]
    assert np.array_equal(tokens, corpus["p253/one"])


def test_guide_shows_every_format() -> None:
    commands = " ".join(command for command, _ in sections().values())
    for name, suffixes in FORMATS.items():
        assert f"--format {name}" in commands or any(f"{s} " in commands for s in suffixes), name
