"""Random crops, and batches of crops read by workers."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from msgspec.structs import replace

from codectool.audio.discovery import ListEntry, read_list
from codectool.audio.files import read_audio
from codectool.audio.samples import resample
from codectool.errors import AudioError, CodectoolError, UsageError
from codectool.training import data
from codectool.training.data import Batch, CropConfig, CropDataset, read_batches, reading_errors
from codectool.training.filelist import Clip, scan
from tests.conftest import shared

RATE = 8000
PLAIN = CropConfig(segment_size=400, sampling="clips", seed=5)
RICH = replace(
    PLAIN, sampling="seconds", gain_db=(-10.0, 6.0), start_padding_prob=0.3, silence_prob=0.2
)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Clip:
    soundfile.write(path, samples, rate, "FLOAT")
    return Clip(path, len(samples), rate)


@pytest.fixture
def marked(tmp_path: Path) -> list[Clip]:
    """Twenty clips of different lengths; all samples of clip i are (i + 1) / 32."""
    return [write(tmp_path / f"{i}.wav", np.full(1000 + 300 * i, (i + 1) / 32)) for i in range(20)]


@pytest.fixture
def noises(tmp_path: Path) -> list[Clip]:
    rng = np.random.default_rng(0)
    return [
        write(tmp_path / f"n{i}.wav", rng.normal(0, 0.2, (int(rng.integers(900, 9000)), 2)))
        for i in range(6)
    ]


@pytest.fixture
def ramp(tmp_path: Path) -> Clip:
    """A clip of 10,000 samples in which sample n is n / 16384."""
    return write(tmp_path / "ramp.wav", np.arange(10_000) / 16384)


def batches_of(
    clips: list[Clip], config: CropConfig, *options: int, **named: int
) -> Iterator[Batch]:
    return read_batches(CropDataset(clips, config, RATE), *options, **named)


def wave(dataset: CropDataset, number: int) -> np.ndarray:
    crop = dataset[number]
    assert crop.problems == {}
    assert crop.audio.dtype == np.float32
    return crop.audio


def which(dataset: CropDataset, number: int) -> int:
    return round(float(wave(dataset, number)[0]) * 32) - 1


def start(dataset: CropDataset, number: int) -> int:
    return round(float(wave(dataset, number)[0]) * 16384)


def take(batches: Iterator[Batch], count: int) -> list[Batch]:
    return list(islice(batches, count))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.audio, b.audio) for a, b in zip(one, other, strict=True)
    )


# Crops


def test_each_epoch_has_every_clip_once_in_another_order(marked: list[Clip]) -> None:
    dataset = CropDataset(marked, PLAIN, RATE)
    assert dataset.items_per_epoch == 20
    epochs = [[which(dataset, 20 * epoch + place) for place in range(20)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_by_seconds_draws_a_clip_per_segment(marked: list[Clip]) -> None:
    dataset = CropDataset(marked, replace(PLAIN, sampling="seconds", segment_size=1500), RATE)
    expected = {i: max(1, round((1000 + 300 * i) / 1500)) for i in range(20)}
    assert expected[0] == 1
    assert expected[19] == 4
    for epoch in range(2):
        first = epoch * dataset.items_per_epoch
        found = Counter(which(dataset, first + n) for n in range(dataset.items_per_epoch))
        assert found == expected


def test_by_seconds_counts_segments_at_the_models_rate(tmp_path: Path) -> None:
    clip = write(tmp_path / "a.wav", np.zeros(4 * 16000), 16000)
    config = CropConfig(segment_size=RATE)
    assert CropDataset([clip], config, RATE).items_per_epoch == 4


def test_crop_starts_are_uniform(ramp: Clip) -> None:
    dataset = CropDataset([ramp], PLAIN, RATE)
    starts = [start(dataset, n) for n in range(1600)]
    assert 0 <= min(starts) < 50
    assert 9550 < max(starts) <= 9600
    found = np.histogram(starts, bins=16, range=(0, 9601))[0]
    chi_square = float(((found - 100) ** 2 / 100).sum())
    assert 3.5 < chi_square < 37.7  # 15 degrees of freedom; either side has about 1 in 1000


def test_crop_starts_include_both_ends(tmp_path: Path) -> None:
    clip = write(tmp_path / "a.wav", np.arange(1003) / 16384)
    dataset = CropDataset([clip], replace(PLAIN, segment_size=1000), RATE)
    assert {start(dataset, n) for n in range(100)} == {0, 1, 2, 3}


def test_crop_starts_differ_between_epochs(ramp: Clip) -> None:
    dataset = CropDataset([ramp], PLAIN, RATE)
    assert len({start(dataset, n) for n in range(50)}) > 45


def test_seed_changes_order_and_starts(marked: list[Clip], ramp: Clip) -> None:
    other = replace(PLAIN, seed=6)
    orders = [[which(CropDataset(marked, s, RATE), n) for n in range(20)] for s in (PLAIN, other)]
    assert orders[0] != orders[1]
    starts = [[start(CropDataset([ramp], s, RATE), n) for n in range(5)] for s in (PLAIN, other)]
    assert not set(starts[0]) & set(starts[1])


@pytest.mark.parametrize(("name", "rate"), [("a.wav", 44100), ("a.flac", 16000), ("a.wav", 8000)])
def test_crop_matches_resampled_file(tmp_path: Path, name: str, rate: int) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / name
    soundfile.write(path, rng.normal(0, 0.1, (3 * rate, 2)), rate)
    samples, _ = read_audio(path, name)
    whole = resample(samples.mean(axis=0, keepdims=True), rate, 24000)[0]
    dataset = CropDataset(scan([ListEntry(path)])[0], replace(PLAIN, segment_size=9000), 24000)
    windows = np.lib.stride_tricks.sliding_window_view(whole, 9000)
    starts = set()
    for number in range(4):
        distance = np.abs(windows[:, ::500] - wave(dataset, number)[::500]).max(axis=1)
        place = int(distance.argmin())
        np.testing.assert_allclose(wave(dataset, number), windows[place], rtol=0, atol=1e-4)
        starts.add(place)
    assert len(starts) == 4


def test_short_clips_are_padded_with_zeros(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 900).astype(np.float32)
    clip = write(tmp_path / "a.wav", samples)
    found = wave(CropDataset([clip], replace(PLAIN, segment_size=1500), RATE), 0)
    np.testing.assert_array_equal(found[:900], samples)
    np.testing.assert_array_equal(found[900:], 0)


def test_gains_are_uniform_in_decibels(tmp_path: Path) -> None:
    clip = write(tmp_path / "a.wav", np.full(1000, 0.125))
    dataset = CropDataset([clip], replace(PLAIN, gain_db=(-10.0, 6.0)), RATE)
    gains = np.array([20 * np.log10(wave(dataset, n)[0] / 0.125) for n in range(800)])
    assert -10 <= gains.min() < -9.8
    assert 5.8 < gains.max() <= 6.001
    found = np.histogram(gains, bins=8, range=(-10, 6.001))[0]
    assert ((found - 100) ** 2 / 100).sum() < 24.3  # 7 degrees of freedom, 1 in 1000


def test_gain_is_limited_to_full_scale(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 5000)
    dataset = CropDataset(
        [write(tmp_path / "a.wav", samples)], replace(PLAIN, gain_db=(-2.0, 6.0)), RATE
    )
    peaks = np.array([np.abs(wave(dataset, n)).max() for n in range(100)])
    assert peaks.max() <= 1
    assert (peaks > 0.9999).sum() > 40  # and not far below it
    assert peaks.min() < 0.8


def test_gain_does_not_clip(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 1000)
    loud = replace(PLAIN, segment_size=1000, gain_db=(6.0, 6.0))
    found = wave(CropDataset([write(tmp_path / "a.wav", samples)], loud, RATE), 0)
    np.testing.assert_allclose(found, samples / np.abs(samples).max(), atol=1e-6)


def test_levels_are_kept_without_gain(tmp_path: Path) -> None:
    clip = write(tmp_path / "a.wav", np.full(1000, 1.5))
    assert wave(CropDataset([clip], PLAIN, RATE), 0).max() == 1.5


def test_start_padding_is_uniform(ramp: Clip) -> None:
    dataset = CropDataset([ramp], replace(PLAIN, start_padding_prob=0.25), RATE)
    leads = []
    for number in range(1000):
        found = wave(dataset, number)
        if found[0] == 0 and found[-1] < 400 / 16384:
            lead = int(np.argmax(found > 0)) - 1  # the ramp starts with a zero
            np.testing.assert_array_equal(found[:lead], 0)
            np.testing.assert_allclose(found[lead:], np.arange(400 - lead) / 16384)
            leads.append(lead)
    assert 205 <= len(leads) <= 295  # 250, and 3.3 standard deviations of 13.7
    assert 1 <= min(leads) < 10
    assert 190 < max(leads) <= 200


def test_silence_is_digital_or_faint_noise(marked: list[Clip]) -> None:
    dataset = CropDataset(marked, replace(PLAIN, silence_prob=0.5, segment_size=1000), RATE)
    levels = [float(np.sqrt((wave(dataset, n) ** 2).mean())) for n in range(600)]
    pure = [level for level in levels if level == 0]
    faint = [20 * np.log10(level) for level in levels if 0 < level < 0.01]
    assert 115 <= len(pure) <= 185
    assert 115 <= len(faint) <= 185
    assert -80.5 < min(faint) < -78
    assert -52 < max(faint) < -49.5


def test_memory_of_millions_of_entries_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "read_crop", lambda *_: np.zeros((1, 400), np.float32))
    clips = [Clip(Path("/a.wav"), 2**40 // 1000, RATE)]  # four years
    tracemalloc.start()
    try:
        dataset = CropDataset(clips, replace(PLAIN, sampling="seconds"), RATE)
        assert dataset.items_per_epoch == pytest.approx(2_748_779, abs=1)
        assert dataset[dataset.items_per_epoch * 7 + 5].problems == {}
        assert tracemalloc.get_traced_memory()[1] < 5 * dataset.items_per_epoch
    finally:
        tracemalloc.stop()


# Batches


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")  # on a small machine
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_number_of_workers(noises: list[Clip], workers: int) -> None:
    alone = take(batches_of(noises, RICH, 8), 10)
    ahead = take(batches_of(noises, RICH, 8, num_workers=workers), 10)
    assert same(alone, ahead)
    assert not torch.equal(alone[0].audio, alone[1].audio)
    assert alone[0].audio.shape == (8, 1, 400)
    assert all(batch.wait_seconds > 0 for batch in alone + ahead)


def test_batches_continue_at_first_batch(noises: list[Clip]) -> None:
    whole = take(batches_of(noises, RICH, 6), 10)
    assert same(whole[7:], take(batches_of(noises, RICH, 6, first_batch=7), 3))
    assert same(
        whole[7:],
        take(batches_of(noises, RICH, 6, first_batch=7, num_workers=1), 3),
    )


def test_processes_get_parts_of_the_same_batch(noises: list[Clip]) -> None:
    whole = take(batches_of(noises, RICH, 6, first_batch=3), 4)
    parts = [take(batches_of(noises, RICH, 6, 0, rank, 3, first_batch=3), 4) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert all(share.audio.shape == (2, 1, 400) for share in shares)
        assert torch.equal(batch.audio, torch.cat([share.audio for share in shares]))


def test_reading_does_not_draw_global_random_numbers(noises: list[Clip]) -> None:
    before = torch.get_rng_state()
    take(batches_of(noises, RICH, 4), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_may_be_larger_than_the_data(ramp: Clip) -> None:
    batch = take(batches_of([ramp], PLAIN, 50), 1)[0]
    assert len({float(crop[0, 0]) for crop in batch.audio}) > 45


def test_empty_list_is_refused() -> None:
    with pytest.raises(UsageError, match="no audio"):
        batches_of([], PLAIN, 8)


# Errors


def broken(folder: Path) -> dict[str, Clip]:
    """Clips that cannot be used, by words of their messages."""
    folder.mkdir()
    nan = np.zeros(8000)
    nan[::300] = np.nan
    infinite = np.zeros(8000)
    infinite[200:] = np.inf
    for name in ("empty", "text"):
        (folder / f"{name}.wav").write_text("" if name == "empty" else "no audio " * 100)
    cut = folder / "cut.flac"
    soundfile.write(cut, np.random.default_rng(0).normal(0, 0.1, 80_000), RATE)
    with cut.open("r+b") as file:
        file.truncate(2000)
    return {
        "is empty": Clip(folder / "empty.wav", 8000, RATE),
        "not audio": Clip(folder / "text.wav", 8000, RATE),
        "no such file": Clip(folder / "gone.wav", 8000, RATE),
        "is nan": write(folder / "nan.wav", nan),
        "is inf": write(folder / "infinite.wav", infinite),
        "shorter than 0.1 s": write(folder / "short.wav", np.zeros(799)),
        "but the list says": dataclasses.replace(
            write(folder / "lie.wav", np.zeros(1000)), num_samples=10**6
        ),
        "cut.flac": Clip(cut, 80_000, RATE),
    }


def test_unusable_clips_are_replaced_and_reported_once(tmp_path: Path, marked: list[Clip]) -> None:
    bad = broken(tmp_path / "bad")
    loader = batches_of([*marked, *bad.values()], PLAIN, 28)
    batches = take(loader, 12)
    for batch in batches:
        levels = batch.audio[:, 0] * 32
        assert torch.equal(levels, levels[:, :1].round().expand_as(levels))  # marked ones only
        assert levels.min() >= 1
    assert len(batches[0].problems) >= 7  # of the cut one, some crops are whole
    problems = [problem for batch in batches for problem in batch.problems]
    assert len(problems) == len(bad)
    for words, clip in bad.items():
        assert sum(p.startswith(f"{clip.path}: ") and words in p for p in problems) == 1


def test_replacements_do_not_depend_on_workers(tmp_path: Path, marked: list[Clip]) -> None:
    clips = [*marked[:3], *broken(tmp_path / "bad").values()]
    alone = take(batches_of(clips, RICH, 8), 5)
    ahead = take(batches_of(clips, RICH, 8, num_workers=2), 5)
    assert same(alone, ahead)
    assert [batch.problems for batch in alone] == [batch.problems for batch in ahead]


def test_batch_of_unreadable_files_is_an_error(tmp_path: Path) -> None:
    clips = [*broken(tmp_path / "bad").values()][:3]
    crop = CropDataset(clips, PLAIN, RATE)[0]
    assert crop.failed
    assert not crop.audio.any()
    assert set(crop.problems) == {str(clip.path) for clip in clips}
    with pytest.raises(AudioError, match="none of the 3 files of a batch could be read"):
        take(batches_of(clips, PLAIN, 4), 1)


def test_killed_worker_is_an_error(noises: list[Clip]) -> None:
    before = set(multiprocessing.active_children())
    batches = batches_of(noises, RICH, 4, num_workers=2)
    next(batches)
    (victim, *_others) = set(multiprocessing.active_children()) - before
    with pytest.raises(CodectoolError, match="a worker that reads audio died"):
        kill_and_read_on(victim.pid or 0, batches, seconds=20)


def kill_and_read_on(reader: int, batches: Iterator[Batch], seconds: float) -> None:
    with reading_errors():  # PyTorch's error may come between two batches
        os.kill(reader, signal.SIGKILL)
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            next(batches)


def test_other_errors_are_not_translated() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), reading_errors():
        raise RuntimeError("CUDA error: out of memory")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_ignore_stop_signals(number: signal.Signals, noises: list[Clip]) -> None:
    before = set(multiprocessing.active_children())
    batches = batches_of(noises, RICH, 4, num_workers=2)
    found = [next(batches) for _ in range(2)]
    for reader in set(multiprocessing.active_children()) - before:
        os.kill(reader.pid or 0, number)
    found += [next(batches) for _ in range(30)]
    assert same(found, take(batches_of(noises, RICH, 4), 32))


INTERRUPTED = """
import sys
from pathlib import Path
from codectool.audio.discovery import read_list
from codectool.training.data import CropConfig, CropDataset, read_batches
from codectool.training.filelist import scan
clips, _ = scan(read_list(Path(sys.argv[1])))
try:
    dataset = CropDataset(clips, CropConfig(segment_size=400), 8000)
    for batch in read_batches(dataset, 4, num_workers=2):
        print("going", flush=True)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_all_processes_quietly(tmp_path: Path, noises: list[Clip]) -> None:
    process: subprocess.Popen[str] = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    os.killpg(process.pid, signal.SIGINT)  # like a terminal: to all processes
    out, err = process.communicate(timeout=30)
    assert out.endswith("interrupted\n")
    assert err == ""
    assert process.returncode == 0


def test_batch_of_real_speech() -> None:
    clips, _ = scan(read_list(shared("speech", "valid.txt")))
    config = CropConfig(
        segment_size=24000, gain_db=(-10.0, 6.0), start_padding_prob=0.1, silence_prob=0.02
    )
    batch = take(read_batches(CropDataset(clips, config, 24000), 24), 1)[0]
    assert batch.problems == []
    assert batch.audio.shape == (24, 1, 24000)
    assert batch.audio.isfinite().all()
    assert 0.01 < batch.audio.std() < 0.3
