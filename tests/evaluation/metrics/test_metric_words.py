"""Word and character error rate, with a small fake of faster-whisper."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from codectool.errors import UsageError
from codectool.evaluation.metrics.base import MetricSettings, MetricUndefinedError
from codectool.evaluation.metrics.compute import compute_metrics
from codectool.evaluation.metrics.phonemes import edit_distance
from codectool.evaluation.metrics.registry import METRICS, select_metrics
from codectool.evaluation.metrics.words import WordErrors, words_of
from codectool.evaluation.signals import Signal
from tests.evaluation.fake_whisper import TEXT, install

LOUD = np.full(16000, 0.1, np.float32)
LOUD[::2] = -0.1
SOFT = LOUD / 4


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install(tmp_path, monkeypatch)


def test_words_and_characters_against_the_transcript_of_the_original(model: Path) -> None:
    metric = WordErrors(str(model))
    assert metric.compute(LOUD, LOUD) == {"wer": 0, "cer": 0}
    values = metric.compute(LOUD, SOFT)
    assert values["wer"] == pytest.approx(2 / 9), "`crown` is replaced, `the` is deleted"
    assert values["cer"] == pytest.approx((1 + len("the ")) / len(TEXT))


def test_words_against_a_text(model: Path) -> None:
    metric = WordErrors(str(model))
    assert metric.compute_with_text(SOFT, LOUD, TEXT.upper() + "!") == {"wer": 0, "cer": 0}
    assert metric.compute_with_text(LOUD, LOUD, "the lazy dog")["wer"] == 6 / 3
    for text in ("", "...", "[noise]"):
        with pytest.raises(MetricUndefinedError, match="no words in the text"):
            metric.compute_with_text(LOUD, LOUD, text)


def test_silent_output_has_no_words(model: Path) -> None:
    silence = np.zeros_like(LOUD)
    assert WordErrors(str(model)).compute(LOUD, silence) == {"wer": 1, "cer": 1}


def test_more_errors_give_a_higher_rate() -> None:
    words = TEXT.split()
    rates = [edit_distance(words, words[: len(words) - n]) / len(words) for n in range(9)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(8 / 9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don’t stop, [music] twenty-ONE!", ["don't", "stop", "twenty", "one"]),
        ("  'quoted'  (laughs) ... ", ["quoted"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("１２ ﬁne, 3.5", ["12", "fine", "3", "5"]),
        ("你好。", ["你好"]),
        ("", []),
    ],
)
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_metric_needs_a_model() -> None:
    assert WordErrors in METRICS
    with pytest.raises(UsageError, match="wer: give a Whisper model with `--asr-model`"):
        select_metrics(["mel_db", "wer"])
    assert WordErrors not in select_metrics(metrics=[METRICS[-1], WordErrors]).metrics


def test_description_names_the_model(model: Path) -> None:
    (info,) = select_metrics(["wer"], settings=MetricSettings(str(model))).infos
    assert info.about.endswith(f"(faster-whisper). Model: {model}.")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    settings = MetricSettings("small")
    selection = select_metrics(["wer", "cer", "mel_db"], settings=settings)
    assert selection.left_out == (
        "word error rate, character error rate are left out: package `faster_whisper` is missing; "
        "run `pip install 'codectool[asr]'`",
    )


def test_wrong_model_is_refused(model: Path) -> None:
    with pytest.raises(UsageError, match="no-such cannot be loaded .Invalid model size"):
        select_metrics(["wer", "mel_db"], settings=MetricSettings("no-such"))


def test_compute_metrics_passes_settings_and_text(model: Path) -> None:
    time = np.arange(32000) / 16000
    wave = (np.sin(800 * time) * (0.3 + 0.25 * np.sin(20 * time))).astype(np.float32)
    signal, settings = Signal(wave, 16000), MetricSettings(str(model))
    arguments = signal, signal, [WordErrors], 0.0, settings
    assert compute_metrics(*arguments) == ({"wer": 0, "cer": 0}, {})
    values, notes = compute_metrics(*arguments, "the dog")
    assert (values["wer"], notes) == (7 / 2, {})
    values, notes = compute_metrics(*arguments, "")
    assert (values["wer"], notes["wer"]) == (None, "no words in the text")
