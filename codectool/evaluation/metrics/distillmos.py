"""DistillMOS: opinion score of speech without reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from typing_extensions import override

from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave
from codectool.evaluation.metrics.support import require_seconds, require_sound, suppress_warnings

WINDOW, MAX_HOP = 122880, 16000  # in samples: 7.68 s and 1 s


class DistillMos(Metric):
    """DistillMOS, version 7, as computed by the package `distillmos`.

    Stahl and Gamper, "Distillation and Pruning for Scalable Self-Supervised Representation-Based
    Speech Quality Assessment", ICASSP 2025. The score is the mean over windows of 7.68 s, each
    normalised to its peak, that begin at most 1 s apart. They are computed one by one; the package
    computes them together, in memory that grows with the length of the clip.
    """

    rate = 16000
    packages = ("torch", "distillmos")
    outputs = (
        MetricInfo(
            name="distillmos",
            title="DistillMOS",
            unit="MOS",
            better="higher",
            digits=2,
            range=(1.0, 5.0),
            about="Opinion score of naturalness and quality estimated without reference (DistillMOS"
            " v7, Stahl and Gamper 2025).",
            needs_speech=True,
            needs_reference=False,
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        import torch
        from distillmos.sqa import DEFAULT_WEIGHTS_CHKPT, ConvTransformerSQAModel

        with suppress_warnings():
            # the package prints a line when it loads the weights
            self._model: Any = ConvTransformerSQAModel(False, segmenting_in_forward=False).eval()
        weights = torch.load(DEFAULT_WEIGHTS_CHKPT, map_location="cpu", weights_only=True)
        self._model.load_state_dict(weights["model"])

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        import torch

        require_sound(reference, degraded)
        require_seconds(reference, self.rate)
        wave = np.pad(degraded, (0, max(0, WINDOW - len(degraded))))
        last = len(wave) - WINDOW
        starts = np.linspace(0, last, -(-last // MAX_HOP) + 1).astype(int)
        with torch.inference_mode():
            scores = [
                self._model(torch.from_numpy(wave[None, start : start + WINDOW])).item()
                for start in starts
            ]
        return {"distillmos": float(np.clip(np.mean(scores), 1, 5))}
