"""The examples of docs/guides/language-models.md run."""

from __future__ import annotations

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import codectool
from codectool.corpus import ExportMetadata, LayoutOptions
from codectool.corpus.layouts import SequenceLayout
from tests.cli.conftest import Run, run  # noqa: F401  (fixture)
from tests.test_docs import ROOT, code_blocks

GUIDE = "docs/guides/language-models.md"


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `recordings/a.flac` and `speech.hcd`, which is the current directory."""
    monkeypatch.chdir(tmp_path)
    Path("recordings").mkdir()
    shutil.copy(ROOT / "assets" / "speech_espeak.flac", "recordings/a.flac")
    return tmp_path


def test_commands_and_programs(
    run: Run,  # noqa: F811
    corpus: Path,
) -> None:
    export, generated, piped = code_blocks(GUIDE, "sh")

    def run_all(block: str) -> None:
        for line in block.splitlines():
            data, _, command = line.rpartition(" | ")
            stdin = data.removeprefix("echo ").encode()
            result = run(*command.removeprefix("codectool ").split(), "--overwrite", stdin=stdin)
            assert (result.code, result.err) == (0, ""), line

    run_all(export)
    assert Path("back/a.hcd").read_bytes() == Path("tokens/a.hcd").read_bytes()
    ids = json.loads(Path("train.jsonl").read_text())["tokens"]
    np.save("generated.npy", np.array([ids, ids]))
    run_all(generated)
    assert len(list(Path("speech").glob("*.wav"))) == 2
    run_all(piped)
    assert Path("speech.wav").is_file()

    shutil.copy("tokens/a.hcd", "speech.hcd")
    first, second = code_blocks(GUIDE, "python")
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(first, names)
        exec(second, names)
    assert printed.getvalue() == code_blocks(GUIDE, "text")[0]
    assert names["audio"].shape == (1, 320 * (codectool.read("speech.hcd").num_frames - 1))


def test_metadata_are_those_of_an_export() -> None:
    (text,) = code_blocks(GUIDE, "json")
    metadata = ExportMetadata.from_json(json.loads(text))
    options = LayoutOptions("flat", group_bits=9, offsets=True, id_base=32000)
    assert metadata.layout == options.make((18,))


def test_table_of_layouts() -> None:
    frame_rates = {"HAC": (75, [18]), "BigCodec": (80, [13]), "SuperCodec": (50, [10, 10])}
    table = (ROOT / GUIDE).read_text().split("## Choose a layout")[1].split("\n- ")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("|")]
    assert len(rows) > 10
    for codec, layouts, ids, steps, vocabulary, dtype in rows[2:]:
        if found := re.match(r"\w+", codec.strip()):
            rate, bits = frame_rates[found[0]]
        for text, size in zip(layouts.split(" or "), vocabulary.split(" or "), strict=True):
            kind, *options = text.strip("` ").split()
            group = int(options[1]) if options[:1] == ["--group"] else None
            layout = SequenceLayout.make(
                kind, bits, group_bits=group, offsets="--offsets" in options
            )
            number = layout.ids_per_frame * rate
            assert int(ids.replace(",", "")) == number
            assert int(steps) == (number if kind == "flat" else rate)
            assert int(size.replace(",", "")) == layout.vocabulary_size
            assert dtype.strip() == layout.dtype
