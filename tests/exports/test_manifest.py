"""Joining manifests: every format of rows, every way of naming a file, and what goes wrong."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codectool.corpus import ExportOptions, export_tokens, open_dataset
from codectool.corpus.manifest import Join, join_manifests, read_manifest
from codectool.errors import CodectoolError, ConfigError, UsageError
from tests.cli.conftest import Run
from tests.exports.trees import NAMES, make_tree

FILES = ["a/one.hcd", "a/two.hcd", "b/three.hcd"]
Joined = Callable[..., Join]


@pytest.fixture
def join(tmp_path: Path) -> Joined:
    """Write a manifest and join it to `FILES`."""

    def call(name: str, content: str | bytes, files: list[str] = FILES) -> Join:
        data = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return join_manifests([path], tmp_path / "tokens", files)

    return call


def texts(join: Join) -> dict[str, Any]:
    return {name: row.get("text") for name, row in join.rows.items()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "path,text\na/one.wav,hi\n"),
        ("m.csv", '\ufeffpath,text\r\n"a/one.wav","hi"\r\n'),
        ("m.csv", "text;file_name\nhi;a/one.mp3\n"),
        ("m.csv", "id|text\na/one|hi\n"),
        ("m.tsv", "client_id\tpath\tsentence\nx\tone.mp3\thi\n"),
        ("m.tsv", 'path\ttext\none\t"hi"\n'),
        ("m.csv", "a/one|hi\n"),
        ("m.txt", "one|hi|Hi.\n"),
        ("m.txt", "x1|a/one.wav|hi\n"),
        ("m.txt", "wavs/one.wav|speaker|hi\n"),
        ("m.txt", "a/one.wav|hi\n"),
        ("m.jsonl", '{"audio_filepath": "/data/a/one.flac", "text": "hi", "duration": 1}\n\n'),
        ("m.jsonl.gz", '{"id": "one", "transcription": "hi"}'),
        ("m.jsonl", '{"audio": {"path": "a/one.wav"}, "text": "hi"}'),
        ("m.csv", "path,text\n./a/../a/one.hcd,hi\n"),
        ("m.csv", "path,text\na\\one.wav,hi\n"),
    ],
)
def test_rows_of_every_format_find_their_file(name: str, content: str, join: Joined) -> None:
    assert texts(join(name, content)) == {"a/one.hcd": "hi"}


def test_absolute_paths_and_paths_from_the_manifest(join: Joined, tmp_path: Path) -> None:
    rows = [f"{tmp_path}/tokens/a/one.wav,x", "tokens/a/two.wav,y", "b/three.wav,z"]
    found = join("m.csv", "\n".join(["path,text", *rows]))
    assert texts(found) == dict(zip(FILES, "xyz", strict=True))


def test_path_decides_before_id(join: Joined) -> None:
    found = join("m.csv", "id,path,text\ntwo,a/one.wav,hi\n")
    assert found.rows["a/one.hcd"] == {"id": "two", "text": "hi"}


def test_ambiguous_names_match_nothing(join: Joined) -> None:
    found = join("m.csv", "id,text\n1,x\na/1,y\n", ["a/1.hcd", "b/1.hcd"])
    assert texts(found) == {"a/1.hcd": "y"}
    assert found.unmatched_rows[0].endswith("m.csv: line 2 (1)")
    assert found.unmatched_files == ["b/1.hcd"]


def test_letters_match_in_both_unicode_forms(join: Joined) -> None:
    name = unicodedata.normalize("NFD", "größe.hcd")
    row = unicodedata.normalize("NFC", "größe")
    assert texts(join("m.csv", f"id,text\n{row},é\n", [name])) == {name: "é"}


def test_texts_keep_bars_quotes_and_line_breaks(join: Joined) -> None:
    assert texts(join("m.txt", "one|a/one.wav|x | y\n")) == {"a/one.hcd": "x | y"}
    assert texts(join("m.csv", 'id,text\none,"a ""b"", c\nd"\n')) == {"a/one.hcd": 'a "b", c\nd'}
    assert texts(join("m.tsv", 'id\ttext\none\t"Hi" he said\n')) == {"a/one.hcd": '"Hi" he said'}
    assert texts(join("m.tsv", 'id\ttext\none\t"a ""b"""\n')) == {"a/one.hcd": 'a "b"'}


def test_types_of_columns(join: Joined) -> None:
    lines = [
        "id,speaker,age,score,code,mixed,none",
        "a/one,103,30,1,007,1,",
        "a/two,104,,2.5e-1,008,x,",
    ]
    found = join("m.csv", "\n".join(lines))
    assert found.columns == {
        "speaker": "string",
        "age": "int",
        "score": "float",
        "code": "string",
        "mixed": "string",
        "none": "string",
    }
    assert found.rows["a/one.hcd"]["age"] == 30
    assert found.rows["a/two.hcd"] == {
        "id": "a/two",
        "speaker": "104",
        "age": None,
        "score": 0.25,
        "code": "008",
        "mixed": "x",
        "none": None,
    }


