"""`codectool tokens export`: shards, restarts, failures and every layout in every format."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import codectool
from codectool.container import read, write
from codectool.corpus import (
    ExportOptions,
    LayoutOptions,
    export_audio,
    export_tokens,
    open_dataset,
)
from codectool.corpus.formats import FORMATS
from codectool.corpus.records import group_channels
from codectool.errors import CodectoolError, TokensError, UsageError
from tests.cli.conftest import Options, Run
from tests.exports.trees import NAMES, SUPERCODEC, make_tokens, make_tree

LAYOUTS = [
    LayoutOptions(),
    LayoutOptions("codebooks", dtype="int64"),
    LayoutOptions("flat", offsets=True, id_base=32000),
    LayoutOptions("delay"),
    LayoutOptions("bits"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree(tmp_path / "tokens")
    return tmp_path / "tokens"


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("tokens-*.jsonl"))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.kind or "frames")
@pytest.mark.parametrize("name", list(FORMATS))
def test_records_come_back_equal(name: str, layout: LayoutOptions, tmp_path: Path) -> None:
    options = {"layout": SUPERCODEC, "tags": {"note": "ä"}, "channels": 2}
    made = make_tree(tmp_path / "in", ["mono.v1", "a/b c"], **(options | {"channels": 1}))
    made |= make_tree(tmp_path / "in", ["über/stereo"], **options)
    made |= make_tree(tmp_path / "in", ["empty"], layout=SUPERCODEC, frames=0)
    target = tmp_path / "out"
    report = export_tokens(tmp_path / "in", target, ExportOptions(format=name, layout=layout))
    assert (report.records, report.failures) == (5, {})
    dataset = open_dataset(target)
    assert dataset.metadata is not None
    assert dataset.metadata["fingerprint"] == "1ec5e85b"  # that of the tokens
    sequence = layout.make(SUPERCODEC.bits_per_codebook)
    found = {group[0].id: group for group in group_channels(dataset)}
    assert found.keys() == made.keys()
    for identifier, tokens in made.items():
        codes = [sequence.from_ids(record.tokens)[0] for record in found[identifier]]
        assert np.array_equal(codes, tokens.codes)
        record = found[identifier][0]
        assert (record.num_samples, record.sample_rate) == (tokens.num_samples, 16000)
        assert record.tags == tokens.tags
        if name != "jsonl":
            assert record.tokens.dtype == sequence.dtype


@pytest.mark.parametrize("suffix", [s for ss in FORMATS.values() for s in ss if s != ".npy"])
def test_suffix_chooses_a_single_file(suffix: str, tree: Path, run: Run) -> None:
    target = tree.parent / f"data{suffix}"
    assert run("tokens", "export", tree, target).code == 0
    dataset = open_dataset(target)
    assert dataset.metadata is not None
    assert dataset.metadata["layout"]["kind"] == "frames"
    assert [record.id for record in dataset] == list(NAMES)
    again = run("tokens", "export", tree, target)
    assert again.code == 2
    assert "exists; give `--overwrite`" in again.err
    assert run("tokens", "export", tree, target, "--overwrite").code == 0


def test_single_recording_becomes_one_npy_file(tree: Path, run: Run) -> None:
    target = tree.parent / "one.npy"
    assert run("tokens", "export", tree / "p253/one.hcd", target).code == 0
    assert np.array_equal(np.load(target), read(tree / "p253/one.hcd").codes[0].T)
    (record,) = open_dataset(target)
    assert record.id == "one"
    failed = run("tokens", "export", tree, tree.parent / "all.npy")
    assert failed.code == 2
    assert "a .npy file holds one sequence" in failed.err
    assert not (tree.parent / "all.npy").exists()


def test_equal_inputs_give_equal_bytes(tree: Path) -> None:
    for name in FORMATS:
        for target in ("a", "b"):
            export_tokens(tree, tree.parent / target / name, ExportOptions(format=name))
    files = [p.relative_to(tree.parent / "a") for p in (tree.parent / "a").rglob("*.*")]
    assert len(files) > 10
    for file in files:
        if file.name != "metadata.json" and (tree.parent / "a" / file).is_file():
            first, second = (tree.parent / target / file for target in ("a", "b"))
            assert first.read_bytes() == second.read_bytes(), file


def test_workers_write_the_same(tree: Path) -> None:
    make_tree(tree, [f"many/{number:03d}" for number in range(150)], frames=5)
    contents = []
    for workers in (1, 2):
        target = tree.parent / f"out{workers}"
        options = ExportOptions(format="jsonl", workers=workers, shard_records=100)
        assert export_tokens(tree, target, options).shards == 2
        contents.append([(target / name).read_bytes() for name in shards(target)])
    assert contents[0] == contents[1]


def test_shard_size_in_bytes_and_records(tree: Path, run: Run) -> None:
    names = [f"{number:03d}" for number in range(40)]
    make_tree(tree.parent / "in", names, frames=500)
    target = tree.parent / "out"
    sizes = ("tokens", "export", tree.parent / "in", target, "--format", "memmap", "--shard-size")
    assert run(*sizes, "20kB").code == 0
    parts = [path.stat().st_size for path in target.glob("*.bin")]
    assert len(parts) > 3
    assert max(parts) <= 20_000 * 1.1
    assert [record.id for record in open_dataset(target)] == names
    assert run(*sizes, "0").code == 2
    assert run(*sizes, "10MBit").code == 2


# Repeated exports


def test_repeated_export_keeps_shards_and_remakes_what_changed(tree: Path, run: Run) -> None:
    target = tree.parent / "out"
    command = ("tokens", "export", tree, target, "--format", "jsonl", "--shard-size", "1", "--json")
    run(*command)
    times = {path: path.stat().st_mtime_ns for path in target.glob("*.jsonl")}
    again = json.loads(run(*command).out)
    assert (again["kept"], again["records"]) == (3, 0)
    assert {path: path.stat().st_mtime_ns for path in target.glob("*.jsonl")} == times

    write(tree / "p253/two.hcd", make_tokens("other", frames=33))
    changed = run(*command)
    report = json.loads(changed.out)
    assert (report["kept"], report["records"]) == (2, 1)
    assert "inputs or options have changed: 2 of 3 shards are current" in changed.err
    records = list(open_dataset(target))
    assert [len(record.tokens) for record in records] == [20, 33, 22]

    (tree / "p253/one.hcd").unlink()
    assert run(*command).code == 0
    assert [record.id for record in open_dataset(target)] == list(NAMES[1:])


@pytest.mark.parametrize("name", list(FORMATS))
def test_old_shards_leave_no_files(name: str, tree: Path) -> None:
    target = tree.parent / "out"
    export_tokens(tree, target, ExportOptions(format=name, shard_records=1))
    (tree / "p253/one.hcd").unlink()
    report = export_tokens(tree, target, ExportOptions(format=name, shard_records=1))
    fresh = tree.parent / "fresh"
    export_tokens(tree, fresh, ExportOptions(format=name, shard_records=1))
    files = [
        sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        for folder in (target, fresh)
    ]
    assert files[0] == files[1]
    assert report.bytes == sum(p.stat().st_size for p in target.rglob("*.*") if p.is_file()) - (
        (target / "metadata.json").stat().st_size
    )


def test_folder_of_another_export_is_kept(tree: Path, run: Run) -> None:
    target = tree.parent / "out"
    command = ("tokens", "export", tree, target, "--format", "jsonl")
    run(*command)
    before = shards(target)
    for other in (("--layout", "flat"), ("--files-from", tree.parent / "list.txt")):
        (tree.parent / "list.txt").write_text("p253/one.hcd\n")
        failed = run(*command, *other)
        if other[0] == "--layout":
            assert failed.code == 2
            assert "give `--overwrite` to replace" in failed.err
            assert shards(target) == before
    assert run(*command, "--layout", "flat", "--overwrite").code == 0
    assert open_dataset(target).metadata["layout"]["kind"] == "flat"  # type: ignore[index]


def test_files_of_others_are_not_replaced(tree: Path, run: Run) -> None:
    target = tree.parent / "out"
    target.mkdir()
    (target / "metadata.json").write_text('{"mine": 1}')
    failed = run("tokens", "export", tree, target, "--format", "jsonl")
    assert failed.code == 2
    assert (target / "metadata.json").read_text() == '{"mine": 1}'


def test_interrupted_export_continues(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tree.parent / "out"
    options = ExportOptions(format="parquet", shard_records=1)
    calls = []

    def stop(done: int, _total: int) -> None:
        calls.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_tokens(tree, target, options, stop)
    assert len(list(target.glob("*.parquet"))) == 1
    assert not list(target.glob(".*"))
    with pytest.raises(UsageError, match="has not finished; repeat the command"):
        open_dataset(target)
    report = export_tokens(tree, target, options)
    assert (report.kept, report.records) == (1, 2)
    assert [record.id for record in open_dataset(target)] == list(NAMES)


def test_killed_export_leaves_no_half_shard(tmp_path: Path) -> None:
    tree, target = tmp_path / "in", tmp_path / "out"
    make_tree(tree, [f"{number:04d}" for number in range(400)], frames=3)
    program = (
        "import sys, time\n"
        "from codectool.corpus import ExportOptions, export_tokens\n"
        "slow = lambda done, total: time.sleep(0.02)\n"
        f"options = ExportOptions(format='webdataset', shard_records=64, workers=2)\n"
        f"if __name__ == '__main__': export_tokens({str(tree)!r}, {str(target)!r}, options, slow)\n"
    )
    (tmp_path / "program.py").write_text(program)
    started = subprocess.Popen([sys.executable, str(tmp_path / "program.py")])
    deadline = time.monotonic() + 60
    while not list(target.glob("tokens-00001*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()
    finished = list(target.glob("tokens-*"))
    assert finished
    report = export_tokens(tree, target, ExportOptions(format="webdataset", shard_records=64))
    assert report.kept >= 2
    assert len(list(open_dataset(target))) == 400
    assert not list(target.glob(".*"))


# Failures


def test_damaged_and_foreign_files_are_named(tree: Path, run: Run) -> None:
    damaged = tree / "p253/two.hcd"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    (tree / "foreign.hcd").write_bytes(b"RIFF" + bytes(60))
    command = ("tokens", "export", tree, tree.parent / "out", "--format", "jsonl", "--json")
    for _ in range(2):  # also when the shard is kept
        result = run(*command)
        assert result.code == 1
        failures = json.loads(result.out)["failures"]
        assert failures.keys() == {"p253/two.hcd", "foreign.hcd"}
        assert "error: foreign.hcd: not a .hcd file" in result.err
        assert "cut off" in failures["p253/two.hcd"]
    assert [record.id for record in open_dataset(tree.parent / "out")] == [NAMES[0], NAMES[2]]
    write(damaged, make_tokens("p253/two"))
    (tree / "foreign.hcd").unlink()
    assert run(*command).code == 0


def test_nothing_readable_is_one_error(tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.hcd").write_bytes(b"no")
    result = run("tokens", "export", tmp_path / "in", tmp_path / "out", "--format", "jsonl")
    assert result.code == 2
    assert "none of its files can be read" in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_mixed_weights_are_refused_by_name(workers: str, tree: Path, run: Run) -> None:
    write(tree / "z.hcd", make_tokens("x", fingerprint="00000001"))
    target = tree.parent / "out"
    result = run("tokens", "export", tree, target, "--format", "jsonl", "--workers", workers)
    assert result.code == 2
    assert "z.hcd: holds hac tokens 00000001" in result.err
    assert "--files-from" in result.err
    assert not list(target.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing", "out", "--format", "jsonl"), "there is no such file or folder"),
        (("tokens", "out"), "its suffix chooses no format; give `--format`"),
        (("tokens", "out.tar", "--format", "parquet"), "its suffix means webdataset"),
        (("tokens", "out.tar", "--shard-size", "5"), "is one file; name a folder"),
        (("tokens", "no/out.tar"), "there is no folder no"),
        (("tokens", "-", "--format", "jsonl"), "an export needs files"),
        (("tokens", "list.txt", "--format", "jsonl"), "is a file; name a folder"),
        (("tokens", "out.bin", "--dtype", "uint16"), "do not fit uint16"),
        (("tokens", "out.bin", "--manifest", "missing.csv"), "no such file"),
        (("tokens", "o.bin", "--manifest", "list.txt"), "has no column with a path or an id"),
        (("empty", "out.bin"), "contains no audio"),
    ],
)
def test_bad_usage(
    arguments: tuple[str, ...],
    message: str,
    tree: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    hac: Options,
) -> None:
    monkeypatch.chdir(tree.parent)
    Path("list.txt").write_text("nothing\n")
    Path("empty").mkdir()
    options = hac if arguments[0] == "empty" else ()
    result = run("tokens", "export", *arguments, *options)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tree.parent.glob("out*"))


def test_missing_pyarrow_names_the_extra(
    tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "codectool.corpus.formats.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("tokens", "export", tree, tree.parent / "out.parquet")
    assert result.code == 2
    assert "pip install 'codectool[tokens]'" in result.err


def test_export_of_hcd_needs_no_torch(tree: Path) -> None:
    for name in FORMATS:
        program = (
            "import sys\nsys.modules['torch'] = None\nfrom codectool.cli import main\n"
            f"main(['tokens', 'export', {str(tree)!r}, {str(tree.parent / name)!r}, "
            f"'--format', {name!r}])"
        )
        if name in ("parquet", "lhotse", "webdataset"):
            subprocess.run([sys.executable, "-c", program], check=True)


# Files


def test_files_from_selects_files(tree: Path, run: Run) -> None:
    target = tree.parent / "out.jsonl"
    listed = b"p300/three.wav\np253/one.hcd\nnot/there.hcd\n"
    command = ("tokens", "export", tree, target, "--files-from", "-")
    result = run(*command, stdin=listed)
    assert result.code == 1
    assert "not/there.hcd: no such file" in result.err
    assert [record.id for record in open_dataset(target)] == ["p253/one", "p300/three"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8(tree: Path, run: Run) -> None:
    os.rename(tree / "p253/two.hcd", os.fsencode(tree) + b"/p253/\xff.hcd")
    for name in FORMATS:
        target = tree.parent / name
        result = run("tokens", "export", tree, target, "--format", name)
        assert result.code == 0, result.err
        assert "p253/\\xff" in [record.id for record in open_dataset(target)]


@pytest.mark.parametrize(
    "identifier",
    ["../up", "/root", "a.b.c", "__x__", "a/../b", "line\nbreak", "x" * 400, "a//b", "."],
)
def test_odd_ids_stay_inside_the_data_set(identifier: str, tree: Path) -> None:
    manifest = tree.parent / "m.jsonl"
    manifest.write_text(json.dumps({"path": "p253/one.hcd", "id": identifier}))
    before = set(tree.parent.parent.rglob("*"))
    for name in FORMATS:
        target = tree.parent / "out" / name
        export_tokens(tree, target, ExportOptions(format=name, manifests=[manifest]))
        assert identifier in [record.id for record in open_dataset(target)], name
    after = set(tree.parent.parent.rglob("*"))
    assert all((tree.parent / "out") in (path, *path.parents) for path in after - before)


# Audio


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    (folder / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, channels in (("a/one.wav", 1), ("a/two.flac", 2)):
        samples = rng.normal(0, 0.1, (9000, channels))
        soundfile.write(folder / name, samples, 24000)
    return folder


def test_audio_is_encoded_on_the_way(recordings: Path, run: Run, hac: Options) -> None:
    (recordings / "bad.wav").write_bytes(b"not audio")
    (recordings / "text.csv").write_text("path,text\na/one.wav,Hello\nbad.wav,x\n")
    target = recordings.parent / "out"
    command = ("tokens", "export", recordings, target, "--format", "jsonl", *hac)
    result = run(*command, "--manifest", recordings / "text.csv", "--json")
    assert result.code == 1
    report = json.loads(result.out)
    assert list(report["failures"]) == ["bad.wav"]
    records = list(open_dataset(target))
    assert [(r.id, r.channel) for r in records] == [("a/one", 0), ("a/two", 0), ("a/two", 1)]
    assert records[0].columns["text"] == "Hello"
    run("encode", recordings / "a/two.flac", recordings.parent / "two.hcd", *hac)
    codes = read(recordings.parent / "two.hcd").codes
    assert np.array_equal(records[2].tokens, codes[1].T)

    (recordings / "a/two.flac").unlink()  # its .hcd file stays, but is not exported any more
    again = run(*command, "--json")
    assert again.code == 2
    assert "--overwrite" in again.err
    again = run(*command, "--overwrite", "--json")
    assert [record.id for record in open_dataset(target)] == ["a/one"]


def test_audio_file_to_a_single_file(recordings: Path, codecs: dict[str, codectool.Codec]) -> None:
    target = recordings.parent / "one.parquet"
    report = export_audio(codecs["hac"], recordings / "a/one.wav", target)
    assert report.records == 1
    assert [record.id for record in open_dataset(target)] == ["one"]
    assert sorted(path.name for path in recordings.parent.iterdir()) == [
        "one.parquet",
        "recordings",
    ]


def test_hcd_files_are_taken_before_audio(recordings: Path, run: Run, hac: Options) -> None:
    run("encode", recordings / "a/one.wav", recordings / "a/one.hcd", *hac)
    target = recordings.parent / "out.jsonl"
    assert run("tokens", "export", recordings, target).code == 0
    assert [record.id for record in open_dataset(target)] == ["a/one"]
    assert run("tokens", "export", recordings, target, "--overwrite", *hac).code == 0
    assert len(list(open_dataset(target))) == 3


# Reading


@pytest.mark.parametrize("name", list(FORMATS))
def test_damaged_data_sets_raise_errors_of_codectool(name: str, tree: Path) -> None:
    target = tree.parent / "out"
    export_tokens(tree, target, ExportOptions(format=name))
    files = [p for p in target.rglob("*") if p.is_file() and p.name != "metadata.json"]
    rng = np.random.default_rng(0)
    for file in files:
        data = file.read_bytes()
        for trial in range(12):
            damaged = bytearray(data[: len(data) * trial // 6] if trial < 6 else data)
            if trial >= 6:
                for place in rng.integers(0, len(data), 3):
                    damaged[place] ^= int(rng.integers(1, 256))
            file.write_bytes(damaged)
            with suppress(CodectoolError, OSError):
                list(open_dataset(target))
        file.write_bytes(data)
    assert len(list(open_dataset(target))) == 3


def test_parquet_cannot_fill_memory(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "bomb.parquet"
    ids = pyarrow.array(np.zeros(1 << 25, np.int32))
    row = pyarrow.ListArray.from_arrays([0, len(ids)], ids)
    pyarrow.parquet.write_table(pyarrow.table({"id": ["x"], "tokens": row}), path)
    assert path.stat().st_size < 10_000
    with pytest.raises(TokensError, match="33,554,432 ids in a row group are too many"):
        list(open_dataset(path))


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"id": "x", "tokens": [1, 2]}, {"id": "y", "tokens": []}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset = open_dataset(tmp_path / "a.jsonl")
    assert dataset.metadata is None
    assert [record.tokens.tolist() for record in dataset] == [[1, 2], []]
    with pytest.raises(UsageError, match="its suffix is of no format"):
        open_dataset(Path(__file__))


def test_progress_counts_kept_files(tree: Path) -> None:
    options = ExportOptions(format="jsonl", shard_records=1)
    export_tokens(tree, tree.parent / "out", options)
    calls: list[tuple[int, int]] = []
    export_tokens(tree, tree.parent / "out", options, lambda *call: calls.append(call))
    assert calls == [(3, 3)]
