"""Speaker similarity: whether two recordings have the same voice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from codectool.audio.mel import mel_power
from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import package_file, require_sound

if TYPE_CHECKING:
    import torch

# As in the package: mel power spectra in windows of 1.6 s, 0.77 s apart, at -30 dBov or more.
RATE = 16000
MEL_BANDS, MEL_WINDOW, MEL_HOP = 40, 400, 160  # in samples
WINDOW, HOP = 160, 77  # in frames
MIN_COVERAGE = 0.75  # share of the last window that contains signal
MIN_RMS = 10 ** (-30 / 20)
MIN_LEVEL_DB = -30.0  # of windows that count, relative to the loudest: others contain no speech
UNITS, LAYERS = 256, 3

Features = npt.NDArray[np.float32]


class SpeakerSimilarity(Metric):
    """Cosine of two voice embeddings, by the network in the package `Resemblyzer`.

    Wan et al., "Generalized End-to-End Loss for Speaker Verification", ICASSP 2018. Windows in
    which the reference is 30 dB softer than in its loudest are left out of both embeddings; the
    package cuts pauses by a voice activity detector instead, of each signal by itself.

    The code of the package is not imported. It needs `webrtcvad`, which replaces the file of
    `webrtcvad-wheels` and cannot be imported without `pkg_resources`. That is also why Resemblyzer
    is not in the extra `eval`.
    """

    rate = RATE
    packages = ("resemblyzer", "torch")
    install = "--no-deps Resemblyzer"
    outputs = (
        MetricInfo(
            name="speaker",
            title="speaker similarity",
            unit="",
            better="higher",
            digits=3,
            range=(0.0, 1.0),
            about="Cosine of the voice embeddings of the two signals (Resemblyzer, Wan et al. "
            "2018); 1 for identical clips, about 0.5 to 0.75 for different speakers.",
            needs_speech=True,
        ),
    )

    def __init__(self) -> None:
        import torch

        path = package_file("resemblyzer", "pretrained.pt")
        weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        self._lstm = torch.nn.LSTM(MEL_BANDS, UNITS, LAYERS, batch_first=True)
        self._linear = torch.nn.Linear(UNITS, UNITS)
        for name, module in (("lstm.", self._lstm), ("linear.", self._linear)):
            state = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
            module.load_state_dict(state)

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        require_sound(reference, degraded)
        before, after = windows(reference), windows(degraded)
        power = before.mean(axis=(1, 2))
        speech = power >= power.max() * 10 ** (MIN_LEVEL_DB / 10)
        similarity = self.embed(before[speech]) @ self.embed(after[speech])
        return {"speaker": float(np.clip(similarity, 0, 1))}

    def embed(self, mel: Features) -> Features:
        """Return the embedding ``(256,)`` of length 1 of windows ``(W, 160, 40)``.

        Raises:
            MetricUndefinedError: all units are 0.
        """
        import torch

        with torch.inference_mode():
            _, (hidden, _) = self._lstm(torch.from_numpy(mel))
            each: torch.Tensor = torch.relu(self._linear(hidden[-1]))
            mean: Any = torch.nn.functional.normalize(each).mean(dim=0).numpy()
        length = np.linalg.norm(mean)
        if length == 0:
            raise MetricUndefinedError("no voice found")
        return np.asarray(mean / length)


def windows(wave: Wave) -> Features:
    """Return mel power spectra of a signal ``(N,)`` in windows ``(W, 160, 40)``."""
    wave = wave * max(1.0, MIN_RMS / float(np.sqrt(np.mean(wave.astype(float) ** 2))))
    frames = -(-(len(wave) + 1) // MEL_HOP)
    starts = np.arange(0, max(1, frames - WINDOW + HOP + 1), HOP)
    if len(starts) > 1 and len(wave) / MEL_HOP - starts[-1] < MIN_COVERAGE * WINDOW:
        starts = starts[:-1]
    padded = np.pad(wave, (0, max(0, (starts[-1] + WINDOW) * MEL_HOP - len(wave))))
    mel = mel_power(padded, MEL_WINDOW, MEL_BANDS, MEL_HOP, RATE).astype(np.float32)
    return np.stack([mel[start : start + WINDOW] for start in starts])
