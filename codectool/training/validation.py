"""How good a codec is on clips that it was not trained with.

The clips go through `codectool.codec.Codec`, as files of users do: what is measured is what
`encode` and `decode` give.

Letters used in shapes: C channels, K codebooks, F frames, N samples.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codectool.audio.files import read_crop
from codectool.checkpoints.load import LoadedModel
from codectool.codec import Codec
from codectool.codecs.base import CodecModel
from codectool.errors import AudioError
from codectool.evaluation.tokens.usage import codebook_usage
from codectool.training.losses.spectral import mel_distance_db
from codectool.training.losses.waveform import si_sdr

MIN_SECONDS = 0.1
NO_FINGERPRINT = "00000000"  # the tokens of a validation meet no other weights


@dataclass(frozen=True)
class ValidationClip:
    """One clip to be coded again and again.

    Attributes:
        name: for tables and TensorBoard; no two clips of a list have the same.
        audio: float32 ``(1, N)`` in [-1, 1], at the model's sampling rate.
    """

    name: str
    audio: Tensor


@dataclass(frozen=True)
class ClipResult:
    """What became of one clip.

    Attributes:
        name: of the clip.
        values: ``mel_db``, ``si_sdr``, and with pystoi ``stoi`` and ``estoi``; NaN where a measure
            has no value, as STOI of less than 0.4 s of speech.
        output: float32 ``(N,)``, the decoded samples.
    """

    name: str
    values: dict[str, float]
    output: Tensor


@dataclass(frozen=True)
class ValidationResult:
    """What became of all clips.

    Attributes:
        clips: each of them, in order.
        values: means over the clips that have a value, and how the codebooks are used (see
            `codebook_usage`): for the journal.
    """

    clips: tuple[ClipResult, ...]
    values: dict[str, float]

    def samples(self, index: int) -> Tensor:
        """Decoded samples ``(N,)`` of one clip, at the model's sampling rate."""
        return self.clips[index].output


def load_clips(
    paths: Iterable[Path],
    sample_rate: int,
    seconds_max: float = 10.0,
    complain: Callable[[str], None] | None = None,
) -> list[ValidationClip]:
    """Read the clips of a validation list: mono, at the model's rate, the beginning of long ones.

    Args:
        paths: audio files.
        sample_rate: of the model, in Hz.
        seconds_max: of each file, the first so many seconds.
        complain: is told, in one line, of each file that cannot be used; it is left out.

    Raises:
        AudioError: not one of them can be used.
    """
    clips: list[ValidationClip] = []
    problems = []
    names: set[str] = set()
    for path in paths:
        try:
            audio = _read_clip(path, sample_rate, seconds_max)
        except AudioError as error:
            problems.append(str(error))
            if complain is not None:
                complain(f"{error}; not used for validation")
            continue
        name = _unused(path.stem, names)
        names.add(name)
        clips.append(ValidationClip(name, audio))
    if not clips:
        why = f": {problems[0]}" if problems else " is empty"
        raise AudioError(f"the validation list{why}; give clips that can be read")
    return clips


def _read_clip(path: Path, sample_rate: int, seconds_max: float) -> Tensor:
    wave = read_crop(path, 0, math.ceil(seconds_max * sample_rate), sample_rate)
    if wave.shape[1] < MIN_SECONDS * sample_rate:
        raise AudioError(f"{path}: is shorter than {MIN_SECONDS} s")
    return torch.from_numpy(np.ascontiguousarray(wave))


def _unused(name: str, taken: set[str]) -> str:
    """``name``, with a number behind it if it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def validate(codec: CodecModel, clips: Sequence[ValidationClip]) -> ValidationResult:
    """Encode and decode every clip on the model's device, and measure what comes back.

    Args:
        codec: the model; it is left in evaluation mode.
        clips: at its sampling rate.
    """
    whole = Codec(LoadedModel(codec, NO_FINGERPRINT, Path("validation")), codec.device)
    results, codes = [], []
    for clip in clips:
        tokens = whole.encode(clip.audio, codec.sample_rate)
        output = torch.from_numpy(whole.decode(tokens))
        values = measure(output, clip.audio, codec.sample_rate)
        results.append(ClipResult(clip.name, values, output[0]))
        codes.append(tokens.codes[0])
    means = _means([result.values for result in results])
    use = codebook_usage(np.concatenate(codes, axis=1), codec.codebook_sizes) if codes else {}
    return ValidationResult(tuple(results), means | use)


def measure(output: Tensor, reference: Tensor, sample_rate: int) -> dict[str, float]:
    """Measures of one clip; see `ClipResult`.

    Args:
        output: float32 ``(1, N)``.
        reference: float32 ``(1, N)``.
        sample_rate: in Hz.
    """
    pair = output[None], reference[None]
    return {
        "mel_db": float(mel_distance_db(*pair, sample_rate)),
        "si_sdr": float(si_sdr(*pair)),
        **intelligibility(output, reference, sample_rate),
    }


def intelligibility(output: Tensor, reference: Tensor, sample_rate: int) -> dict[str, float]:
    """STOI and extended STOI (Taal 2011, Jensen 2016), 0 to 1, as pystoi computes them.

    Args:
        output: float32 ``(1, N)``.
        reference: float32 ``(1, N)``.
        sample_rate: in Hz; pystoi resamples to 10 kHz itself.

    Returns:
        ``stoi`` and ``estoi``, NaN where there is too little speech for one; an empty table where
        pystoi is not installed.
    """
    try:
        pystoi = importlib.import_module("pystoi")
    except ImportError:
        return {}
    signals = reference[0].double().numpy(), output[0].double().numpy()
    values = {}
    for name, extended in (("stoi", False), ("estoi", True)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            # it returns a number all the same, and one that spoils a mean
            warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
            try:
                values[name] = float(pystoi.stoi(*signals, sample_rate, extended=extended))
            except RuntimeWarning:
                values[name] = math.nan
    return values


def _means(tables: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each value over the tables in which it is a number; NaN where it is in none."""
    means = {}
    for name in tables[0] if tables else ():
        known = [table[name] for table in tables if math.isfinite(table[name])]
        means[name] = sum(known) / len(known) if known else math.nan
    return means
