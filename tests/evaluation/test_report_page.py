"""The report as a file: its contents, its Content-Security-Policy, and its audio."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectool.errors import UsageError
from codectool.evaluation.report.audio import read_clip
from codectool.evaluation.report.data import page_data
from codectool.evaluation.report.page import write_page
from codectool.evaluation.results import Clip, Evaluation, Score, SystemResult
from codectool.messages import printable
from tests.evaluation.report_cases import (
    IMAGE,
    PLACEHOLDER,
    RATE,
    SCRIPT,
    SECONDS,
    SEPARATORS,
    SPEECH,
    evaluation_of,
    reference,
)


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    folder = tmp_path / "audio"
    folder.mkdir()
    return evaluation_of(folder)


def embedded(text: str, name: str) -> bytes | None:
    found = re.search(f'<script type="text/plain" id="{name}">([^<]*)</script>', text)
    return found and base64.b64decode(found[1])


def test_report_embeds_audio(tmp_path: Path, evaluation: Evaluation) -> None:
    page = tmp_path / "page.html"
    calls = []
    write_page(page, evaluation, on_clip=lambda: calls.append(1))
    assert len(calls) == 3
    text = page.read_text()
    for name in ("audio-0-0", "audio-0-1", "audio-2-3"):  # 0-1 has a delay
        wave, rate = soundfile.read(io.BytesIO(embedded(text, name)))
        assert (rate, len(wave)) == (RATE, round(RATE * SECONDS))
        expected = reference(int(name.split("-")[1]))
        np.testing.assert_allclose(wave, expected, atol=1e-4 if "-3" not in name else 0.15)
    assert embedded(text, "audio-1-3") is None, "the clip has a problem"
    assert embedded(text, "spectrogram-0-2").startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio", "page.html"]


def test_report_stores_audio_beside_the_page(tmp_path: Path, evaluation: Evaluation) -> None:
    page = tmp_path / "a page.html"
    write_page(page, evaluation, audio="beside")
    folder = tmp_path / "a page_files"
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 2 * (3 * 4 - 1)
    assert {"0-0.flac", "0-0.png", "1-2.flac"} <= names
    assert "1-3.flac" not in names
    assert "text/plain" not in page.read_text()
    assert '"audio_url":"./a%20page_files/"' in page.read_text()
    with pytest.raises(UsageError, match="overwrite"):
        write_page(page, evaluation, audio="beside")
    (folder / "0-0.flac").unlink()
    write_page(page, evaluation, audio="beside", overwrite=True)
    assert {path.name for path in folder.iterdir()} == names


def test_report_does_not_replace_a_folder_with_other_files(
    tmp_path: Path, evaluation: Evaluation
) -> None:
    folder = tmp_path / "page_files"
    folder.mkdir()
    (folder / "diary.txt").write_text("private")
    with pytest.raises(UsageError, match="holds other files"):
        write_page(tmp_path / "page.html", evaluation, audio="beside", overwrite=True)
    assert (folder / "diary.txt").read_text() == "private"


@pytest.mark.parametrize("audio", ["embed", "beside"])
def test_report_leaves_nothing_after_a_failure(
    tmp_path: Path, evaluation: Evaluation, audio: str
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_page(tmp_path / "page.html", evaluation, audio=audio, on_clip=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]


def test_report_allows_only_its_own_script_and_style(
    tmp_path: Path, evaluation: Evaluation
) -> None:
    page = tmp_path / "page.html"
    write_page(page, evaluation, title=IMAGE, command=f"codectool {SCRIPT}")
    text = page.read_text()
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text)[1]
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "<img" not in text
    assert "alert(2)</script>" not in text
    assert re.findall(r"https?://[^\"' ]*", text) == ["http://www.w3.org/2000/svg"]


def test_page_data_is_json_without_markup(evaluation: Evaluation) -> None:
    text = page_data(evaluation, None)
    assert not re.search("[<>&\u2028\u2029\u202e]", text)
    data = json.loads(text)
    assert [clip["name"] for clip in data["clips"]] == [IMAGE, PLACEHOLDER, printable(SEPARATORS)]
    assert data["systems"][1]["name"] == SCRIPT
    assert data["systems"][2]["scores"][1]["values"] == {}
    assert data["problems"][1]["system"] == ""


def test_page_data_replaces_infinity_and_nan() -> None:
    score = Score("a", None, {"a": math.inf, "b": -math.inf, "c": math.nan, "d": None})
    system = SystemResult("s", (score,), {}, None)
    data = json.loads(page_data(Evaluation((), (), (system,)), None))
    values = data["systems"][0]["scores"][0]["values"]
    assert values == {
        "a": 1.7976931348623157e308,
        "b": -1.7976931348623157e308,
        "c": None,
        "d": None,
    }


def test_report_of_an_empty_evaluation(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", Evaluation((), (), ()))
    assert "0 systems · 0 clips" in (tmp_path / "page.html").read_text()


def test_read_clip_yields_none_for_missing_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "here.wav", reference(0), RATE)
    here, gone = tmp_path / "here.wav", tmp_path / "gone.wav"
    assert list(read_clip(Clip("gone", gone, 1.0, SPEECH), [Score("gone", here)])) == [None, None]
    audio = list(
        read_clip(Clip("here", here, 1.0, SPEECH), [Score("here", gone), Score("here", here)])
    )
    assert [item is None for item in audio] == [False, True, False]


@pytest.mark.parametrize(("rate", "expected"), [(8000, 16000), (22050, 22050), (96000, 48000)])
def test_read_clip_uses_the_rate_of_the_reference(tmp_path: Path, rate: int, expected: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(rate // 10, 0.25), rate)
    soundfile.write(tmp_path / "b.wav", np.full((500, 2), 1.5), 24000, "FLOAT")
    audio = read_clip(Clip("a", tmp_path / "a.wav", 0.1, SPEECH), [Score("a", tmp_path / "b.wav")])
    waves = [soundfile.read(io.BytesIO(item.flac)) for item in audio]
    assert [(len(wave), found) for wave, found in waves] == [(expected // 10, expected)] * 2
    assert waves[1][0].max() == pytest.approx(1, abs=1e-3)  # clipped
    assert not waves[1][0][-10:].any()  # zero-padded
