"""Compare an exported part with the model that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.audio.files import read_audio
from codectool.audio.samples import Samples, resample
from codectool.codec import Codec
from codectool.errors import CodectoolError
from codectool.onnx.metadata import ABSENT_CODE, GraphMetadata, StepMetadata
from codectool.segments import pad_or_trim

Array = npt.NDArray[Any]
Run = Callable[[Sequence[Array]], Sequence[Array]]  # inputs to outputs, in the order of the graph

MIN_EQUAL = 0.99  # of the tokens; rounding may change one where two codewords are equally near
MAX_ERROR = 1e-3  # of a sample; full scale is 1
CLIP_SECONDS = 3.0
MAX_CLIP_SECONDS = 20.0


class ExportCheckError(CodectoolError):
    """An exported part computes something else than the model."""


@dataclass(frozen=True)
class CheckClip:
    """A signal with what the model computes for it.

    Attributes:
        wave: float32 ``(1, N)``, N a multiple of the hop length.
        codes: int64 ``(K, F)``.
        audio: float32 ``(1, N)``.
    """

    wave: Samples
    codes: npt.NDArray[np.int64]
    audio: Samples


@dataclass(frozen=True)
class CheckResult:
    """Agreement of an exported part with the model.

    Attributes:
        frames: length of each clip.
        tokens: number of tokens compared; 0 for a decoder.
        equal: how many of them are equal.
        max_error: largest difference of a sample; None for an encoder.
    """

    frames: tuple[int, ...]
    tokens: int
    equal: int
    max_error: float | None

    def require(self, name: str) -> None:
        """Raise an `ExportCheckError` if the part ``name`` does not agree with the model."""
        if self.equal < MIN_EQUAL * self.tokens:
            raise ExportCheckError(
                f"{name}: only {self.equal} of {self.tokens} tokens equal those of PyTorch; "
                "nothing was written"
            )
        if self.max_error is not None and not self.max_error <= MAX_ERROR:  # or NaN
            raise ExportCheckError(
                f"{name}: audio differs from PyTorch's by up to {self.max_error:.2g}; "
                "nothing was written"
            )


def check_clips(codec: Codec, files: Sequence[Path] = ()) -> list[CheckClip]:
    """Return signals of several lengths: recordings, or a synthetic one without ``files``."""
    rate, hop = codec.sample_rate, codec.hop_length
    if files:
        signals = []
        for file in files:
            samples, sample_rate = read_audio(file, str(file))
            limit = int(MAX_CLIP_SECONDS * sample_rate)
            signals.append(resample(samples[:1, :limit], sample_rate, rate))
    else:
        signals = [synthetic_speech(rate, CLIP_SECONDS)]
    shortest = codec.model.min_frames
    lengths = [shortest, shortest + 1]
    waves = [pad_or_trim(signals[0], frames * hop) for frames in lengths]
    waves += [
        pad_or_trim(signal, codec.model.num_frames(signal.shape[1]) * hop) for signal in signals
    ]
    codes = codec.runner.encode(waves)
    audio = codec.runner.decode(codes)
    return [
        CheckClip(wave, item.astype(np.int64), decoded)
        for wave, item, decoded in zip(waves, codes, audio, strict=True)
    ]


def check_part(metadata: GraphMetadata, run: Run, clips: Sequence[CheckClip]) -> CheckResult:
    """Run a part on all clips and compare the results."""
    tokens = equal = 0
    max_error = None
    for clip in clips:
        for chunk_frames in _chunkings(metadata):
            if metadata.part.startswith("encoder"):
                codes = _encode(metadata, run, clip.wave, chunk_frames)
                tokens += clip.codes.size
                equal += int((codes == clip.codes).sum()) if codes.shape == clip.codes.shape else 0
            else:
                audio = _decode(metadata, run, clip.codes, chunk_frames)
                same = audio.shape == clip.audio.shape
                error = float(np.abs(audio - clip.audio).max()) if same else np.inf
                max_error = max(max_error or 0.0, error)
    return CheckResult(tuple(clip.codes.shape[1] for clip in clips), tokens, equal, max_error)


def _chunkings(metadata: GraphMetadata) -> list[int | None]:
    """Return the frames per call to try; None for whole signals."""
    return [None] if metadata.step is None else [metadata.step.chunk_frames, 1]


def _encode(metadata: GraphMetadata, run: Run, wave: Samples, chunk_frames: int | None) -> Array:
    if metadata.step is None or chunk_frames is None:
        whole: Array = run([wave[None]])[0][0]
        return whole
    size = chunk_frames * metadata.hop_length
    padded = pad_or_trim(wave, -(-wave.shape[1] // size) * size)
    outputs = run_steps(metadata.step, run, padded[None], size)
    return np.concatenate(outputs, axis=2)[0, :, : wave.shape[1] // metadata.hop_length]


def _decode(metadata: GraphMetadata, run: Run, codes: Array, chunk_frames: int | None) -> Array:
    if metadata.step is None or chunk_frames is None:
        whole: Array = run([codes[None]])[0][0]
        return whole
    delay = metadata.step.delay_frames
    padded = np.pad(codes, ((0, 0), (0, delay)), constant_values=ABSENT_CODE)
    outputs = run_steps(metadata.step, run, padded[None], chunk_frames)
    return np.concatenate(outputs, axis=2)[0, :, delay * metadata.hop_length :]


def run_steps(step: StepMetadata, run: Run, x: Array, size: int) -> list[Array]:
    """Run a step on ``(1, C, T)``, ``size`` values of the last axis at a time, from its start."""
    states: Sequence[Array] = [np.zeros(state.shape, np.float32) for state in step.states]
    outputs = []
    for first in range(0, x.shape[2], size):
        y, *states = run([x[:, :, first : first + size], *states])
        outputs.append(y)
    return outputs


def synthetic_speech(sample_rate: int, seconds: float) -> Samples:
    """Return vowels with a gliding pitch, noise and pauses, float32 ``(1, N)``."""
    rng = np.random.default_rng(0)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    pitch = 140 + 40 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    voice = np.zeros_like(time)
    for harmonic in range(1, 25):
        distance = np.abs(harmonic * pitch[:, None] - np.array([600, 1300, 2600])) / 150
        voice += (0.02 + np.exp(-0.5 * distance**2).sum(1)) * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None)
    hiss = np.clip(-np.sin(2 * np.pi * 1.25 * time), 0, None) ** 4
    wave = 0.08 * syllables * voice + 0.02 * hiss * rng.standard_normal(len(time))
    return np.clip(wave, -1, 1).astype(np.float32)[None]
