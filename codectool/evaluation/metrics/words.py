"""Word and character error rate: what a speech recogniser understands."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from typing_extensions import override

from codectool.errors import UsageError
from codectool.evaluation.metrics.base import (
    Metric,
    MetricInfo,
    MetricSettings,
    MetricUndefinedError,
    Values,
    Wave,
)
from codectool.evaluation.metrics.phonemes import edit_distance
from codectool.evaluation.metrics.support import is_constant


def _info(name: str, title: str, unit: str) -> MetricInfo:
    about = (
        f"{unit} that are inserted, deleted or replaced, per {unit[:-1].lower()} of the given text "
        "or of the original's transcript, as recognised by Whisper (faster-whisper)."
    )
    return MetricInfo(
        name, title, "", "lower", 3, (0.0, None), about, needs_speech=True, takes_text=True
    )


class WordErrors(Metric):
    """Words and characters that Whisper recognises differently in the degraded signal.

    The reference is a text or, without one, the transcript of the original. Both signals are
    decoded with the language that is found in the original, at temperature 0 and without the text
    of earlier windows, so that values are reproducible. Whisper runs on the CPU, on one thread.

    Args:
        model: folder of a Whisper model for CTranslate2, or a name such as ``small``, which is
            downloaded from the Hugging Face Hub once.
        language: language of the speech, such as ``en``; None to find it in each original.

    Raises:
        UsageError: the model cannot be loaded.
    """

    rate = 16000
    packages = ("faster_whisper",)
    install = "'codectool[asr]'"
    outputs = (
        _info("wer", "word error rate", "Words"),
        _info("cer", "character error rate", "Characters"),
    )

    def __init__(self, model: str, language: str | None = None) -> None:
        super().__init__()
        import faster_whisper

        self._language = language
        # transcripts and languages of originals, which systems share
        self._originals: dict[tuple[int, bool], tuple[str, str]] = {}
        try:
            self._model: Any = faster_whisper.WhisperModel(
                model, device="cpu", compute_type="int8", cpu_threads=1
            )
        except Exception as error:  # of CTranslate2, the hub client, or the network
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(
                f"the speech recognition model {model} cannot be loaded ({reason:.200}); give a "
                "folder with a Whisper model for CTranslate2, or a name such as small"
            ) from error

    @classmethod
    @override
    def load(cls, settings: MetricSettings) -> Metric:
        return cls(settings.asr_model or "", settings.asr_language)

    @classmethod
    @override
    def missing_setting(cls, settings: MetricSettings) -> str:
        if settings.asr_model:
            return ""
        return "give a Whisper model with `--asr-model`: a folder, or a name such as small"

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        return self.compute_with_text(reference, degraded, None)

    @override
    def compute_with_text(self, reference: Wave, degraded: Wave, text: str | None) -> Values:
        key = hash(reference.tobytes()), text is None
        if key not in self._originals:
            segments, info = self._transcribe(reference, self._language)
            # segments are decoded as they are read
            transcript = "".join(segment.text for segment in segments) if text is None else ""
            self._originals[key] = transcript, info.language
        transcript, language = self._originals[key]
        expected = words_of(transcript if text is None else text)
        if not expected:
            source = "transcript of the reference" if text is None else "text"
            raise MetricUndefinedError(f"no words in the {source}")
        heard: list[str] = []  # Whisper invents words for silence
        if not is_constant(degraded):
            segments, _ = self._transcribe(degraded, language)
            heard = words_of("".join(segment.text for segment in segments))
        line, heard_line = " ".join(expected), " ".join(heard)
        return {
            "wer": edit_distance(expected, heard) / len(expected),
            "cer": edit_distance(line, heard_line) / len(line),
        }

    def _transcribe(self, wave: Wave, language: str | None) -> tuple[Iterable[Any], Any]:
        """Return the segments of the transcript of ``(N,)``, and an object with the language."""
        segments, info = self._model.transcribe(
            wave,
            language=language,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return segments, info


def words_of(text: str) -> list[str]:
    """Return the words of a text without case, punctuation and remarks in brackets.

    Letters, digits, combining marks and apostrophes within words are kept; everything else
    separates words. Numbers are not spelled out.

    Examples:
        >>> words_of("Don't stop, [music] twenty-ONE!")
        ["don't", 'stop', 'twenty', 'one']
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    text = re.sub(r"[\[(][^\])]*[\])]", " ", text)
    kept = (c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    words = (word.strip("'") for word in "".join(kept).split())
    return [word for word in words if word]
