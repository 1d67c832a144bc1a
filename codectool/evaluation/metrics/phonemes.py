"""Phoneme error rate: what a recogniser hears differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import require_seconds, require_sound

MIN_PHONEMES = 5  # of the reference: below, one error is a large rate


class PhonemeErrors(Metric):
    """Share of phonemes that PocketSphinx recognises differently in the degraded signal.

    The original is recognised too, so that no text is needed. The acoustic model and the phoneme
    bigrams for American English in the package `pocketsphinx` are used. Undefined if fewer than
    five phonemes are recognised in the reference.
    """

    rate = 16000
    packages = ("pocketsphinx",)
    install = "pocketsphinx"
    outputs = (
        MetricInfo(
            name="per",
            title="phoneme error rate",
            unit="",
            better="lower",
            digits=3,
            range=(0.0, None),
            about="Phonemes that are inserted, deleted or replaced, per phoneme of the original, as"
            " recognised by PocketSphinx (allphone, American English).",
            needs_speech=True,
        ),
    )

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        require_sound(reference, degraded)
        require_seconds(reference, self.rate)
        before, after = self.recognise(reference), self.recognise(degraded)
        if len(before) < MIN_PHONEMES:
            raise MetricUndefinedError(f"fewer than {MIN_PHONEMES} phonemes in the reference")
        return {"per": edit_distance(before, after) / len(before)}

    def recognise(self, wave: Wave) -> list[str]:
        """Return the phonemes of a signal ``(N,)`` in the notation of the CMU dictionary."""
        import pocketsphinx

        # a decoder adapts to what it hears, so each signal has its own; it loads in 10 ms
        decoder: Any = pocketsphinx.Decoder(
            hmm=pocketsphinx.get_model_path("en-us/en-us"),
            allphone=pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin"),
            lm=None,
            dict=None,
            lw=2.0,
            beam=1e-20,
            pbeam=1e-20,
            cmn="batch",
            samprate=self.rate,
            loglevel="FATAL",
        )
        samples = np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        found = [segment.word for segment in decoder.seg() or ()]
        return [name for name in found if name.isalpha() and name != "SIL"]  # not +NSN+, <s>


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the least number of insertions, deletions and replacements between sequences."""
    row = list(range(len(second) + 1))
    for number, item in enumerate(first, 1):
        previous, row[0] = row[0], number
        for column, other in enumerate(second, 1):
            replaced = previous + (item != other)
            previous = row[column]
            row[column] = min(replaced, previous + 1, row[column - 1] + 1)
    return row[-1]
