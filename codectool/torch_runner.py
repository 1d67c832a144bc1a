"""`TorchRunner`: run a `CodecModel` in PyTorch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from codectool.codecs.base import CodecModel, Stream, WholeSignalModel
from codectool.codecs.isolation import isolated
from codectool.errors import UsageError
from codectool.runner import Codes, Features, Runner, Wave

PRECISIONS: dict[str, torch.dtype | None] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class TorchRunner(Runner):
    """A `CodecModel` on a device.

    Args:
        model: the model.
        device: where it is moved to.
        precision: of the matrix products; a key of `PRECISIONS`.
    """

    runtime = "torch"
    model: CodecModel
    device: torch.device

    def __init__(self, model: CodecModel, device: torch.device, precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"no precision is called `{precision}`; use {', '.join(PRECISIONS)}")
        self.model = model.to(device).eval()
        self.device = device
        self.device_type = device.type
        self.precision = precision

    def inference_context(self) -> AbstractContextManager[None]:
        """Return the context in which the model runs, at the requested precision."""
        return isolated(self.device.type, PRECISIONS[self.precision])

    @override
    def encode(self, waves: Sequence[Wave]) -> list[Codes]:
        with self.inference_context():
            return _to_arrays(self.model.encode(list(map(self.to_tensor, waves))), np.int32)

    @override
    def decode(self, codes: Sequence[Codes]) -> list[Wave]:
        with self.inference_context():
            return _to_arrays(self.model.decode(list(map(self.to_tensor, codes))), np.float32)

    @override
    def embed(self, codes: Codes) -> Features:
        with self.inference_context():
            # one channel at a time: the intermediate results are larger than the features
            rows = [self.model.dequantize(row[None]).mT for row in self.to_tensor(codes)]
            return _to_arrays([torch.cat(rows)], np.float32)[0]

    @override
    def stream_encoder(
        self, channels: int, chunk_frames: int | None = None, *, latents: bool = False
    ) -> TorchStream:
        with self.inference_context():
            first = self.model.stream_encoder(chunk_frames, latents=latents)
            return TorchStream(self, first, channels, np.float32 if latents else np.int32)

    @override
    def stream_decoder(self, channels: int, chunk_frames: int | None = None) -> TorchStream:
        with self.inference_context():
            return TorchStream(self, self.model.stream_decoder(chunk_frames), channels, np.float32)

    @override
    def encode_whole(self, read: Callable[[], Iterable[Wave]]) -> Codes:
        model = cast(WholeSignalModel, self.model)
        with self.inference_context():
            parts = list(model.encode_whole(lambda: (self.to_tensor(x)[None] for x in read())))
            return _to_arrays([torch.cat(parts, dim=-1)[0]], np.int32)[0]

    @override
    def decode_whole(self, codes: Codes) -> Iterator[Wave]:
        model = cast(WholeSignalModel, self.model)
        chunks = zip(*(model.decode_whole(row[None]) for row in self.to_tensor(codes)), strict=True)
        while True:
            with self.inference_context():  # not around `yield`: the consumer does not run it
                waves = next(chunks, None)
            if waves is None:
                return
            yield np.concatenate(_to_arrays([wave[0] for wave in waves], np.float32))

    @override
    def limit_threads(self) -> None:
        if self.device.type == "cpu" and self.model.cpu_threads is not None:
            torch.set_num_threads(min(self.model.cpu_threads, torch.get_num_threads()))

    @override
    @contextmanager
    def sharing_threads(self, workers: int) -> Iterator[None]:
        before = torch.get_num_threads()
        if self.device.type == "cpu":
            most = self.model.cpu_threads or before
            torch.set_num_threads(max(1, min(most, before // workers)))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def to_tensor(self, array: npt.NDArray[Any]) -> Tensor:
        """Return samples or codes on the device, codes as int64."""
        if array.dtype != np.float32:
            array = array.astype(np.int64)
        return torch.from_numpy(array).to(self.device)


class TorchStream:
    """A model's stream for each channel."""

    def __init__(self, runner: TorchRunner, first: Stream[Any], channels: int, dtype: Any) -> None:
        self._runner = runner
        self._streams = [first, *(first.share() for _ in range(channels - 1))]
        self._dtype = dtype

    def push(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Add input ``(C, rows, T)``; return the output that is ready."""
        with self._runner.inference_context():
            rows = self._runner.to_tensor(x)
            outputs = [s.push(row[None]) for s, row in zip(self._streams, rows, strict=True)]
            return self._stack(outputs)

    def flush(self) -> npt.NDArray[Any]:
        """End the signals; return the rest of the output."""
        with self._runner.inference_context():
            return self._stack([stream.flush() for stream in self._streams])

    def _stack(self, outputs: list[Tensor]) -> npt.NDArray[Any]:
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return _to_arrays([joined], self._dtype)[0]


def _to_arrays(tensors: Sequence[Tensor], dtype: Any) -> list[npt.NDArray[Any]]:
    """Return tensors ``(rows, T_i)`` as arrays; from a device in one transfer."""
    to = torch.int32 if dtype is np.int32 else torch.float32
    if len(tensors) < 2 or tensors[0].device.type == "cpu":
        return [tensor.to("cpu", to).numpy() for tensor in tensors]
    joined = torch.cat(list(tensors), dim=-1).to("cpu", to).numpy()
    stops = np.cumsum([tensor.shape[-1] for tensor in tensors])
    return np.split(joined, stops[:-1], axis=-1)


def find_device(name: str | torch.device) -> torch.device:
    """Return the device of this name; raise a `UsageError` if this machine does not have it."""
    name = str(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    match = re.fullmatch(r"(cpu|mps|cuda)|cuda:([0-9]{1,4})", name)
    if not match:
        raise UsageError(f"no device is called `{name}`; use cpu, cuda, cuda:N, mps or auto")
    if name.startswith("cuda") and int(match[2] or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps: this machine does not have it")
    return torch.device(name)
