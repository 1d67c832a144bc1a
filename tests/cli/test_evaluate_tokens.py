"""`codectool evaluate --tokens`: statistics on stdout, messages on stderr."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.cli.evaluate_tokens import print_token_usage
from codectool.container import write
from codectool.errors import UsageError
from codectool.evaluation.systems.spec import CodecSpec, SystemSpec
from tests.cli.conftest import Run
from tests.cli.test_bad_input import assert_refused
from tests.cli.test_start import called, modules_after
from tests.evaluation.token_clips import clip
from tests.figures import read_png, without_matplotlib

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    """Two files of a second each: a codebook with both entries used, and one with a single one."""
    folder = tmp_path / "coded"
    (folder / "b").mkdir(parents=True)
    write(folder / "a.hcd", clip([[0] * 80, [7] * 80], (1, 3)))
    write(folder / "b/c.hcd", clip([[1] * 80, [7] * 80], (1, 3)))
    return folder


def test_tokens_json(run: Run, coded: Path) -> None:
    result = run("evaluate", coded, "--tokens", "--json")
    assert (result.code, result.err) == (0, "")
    (model,) = json.loads(result.text)
    assert (model["codec"], model["token_fingerprint"]) == ("bigcodec", "0123abcd")
    assert (model["clips"], model["seconds"], model["frames"]) == (2, 2, 160)
    assert (model["coded_bits"], model["entropy"]) == (4, 1)
    assert (model["coded_kbps"], model["entropy_kbps"]) == pytest.approx((0.32, 0.08))
    first, second = model["codebooks"]
    assert (first["used"], first["entropy"], first["perplexity"]) == (2, 1, 2)
    assert (second["used"], second["entropy"], second["perplexity"]) == (1, 0, 1)


def test_tokens_table(run: Run, coded: Path) -> None:
    result = run("evaluate", coded, "--tokens")
    assert (result.code, result.err) == (0, "")
    lines = result.text.splitlines()
    assert lines[0].split()[:4] == ["model", "clips", "seconds", "frames"]
    assert " ".join(lines[1].split()) == "bigcodec 0123abcd 2 2.0 160 0.320 0.080 4 1.00"
    assert "entropy: bits that an ideal entropy coder" in result.text


def test_tokens_csv_and_markdown(run: Run, coded: Path) -> None:
    result = run("evaluate", coded, "--tokens", "--csv")
    assert (result.code, result.err) == (0, "")
    first, second = csv.DictReader(io.StringIO(result.text))
    assert (first["codebook"], first["codebook_entropy"]) == ("1", "1.0")
    assert (second["codebook"], second["codebook_entropy"]) == ("2", "0.0")
    result = run("evaluate", coded, "--tokens", "--markdown")
    assert result.text.count("| --- | ---: |") == 2
    assert "| bigcodec 0123abcd 2 | 8 | 1 | 7 | 0 | 1.0 | 3 | 0.00 |" in result.text


def test_tokens_of_different_models_are_separate(run: Run, coded: Path) -> None:
    write(coded / "z.hcd", clip([[0, 1]], (18,), "hac", "ffffffff"))
    write(coded / "zz.hcd", clip([[0, 1]], (1,)))
    models = json.loads(run("evaluate", coded, "--tokens", "--json").text)
    assert [(model["codec"], model["coded_bits"], model["clips"]) for model in models] == [
        ("bigcodec", 4, 2),
        ("hac", 18, 1),
        ("bigcodec", 1, 1),
    ]


def test_tokens_of_files_without_frames(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "empty.hcd", clip([[], []], (3, 18)))
    result = run("evaluate", tmp_path, "--tokens", "--json")
    assert (result.code, result.err) == (0, "")
    (model,) = json.loads(result.text)
    assert (model["clips"], model["frames"], model["entropy"]) == (1, 0, 0)
    assert run("evaluate", tmp_path, "--tokens").code == 0


def test_tokens_reports_a_damaged_file_and_counts_the_others(run: Run, coded: Path) -> None:
    data = (coded / "a.hcd").read_bytes()
    (coded / "b/bad\nname.hcd").write_bytes(data[:-6] + bytes([data[-6] ^ 1]) + data[-5:])
    result = run("evaluate", coded, "--tokens", "--json")
    assert result.code == 1
    assert result.err.startswith(r"error: b/bad\nname.hcd: ")
    assert result.err.count("\n") == 1
    assert json.loads(result.text)[0]["clips"] == 2


def test_tokens_prints_nothing_if_no_file_can_be_used(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.hcd").write_bytes(b"no tokens")
    result = run("evaluate", tmp_path, "--tokens", "--json")
    assert (result.code, result.out) == (2, b"")
    first, second = result.err.splitlines()
    assert first.startswith("error: bad.hcd: ")
    assert second == f"error: {tmp_path}: none of its files can be used"


def test_tokens_refuses_missing_or_empty_folders(run: Run, tmp_path: Path) -> None:
    assert_refused(run("evaluate", tmp_path, "--tokens"), "contains no .hcd files", "`encode`")
    assert_refused(run("evaluate", tmp_path / "gone", "--tokens"), "gone", "no such file")
    (tmp_path / "file.hcd").write_bytes(b"")
    assert_refused(run("evaluate", tmp_path / "file.hcd", "--tokens"), "file.hcd: not a directory")


def test_tokens_list_is_relative_to_the_folder_or_the_current_one(
    run: Run, coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is listed twice counts once."""
    monkeypatch.chdir(coded.parent)
    names = f"b/c.hcd\ncoded/b/c.hcd\n{coded}/b/../b/c.hcd\n"
    options = ("--tokens", "--json", "--files-from", "-")
    result = run("evaluate", coded, *options, stdin=names.encode())
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.text)[0]["clips"] == 1


