"""PLCMOS: opinion score of speech with concealed packet loss, without reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave
from codectool.evaluation.metrics.support import (
    onnx_session,
    require_seconds,
    require_sound,
    split_pair,
)

MAX_SECONDS = 30.0  # the network takes 7 MB per second of audio
WINDOW, HOP = 512, 256  # in samples
RATERS, RATER_SIZE = 15, 64  # the network is averaged over random raters


class Plcmos(Metric):
    """PLCMOS, version 2, by the network in the package `speechmos`.

    Diener, Purin, Sootla, Saabas, Aichner and Cutler, Interspeech 2023. The package draws 15 raters
    for each clip; here they are the same for all clips, so that values are reproducible. The
    package's own code fails with NumPy 2.4. Clips longer than 30 s are split into equal parts and
    the values averaged.
    """

    rate = 16000
    packages = ("speechmos", "onnxruntime")
    outputs = (
        MetricInfo(
            name="plcmos",
            title="PLCMOS",
            unit="MOS",
            better="higher",
            digits=2,
            range=(1.0, 5.0),
            about="Opinion score of speech with gaps and concealment artifacts, estimated without "
            "reference (PLCMOS v2, Diener et al. 2023).",
            needs_speech=True,
            needs_reference=False,
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self._network: Any = onnx_session("speechmos", "plcmos_models/plcmos_v2.onnx")
        raters = np.random.default_rng(0).normal(size=(RATERS, 1, RATER_SIZE))
        self._raters = raters.astype(np.float32)

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        require_sound(reference, degraded)
        require_seconds(reference, self.rate)
        values = []
        for _, part in split_pair(reference, degraded, MAX_SECONDS * self.rate):
            audio = _log_power(np.clip(part, -1, 1))[None, None]
            values += [
                self._network.run(None, {"degraded_audio": audio, "rater_embed": rater})[0].item()
                for rater in self._raters
            ]
        return {"plcmos": float(np.clip(np.mean(values), 1, 5))}


def _log_power(wave: Wave) -> npt.NDArray[np.float32]:
    """Return natural logarithms of power, over 20: ``(frames, WINDOW / 2 + 1)``.

    Zeros are set 120 dB below the least power; silence to -80 dB.
    """
    frames = -(-len(wave) // HOP) + 1
    padded = np.pad(wave.astype(float), (HOP, (frames + 1) * HOP - HOP - len(wave)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(windows * np.hamming(WINDOW + 1)[:-1])) ** 2
    floor = power[power > 0].min() * 1e-12 if power.any() else 1e-8
    return (np.log(np.where(power > 0, power, floor)) / 20).astype(np.float32)
