"""Codecs and streams in copies, other processes and threads: the same tokens everywhere."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing  # registers how tensors are sent: their memory becomes shared
from torch.utils.data import DataLoader, Dataset

from codectool.audio.samples import Resampler
from codectool.codec import Codec
from codectool.codecs.hac.model import CHUNK_FRAMES
from codectool.errors import CodectoolError
from codectool.loading import load
from codectool.nn.loading import TensorMismatchError
from tests.hac_models import small_preset, untrained
from tests.signals import speechlike

RATE = 22050
WAVE = speechlike(1.3, RATE, channels=2)
OTHER_WAVE = speechlike(2.1, RATE, channels=2)[:, ::-1]


def by_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def by_multiprocessing(value: Any) -> Any:
    return ForkingPickler.loads(ForkingPickler.dumps(value))


COPIES = [by_pickle, copy.deepcopy, by_multiprocessing]


def codes_of(codec: Codec) -> np.ndarray:
    return codec.encode(WAVE, RATE).codes


@pytest.fixture
def own_codec(codec: Codec, checkpoints: dict[str, Path]) -> Codec:
    """Each of the small codecs, loaded for one test."""
    return load(codec.layout.family, checkpoints[codec.layout.family], device="cpu")


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("make_copy", COPIES)
def test_copy_of_codec_makes_the_same_tokens(
    codec: Codec, own_codec: Codec, make_copy: Callable[[Codec], Codec], used: bool
) -> None:
    tokens = codec.encode(WAVE, RATE)
    wave = codec.decode(tokens)
    if used:
        own_codec.decode(own_codec.encode(OTHER_WAVE, RATE))
    for each in (make_copy(own_codec), own_codec):
        np.testing.assert_array_equal(codes_of(each), tokens.codes)
        np.testing.assert_array_equal(each.decode(tokens), wave)


@pytest.mark.parametrize("make_copy", COPIES)
@pytest.mark.parametrize("chunk_frames", [None, 1])
def test_copy_of_stream_continues_like_the_original(
    own_codec: Codec, make_copy: Callable[[Any], Any], chunk_frames: int | None
) -> None:
    if chunk_frames == 1 and own_codec.layout.family == "supercodec":
        chunk_frames = 20  # frames of a segment
    encoder = own_codec.stream_encoder(RATE, 2, chunk_frames=chunk_frames)
    first = encoder.push(WAVE[:, :10_001])
    encoder_copy = make_copy(encoder)
    codes = [encoder.push(WAVE[:, 10_001:]), encoder.flush()]
    copied = [encoder_copy.push(WAVE[:, 10_001:]), encoder_copy.flush()]
    np.testing.assert_array_equal(np.concatenate(copied, 2), np.concatenate(codes, 2))
    assert encoder_copy.num_samples == encoder.num_samples

    everything = np.concatenate([first, *codes], axis=2)
    decoder = own_codec.stream_decoder(RATE, 2, chunk_frames=chunk_frames)
    decoder.push(everything[..., :41])
    decoder_copy = make_copy(decoder)
    samples = [decoder.push(everything[..., 41:]), decoder.flush(encoder.num_samples)]
    copied = [decoder_copy.push(everything[..., 41:]), decoder_copy.flush(encoder.num_samples)]
    np.testing.assert_array_equal(np.concatenate(copied, 1), np.concatenate(samples, 1))


def test_copied_streams_of_channels_share_their_work_arrays(own_codec: Codec) -> None:
    encoder = by_pickle(own_codec.stream_encoder(RATE, 3))
    first, *others = encoder._stream._streams
    assert all(stream._step is first._step for stream in others)


@pytest.mark.parametrize(
    ("rate", "new_rate"),
    [(44100, 24000), (48000, 16000), (16000, 24000), (8000, 24000), (24000, 23999), (200000, 1000)],
)
def test_copy_of_resampler_continues_bit_for_bit(rate: int, new_rate: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 300_000)).astype(np.float32)
    resampler = Resampler(rate, new_rate, 2)
    for start in range(0, 200_000, 1777):
        resampler.push(noise[:, start : min(start + 1777, 200_000)])
    twin = copy.deepcopy(resampler)
    for last in (False, True):
        rest = noise[:, 250_000:] if last else noise[:, 200_000:250_000]
        np.testing.assert_array_equal(twin.push(rest, last=last), resampler.push(rest, last=last))


def add_in_place(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)


def load_state_dict(model: torch.nn.Module) -> None:
    model.load_state_dict({name: 1.25 * value for name, value in model.state_dict().items()})


def assign_state_dict(model: torch.nn.Module) -> None:
    state = {name: 1.25 * value for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def convert_and_back(model: torch.nn.Module) -> None:
    model.to(torch.float16).to(torch.float32)


def share_memory(model: torch.nn.Module) -> None:
    model.share_memory()


@pytest.mark.parametrize(
    "change", [add_in_place, load_state_dict, assign_state_dict, convert_and_back, share_memory]
)
def test_changed_weights_are_used(
    own_codec: Codec,
    codec: Codec,
    checkpoints: dict[str, Path],
    change: Callable[[torch.nn.Module], None],
) -> None:
    family = codec.layout.family
    tokens = codec.encode(WAVE, RATE)
    unused = load(family, checkpoints[family], device="cpu")
    own_codec.decode(own_codec.encode(WAVE, RATE))
    for each in (own_codec, unused):
        change(each.model)
    expected = unused.decode(tokens)
    np.testing.assert_array_equal(codes_of(own_codec), codes_of(unused))
    np.testing.assert_array_equal(own_codec.decode(tokens), expected)
    if change is not share_memory:
        assert not np.array_equal(expected, codec.decode(tokens))


def test_threads_share_a_codec(codec: Codec, own_codec: Codec) -> None:
    waves = [speechlike(0.2 + 0.3 * i, RATE) for i in range(4)] * 3
    alone = [codec.encode(wave, RATE) for wave in waves]
    audio = [codec.decode(tokens) for tokens in alone]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda wave: own_codec.encode(wave, RATE), waves))
        decoded = list(pool.map(own_codec.decode, alone))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(other.codes, one.codes)
    for one, other in zip(audio, decoded, strict=True):
        np.testing.assert_array_equal(other, one)


# Other processes


def all_errors(base: type[CodectoolError] = CodectoolError) -> list[type[CodectoolError]]:
    return [base, *(error for child in base.__subclasses__() for error in all_errors(child))]


def test_errors_reach_the_parent_process() -> None:
    for kind in all_errors():
        error = kind(["a"], [], []) if kind is TensorMismatchError else kind("a reason")
        copied = by_pickle(error)
        assert type(copied) is kind
        assert str(copied) == str(error)


class Encoded(Dataset[torch.Tensor]):
    """A data set that encodes when an item is read."""

    def __init__(self, codecs: list[Codec]) -> None:
        self.codecs = codecs

    def __len__(self) -> int:
        return len(self.codecs)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(codes_of(self.codecs[index]))


def continue_stream(encoder: Any) -> np.ndarray:
    return np.concatenate([encoder.push(WAVE[:, 10_001:]), encoder.flush()], axis=2)


def in_executor(codecs: list[Codec]) -> list[np.ndarray]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(codes_of, codecs))


def in_pool(codecs: list[Codec]) -> list[np.ndarray]:
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        return pool.map_async(codes_of, codecs).get(120)


def in_torch_pool(codecs: list[Codec]) -> list[np.ndarray]:
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map_async(codes_of, codecs).get(120)


def in_data_loader(codecs: list[Codec]) -> list[np.ndarray]:
    loader = DataLoader(
        Encoded(codecs), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    return [codes.numpy() for codes in loader]


@pytest.mark.skipif(sys.platform == "win32", reason="forkserver needs POSIX")
@pytest.mark.parametrize("compute", [in_executor, in_pool, in_torch_pool, in_data_loader])
def test_codecs_make_the_same_tokens_in_other_processes(
    checkpoints: dict[str, Path], compute: Callable[[list[Codec]], list[np.ndarray]]
) -> None:
    mine = [load(family, path, device="cpu") for family, path in checkpoints.items()]
    right = [codes_of(codec) for codec in mine]
    for expected, codes in zip(right, compute(mine), strict=True):
        np.testing.assert_array_equal(codes, expected)
    for expected, codec in zip(right, mine, strict=True):
        np.testing.assert_array_equal(codes_of(codec), expected)


def test_stream_continues_in_another_process(checkpoints: dict[str, Path]) -> None:
    mine = [load(family, path, device="cpu") for family, path in checkpoints.items()]
    encoders = [codec.stream_encoder(RATE, 2) for codec in mine]
    for encoder in encoders:
        encoder.push(WAVE[:, :10_001])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = list(pool.map(continue_stream, encoders))
    for encoder, codes in zip(encoders, there, strict=True):
        np.testing.assert_array_equal(codes, continue_stream(encoder))


FORK = """
import multiprocessing, sys
import numpy as np, torch, codectool
torch.set_num_threads(2)
wave = np.sin(np.arange(24_000) / 9).astype(np.float32) * 0.3
family, checkpoint = sys.argv[1:]
codec = codectool.load(family, checkpoint, device="cpu")
right = codec.encode(wave, 24_000).codes
torch.randn(600, 600) @ torch.randn(600, 600)  # start OpenMP's threads
encoder = codec.stream_encoder(24_000)
first = encoder.push(wave[:9_999])