def test_types_of_objects(join: Joined) -> None:
    rows = [
        {
            "id": "a/one",
            "n": 1,
            "f": 1,
            "b": True,
            "x": [1],
            "m": 1,
            "s": "7",
            "speaker": 5,
            "big": 1 << 70,
        },
        {"id": "a/two", "n": 2, "f": 0.5, "b": False, "m": "t", "text": None},
    ]
    found = join("m.jsonl", "\n".join(map(json.dumps, rows)))
    kinds = {
        "n": "int",
        "f": "float",
        "b": "bool",
        "x": "json",
        "m": "string",
        "s": "string",
        "text": "string",
    }
    assert found.columns == kinds | {"speaker": "string", "big": "string"}
    row = found.rows["a/one.hcd"]
    assert (row["m"], row["speaker"], row["big"], row["x"]) == ("1", "5", str(1 << 70), [1])
    assert found.rows["a/two.hcd"]["x"] is None


def test_columns_with_reserved_names_are_renamed(join: Joined) -> None:
    found = join("m.csv", "id,tokens,num_samples,duration\none,1 2,5,3.0\n")
    row = found.rows["a/one.hcd"]
    assert (row["manifest_tokens"], row["manifest_num_samples"]) == ("1 2", 5)
    assert "duration" not in found.columns


def test_lhotse_manifests(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    names = [name.rpartition(".")[0] for name in FILES]
    recordings = lhotse.RecordingSet.from_recordings(
        lhotse.Recording(
            id=name.replace("/", "-"),
            sources=[lhotse.AudioSource("file", [0], f"/corpus/{name}.wav")],
            sampling_rate=16000,
            num_samples=16000,
            duration=1.0,
        )
        for name in names
    )
    supervisions = lhotse.SupervisionSet.from_segments(
        lhotse.SupervisionSegment(
            id=f"{name}-{part}",
            recording_id=name.replace("/", "-"),
            start=part / 2,
            duration=0.5,
            text=f"{name} {part}",
            speaker=name[:1],
            language="en",
        )
        for name in names
        for part in (0, 1)
    )
    cuts = lhotse.CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    for cut in cuts:
        cut.custom = {"snr": 20}
    paths = [tmp_path / f"{kind}.jsonl.gz" for kind in ("recordings", "supervisions", "cuts")]
    for path, manifest in zip(paths, (recordings, supervisions, cuts), strict=True):
        manifest.to_file(path)
    expected = {"text": "a/one 0 a/one 1", "speaker": "a", "language": "en"}

    found = join_manifests([paths[2]], tmp_path, FILES)
    assert found.rows["a/one.hcd"].items() >= (expected | {"snr": 20}).items()
    assert not found.problems()

    flat = [name.replace("/", "-") for name in FILES]  # named as the recordings
    found = join_manifests(paths[:2], tmp_path, flat)
    assert found.rows["a-one.hcd"].items() >= (expected | {"id": "a-one"}).items()
    assert not found.problems()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "", "is empty"),
        ("m.csv", "name,text\nx,y\n", "has no column with a path or an id"),
        ("m.csv", b"id,text\none,caf\xe9\n", "line 2 is not UTF-8"),
        ("m.csv", "id,text\n".encode("utf-16"), "is UTF-16 text"),
        ("m.csv", 'id,text\none,"never ends\ntwo,x\n', "line 3: is not CSV"),
        ("m.csv", "id,text\none,a,b\n", "line 2: has 3 columns, but the header 2"),
        ("m.csv", "id,text,text\none,a,b\n", "names the column text twice"),
        ("m.csv", "id,path,text\n,,b\n", "line 2: has neither an id nor a path"),
        ("m.csv", "id,text\none,a\na/one,b\n", "line 3: belongs to a/one.hcd, as does line 2"),
        ("m.txt", "one|a|b\ntwo|a\n", "line 2: has 2 columns instead of id|text|normalized_text"),
        ("m.jsonl", '{"id": "one"\n', "line 1: is not JSON"),
        ("m.jsonl", "[1]\n", "line 1: is not a JSON object"),
        ("m.jsonl", '{"text": "x"}\n', "line 1: has no key with a path or an id"),
        ("m.jsonl", "[" * 100_000, "line 1: is not JSON"),
        ("m.csv", "id,text\n" + "x" * (1 << 24), "line 2 is not text"),
        ("m.csv", b"PK\x03\x04\0\0", "is not text"),
    ],
)
def test_errors_name_manifest_and_line(
    name: str, content: str | bytes, message: str, join: Joined
) -> None:
    with pytest.raises(ConfigError, match=message.replace("|", r"\|")) as caught:
        join(name, content)
    assert "\n" not in str(caught.value)


