"""`codectool tokens import`: ids back to .hcd files and audio."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import codectool
from codectool.codec import Codec
from codectool.corpus import ExportOptions, LayoutOptions, SequenceLayout, export_tokens
from codectool.corpus.formats import FORMATS
from codectool.tokens import TokenLayout, Tokens
from tests.cli.conftest import Run
from tests.signals import speechlike

SUPERCODEC = TokenLayout("supercodec", 16_000, 320, (10, 10))
HAC = TokenLayout("hac", 24_000, 320, (18,))


def make_tokens(
    layout: TokenLayout = SUPERCODEC, frames: int = 20, channels: int = 1, **fields: Any
) -> Tokens:
    rng = np.random.default_rng(frames)
    codes = [rng.integers(0, 1 << b, (channels, 1, frames)) for b in layout.bits_per_codebook]
    samples = frames * layout.hop_length
    values = {"sample_rate": layout.sample_rate, "num_samples": samples, **fields}
    return Tokens(np.concatenate(codes, axis=1), layout, "0123abcd", **values)


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Tokens]:
    """Files of every kind in `corpus/`: several channels, rates, segments, tags, no frames."""
    files = {
        "a": make_tokens(tags={"speaker": "p253", "note": "ü"}),
        "spk/b": make_tokens(frames=7, sample_rate=44_100, num_samples=5000),
        "spk/stereo": make_tokens(channels=2, frames=9, sample_rate=48_000, num_samples=8000),
        "segments": make_tokens(frames=33, segment_frames=10),
        "quiet": make_tokens(frames=4, gain_db=17.25),
        "empty": make_tokens(frames=0),
        "one": make_tokens(frames=1, num_samples=1),
        "padded": make_tokens(frames=12, num_samples=3000),
        "x y.z": make_tokens(frames=3),
    }
    for name, tokens in files.items():
        path = tmp_path / "corpus" / f"{name}.hcd"
        path.parent.mkdir(parents=True, exist_ok=True)
        codectool.write(path, tokens)
    return files


@pytest.fixture
def like(tmp_path: Path) -> Path:
    codectool.write(tmp_path / "like.hcd", make_tokens())
    return tmp_path / "like.hcd"


def assert_equal(path: Path, tokens: Tokens) -> None:
    assert path.read_bytes() == hcd_bytes(tokens)


def hcd_bytes(tokens: Tokens) -> bytes:
    file = io.BytesIO()
    codectool.write(file, tokens)
    return file.getvalue()


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    "layout",
    [
        LayoutOptions(),
        LayoutOptions("flat", offsets=True, id_base=32_000),
        LayoutOptions("delay", group_bits=5),
        LayoutOptions("bits"),
    ],
    ids=lambda layout: layout.kind,
)
def test_import_of_an_export_gives_the_same_files(
    run: Run, tmp_path: Path, corpus: dict[str, Tokens], format_name: str, layout: LayoutOptions
) -> None:
    for package in {"parquet": ["pyarrow"], "lhotse": ["lhotse"]}.get(format_name, []):
        pytest.importorskip(package)
    export_tokens(
        tmp_path / "corpus", tmp_path / "set", ExportOptions(format=format_name, layout=layout)
    )
    result = run("tokens", "import", tmp_path / "set", tmp_path / "back", "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["records"] == len(corpus)
    found = [p.relative_to(tmp_path / "back") for p in (tmp_path / "back").rglob("*.hcd")]
    assert sorted(str(p)[:-4] for p in found) == sorted(corpus)
    for name, tokens in corpus.items():
        assert_equal(tmp_path / "back" / f"{name}.hcd", tokens)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".tar", ".npy", ".bin"])
def test_import_of_an_export_in_one_file(run: Run, tmp_path: Path, suffix: str) -> None:
    tokens = make_tokens(tags={"a": "b"})
    codectool.write(tmp_path / "in.hcd", tokens)
    export_tokens(tmp_path / "in.hcd", tmp_path / f"set{suffix}")
    result = run("tokens", "import", tmp_path / f"set{suffix}", tmp_path / "out.hcd")
    assert (result.code, result.err) == (0, "")
    assert_equal(tmp_path / "out.hcd", tokens)


def test_ids_on_stdin_and_tokens_on_stdout(run: Run, like: Path) -> None:
    tokens = make_tokens()
    layout = SequenceLayout.make("flat", (10, 10), offsets=True, id_base=100)
    text = " ".join(map(str, layout.to_ids(tokens.codes)))
    options = ("--like", like, "--layout", "flat", "--offsets", "--id-base", 100)
    for data in (text.encode(), json.dumps(layout.to_ids(tokens.codes).tolist()).encode()):
        result = run("tokens", "import", "-", "-", *options, stdin=data)
        assert (result.code, result.err) == (0, "")
        assert result.out == hcd_bytes(tokens)


def test_an_export_states_the_layout_of_plain_ids(run: Run, tmp_path: Path) -> None:
    tokens = make_tokens(HAC)
    codectool.write(tmp_path / "in.hcd", tokens)
    options = LayoutOptions("flat", group_bits=9, offsets=True, id_base=50_000)
    export_tokens(tmp_path / "in.hcd", tmp_path / "set.jsonl", ExportOptions(layout=options))
    ids = options.make((18,)).to_ids(tokens.codes)
    np.save(tmp_path / "ids.npy", np.stack([ids, ids]).astype(np.int64))
    result = run(
        "tokens", "import", tmp_path / "ids.npy", tmp_path / "out", "--like", tmp_path / "set.jsonl"
    )
    assert (result.code, result.err) == (0, "")
    for name in ("ids-00001", "ids-00002"):
        assert_equal(tmp_path / "out" / f"{name}.hcd", tokens)


@pytest.mark.parametrize("family", ["hac", "bigcodec", "supercodec"])
def test_ids_are_decoded_to_the_audio_of_the_tokens(
    run: Run, tmp_path: Path, codecs: dict[str, Codec], checkpoints: dict[str, Path], family: str
) -> None:
    codec = codecs[family]
    tokens = codec.encode(speechlike(0.8, 22_050), 22_050)
    layout = SequenceLayout.make("flat", codec.layout.bits_per_codebook, offsets=True)
    line = {"id": "x", "ids": layout.to_ids(tokens.codes).tolist(), "sample_rate": 22_050}
    line["num_samples"] = tokens.num_samples
    (tmp_path / "ids.jsonl").write_text(json.dumps(line))
    options = ("--checkpoint", checkpoints[family], "--device", "cpu")
    layout_options = ("--layout", "flat", "--offsets")
    expected = codec.decode(tokens)
    for target in (tmp_path / "out.wav", tmp_path / "folder"):
        result = run(
            *("tokens", "import", tmp_path / "ids.jsonl", target, *options, *layout_options),
            *("--format", "wav", "--subtype", "FLOAT"),
        )
        assert (result.code, result.err) == (0, "")
        path = target if target.suffix else target / "x.wav"
        samples, rate = soundfile.read(path, always_2d=True, dtype="float32")
        assert rate == 22_050
        np.testing.assert_allclose(samples.T, expected, atol=1e-5)


def test_few_frames_of_a_language_model_are_decoded(
    run: Run, tmp_path: Path, codecs: dict[str, Codec], checkpoints: dict[str, Path]
) -> None:
    """A model may generate less than the codec encodes at least."""
    options = ("--checkpoint", checkpoints["supercodec"], "--device", "cpu")
    hop = codecs["supercodec"].hop_length
    for frames in (0, 1, 2):
        ids = " ".join(["3 4"] * frames) or "[]"
        result = run(
            *("tokens", "import", "-", tmp_path / f"{frames}.wav", "--layout", "flat", *options),
            stdin=ids.encode(),
        )
        assert (result.code, result.err) == (0, "")
        assert soundfile.info(tmp_path / f"{frames}.wav").frames == frames * hop


def lines(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


FLAT = ("--layout", "flat", "--offsets", "--id-base", "10")


@pytest.mark.parametrize(
    ("ids", "options", "codes", "warning"),
    [
        ([1, 10, 1034, 2], (), [[[0], [0]]], "1 id stripped at the start; 1 id stripped at"),
        ([10, 3000, 11, 1035], ("--on-bad-id", "clamp"), [[[0, 1], [1023, 1]]], "1 id clamped"),
        ([10, 3, 11, 1035], ("--on-bad-id", "drop-frame"), [[[1], [1]]], "1 frame dropped"),
        ([10, 1034, 11], ("--on-bad-id", "drop-frame"), [[[0], [0]]], "1 frame dropped"),
        ([10, 1034, 1035, 12, 1036], ("--realign",), [[[0, 2], [0, 2]]], "realigned: 1 id in 1"),
        ([10, 5, 1034], ("--special-ids", "5,6"), [[[0], [0]]], "1 special id removed"),
    ],
)
def test_repairs_are_reported(
    run: Run, tmp_path: Path, like: Path, ids: Any, options: Any, codes: Any, warning: str
) -> None:
    source = lines(tmp_path / "ids.jsonl", [{"id": "r", "ids": ids}])
    result = run(
        "tokens", "import", source, tmp_path / "o.hcd", "--like", like, *FLAT, *options, "--json"
    )
    assert result.code == 0
    assert warning in result.err
    assert warning in json.loads(result.out)["changes"]["r"]
    assert codectool.read(tmp_path / "o.hcd").codes.tolist() == codes


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (
            [10, 3, 11, 1035],
            (),
            "record r: id 3 at position 1 (frame 0, codebook 1) is not in 10",
        ),
        ([10, 11, 12, 13], (), "record r: id 11 at position 1 (frame 0, codebook 1) belongs to"),
        ([10, 1034, 11], (), "record r: 3 ids are not whole frames of 2: frame 1 has only 1"),
        ([10.5, 1034], (), "line 1: tokens are not an array of integers"),
        ([1, 2], (), "record r: none of the ids, such as 1, is in the vocabulary 10..2057"),
        ([[10, 1034], [11]], (), "are not an array|holds several"),
        ([10, 1034], ("--special-ids", "10"), "special id 10 is the id of a code"),
        ([10, 1034], ("--special-ids", "a"), "`a` is not ids separated by commas"),
        ([10, 1034], ("--realign", "--on-bad-id", "clamp"), "`--realign` cannot clamp"),
        ([10, 1034], ("--column", "codes2"), "has no key 'codes2'"),
        ([10, 1034], ("--dtype", "uint8"), "ids 0..2057 do not fit uint8"),
    ],
)
def test_bad_ids_are_one_line_that_says_where(
    run: Run, tmp_path: Path, like: Path, ids: Any, options: Any, message: str
) -> None:
    source = lines(tmp_path / "ids.jsonl", [{"id": "r", "ids": ids}])
    result = run("tokens", "import", source, tmp_path / "o.hcd", "--like", like, *FLAT, *options)
    assert result.code == 2
    assert any(part in result.err for part in message.split("|")), result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "o.hcd").exists()


def test_truncated_records_are_refused_or_made_shorter(
    run: Run, tmp_path: Path, like: Path
) -> None:
    record = {"id": "r", "ids": [10, 1034], "num_samples": 5000, "sample_rate": 16_000}
    source = lines(tmp_path / "ids.jsonl", [record])
    command = ("tokens", "import", source, tmp_path / "o.hcd", "--like", like, *FLAT)
    result = run(*command)
    assert result.code == 2
    assert "record r: has 1 frames, but its 5000 samples need 16; `--on-bad-id" in result.err
    result = run(*command, "--on-bad-id", "drop-frame")
    assert "1 of 16 frames left" in result.err
    assert codectool.read(tmp_path / "o.hcd").num_samples == 320


def test_a_record_that_was_continued_is_decoded_to_its_end(
    run: Run, tmp_path: Path, like: Path
) -> None:
    record = {"id": "r", "ids": [10, 1034] * 100, "num_samples": 640, "sample_rate": 16_000}
    source = lines(tmp_path / "ids.jsonl", [record])
    result = run("tokens", "import", source, tmp_path / "o.hcd", "--like", like, *FLAT)
    assert "longer than its 640 samples: all 100 frames are decoded" in result.err
    assert codectool.read(tmp_path / "o.hcd").num_samples == 32_000


def test_names_from_records_stay_in_the_folder(run: Run, tmp_path: Path, like: Path) -> None:
    names = ["../up", "/abs", "a/../../b", ".", "..", "", "a\0b", "C:\\x", "x" * 300, "~", "ü/é"]
    source = lines(tmp_path / "ids.jsonl", [{"id": n, "ids": [10, 1034]} for n in names])
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    result = run("tokens", "import", source, tmp_path / "out", "--like", like, *FLAT)
    assert (result.code, result.err) == (0, "")
    assert {p for p in tmp_path.rglob("*") if "out" not in p.parts} == before
    assert len(list((tmp_path / "out").rglob("*.hcd"))) == len(names)


def test_a_record_that_fails_does_not_stop_the_others(run: Run, tmp_path: Path, like: Path) -> None:
    records = [
        {"id": "bad", "ids": [10, 10]},
        {"id": "good", "ids": [10, 1034]},
        {"id": "good", "ids": [11, 1034]},
    ]
    source = lines(tmp_path / "ids.jsonl", records)
    command = ("tokens", "import", source, tmp_path / "out", "--like", like, *FLAT)
    result = run(*command, "--json")
    assert result.code == 1
    assert "record bad: id 10 at position 1" in result.err
    assert "the id is there twice" in result.err
    assert set(json.loads(result.out)["failures"]) == {"bad", "good"}
    assert codectool.read(tmp_path / "out" / "good.hcd").codes[0, 0, 0] == 0
    result = run(*command)
    assert "exists; give `--overwrite`" in result.err
    result = run(*command, "--skip-existing", "--json")
    assert json.loads(result.out)["skipped"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ids.txt", "o.hcd"), "does not say what its ids mean; give `--like`"),
        (("missing.npy", "o.hcd", "--like", "like.hcd"), "missing.npy: "),
        (("missing", "o.hcd", "--like", "like.hcd"), "missing: no such file"),
        (("ids.txt", "o.hcd", "--like", "missing.hcd"), "missing.hcd: no such file"),
        (("ids.txt", "o.hcd", "--like", "ids.txt"), "ids.txt: "),
        (("ids.txt", "o.ogg", "--like", "like.hcd", "--format", "wav"), "only .hcd, .wav and"),
        (("ids.txt", "like.hcd", "--like", "like.hcd"), "like.hcd: exists; give `--overwrite`"),
        (("ids.txt", "none/o.hcd", "--like", "like.hcd"), "there is no folder"),
        (("ids.txt", "ids.txt", "--like", "like.hcd"), "is not a folder; name a folder, or a"),
        (("ids.txt", "o.wav", "--like", "like.hcd"), "tokens 0123abcd; no weights on this machine"),
        (("like.hcd", "o.hcd"), "like.hcd: "),
        (("set.jsonl", "o.hcd", "--like", "like.hcd"), "leave out `--like` and the layout"),
        (("set.jsonl", "o.hcd", "--layout", "flat"), "leave out `--like` and the layout"),
        (("ids.txt", "o.hcd", "--like", "set.jsonl", "--layout", "flat"), "states its layout"),
        (("two.txt", "o.hcd", "--like", "like.hcd", "--layout", "flat"), "several recordings"),
        (("blank.txt", "o.hcd", "--like", "like.hcd"), "holds no ids"),
    ],
)
def test_unclear_requests_are_refused(
    run: Run, tmp_path: Path, like: Path, monkeypatch: Any, arguments: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ids.txt").write_text("1 2\n")
    Path("two.txt").write_text("1 2\n3 4\n")
    Path("blank.txt").write_text("\n\n")
    export_tokens(like, Path("set.jsonl"))
    before = sorted(path.name for path in tmp_path.iterdir())
    result = run("tokens", "import", *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_import_of_hcd_needs_no_torch(tmp_path: Path, like: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['codectool', 'tokens', 'import', '-', sys.argv[2], '--like', "
        "sys.argv[1], '--layout', 'flat']\n"
        "from codectool.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(like), str(tmp_path / "o.hcd")],
        input=b"1 2",
        capture_output=True,
        check=True,
    )
    assert done.stderr.decode().strip() == "False"
    assert (tmp_path / "o.hcd").exists()


def test_a_folder_of_arrays_without_metadata(run: Run, tmp_path: Path, like: Path) -> None:
    for name in ("a", "sub/a"):
        path = tmp_path / "arrays" / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, [10, 1034])
    result = run("tokens", "import", tmp_path / "arrays", tmp_path / "o", "--like", like, *FLAT)
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "o" / "a.hcd").is_file()
    assert (tmp_path / "o" / "sub" / "a.hcd").is_file()


@pytest.mark.parametrize(
    "values",
    [
        {"sample_rate": 10_000_000},
        {"sample_rate": 10**12},
        {"num_samples": 10**30},
        {"segment_frames": 10**30},
        {"gain_db": 1e9},
        {"gain_db": "1"},
        {"tags": {"a": "x" * 100_000}},
        {"tags": {"a\ud800": "x"}},
        {"num_channels": 2},
        {"channel": 1, "num_channels": 2},
    ],
)
@pytest.mark.parametrize("target", ["o.hcd", "folder"])
def test_impossible_values_of_records_are_refused(
    run: Run, tmp_path: Path, like: Path, values: dict[str, Any], target: str
) -> None:
    source = lines(tmp_path / "ids.jsonl", [{"id": "r", "ids": [10, 1034], **values}])
    result = run("tokens", "import", source, tmp_path / target, "--like", like, *FLAT)
    assert result.code in (1, 2)
    assert result.err.count("\n") == 1
    assert "ids.jsonl: " in result.err
    assert not list(tmp_path.rglob("o.hcd"))
    assert not list(tmp_path.rglob("r.hcd"))