def use(_):
    return codec.encode(wave, 24_000).codes

def load(_):
    return codectool.load(family, checkpoint, device="cpu").encode(wave, 24_000).codes

class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return codec.encode(wave, 24_000).codes

def stream(_):
    return np.concatenate([first, encoder.push(wave[9_999:]), encoder.flush()], axis=2)

for work in use, load, stream:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for codes in pool.map_async(work, range(2)).get(60):
            print(work.__name__, (codes != right).sum())
for codes in torch.utils.data.DataLoader(Items(), num_workers=2, batch_size=None, timeout=60):
    print("loader", (codes.numpy() != right).sum())
print("parent", (codec.encode(wave, 24_000).codes != right).sum(), torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_processes_answer(codec: Codec) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    command = [sys.executable, "-c", FORK, codec.layout.family, str(codec.checkpoint)]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert result.returncode == 0, result.stderr
    *children, parent = result.stdout.splitlines()
    assert children == [
        f"{name} 0" for name in ("use", "load", "stream", "loader") for _ in range(2)
    ]
    assert parent == "parent 0 2"


def test_copy_of_spectral_model_makes_the_same_tokens() -> None:
    model = untrained(small_preset("hac-3.6-v12"))
    wave = torch.from_numpy(speechlike(1.0, model.sample_rate))[:, : 60 * model.hop_length]
    (codes,) = model.encode([wave])
    assert codes.shape[1] < CHUNK_FRAMES
    for make_copy in COPIES:
        assert torch.equal(make_copy(model).encode([wave])[0], codes)
        assert torch.equal(model.encode([wave])[0], codes)
