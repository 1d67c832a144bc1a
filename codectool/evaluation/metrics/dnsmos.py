"""DNSMOS: opinion scores of speech in noise, without reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from codectool.audio.mel import mel_power
from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave
from codectool.evaluation.metrics.support import onnx_session, require_seconds, require_sound

RATE = 16000
SECONDS = 9.01
WINDOW = 144160  # in samples
# From the P.835 network to opinion scores, highest power first; as in the package.
CALIBRATION = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos_ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
MEL_BANDS, MEL_WINDOW, MEL_HOP = 120, 321, 160  # of the P.808 network, in samples


def _info(name: str, title: str, about: str) -> MetricInfo:
    return MetricInfo(name, title, "MOS", "higher", 2, (1.0, 5.0), about, True, False)


class Dnsmos(Metric):
    """DNSMOS P.808 and P.835, by the networks in the package `speechmos`.

    Reddy, Gopal and Cutler, ICASSP 2021 (P.808) and 2022 (P.835). The scores are means over windows
    of 9.01 s, 1 s apart; clips that are shorter are repeated. Values agree with the package's own
    code, which needs librosa.
    """

    rate = RATE
    packages = ("speechmos", "onnxruntime")
    outputs = (
        _info(
            "dnsmos_p808",
            "DNSMOS P.808",
            "Overall opinion score estimated without reference (DNSMOS P.808, Reddy et al. 2021).",
        ),
        _info(
            "dnsmos_ovrl",
            "DNSMOS overall",
            "Overall opinion score estimated without reference (DNSMOS P.835, Reddy et al. 2022).",
        ),
        _info(
            "dnsmos_sig",
            "DNSMOS speech",
            "Opinion score of the speech, whatever the background (DNSMOS P.835, Reddy et al. "
            "2022).",
        ),
        _info(
            "dnsmos_bak",
            "DNSMOS background",
            "Opinion score of the background, 5 if none is heard (DNSMOS P.835, Reddy et al. "
            "2022).",
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self._p808: Any = onnx_session("speechmos", "dnsmos_models/model_v8.onnx")
        self._p835: Any = onnx_session("speechmos", "dnsmos_models/sig_bak_ovr.onnx")

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        require_sound(reference, degraded)
        require_seconds(reference, self.rate)
        wave = np.clip(degraded, -1, 1)
        while len(wave) < WINDOW:
            wave = np.concatenate([wave, wave])
        p808, p835 = [], []
        # as the package counts: the last second is not used, nor are windows that rounding cuts
        for second in range(max(1, len(wave) // RATE - int(SECONDS))):
            window = wave[second * RATE : int((second + SECONDS) * RATE)]
            if len(window) < WINDOW:
                continue
            p808.append(self._p808.run(None, {"input_1": _log_mel(window[:-MEL_HOP])[None]})[0][0])
            p835.append(self._p835.run(None, {"input_1": window[None]})[0][0])
        values = {"dnsmos_p808": float(np.mean(p808))}
        for (name, powers), raw in zip(CALIBRATION.items(), np.transpose(p835), strict=True):
            values[name] = float(np.mean(np.polyval(powers, raw)))
        return {info.name: float(np.clip(values[info.name], 1, 5)) for info in self.outputs}


def _log_mel(wave: Wave) -> npt.NDArray[np.float32]:
    """Return mel levels from -1 to 1, ``(frames, bands)``: 80 dB below the loudest to it."""
    power = mel_power(wave, MEL_WINDOW, MEL_BANDS, MEL_HOP, RATE)
    level = 10 * np.log10(np.maximum(power, 1e-10))
    return np.asarray(np.maximum((level - level.max() + 40) / 40, -1), np.float32)