def test_tokens_reports_listed_files_that_cannot_be_read(run: Run, coded: Path) -> None:
    outside = coded.parent / "outside.hcd"
    write(outside, clip([[0], [7]], (1, 3)))
    names = f"a.hcd\ngone.hcd\n{outside}\n"
    options = ("--tokens", "--json", "--files-from", "-")
    result = run("evaluate", coded, *options, stdin=names.encode())
    assert result.code == 1
    assert json.loads(result.text)[0]["clips"] == 1
    assert result.err.splitlines() == [
        f"error: {outside}: is not inside {coded}",
        "error: gone.hcd: No such file or directory",
    ]


def test_tokens_plot_writes_a_png(run: Run, coded: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "use.png"
    result = run("evaluate", coded, "--tokens", "--json", "--plot", figure)
    assert (result.code, result.err) == (0, "")
    assert len(json.loads(result.text)) == 1
    height, width, _ = read_png(figure.read_bytes()).shape
    assert 300 < height < 600
    assert 900 < width < 1500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coded", "use.png"]


def test_tokens_plot_is_not_replaced_without_overwrite(
    run: Run, coded: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "use.png"
    figure.write_bytes(b"mine")
    command = ("evaluate", coded, "--tokens", "--plot", figure)
    assert_refused(run(*command), "use.png: exists", "--overwrite")
    assert figure.read_bytes() == b"mine"
    assert run(*command, "--overwrite").code == 0
    assert figure.read_bytes().startswith(PNG)


def test_tokens_plot_that_fails_keeps_the_old_file(
    run: Run, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written under a temporary name and renamed at the end."""
    pytest.importorskip("matplotlib")
    figure = tmp_path / "use.png"
    figure.write_bytes(b"mine")
    written = []

    def fail(path: Path, target: Path) -> Path:
        written.append((path.read_bytes()[:8], path.parent, target))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    result = run("evaluate", coded, "--tokens", "--plot", figure, "--overwrite")
    assert result.code == 2
    assert result.err == f"error: {figure}: no space left on device\n"
    assert written == [(PNG, tmp_path, figure)]
    assert figure.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coded", "use.png"]


def test_tokens_plot_with_invalid_name_is_refused(run: Run, coded: Path, tmp_path: Path) -> None:
    command = ("evaluate", coded, "--tokens", "--plot")
    assert_refused(run(*command, "-"), "stdout is used for the table", "give a file name")
    assert_refused(run(*command, tmp_path / "use.pdf"), "use.pdf", "PNG", ".png")
    assert_refused(run(*command, tmp_path / "gone/use.png"), "there is no folder")


def test_tokens_plot_without_matplotlib_is_refused(
    run: Run, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_matplotlib(monkeypatch)
    result = run("evaluate", coded, "--tokens", "--plot", tmp_path / "use.png")
    assert_refused(result, "matplotlib", "pip install 'codectool[eval]'")
    assert not (tmp_path / "use.png").exists()
    assert run("evaluate", coded, "--tokens").code == 0


@pytest.mark.parametrize(
    "option", [("other",), ("--report", "x.html"), ("--keep", "kept"), ("--metric", "stoi")]
)
def test_tokens_refuses_options_of_audio_metrics(
    run: Run, coded: Path, option: tuple[str, ...]
) -> None:
    name = option[0] if option[0].startswith("--") else "DEGRADED_DIR"
    result = run("evaluate", coded, *option, "--tokens")
    assert_refused(result, f"`--tokens` measures no audio; leave out `{name}`")


def test_tokens_refuses_external_codecs(tmp_path: Path) -> None:
    """Refused before any codec is loaded: the checkpoint does not exist."""
    own = SystemSpec("own", codec=CodecSpec(checkpoint=tmp_path / "gone.pt"))
    external = SystemSpec("opus@6", "opus@6")
    with pytest.raises(UsageError, match="opus@6: is not a codectool codec"):
        print_token_usage(tmp_path, None, [own, external], "json", None, False)


def test_tokens_of_recordings_are_computed_for_each_codec(
    run: Run, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    """A bad recording is reported once."""
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "good.wav", rng.normal(0, 0.1, (8000, 2)), 16000)
    (tmp_path / "bad.wav").write_text("no audio")
    named = [f"{name}={checkpoints[name]}" for name in ("hac", "bigcodec")]
    options = ("--checkpoint", named[0], "--checkpoint", named[1], "--device", "cpu")
    result = run("evaluate", tmp_path, "--tokens", "--json", *options)
    assert result.code == 1
    assert result.err.startswith("error: bad.wav: not audio")
    assert result.err.count("\n") == 1
    models = json.loads(result.text)
    assert [model["codec"] for model in models] == ["hac", "bigcodec"]
    assert [model["seconds"] for model in models] == [1, 1]  # two channels of half a second


def test_tokens_imports_no_torch(coded: Path) -> None:
    for output in ("--json", "--csv", "--markdown"):
        loaded = modules_after(called("evaluate", str(coded), "--tokens", output))
        assert "numpy" in loaded
        assert not loaded & {"torch", "torchaudio", "matplotlib", "PIL", "rich", "tqdm"}


def test_tokens_plot_imports_no_torch(coded: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "use.png"
    loaded = modules_after(called("evaluate", str(coded), "--tokens", "--plot", str(figure)))
    assert "matplotlib" in loaded
    assert not loaded & {"torch", "torchaudio"}
