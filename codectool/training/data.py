"""Random crops of speech: what item n of a run is, and batches of items, read ahead.

Everything random about item n follows from the seed and n alone. The audio of a run is therefore
the same for any number of reading processes and of ranks, and goes on where it was when a run is
resumed.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from codectool.audio.files import read_crop
from codectool.errors import AudioError, CodectoolError, ConfigError, UsageError
from codectool.training.filelist import Clip

Wave = npt.NDArray[np.float32]

MIN_SECONDS = 0.1  # a shorter clip is no speech
TRIES = 20  # clips that may be unreadable in a row before an item is silence
NOISE_DB = (-80.0, -50.0)  # level of faint noise, as root mean square of full scale


@dataclass(frozen=True)
class CropSettings:
    """How crops are drawn.

    Attributes:
        sample_rate: of the crops, in Hz.
        segment_size: samples of a crop.
        seed: of everything random.
        by_seconds: draw a clip once for each segment that its length holds, instead of once per
            epoch, so that every second of audio is drawn about equally often.
        gain_db: range of a random gain in decibels; None for none. A gain stops where the crop's
            peak reaches full scale.
        early_start: share of crops that begin before their clip does, by up to half a crop of
            zeros.
        silence: share of crops that are silence, or white noise of -80 to -50 dBFS.
    """

    sample_rate: int
    segment_size: int
    seed: int
    by_seconds: bool = False
    gain_db: tuple[float, float] | None = None
    early_start: float = 0.0
    silence: float = 0.0


@dataclass(frozen=True, eq=False)
class Crop:
    """One item.

    Attributes:
        audio: float32 ``(1, segment_size)``.
        problems: for each path that was tried and could not be used, one line that says why.
        gave_up: no clip could be read; the audio is silence.
    """

    audio: Tensor
    problems: dict[str, str]
    gave_up: bool = False


class CropDataset(Dataset[Crop]):
    """Item n of an endless run, for n = 0, 1, 2...

    An epoch is a random order of its entries. An entry is a clip, or with ``by_seconds`` a clip as
    often as segments fit into it.
    """

    def __init__(self, clips: Sequence[Clip], settings: CropSettings) -> None:
        """Take note of the clips.

        Raises:
            UsageError: there are none.
        """
        if not clips:
            raise UsageError("there is no audio to train on: the list holds no usable clip")
        self.settings = settings
        # Flat arrays: millions of small objects would be copied into every reading process, one by
        # one, as their reference counts are touched.
        names = [os.fsencode(clip.path) for clip in clips]
        self._names = b"".join(names)
        self._name_ends = np.cumsum([len(name) for name in names])
        self._num_samples = np.array([clip.num_samples for clip in clips], np.int64)
        self._rates = np.array([clip.sample_rate for clip in clips], np.int64)
        repeats = np.ones(len(clips), np.int64)
        if settings.by_seconds:
            segments = self._num_samples / self._rates * settings.sample_rate
            repeats = np.maximum(1, np.rint(segments / settings.segment_size)).astype(np.int64)
        self._entry_ends = np.cumsum(repeats)
        self._orders: dict[int, npt.NDArray[np.integer]] = {}

    @property
    def items_per_epoch(self) -> int:
        """Number of entries of an epoch."""
        return int(self._entry_ends[-1])

    def __getitem__(self, number: int) -> Crop:
        """Item ``number``, counted over the whole run."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, number])
        clip = self._clip_of_item(number)
        if rng.random() < settings.silence:
            return Crop(self._tensor(_quiet(rng, settings.segment_size)), {})
        problems: dict[str, str] = {}
        for _ in range(TRIES):
            try:
                return Crop(self._tensor(self._crop(clip, rng)), problems)
            except AudioError as error:
                problems[str(clip.path)] = str(error)
            clip = self._clip_of_entry(int(rng.integers(self.items_per_epoch)))
        return Crop(torch.zeros(1, settings.segment_size), problems, gave_up=True)

    def _clip_of_item(self, number: int) -> Clip:
        epoch, place = divmod(number, self.items_per_epoch)
        if epoch not in self._orders:
            # A batch may lie across two epochs, and readers ahead of one another.
            self._orders = {old: o for old, o in self._orders.items() if abs(old - epoch) <= 1}
            self._orders[epoch] = self._order(epoch)
        return self._clip_of_entry(int(self._orders[epoch][place]))

    def _order(self, epoch: int) -> npt.NDArray[np.integer]:
        small = self.items_per_epoch <= np.iinfo(np.uint32).max
        order = np.arange(self.items_per_epoch, dtype=np.uint32 if small else np.int64)
        # A spawn key keeps these numbers apart from those of item number `epoch`.
        seed = np.random.SeedSequence(self.settings.seed, spawn_key=(epoch,))
        np.random.default_rng(seed).shuffle(order)
        return order

    def _clip_of_entry(self, entry: int) -> Clip:
        index = int(np.searchsorted(self._entry_ends, entry, "right"))
        begin = int(self._name_ends[index - 1]) if index else 0
        name = os.fsdecode(self._names[begin : int(self._name_ends[index])])
        return Clip(Path(name), int(self._num_samples[index]), int(self._rates[index]))

    def _crop(self, clip: Clip, rng: np.random.Generator) -> Wave:
        """A random stretch of a clip, of full length.

        Raises:
            AudioError: the clip cannot be used.
        """
        if clip.seconds < MIN_SECONDS:
            raise AudioError(f"{clip.path}: is shorter than {MIN_SECONDS} s")
        settings = self.settings
        size = settings.segment_size
        before = 0
        if rng.random() < settings.early_start:
            before = int(rng.integers(1, max(1, size // 2), endpoint=True))
        start = 0
        length = -(-clip.num_samples * settings.sample_rate // clip.sample_rate)
        if not before and length > size:
            start = int(rng.integers(length - size, endpoint=True))
        expected = min(size - before, length - start)
        wave = read_crop(clip.path, start, size - before, settings.sample_rate)[0]
        if len(wave) < expected:
            raise AudioError(f"{clip.path}: is shorter than the list says; make the list anew")
        if settings.gain_db is not None:
            wave = _amplify(wave, rng.uniform(*settings.gain_db))
        result = np.zeros(size, np.float32)
        result[before : before + len(wave)] = wave
        return result

    def _tensor(self, wave: Wave) -> Tensor:
        return torch.from_numpy(wave)[None]


def _amplify(wave: Wave, decibels: float) -> Wave:
    factor = 10 ** (decibels / 20)
    peak = float(np.abs(wave).max(initial=0.0))
    if factor * peak > 1:
        factor = 1 / peak
    result: Wave = np.clip(wave * np.float32(factor), -1, 1)  # the product may round to above 1
    return result


def _quiet(rng: np.random.Generator, size: int) -> Wave:
    """Digital silence, or as often faint white noise."""
    if rng.random() < 0.5:
        return np.zeros(size, np.float32)
    level = 10 ** (rng.uniform(*NOISE_DB) / 20)
    noise: Wave = rng.standard_normal(size, np.float32) * np.float32(level)
    return noise


@dataclass(frozen=True, eq=False)
class Batch:
    """One rank's part of a batch.

    Attributes:
        audio: float32 ``(B, 1, segment_size)``; in pinned memory where there is a CUDA device.
        problems: one line for each file that could not be used and was not reported before.
        waited: seconds for which the caller had to wait.
    """

    audio: Tensor
    problems: list[str]
    waited: float


_Joined = tuple[Wave, dict[str, str], bool]  # crops, problems, whether none could be read


class CropLoader:
    """Batches without end; batch k holds items ``k * batch_size`` to ``(k + 1) * batch_size - 1``.

    Args:
        clips: what to draw from.
        settings: how.
        batch_size: crops of a batch over all ranks.
        num_workers: processes that read ahead; 0 reads in this one.
        rank: this process takes the rank-th part of each batch.
        world_size: number of ranks.
        first_batch: number of the batch to begin with.

    Raises:
        UsageError: there are no clips.
        ConfigError: the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        settings: CropSettings,
        batch_size: int,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        first_batch: int = 0,
    ) -> None:
        if batch_size % world_size:
            raise ConfigError(
                f"batch_size {batch_size} cannot be shared out evenly to {world_size} processes"
            )
        self.dataset = CropDataset(clips, settings)
        self.batch_size = batch_size
        self.first_batch = first_batch
        self._part = batch_size // world_size
        self._offset = rank * self._part
        self._num_workers = num_workers
        self._reported: set[str] = set()

    @property
    def items_per_epoch(self) -> int:
        """Crops after which every clip was drawn as often as it should."""
        return self.dataset.items_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """Batches from ``first_batch`` on.

        Raises:
            AudioError: not one crop of a batch could be read.
            CodectoolError: a reading process died.
        """
        pinned = torch.cuda.is_available()
        with reading_errors():
            batches = iter(self._loader())
        while True:
            started = time.perf_counter()
            with reading_errors():
                waves, problems, gave_up = next(batches)
            audio = torch.from_numpy(waves)
            if pinned:
                audio = audio.pin_memory()
            waited = time.perf_counter() - started
            if gave_up:
                raise AudioError(
                    f"none of the {len(problems)} files of a whole batch could be read, the last: "
                    f"{[*problems.values()][-1]}"
                )
            news = [why for path, why in problems.items() if path not in self._reported]
            self._reported.update(problems)
            yield Batch(audio, news, waited)

    def _loader(self) -> DataLoader[_Joined]:
        return DataLoader(
            self.dataset,  # type: ignore[arg-type]  # collated to another type
            batch_sampler=_Numbers(self.first_batch, self.batch_size, self._offset, self._part),
            num_workers=self._num_workers,
            collate_fn=_join,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # else it would draw from the run's own
            prefetch_factor=4 if self._num_workers else None,
        )


class _Numbers:
    """Numbers of the items of one rank's part of each batch."""

    def __init__(self, first_batch: int, batch_size: int, offset: int, part: int) -> None:
        self._first_batch, self._batch_size = first_batch, batch_size
        self._offset, self._part = offset, part

    def __iter__(self) -> Iterator[list[int]]:
        for batch in itertools.count(self._first_batch):
            first = batch * self._batch_size + self._offset
            yield list(range(first, first + self._part))


def _join(crops: list[Crop]) -> _Joined:
    problems: dict[str, str] = {}
    for crop in crops:
        problems.update(crop.problems)
    # Arrays come through a pipe. Tensors would come through shared memory, of which containers
    # have little, and by a connection that a killed process breaks off.
    waves = np.stack([crop.audio.numpy() for crop in crops])
    return waves, problems, all(crop.gave_up for crop in crops)


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # These reach the whole group of processes; who reads is told by the one that trains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_leave_with_trainer, daemon=True).start()


def _leave_with_trainer() -> None:
    """End this process when the one that trains is gone, by whatever means.

    PyTorch's own watch is not enough: batches that nobody takes any more keep a process alive.
    """
    trainer = multiprocessing.parent_process()
    if trainer is not None:
        trainer.join()
        os._exit(1)


@contextmanager
def reading_errors() -> Iterator[None]:
    """Say in our words that a reading process died.

    PyTorch notices by a signal, so that its error can come up anywhere in the loop.

    Raises:
        CodectoolError: in place of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise CodectoolError(
            f"a process that reads audio died ({str(error).splitlines()[0].strip()}); if memory "
            "ran out, use fewer workers: `--set training.num_workers=1`"
        ) from error
