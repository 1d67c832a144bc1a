"""Random crops of speech, and batches of crops that are read ahead.

Everything random about crop n of a run depends only on the seed and n. The audio of a run is
therefore the same for any number of workers and processes, and a resumed run continues with the
next crop.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from codectool.audio.files import read_crop
from codectool.codecs.trainable import CropTokens
from codectool.errors import AudioError, CodectoolError, ConfigError, ContainerError, UsageError
from codectool.schema import Config, Count, Fraction
from codectool.training.filelist import Clip
from codectool.training.pitch import track_pitch
from codectool.training.tokens import Array, ClipTokens, TokenCrop, stack_tokens

Wave = npt.NDArray[np.float32]

MIN_SECONDS = 0.1  # shorter clips are not used
MAX_TRIES = 20  # clips that are tried for a crop before it is silence
NOISE_DB = (-80.0, -50.0)  # RMS level of faint noise, relative to full scale


class CropConfig(Config, frozen=True, kw_only=True):
    """How crops are drawn.

    Attributes:
        segment_size: samples of a crop.
        sampling: draw each clip once per epoch (``"clips"``), or once for each segment that fits
            into it (``"seconds"``), so that each second of audio is drawn about equally often.
        gain_db: range of a random gain in dB; null for none. The gain is limited so that the peak
            of the crop stays within full scale.
        start_padding_prob: probability that a crop starts before its clip, with up to half a crop
            of zeros.
        silence_prob: probability that a crop is silence, or white noise of -80 to -50 dBFS.
        seed: random seed of weights, crops and everything else.
    """

    segment_size: Count
    sampling: Literal["clips", "seconds"] = "seconds"
    gain_db: tuple[float, float] | None = None
    start_padding_prob: Fraction = 0.0
    silence_prob: Fraction = 0.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 1234

    def __post_init__(self) -> None:
        if self.gain_db is not None and self.gain_db[0] > self.gain_db[1]:
            raise ConfigError("gain_db must be a range from low to high")


@dataclass(frozen=True, eq=False)
class Crop:
    """One crop, float32 ``(segment_size,)``, and the files that were tried.

    Attributes:
        audio: the samples.
        tokens: their tokens, if the data have tokens.
        pitch: their pitch and phase, as `track_pitch` returns them, if asked for.
        path: file of the clip; empty if the audio is silence or noise.
        problems: messages by path on files that cannot be used.
        warnings: messages by path on the file that is used, though it is damaged or not as listed.
        failed: no clip could be read; the audio is silence.
    """

    audio: Wave
    path: str
    problems: dict[str, str]
    warnings: dict[str, str]
    failed: bool = False
    tokens: TokenCrop | None = None
    pitch: Wave | None = None


class CropDataset(Dataset[Crop]):
    """Crop n of an endless run, for n = 0, 1, 2...

    An epoch is a random order of its entries. An entry is a clip, or a segment of a clip. Crops
    have the sampling rate given in Hz.

    Attributes:
        tokens: where the tokens of the clips are; None for crops without tokens.
        pitch_frame: samples from one value of the pitch to the next; None for crops without pitch.

    Raises:
        UsageError: There are no clips.
    """

    tokens: ClipTokens | None = None
    pitch_frame: int | None = None

    def __init__(self, clips: Sequence[Clip], config: CropConfig, sample_rate: int) -> None:
        if not clips:
            raise UsageError("there is no audio to train on: the list holds no usable clip")
        self.config, self.sample_rate = config, sample_rate
        # Flat arrays: workers would copy millions of small objects one by one, as their reference
        # counts are touched.
        names = [os.fsencode(clip.path) for clip in clips]
        self._names = b"".join(names)
        self._name_ends = np.cumsum([len(name) for name in names])
        self._num_samples = np.array([clip.num_samples for clip in clips], np.int64)
        self._rates = np.array([clip.sample_rate for clip in clips], np.int64)
        repeats = np.ones(len(clips), np.int64)
        if config.sampling == "seconds":
            num_samples = self._num_samples / self._rates * sample_rate
            repeats = np.maximum(1, np.rint(num_samples / config.segment_size)).astype(np.int64)
        self._entry_ends = np.cumsum(repeats)
        self._orders: dict[int, npt.NDArray[np.integer]] = {}

    @property
    def digest(self) -> str:
        """Checksum of names, lengths and rates of the clips in order, on which all crops depend.

        Folders do not count, so that the data of a run can be moved.
        """
        checksum = hashlib.sha256()
        begin = 0
        for end in map(int, self._name_ends):
            checksum.update(os.path.basename(self._names[begin:end]) + b"\0")
            begin = end
        checksum.update(self._num_samples.tobytes() + self._rates.tobytes())
        return checksum.hexdigest()

    @property
    def num_clips(self) -> int:
        """Number of clips."""
        return len(self._rates)

    @property
    def seconds(self) -> float:
        """Length of all clips."""
        return float((self._num_samples / self._rates).sum())

    @property
    def items_per_epoch(self) -> int:
        """Number of crops after which every clip was drawn as often as it should."""
        return int(self._entry_ends[-1])

    def __getitem__(self, number: int) -> Crop:
        """Return a crop by its number in the run."""
        crop = self._item(number)
        if self.pitch_frame is None:
            return crop
        return replace(crop, pitch=track_pitch(crop.audio, self.sample_rate, self.pitch_frame))

    def _item(self, number: int) -> Crop:
        config = self.config
        rng = np.random.default_rng([config.seed, number])
        clip = self._clip_of_item(number)
        if rng.random() < config.silence_prob:
            return Crop(_quiet(rng, config.segment_size), "", {}, {})
        problems: dict[str, str] = {}
        for _ in range(MAX_TRIES):
            warnings: list[str] = []
            try:
                audio, tokens = self._crop(clip, rng, warnings)
                faults = {str(clip.path): w for w in warnings[-1:]}
                return Crop(audio, str(clip.path), problems, faults, tokens=tokens)
            except (AudioError, ContainerError) as error:
                problems[str(clip.path)] = str(error)
            except OSError as error:
                problems[str(clip.path)] = f"{clip.path}: {error.strerror or error}"
            clip = self._clip_of_entry(int(rng.integers(self.items_per_epoch)))
        silence = np.zeros(config.segment_size, np.float32)
        nothing = self.tokens.nothing(config.segment_size) if self.tokens is not None else None
        return Crop(silence, "", problems, {}, failed=True, tokens=nothing)

    def _clip_of_item(self, number: int) -> Clip:
        epoch, position = divmod(number, self.items_per_epoch)
        if epoch not in self._orders:
            # A batch may lie across two epochs, and workers are not synchronous.
            self._orders = {old: o for old, o in self._orders.items() if abs(old - epoch) <= 1}
            self._orders[epoch] = self._order(epoch)
        return self._clip_of_entry(int(self._orders[epoch][position]))

    def _order(self, epoch: int) -> npt.NDArray[np.integer]:
        small = self.items_per_epoch <= np.iinfo(np.uint32).max
        order = np.arange(self.items_per_epoch, dtype=np.uint32 if small else np.int64)
        # A spawn key: otherwise crop number `epoch` would draw the same numbers.
        seed = np.random.SeedSequence(self.config.seed, spawn_key=(epoch,))
        np.random.default_rng(seed).shuffle(order)
        return order

    def _clip_of_entry(self, entry: int) -> Clip:
        index = int(np.searchsorted(self._entry_ends, entry, "right"))
        begin = int(self._name_ends[index - 1]) if index else 0
        name = os.fsdecode(self._names[begin : int(self._name_ends[index])])
        return Clip(Path(name), int(self._num_samples[index]), int(self._rates[index]))

    def _crop(
        self, clip: Clip, rng: np.random.Generator, warnings: list[str]
    ) -> tuple[Wave, TokenCrop | None]:
        """Read a random crop of a clip; raise an error if the clip cannot be used.

        ``warnings`` gets a sentence if the clip is damaged or not as listed.
        """
        if clip.seconds < MIN_SECONDS:
            raise AudioError(f"{clip.path}: is shorter than {MIN_SECONDS} s")
        config, rate = self.config, self.sample_rate
        size = config.segment_size
        start = padding = 0
        tokens, channel = None, None
        if self.tokens is not None:
            tokens, start, channel = self.tokens.draw(clip.path, size, rng)
        elif rng.random() < config.start_padding_prob:
            padding = int(rng.integers(1, max(1, size // 2), endpoint=True))
        length = -(-clip.num_samples * rate // clip.sample_rate)
        if tokens is None and not padding and length > size:
            start = int(rng.integers(length - size, endpoint=True))
        expected = max(0, min(size - padding, length - start))
        listed = (clip.num_samples, clip.sample_rate)
        wave = read_crop(clip.path, start, size - padding, rate, listed, warnings, channel)[0]
        if len(wave) < expected:
            raise AudioError(
                warnings[-1] if warnings else f"{clip.path}: is shorter than the list says"
            )
        if config.gain_db is not None:
            wave = _amplify(wave, rng.uniform(*config.gain_db))
        return np.pad(wave, (padding, size - padding - len(wave))), tokens


def _amplify(wave: Wave, decibels: float) -> Wave:
    peak = float(np.abs(wave).max(initial=0.0))
    factor = min(10 ** (decibels / 20), 1 / peak if peak else math.inf)
    result: Wave = np.clip(wave * np.float32(factor), -1, 1)  # the product may round to above 1
    return result


def _quiet(rng: np.random.Generator, size: int) -> Wave:
    """Return digital silence or faint white noise, equally often."""
    if rng.random() < 0.5:
        return np.zeros(size, np.float32)
    level = 10 ** (rng.uniform(*NOISE_DB) / 20)
    noise: Wave = rng.standard_normal(size, np.float32) * np.float32(level)
    return noise


@dataclass(frozen=True, eq=False)
class Batch:
    """One process's part of a batch: float32 ``(B, 1, segment_size)``."""

    audio: Tensor  # in pinned memory if there is a CUDA device
    paths: list[str]  # files of the crops, without duplicates
    problems: list[str]  # a line for each file with a problem that was not reported before
    wait_seconds: float
    tokens: CropTokens | None = None
    pitch: Tensor | None = None


