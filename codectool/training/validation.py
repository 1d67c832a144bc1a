"""Validation: the quality of a codec on clips that it was not trained on.

The clips pass `codectool.codec.Codec`, like the files of users, and are compared with the metrics
of `codectool evaluate` at the model's sampling rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codectool.audio.files import read_crop
from codectool.codec import Codec
from codectool.codecs.base import CodecModel
from codectool.errors import AudioError
from codectool.evaluation.metrics.base import MetricUndefinedError, Wave
from codectool.evaluation.metrics.si_sdr import SiSdr
from codectool.evaluation.metrics.spectral import mel_distance
from codectool.evaluation.metrics.speech_level import speech_level
from codectool.evaluation.metrics.stoi import Stoi
from codectool.evaluation.tokens.usage import codebook_usage
from codectool.tokens import Tokens
from codectool.torch_runner import TorchRunner

MIN_SECONDS = 0.1
NO_FINGERPRINT = "00000000"  # the tokens are decoded by the weights in training


@dataclass(frozen=True)
class ValidationClip:
    """A clip that is coded at every validation; its name in TensorBoard is unique in a list."""

    name: str
    audio: Tensor  # float32 ``(1, N)`` in [-1, 1], at the model's sampling rate
    tokens: Tokens | None = None  # of an encoder that does not change


@dataclass(frozen=True)
class ValidationResult:
    """Decoded samples ``(N,)`` of each clip at the model's rate, and metrics by name."""

    outputs: list[Tensor]
    clip_values: list[dict[str, float]]  # of each clip; NaN where a metric is undefined
    values: dict[str, float]  # means over the clips that have a value, and `codebook_usage`


def load_clips(
    paths: Iterable[Path],
    sample_rate: int,
    max_seconds: float = 10.0,
    on_error: Callable[[str], None] = lambda message: None,
    name: str = "the validation list",
) -> list[ValidationClip]:
    """Read the first `max_seconds` of validation clips: mono, at the model's rate in Hz.

    `on_error` is called with a message for each file that is damaged, or cannot be used and is left
    out; `name` is the name of the list in errors.

    Raises:
        AudioError: No file can be used.
    """
    clips: dict[str, ValidationClip] = {}
    unusable = 0
    for path in paths:
        warnings: list[str] = []
        try:
            length = math.ceil(max_seconds * sample_rate)
            wave = read_crop(path, 0, length, sample_rate, warnings=warnings)
            if wave.shape[1] < MIN_SECONDS * sample_rate:
                raise AudioError(f"{path}: is shorter than {MIN_SECONDS} s")
        except (AudioError, OSError) as error:
            text = str(error) if isinstance(error, AudioError) else f"{path}: {error.strerror}"
            unusable += 1
            on_error(f"{text}; not used for validation")
            continue
        for warning in warnings:
            on_error(warning)
        name, number = path.stem, 1
        while name in clips:
            number += 1
            name = f"{path.stem}-{number}"
        clips[name] = ValidationClip(name, torch.from_numpy(np.ascontiguousarray(wave)))
    if not clips:
        reason = "no clip of it can be used for validation" if unusable else "is empty"
        raise AudioError(f"{name}: {reason}; give clips that can be read")
    return list(clips.values())


def validate(model: CodecModel, clips: Sequence[ValidationClip]) -> ValidationResult:
    """Measure the quality of a model in evaluation mode on its device."""
    codec = Codec(TorchRunner(model, model.device), NO_FINGERPRINT, Path("validation"))
    outputs, clip_values, codes = [], [], []
    for clip in clips:
        tokens = encode_clip(codec, clip) if clip.tokens is None else clip.tokens
        output = codec.decode(tokens)[0]
        outputs.append(torch.from_numpy(output))
        clip_values.append(compute_metrics(clip.audio[0].numpy(), output, model.sample_rate))
        codes.append(tokens.codes[0])
    values = _means(clip_values)
    if codes:
        values |= codebook_usage(np.concatenate(codes, axis=1), model.codebook_sizes)
    return ValidationResult(outputs, clip_values, values)


def encode_clip(codec: Codec, clip: ValidationClip) -> Tokens:
    """Return the tokens of a clip, for `validate`."""
    tokens = codec.encode_chunks([clip.audio], codec.sample_rate, 1, checked=True)
    return replace(tokens, fingerprint=NO_FINGERPRINT)


def compute_metrics(reference: Wave, output: Wave, sample_rate: int) -> dict[str, float]:
    """Return mel distance, SI-SDR, and STOI and ESTOI if pystoi is installed, of two ``(N,)``.

    NaN where a metric is undefined, such as STOI of less than 0.4 s of speech, and all but the mel
    distance for a reference without speech, as in `evaluate`.
    """
    metrics: dict[str, Callable[[], float]] = {
        "mel_db": lambda: mel_distance(reference, output, sample_rate),
        "si_sdr_db": lambda: SiSdr().compute(reference, output)["si_sdr_db"],
    }
    pair = reference.astype(float), output.astype(float)
    with suppress(ImportError):  # pystoi is optional
        stoi = Stoi()
        metrics["stoi"] = lambda: stoi.intelligibility(*pair, sample_rate, extended=False)
        metrics["estoi"] = lambda: stoi.intelligibility(*pair, sample_rate, extended=True)
    if not speech_level(reference, sample_rate).is_speech:
        metrics = {
            name: metrics[name] if name == "mel_db" else lambda: math.nan for name in metrics
        }
    return {name: _value_or_nan(metric) for name, metric in metrics.items()}


def _value_or_nan(metric: Callable[[], float]) -> float:
    try:
        return metric()
    except MetricUndefinedError:
        return math.nan


def _means(tables: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each value over the tables in which it is finite; NaN if in none."""
    means = {}
    for name in tables[0] if tables else ():
        known = [table[name] for table in tables if math.isfinite(table[name])]
        means[name] = sum(known) / len(known) if known else math.nan
    return means
