"""`evaluate` and `compare` with clips without speech, outputs that fail, and odd names."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.cli import main
from codectool.evaluation.report import page as report_page
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
RATE = 16000
NAME = "evil\u202egnp.wav"  # shown as evilvaw.png


def speech(seconds: float = 2.0) -> np.ndarray:
    wave, _ = soundfile.read(ROOT / "assets" / "speech_espeak.flac", dtype="float32")
    return np.asarray(wave[11025 : 11025 + round(seconds * RATE)])


def noisy(wave: np.ndarray, seed: int = 0) -> np.ndarray:
    return wave + np.random.default_rng(seed).normal(0, 0.01, len(wave)).astype(np.float32)


def dither(seed: int, count: int = 2 * RATE) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).integers(-1, 2, count) / 32768, np.float32)


def write(path: Path, wave: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    write(tmp_path / "clips" / "voice.wav", speech())
    write(tmp_path / "coded" / "voice.wav", noisy(speech()))
    return tmp_path / "clips"


def add_speechless(clips: Path, name: str = "dither_only.wav") -> None:
    write(clips / name, dither(1))
    write(clips.parent / "coded" / name, dither(2))


METRICS = ("--metric", "si_sdr_db", "--metric", "stoi", "--metric", "pesq_wb", "--metric", "mel_db")


# -- clips without speech ------------------------------------------------------------------------


def test_clip_without_speech_does_not_change_the_means(run: Run, clips: Path) -> None:
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")
    options = (clips, clips.parent / "coded", *METRICS, "--json", "--jobs", 1)
    alone = json.loads(run("evaluate", *options).text)["systems"][0]["means"]
    add_speechless(clips)
    result = run("evaluate", *options)
    values = json.loads(result.text)
    means = values["systems"][0]["means"]
    for name in ("si_sdr_db", "stoi", "pesq_wb"):
        assert means[name] == alone[name]
    assert means["mel_db"]["clips"] == 2  # the spectrum of noise can be compared
    assert result.code == 0
    assert result.err == (
        "warning: 1 of 2 clips has no speech and is left out of PESQ-wb, STOI, SI-SDR: "
        "dither_only.wav\n"
    )
    assert values["clips_without_speech"] == ["dither_only.wav"]
    levels = {clip["name"]: clip["speech_level_db"] for clip in values["clips"]}
    assert levels["dither_only.wav"] is None
    assert -40 < levels["voice.wav"] < -10
    score = values["systems"][0]["clips"][0]
    assert score["notes"]["stoi"] == "no speech in the reference"


def test_many_clips_without_speech_are_listed_in_one_line(run: Run, clips: Path) -> None:
    for number in range(8):
        add_speechless(clips, f"d{number}.wav")
    coded = clips.parent / "coded"
    result = run("evaluate", clips, coded, f"again={coded}", "--metric", "si_sdr_db")
    assert result.err == (
        "warning: 8 of 9 clips have no speech and are left out of SI-SDR: "
        "d0.wav, d1.wav, d2.wav, d3.wav, d4.wav, and 3 more, see `--json`\n"
    )


def test_quiet_speech_counts(run: Run, clips: Path) -> None:
    write(clips / "quiet.wav", 10 ** (-30 / 20) * speech())
    write(clips.parent / "coded" / "quiet.wav", 10 ** (-30 / 20) * noisy(speech()))
    result = run("evaluate", clips, clips.parent / "coded", "--metric", "si_sdr_db", "--json")
    assert json.loads(result.text)["systems"][0]["means"]["si_sdr_db"]["clips"] == 2
    assert result.err == ""


def test_folder_without_speech_is_refused_before_the_run(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "clips" / "a.wav", dither(0))
    write(tmp_path / "clips" / "b.wav", np.zeros(8000))
    result = run("evaluate", tmp_path / "clips", "--model", "hac", "--metric", "si_sdr_db")
    assert (result.code, result.text) == (2, "")
    assert result.err.startswith(
        f"error: {tmp_path / 'clips'}: none of its 2 clips contains speech"
    )
    other = run("evaluate", tmp_path / "clips", f"x={tmp_path / 'clips'}", *METRICS)
    assert other.code == 0
    assert "2 of 2 clips have no speech and are left out of PESQ-wb, STOI, SI-SDR" in other.err
    assert "mel distance" in other.text


def test_compare_has_no_speech_metrics_without_speech(run: Run, clips: Path) -> None:
    add_speechless(clips)
    pair = (clips / "dither_only.wav", clips.parent / "coded" / "dither_only.wav")
    values = json.loads(run("compare", *pair, *METRICS, "--json").text)
    assert values["metrics"]["si_sdr_db"] is values["metrics"]["stoi"] is None
    assert values["metrics"]["mel_db"] is not None
    assert values["notes"]["si_sdr_db"] == "no speech in the reference"


def test_report_lists_clips_without_speech(run: Run, clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    add_speechless(clips)
    page = tmp_path / "page.html"
    options = ("--metric", "si_sdr_db", "--report", page)
    assert run("evaluate", clips, clips.parent / "coded", *options).code == 0
    assert "left out of SI-SDR: dither_only.wav" in page.read_text()


# -- outputs that cannot be written --------------------------------------------------------------


@pytest.fixture
def evaluate(run: Run, clips: Path) -> Run:
    """Evaluate one clip with one metric."""
    return lambda *options: run(
        "evaluate", clips, clips.parent / "coded", "--metric", "mel_db", *options
    )


@pytest.mark.parametrize("place", ["missing/page.html", ".", "page_files"])
def test_report_is_checked_before_the_run(evaluate: Run, tmp_path: Path, place: str) -> None:
    (tmp_path / "page_files").mkdir()
    path = tmp_path / place
    options = ["--report", tmp_path / "page.html", "--report-audio", "beside"]
    result = evaluate(*(options if place == "page_files" else ["--report", path]))
    assert (result.code, result.text) == (2, "")
    assert "page" in result.err or str(tmp_path) in result.err


def test_read_only_folder_is_found_before_the_run(
    evaluate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)  # may run as root
    for option in ("--report", "--keep"):
        result = evaluate(option, tmp_path / "out.html")
        assert (result.code, result.text) == (2, "")
        assert "cannot be written; name another one" in result.err
        assert "out.html" in result.err


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("output", ["--json", "--csv", "--markdown"])
def test_figures_are_printed_even_if_the_page_fails(
    evaluate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setattr(report_page, "read_clip", full_disk)
    page = tmp_path / "page.html"
    result = evaluate("--report", page, output)
    assert result.code == 2
    assert "mel" in result.text
    assert result.err == f"error: {page}: no space left on device\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "coded"]


@pytest.mark.usefixtures("clips")
def test_page_is_written_even_if_the_figures_cannot_be_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("PIL")

    class Closed:
        encoding = "utf-8"

        def write(self, _: object) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def flush(self) -> None: ...
        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdout", Closed())
    options = ["--metric", "mel_db", "--report", str(tmp_path / "page.html")]
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "clips"), str(tmp_path / "coded"), *options])
    assert (tmp_path / "page.html").is_file()


# -- names ---------------------------------------------------------------------------------------


def test_bidirectional_names_are_escaped_in_the_report(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    write(tmp_path / "clips" / NAME, speech())
    write(tmp_path / "coded\u202e" / NAME, noisy(speech()))
    page = tmp_path / "page.html"
    options = ("--metric", "mel_db", "--report", page)
    result = run("evaluate", tmp_path / "clips", tmp_path / "coded\u202e", *options)
    assert result.code == 0
    text = page.read_text(encoding="utf-8")
    for shown in (text, result.text, result.err):
        assert "\u202e" not in shown
    assert "\\u202e" in result.text
    assert r"evil\\u202egnp.wav" in text  # JSON of the text with a backslash


def test_names_that_are_no_text_can_be_reported(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    name = os.fsdecode(b"caf\xe9.wav")
    for folder in ("clips", "coded"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", speech(), RATE)
        os.rename(tmp_path / folder / "a.wav", tmp_path / folder / name)
    page = tmp_path / os.fsdecode(b"p\xe4ge.html")
    options = ("--metric", "mel_db", "--report", page, "--report-audio", "beside")
    assert run("evaluate", tmp_path / "clips", tmp_path / "coded", *options).code == 0
    assert r"caf\\xe9.wav" in page.read_text(encoding="utf-8")


# -- inputs of a new user ------------------------------------------------------------------------


def test_clips_that_cannot_be_compared_are_an_error(run: Run, clips: Path, tmp_path: Path) -> None:
    write(tmp_path / "other" / "name.wav", speech())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "b.wav").write_text("no audio")
    for references, coded in ((clips, "other"), (tmp_path / "broken", "coded")):
        result = run("evaluate", references, tmp_path / coded, "--metric", "mel_db")
        assert (result.code, result.text) == (2, "")
        *problems, last = result.err.splitlines()
        assert last == f"error: {references}: none of its clips could be compared"
        assert problems
        assert all(line.startswith("error: ") and ".wav: " in line for line in problems)


def test_folder_without_coded_audio_is_refused_before_the_run(
    run: Run, clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "hcd").mkdir()
    coded = run("encode", clips, tmp_path / "hcd", "--model", "hac")
    assert coded.code == 0
    result = run("evaluate", clips, tmp_path / "hcd", "--codec", "hac", "--metric", "mel_db")
    assert (result.code, result.text) == (2, "")
    assert result.err == (
        f"error: {tmp_path / 'hcd'}: contains no audio; decode its .hcd files with "
        "`codectool decode` first\n"
    )


def test_many_problems_are_listed_in_a_few_lines(run: Run, clips: Path) -> None:
    for number in range(40):
        (clips / f"bad{number}.wav").write_text("no audio")
    result = run("evaluate", clips, clips.parent / "coded", "--metric", "mel_db", "--jobs", 1)
    assert result.code == 1
    assert result.err.count("\n") == 6
    assert result.err.endswith("error: and 35 more, see `--json`\n")


def test_two_coded_files_of_a_clip_are_reported(run: Run, clips: Path, tmp_path: Path) -> None:
    for suffix in ("flac", "ogg"):
        soundfile.write(tmp_path / "coded" / f"voice.{suffix}", dither(3), RATE)
    result = run("evaluate", clips, tmp_path / "coded", "--metric", "mel_db", "--json")
    assert result.code == 1
    assert "coded: voice.ogg: is left out: voice.wav differs only in its suffix" in result.err
    (score,) = json.loads(result.text)["systems"][0]["clips"]
    assert score["path"].endswith("voice.wav")


def test_channels_that_cancel_are_reported(run: Run, clips: Path, tmp_path: Path) -> None:
    soundfile.write(clips / "voice.wav", np.stack([speech(), -speech()], 1), RATE)
    result = run("evaluate", clips, tmp_path / "coded", "--metric", "mel_db", "--json")
    warning = f"{clips / 'voice.wav'}: its channels cancel each other in their mean"
    assert warning in result.err
    assert warning in json.loads(result.text)["clips"][0]["warnings"][0]
    pair = (clips / "voice.wav", tmp_path / "coded" / "voice.wav")
    assert warning in run("compare", *pair, "--metric", "mel_db").err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--config", "no.json", "--model", "hac"), "`--config` is the config of a `--checkpoint`"),
        (("--keep", "clips", "--model", "hac"), "clips: contains the recordings"),
        (("--files-from", "empty.txt", "coded"), "empty.txt: names no files"),
        (("coded/voice.wav",), "coded/voice.wav: is a file; `codectool compare` compares two"),
    ],
)
def test_wrong_options_are_refused(
    run: Run,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    result = run("evaluate", clips, *options, "--metric", "mel_db")
    assert (result.code, result.text) == (2, "")
    assert words in result.err


def test_kept_audio_does_not_become_a_recording(run: Run, clips: Path, tmp_path: Path) -> None:
    options = (clips, "--model", "hac", "--metric", "mel_db", "--keep", clips / "kept", "--json")
    for _ in range(2):
        values = json.loads(run("evaluate", *options).text)
        assert [clip["name"] for clip in values["clips"]] == ["voice.wav"]


def test_truncated_files_are_reported_by_name(run: Run, clips: Path, tmp_path: Path) -> None:
    for folder in (clips, tmp_path / "coded"):
        write(folder / "cut.wav", speech(3.0))
        data = (folder / "cut.wav").read_bytes()
        (folder / "cut.wav").write_bytes(data[:60_000])
    result = run("evaluate", clips, tmp_path / "coded", "--metric", "mel_db", "--json")
    assert result.code == 0
    values = json.loads(result.text)
    for folder in (clips, tmp_path / "coded"):
        assert f"warning: {folder / 'cut.wav'}: the header promises 3.00 s" in result.err
    assert "the header promises" in values["clips"][0]["warnings"][0]
    assert "the header promises" in values["systems"][0]["clips"][0]["warnings"][0]
    result = run("evaluate", clips, "--model", "hac", "--tokens")
    assert f"warning: {clips / 'cut.wav'}: the header promises 3.00 s" in result.err
    result = run("compare", clips / "voice.wav", clips / "cut.wav", "--metric", "mel_db")
    assert "cut.wav: the header promises 3.00 s" in result.err


def test_short_clip_that_lost_a_third_is_reported(run: Run, clips: Path, tmp_path: Path) -> None:
    write(clips / "voice.wav", speech(0.6))
    write(tmp_path / "coded" / "voice.wav", speech(0.4))
    result = run("evaluate", clips, tmp_path / "coded", "--metric", "mel_db")
    assert result.err == "warning: coded: voice.wav is 0.20 s shorter than its reference\n"


def test_token_statistics_list_missing_files_in_a_few_lines(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hcd").mkdir()
    names = [f"gone{number}.hcd" for number in range(3000)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    result = run("evaluate", tmp_path / "hcd", "--tokens", "--files-from", tmp_path / "list.txt")
    assert result.code == 2
    *_, more, last = result.err.splitlines()
    assert result.err.count("\n") == 7
    assert more == "error: and 2,995 more"
    assert last == f"error: {tmp_path / 'hcd'}: none of its files can be used"