# audio, paths, problems, warnings, failed, tokens, pitch, as in `Crop`
_Collated = tuple[
    Wave,
    list[str],
    dict[str, str],
    dict[str, str],
    bool,
    "tuple[Array, Array, Array] | None",
    "Wave | None",
]


def read_batches(
    dataset: CropDataset,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    first_batch: int = 0,
) -> Iterator[Batch]:
    """Yield batches without end; batch k holds the crops from ``k * batch_size`` on.

    Args:
        dataset: crops of the run.
        batch_size: crops of a batch over all processes, a multiple of ``world_size``.
        num_workers: worker processes that read ahead; 0 to read in this process.
        rank: number of this process, which gets the rank-th part of each batch.
        world_size: number of processes.
        first_batch: number of the first batch.

    Raises:
        AudioError: No crop of a batch could be read.
        CodectoolError: A worker died.
    """
    part = batch_size // world_size
    firsts = itertools.count(first_batch * batch_size + rank * part, batch_size)
    loader: DataLoader[_Collated] = DataLoader(
        dataset,  # type: ignore[arg-type]  # collated to another type
        batch_sampler=(list(range(first, first + part)) for first in firsts),
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else it would draw from the global one
        prefetch_factor=4 if num_workers else None,
    )
    reported: set[str] = set()
    with reading_errors():
        batches = iter(loader)
    while True:
        started = time.perf_counter()
        with reading_errors():
            waves, paths, problems, warnings, failed, parts, pitch = next(batches)
        audio, tokens = torch.from_numpy(waves), None
        if torch.cuda.is_available():
            audio = audio.pin_memory()
        if parts is not None and dataset.tokens is not None:
            codes, starts, num_frames = map(torch.from_numpy, parts)
            context = dataset.tokens.before, dataset.tokens.after
            tokens = CropTokens(codes, starts, num_frames, *context)
        wait_seconds = time.perf_counter() - started
        if failed:
            raise AudioError(
                f"none of the {len(problems)} files of a batch could be read, the last: "
                f"{[*problems.values()][-1]}"
            )
        lines = warnings | {path: f"{reason}; left out" for path, reason in problems.items()}
        new = [line for path, line in lines.items() if path not in reported]
        reported.update(lines)
        track = None if pitch is None else torch.from_numpy(pitch)
        yield Batch(audio, paths, new, wait_seconds, tokens, track)


