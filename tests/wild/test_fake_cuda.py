"""Codecs on a GPU that is not there: fake CUDA tensors have a device, a type and a shape only.

An operation on tensors of two devices fails, and so does reading a value, which on a real GPU would
wait for all work before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from codectool.checkpoints.load import load_model
from codectool.checkpoints.native import write_model
from codectool.codec import Codec
from codectool.codecs.hac.source import PhaseLock
from codectool.streaming import encode_whole_signal
from codectool.torch_runner import TorchRunner
from tests.hac_models import preset_with_source, small_preset, untrained
from tests.signals import speechlike

CUDA = torch.device("cuda")
RATE = 22050
WAVE = speechlike(1.1, RATE, channels=2)


class DownloadCounter(TorchDispatchMode):
    """Counts copies from the device."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        first = args[0] if args else None
        if isinstance(first, Tensor) and isinstance(result, Tensor):
            self.count += first.device.type == "cuda" and result.device.type == "cpu"
        return result


def fake_lstm(lstm: nn.LSTM, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
    """Take the place of an LSTM, for which there are no fake CUDA tensors."""
    gates = x @ lstm.weight_ih_l0.T + state[0][-1][:, None] @ lstm.weight_hh_l0.T
    return gates[..., : lstm.hidden_size], tuple(part + gates.mean() for part in state)


@pytest.fixture(params=["bigcodec", "supercodec", "hac", "hac spectral", "hac source"])
def fake_codec(
    request: pytest.FixtureRequest,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Codec]:
    """Each of the small codecs on a fake GPU, inside the mode of fake tensors."""
    path = checkpoints.get(request.param, tmp_path / "hac.safetensors")
    if request.param == "hac spectral":
        write_model(path, untrained(small_preset("hac-3.6-v13")))
    if request.param == "hac source":
        write_model(path, untrained(preset_with_source()))
        # it reads the predictions, to track the phase on the CPU
        monkeypatch.setattr(PhaseLock, "forward", lambda _, values, state: (values[..., 1:], state))
    loaded = load_model(path)
    monkeypatch.setattr(FakeTensor, "numpy", as_zeros, raising=False)
    monkeypatch.setattr(FakeTensor, "data_ptr", lambda self: id(self), raising=False)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(nn.LSTM, "forward", fake_lstm)
    monkeypatch.setattr(nn.Module, "to", lambda self, device: self)  # the weights are there
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for function in ("tensor", "from_numpy"):
            monkeypatch.setattr(torch, function, without_value(getattr(torch, function), mode))
        for module in loaded.model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    fake = mode.from_tensor(parameter.data).to(CUDA)
                    module._parameters[name] = nn.Parameter(fake, requires_grad=False)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = mode.from_tensor(buffer).to(CUDA)
        yield Codec(TorchRunner(loaded.model, CUDA), loaded.fingerprint, path)


def without_value(make: Callable[..., Tensor], mode: FakeTensorMode) -> Callable[..., Tensor]:
    """Return a form of ``make`` whose result is fake; PyTorch keeps the values of constants."""

    def make_fake(*args: Any, **kwargs: Any) -> Tensor:
        with unset_fake_temporarily():
            tensor = make(*args, **kwargs)
        return mode.from_tensor(tensor)

    return make_fake


def as_zeros(tensor: FakeTensor) -> np.ndarray:
    assert tensor.device.type == "cpu"
    return np.zeros(tensor.shape, {torch.int32: np.int32, torch.float32: np.float32}[tensor.dtype])


def test_single_file(fake_codec: Codec) -> None:
    with DownloadCounter() as counter:
        tokens = fake_codec.encode(WAVE, RATE)
        encoding = counter.count
        assert fake_codec.decode(tokens).shape == WAVE.shape
    assert encoding <= 2 * 2  # push and flush of two channels
    assert counter.count - encoding == 1


def test_batch(fake_codec: Codec) -> None:
    clips = [fake_codec.prepare(WAVE[:, :count], RATE) for count in (24_000, 9000, 1)]
    with DownloadCounter() as counter:
        batch = fake_codec.encode_clips(clips)
        waves = fake_codec.decode_clips(batch)
    assert counter.count == 2  # codes and samples of all clips
    for tokens, wave in zip(batch, waves, strict=True):
        assert wave.shape == (2, tokens.num_frames * fake_codec.hop_length)


@pytest.mark.parametrize("fake_codec", ["supercodec"], indirect=True)
def test_whole_signal_in_passes(fake_codec: Codec) -> None:
    runner = fake_codec.runner
    codes, num_samples = encode_whole_signal(runner, lambda: [WAVE], RATE, 2)
    assert num_samples == WAVE.shape[1]
    waves = list(runner.decode_whole(codes))
    assert np.concatenate(waves, axis=1).shape == (2, codes.shape[2] * runner.model.hop_length)


def test_stream(fake_codec: Codec) -> None:
    encoder = fake_codec.stream_encoder(RATE, 2, chunk_frames=20)
    codes = [encoder.push(WAVE[:, :9000]), encoder.push(WAVE[:, 9000:]), encoder.flush()]
    decoder = fake_codec.stream_decoder(RATE, 2, chunk_frames=20)
    waves = [*map(decoder.push, codes), decoder.flush(encoder.num_samples)]
    assert np.concatenate(waves, axis=1).shape == WAVE.shape