def test_compressed_manifests_cannot_fill_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl.gz"
    line = b'{"id": "one", "text": "' + b"x" * 100_000 + b'"}\n'
    path.write_bytes(gzip.compress(line * 1000))
    with pytest.raises(ConfigError, match="expands to more than 200 times"):
        for _ in read_manifest(path):
            pass
    path.write_bytes(gzip.compress(line)[:-20])
    with pytest.raises(ConfigError, match="damaged or cut off"):
        list(read_manifest(path))
    path.write_bytes(line)
    with pytest.raises(ConfigError, match="is not gzip"):
        list(read_manifest(path))


@pytest.mark.parametrize("rows", ["p253/one,x\np253/two,x", "p253/one,p300/three"])
def test_ids_must_differ(rows: str, tmp_path: Path) -> None:
    make_tree(tmp_path / "tokens")
    (tmp_path / "m.csv").write_text(f"path,id\n{rows}\n")
    options = ExportOptions(manifests=[tmp_path / "m.csv"])
    with pytest.raises(UsageError, match="would both have the id"):
        export_tokens(tmp_path / "tokens", tmp_path / "out.bin", options)


def test_repeated_equal_rows_are_one(join: Joined) -> None:
    assert texts(join("m.csv", "id,text\none,a\none,a\n")) == {"a/one.hcd": "a"}


# In the command


def test_export_counts_and_names_what_does_not_match(tmp_path: Path, run: Run) -> None:
    make_tree(tmp_path / "tokens")
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,text,duration\np253/one.wav,Hi,9.5\nno.wav,x,1\n")
    command = ("tokens", "export", tmp_path / "tokens", tmp_path / "out", "--format", "jsonl")
    result = run(*command, "--manifest", manifest, "--json")
    assert result.code == 0
    report = json.loads(result.out)["manifest"]
    assert (report["rows"], report["matched"]) == (2, 1)
    assert report["unmatched_files"] == ["p253/two.hcd", "p300/three.hcd"]
    assert "manifest: 1 row has no file: " in result.err
    assert "m.csv: line 3 (no.wav)" in result.err
    assert "manifest: 2 files have no row: p253/two.hcd; p300/three.hcd" in result.err
    assert "p253/one.hcd: 0.27 s, in the manifest 9.50 s" in result.err
    columns = [record.columns for record in open_dataset(tmp_path / "out")]
    assert columns == [{"text": "Hi"}, {"text": None}, {"text": None}]

    strict = run(*command, "--manifest", manifest, "--strict", "--overwrite")
    assert strict.code == 2
    assert "(`--strict`)" in strict.err

    manifest.write_text("path,text\nno.wav,x\n")
    nothing = run(*command, "--manifest", manifest, "--overwrite")
    assert nothing.code == 2
    assert "no row of the manifest belongs to a file" in nothing.err


def test_changed_rows_remake_only_their_shard(tmp_path: Path) -> None:
    make_tree(tmp_path / "tokens")
    manifest = tmp_path / "m.csv"
    options = ExportOptions(format="parquet", shard_records=1, manifests=[manifest])
    for text, kept in (("a", 0), ("b", 2)):
        rows = [f"{NAMES[0]},{text}", *(f"{name},same" for name in NAMES[1:])]
        manifest.write_text("\n".join(["path,text", *rows]))
        assert export_tokens(tmp_path / "tokens", tmp_path / "out", options).kept == kept
    found = [record.columns["text"] for record in open_dataset(tmp_path / "out")]
    assert found == ["b", "same", "same"]


@pytest.mark.parametrize("name", ["parquet", "webdataset", "jsonl", "npy", "lhotse", "memmap"])
def test_columns_of_every_type_come_back(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path / "tokens")
    manifest = tmp_path / "m.jsonl"
    values = {"text": "ä\n\"'|", "n": -3, "f": 0.5, "b": True, "x": {"y": [1, None]}}
    manifest.write_text(json.dumps({"path": "p253/one.wav", "id": "é.1"} | values))
    options = ExportOptions(format=name, manifests=[manifest])
    export_tokens(tmp_path / "tokens", tmp_path / "out", options)
    first, second, _ = open_dataset(tmp_path / "out")
    assert (first.id, second.id) == ("é.1", "p253/two")
    assert dict(first.columns) == values
    assert not any(second.columns.values())


def test_random_bytes_are_refused(join: Joined) -> None:
    rng = np.random.default_rng(0)
    for name in ("m.csv", "m.tsv", "m.txt", "m.jsonl"):
        for size in (1, 50, 5000):
            content = bytes(rng.integers(0, 256, size, np.uint8))
            with pytest.raises(CodectoolError):
                join(name, content).check(strict=False)
