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
from codectool.nn.packed import has_bf16_instructions
from codectool.runner import Codes, Features, Runner, Wave

PRECISIONS: dict[str, torch.dtype | None] = {
    "auto": None,
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class TorchRunner(Runner):
    """A `CodecModel` on a device.

    Args:
        model: the model.
        device: where it is moved to.
        precision: of the matrix products; a key of `PRECISIONS`. See `codectool.loading.load`.
    """

    runtime = "torch"
    model: CodecModel
    device: torch.device

    def __init__(self, model: CodecModel, device: torch.device, precision: str = "fp32") -> None:
        self.model = model.to(device).eval()
        self.device = device
        self.device_type = device.type
        self.precision = precision
        in_bf16 = self._use_bf16_decoder()
        self.model.decoder_dtype = torch.bfloat16 if in_bf16 else torch.float32
        in_fp32 = precision == "auto" or not self.model.follows_autocast
        self.encode_precision = "fp32" if in_fp32 else precision
        self.decode_precision = "bf16" if in_bf16 else self.encode_precision

    def _use_bf16_decoder(self) -> bool:
        """Return whether products of the decoder are computed in bf16 without autocast."""
        if self.device_type != "cpu" or not self.model.has_bf16_decoder:
            return False
        return self.precision == "bf16" or (self.precision == "auto" and has_bf16_instructions())

    def encoding(self) -> AbstractContextManager[None]:
        """Return the context in which the encoder runs, at the requested precision."""
        return isolated(self.device_type, PRECISIONS[self.precision])

    def decoding(self) -> AbstractContextManager[None]:
        """Return the context in which the decoder runs."""
        in_bf16 = self.model.decoder_dtype != torch.float32
        return isolated(self.device_type, None if in_bf16 else PRECISIONS[self.precision])

    @override
    def encode(self, waves: Sequence[Wave]) -> list[Codes]:
        with self.encoding():
            return _to_arrays(self.model.encode(list(map(self.to_tensor, waves))), np.int32)

    @override
    def decode(self, codes: Sequence[Codes]) -> list[Wave]:
        with self.decoding():
            return _to_arrays(self.model.decode(list(map(self.to_tensor, codes))), np.float32)

    @override
    def embed(self, codes: Codes) -> Features:
        with self.decoding():
            # one channel at a time: the intermediate results are larger than the features
            rows = [self.model.dequantize(row[None]).mT for row in self.to_tensor(codes)]
            return _to_arrays([torch.cat(rows)], np.float32)[0]

    @override
    def stream_encoder(
        self, channels: int, chunk_frames: int | None = None, *, latents: bool = False
    ) -> TorchStream:
        with self.encoding():
            first = self.model.stream_encoder(chunk_frames, latents=latents)
            dtype = np.float32 if latents else np.int32
            return TorchStream(self, self.encoding, first, channels, dtype)

    @override
    def stream_decoder(self, channels: int, chunk_frames: int | None = None) -> TorchStream:
        with self.decoding():
            first = self.model.stream_decoder(chunk_frames)
            return TorchStream(self, self.decoding, first, channels, np.float32)

    @override
    def encode_whole(self, read: Callable[[], Iterable[Wave]]) -> Codes:
        model = cast(WholeSignalModel, self.model)
        with self.encoding():
            parts = list(model.encode_whole(lambda: (self.to_tensor(x)[None] for x in read())))
            return _to_arrays([torch.cat(parts, dim=-1)[0]], np.int32)[0]

    @override
    def decode_whole(self, codes: Codes) -> Iterator[Wave]:
        model = cast(WholeSignalModel, self.model)
        chunks = zip(*(model.decode_whole(row[None]) for row in self.to_tensor(codes)), strict=True)
        while True:
            with self.decoding():  # not around `yield`: the consumer does not run it
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
    """A model's stream for each channel, which runs in ``context``."""

    def __init__(
        self,
        runner: TorchRunner,
        context: Callable[[], AbstractContextManager[None]],
        first: Stream[Any],
        channels: int,
        dtype: Any,
    ) -> None:
        self._runner = runner
        self._context = context
        self._streams = [first, *(first.share() for _ in range(channels - 1))]
        self._dtype = dtype

    def push(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Add input ``(C, rows, T)``; return the output that is ready."""
        with self._context():
            rows = self._runner.to_tensor(x)
            outputs = [s.push(row[None]) for s, row in zip(self._streams, rows, strict=True)]
            return self._stack(outputs)

    def flush(self) -> npt.NDArray[Any]:
        """End the signals; return the rest of the output."""
        with self._context():
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


def check_precision(precision: str, device: torch.device) -> None:
    """Raise a `UsageError` if there is no such precision, or none for this device."""
    if precision not in PRECISIONS:
        raise UsageError(f"no precision is called `{precision}`; use {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise UsageError(
            "precision fp16: takes ten times as long as fp32 on a CPU; use `--precision bf16`, "
            "`--precision fp32`, or a GPU"
        )


def is_slow_precision(precision: str, device: torch.device) -> bool:
    """Return whether the device lacks instructions for a precision that is requested."""
    return precision == "bf16" and device.type == "cpu" and not has_bf16_instructions()


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
