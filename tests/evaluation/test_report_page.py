"""The page as a file: what it holds, what it lets in, and what it leaves behind."""

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
from codectool.evaluation.report.audio import clip_sounds
from codectool.evaluation.report.data import facts_json
from codectool.evaluation.report.page import write_page
from codectool.evaluation.results import Clip, Evaluation, Score, SystemResult
from tests.evaluation.report_cases import IMAGE, RATE, SCRIPT, SECONDS, evaluation_of, reference


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    folder = tmp_path / "audio"
    folder.mkdir()
    return evaluation_of(folder)


def block(text: str, name: str) -> bytes | None:
    found = re.search(f'<script type="text/plain" id="{name}">([^<]*)</script>', text)
    return found and base64.b64decode(found[1])


def test_sounds_within_the_page(tmp_path: Path, evaluation: Evaluation) -> None:
    page = tmp_path / "page.html"
    calls = []
    write_page(page, evaluation, on_clip=lambda: calls.append(1))
    assert len(calls) == 3
    text = page.read_text()
    for name in ("sound-0-0", "sound-0-1", "sound-2-3"):  # 0-1 came late, and was moved back
        wave, rate = soundfile.read(io.BytesIO(block(text, name)))
        assert (rate, len(wave)) == (RATE, round(RATE * SECONDS))
        expected = reference(int(name.split("-")[1]))
        np.testing.assert_allclose(wave, expected, atol=1e-4 if "-3" not in name else 0.15)
    assert block(text, "sound-1-3") is None, "the clip that has a problem"
    assert block(text, "image-0-2").startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio", "page.html"]


def test_sounds_beside_the_page(tmp_path: Path, evaluation: Evaluation) -> None:
    page = tmp_path / "a page.html"
    write_page(page, evaluation, audio="beside")
    folder = tmp_path / "a page_files"
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 2 * (3 * 4 - 1)
    assert {"0-0.flac", "0-0.png", "1-2.flac"} <= names
    assert "1-3.flac" not in names
    assert "text/plain" not in page.read_text()
    assert '"folder":"./a%20page_files/"' in page.read_text()
    with pytest.raises(UsageError, match="overwrite"):
        write_page(page, evaluation, audio="beside")
    (folder / "0-0.flac").unlink()
    write_page(page, evaluation, audio="beside", overwrite=True)
    assert {path.name for path in folder.iterdir()} == names


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, evaluation: Evaluation) -> None:
    folder = tmp_path / "page_files"
    folder.mkdir()
    (folder / "diary.txt").write_text("dear me")
    with pytest.raises(UsageError, match="holds other files"):
        write_page(tmp_path / "page.html", evaluation, audio="beside", overwrite=True)
    assert (folder / "diary.txt").read_text() == "dear me"


@pytest.mark.parametrize("audio", ["embed", "beside"])
def test_nothing_is_left_of_a_page_that_failed(
    tmp_path: Path, evaluation: Evaluation, audio: str
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_page(tmp_path / "page.html", evaluation, audio=audio, on_clip=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]


def test_only_our_own_script_may_run(tmp_path: Path, evaluation: Evaluation) -> None:
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


def test_facts_are_json_without_markup(evaluation: Evaluation) -> None:
    text = facts_json(evaluation, None)
    assert not re.search("[<>&\u2028\u2029]", text)
    facts = json.loads(text)
    assert [clip["name"] for clip in facts["clips"]] == [clip.name for clip in evaluation.clips]
    assert facts["systems"][1]["name"] == SCRIPT
    assert facts["systems"][2]["scores"][1]["values"] == {}
    assert facts["problems"][1]["system"] == ""


def test_facts_hold_no_infinity() -> None:
    score = Score("a", None, {"a": math.inf, "b": -math.inf, "c": math.nan, "d": None})
    system = SystemResult("s", (score,), {}, None)
    facts = json.loads(facts_json(Evaluation((), (), (system,)), None))
    values = facts["systems"][0]["scores"][0]["values"]
    assert values == {
        "a": 1.7976931348623157e308,
        "b": -1.7976931348623157e308,
        "c": None,
        "d": None,
    }


def test_an_evaluation_of_nothing_has_a_page(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", Evaluation((), (), ()))
    assert "0 systems · 0 clips" in (tmp_path / "page.html").read_text()


def test_a_clip_that_went_away_has_no_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "here.wav", reference(0), RATE)
    here, gone = tmp_path / "here.wav", tmp_path / "gone.wav"
    assert list(clip_sounds(Clip("gone", gone, 1.0), [Score("gone", here)])) == [None, None]
    sounds = list(clip_sounds(Clip("here", here, 1.0), [Score("here", gone), Score("here", here)]))
    assert [sound is None for sound in sounds] == [False, True, False]


@pytest.mark.parametrize(("rate", "expected"), [(8000, 16000), (22050, 22050), (96000, 48000)])
def test_sounds_have_the_rate_of_the_reference(tmp_path: Path, rate: int, expected: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(rate // 10, 0.25), rate)
    soundfile.write(tmp_path / "b.wav", np.full((500, 2), 1.5), 24000, "FLOAT")
    sounds = clip_sounds(Clip("a", tmp_path / "a.wav", 0.1), [Score("a", tmp_path / "b.wav")])
    waves = [soundfile.read(io.BytesIO(sound.audio)) for sound in sounds]
    assert [(len(wave), found) for wave, found in waves] == [(expected // 10, expected)] * 2
    assert waves[1][0].max() == pytest.approx(1, abs=1e-3)  # what is too loud is cut
    assert not waves[1][0][-10:].any()  # what is too short is filled up