def _collate(crops: list[Crop]) -> _Collated:
    problems: dict[str, str] = {}
    warnings: dict[str, str] = {}
    for crop in crops:
        problems.update(crop.problems)
        warnings.update(crop.warnings)
    # Arrays are sent through a pipe. Tensors would need shared memory, of which containers have
    # little, and a connection that breaks when a process is killed.
    waves = np.stack([crop.audio for crop in crops])[:, None]
    paths = [*dict.fromkeys(crop.path for crop in crops if crop.path)]
    tokens = [crop.tokens for crop in crops if crop.tokens is not None]
    pitch = [crop.pitch for crop in crops if crop.pitch is not None]
    return (
        *(waves, paths, problems, warnings, all(crop.failed for crop in crops)),
        stack_tokens(tokens) if tokens else None,
        np.stack(pitch) if pitch else None,
    )


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # These reach the whole process group; the training process stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with_trainer, daemon=True).start()


def _exit_with_trainer() -> None:
    # PyTorch's own check is not enough: batches that are not read keep a worker alive.
    trainer = multiprocessing.parent_process()
    if trainer is not None:
        trainer.join()
        os._exit(1)


@contextmanager
def reading_errors() -> Iterator[None]:
    """Raise `CodectoolError` for PyTorch's error about a dead worker."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise CodectoolError(
            f"a worker that reads audio died ({str(error).splitlines()[0].strip()}); if memory "
            "ran out, use fewer workers: `--set training.num_workers=1`"
        ) from error
