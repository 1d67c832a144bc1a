"""`OnnxRunner`: run an exported model in ONNX Runtime, without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from codectool.codecs.properties import Context, Latency
from codectool.codecs.stream import ChunkStream, Step
from codectool.cores import cores
from codectool.errors import AudioError, UsageError
from codectool.onnx.graph import Graph
from codectool.onnx.metadata import ABSENT_CODE, AUDIO, CODES, GraphMetadata
from codectool.runner import Codes, Features, Runner, Wave
from codectool.segments import decode_segments, encode_segments

Array = npt.NDArray[Any]
ArrayStream = ChunkStream[Array, Any]

MAX_WHOLE_SECONDS = 30  # of a signal that is processed at once: BigCodec needs 0.1 GB for each


class ExportedModel:
    """Properties of an exported model; see `ModelProperties`."""

    faster_in_batches = False  # signals are computed one by one

    def __init__(self, metadata: GraphMetadata, cpu_threads: int | None) -> None:
        self.family = metadata.family
        self.sample_rate = metadata.sample_rate
        self.hop_length = metadata.hop_length
        self.codebook_sizes = metadata.codebook_sizes
        self.min_frames = metadata.min_frames
        self.segment_frames = metadata.segment_frames
        self.decode_context = Context(*metadata.decode_context, *metadata.decode_steps)
        self.latency = Latency(*metadata.latency)
        self.cpu_threads = cpu_threads
        self.hyper_parameters = metadata.model
        self.num_frames = metadata.num_frames
        self.reference_frames = metadata.reference_frames


class OnnxRunner(Runner):
    """An exported model on the CPU.

    Args:
        graphs: by part; `encoder_step` and `decoder_step` process signals of any length.
    """

    runtime = "onnx"
    device = "cpu"
    model: ExportedModel

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        self._graphs = graphs
        metadata = next(iter(graphs.values())).metadata
        in_steps = "encoder_step" in graphs
        # The products of a step are too small to be split among threads.
        self.model = ExportedModel(metadata, cpu_threads=1 if in_steps else None)
        requested = os.environ.get("OMP_NUM_THREADS", "")
        self._all_threads = int(requested) if requested.isdecimal() else cores()
        self._threads = self._limited(self._all_threads)
        segment = metadata.segment_frames or 0
        seconds = MAX_WHOLE_SECONDS * metadata.sample_rate // metadata.hop_length
        self._max_frames = max(segment, seconds, metadata.min_frames)

    @override
    def encode(self, waves: Sequence[Wave]) -> list[Codes]:
        if "encoder_step" in self._graphs:
            return [self._encoder(None).run(wave[None])[0] for wave in waves]
        return [self._encode_whole(wave) for wave in waves]

    @override
    def decode(self, codes: Sequence[Codes]) -> list[Wave]:
        if "decoder_step" in self._graphs:
            return [self._decoder(None).run(item[None])[0] for item in codes]
        return [self._decode_whole(item) for item in codes]

    @override
    def embed(self, codes: Codes) -> Features:
        self._refuse_features()

    @override
    def stream_encoder(
        self, channels: int, chunk_frames: int | None = None, *, latents: bool = False
    ) -> ArrayStreams:
        if latents:
            self._refuse_features()
        return ArrayStreams(partial(self._encoder, chunk_frames), channels)

    @override
    def stream_decoder(self, channels: int, chunk_frames: int | None = None) -> ArrayStreams:
        return ArrayStreams(partial(self._decoder, chunk_frames), channels)

    @override
    def encode_whole(self, read: Callable[[], Iterable[Wave]]) -> Codes:
        parts, frames = [], 0
        for part in read():
            frames += part.shape[1] // self.model.hop_length
            self._check_length(frames)
            parts.append(part)
        return self._encode_whole(np.concatenate(parts, axis=1))

    @override
    def decode_whole(self, codes: Codes) -> Iterator[Wave]:
        yield np.concatenate([self._decode_whole(row) for row in codes])

    @override
    def limit_threads(self) -> None:
        pass  # done in the constructor

    @override
    @contextmanager
    def sharing_threads(self, workers: int) -> Iterator[None]:
        before = self._threads
        self._threads = self._limited(self._all_threads // workers)
        try:
            yield
        finally:
            self._threads = before

    def _limited(self, threads: int) -> int:
        return max(1, min(threads, self.model.cpu_threads or threads))

    # Streams of one channel

    def _encoder(self, chunk_frames: int | None) -> ArrayStream:
        model = self.model
        none = np.zeros((1, len(model.codebook_sizes), 0), np.int32)
        make_step: Callable[[], Step[Array, Any]]
        if "encoder_step" in self._graphs:
            chunk_size = (chunk_frames or self._chunk_frames("encoder_step")) * model.hop_length
            make_step = partial(self._encoder_step, chunk_size)
        else:
            if model.segment_frames is None and chunk_frames is not None:
                raise UsageError(
                    f"an exported {model.family} encodes whole signals and cannot be used live; "
                    "use `--runtime torch` with the checkpoint"
                )
            chunk_size = self._segment_frames(chunk_frames) * model.hop_length
            make_step = self._segment_encoder_step
        return ChunkStream(make_step, None, chunk_size, none, np.concatenate)

    def _decoder(self, chunk_frames: int | None) -> ArrayStream:
        model = self.model
        none = np.zeros((1, 1, 0), np.float32)
        if "decoder_step" in self._graphs:
            chunk_size = chunk_frames or self._chunk_frames("decoder_step")
            make_step = partial(self._decoder_step, chunk_size)
            step = self._graphs["decoder_step"].metadata.step
            assert step is not None
            state = None, step.delay_frames * model.hop_length
            return ChunkStream(make_step, state, chunk_size, none, np.concatenate)
        chunk_size = self._segment_frames(chunk_frames)
        return ChunkStream(self._segment_decoder_step, None, chunk_size, none, np.concatenate)

    def _segment_frames(self, chunk_frames: int | None) -> int:
        """Return the frames of a segment; one more than possible for a whole signal."""
        if self.model.segment_frames is None:
            return self._max_frames + 1
        return min(chunk_frames or self.model.segment_frames, self._max_frames + 1)

    def _chunk_frames(self, part: str) -> int:
        step = self._graphs[part].metadata.step
        assert step is not None
        return step.chunk_frames

    def _encoder_step(self, chunk_size: int) -> Step[Array, Any]:
        run = self._step("encoder_step", AUDIO)

        def step(wave: Array, state: Any, last: bool) -> tuple[Array, Any]:
            length = wave.shape[2]
            # padded, so that all products have the same shape, and so the same rounding
            wave = np.pad(wave, ((0, 0), (0, 0), (0, chunk_size - length)))
            codes, state = run(wave, state)
            return codes[..., : -(-length // self.model.hop_length)].astype(np.int32), state

        return step

    def _decoder_step(self, chunk_size: int) -> Step[Array, Any]:
        run = self._step("decoder_step", CODES)
        metadata = self._graphs["decoder_step"].metadata.step
        assert metadata is not None
        delay = metadata.delay_frames

        def step(codes: Array, state: tuple[Any, int], last: bool) -> tuple[Array, Any]:
            inner, skip = state  # skip: samples of the delay that are still to be dropped
            codes = self._all_codebooks(codes)
            if last:
                absent = ((0, 0), (0, 0), (0, delay))
                codes = np.pad(codes, absent, constant_values=ABSENT_CODE)
            waves = [np.zeros((1, 1, 0), np.float32)]
            for start in range(0, codes.shape[2], chunk_size):
                wave, inner = run(codes[..., start : start + chunk_size], inner)
                waves.append(wave[..., skip:])
                skip = max(0, skip - wave.shape[2])
            return np.concatenate(waves, axis=2), (inner, skip)

        return step

    def _step(self, part: str, name: str) -> Callable[[Array, Any], tuple[Array, Any]]:
        """Return a function that runs a chunk; its state None stands for the start."""
        graph = self._graphs[part]
        assert graph.metadata.step is not None
        states = graph.metadata.step.states

        def run(x: Array, state: list[Array] | None) -> tuple[Array, list[Array]]:
            if state is None:
                state = [np.zeros(tensor.shape, np.float32) for tensor in states]
            given = {tensor.input: array for tensor, array in zip(states, state, strict=True)}
            y, *state = graph.run(self._threads, {name: x, **given})
            return y, state

        return run

    def _segment_encoder_step(self) -> Step[Array, Any]:
        def step(wave: Array, state: None, last: bool) -> tuple[Array, None]:
            return encode_segments(self, [wave[0]], None)[0][None], None

        return step

    def _segment_decoder_step(self) -> Step[Array, Any]:
        def step(codes: Array, state: None, last: bool) -> tuple[Array, None]:
            return decode_segments(self, [codes[0]], [None])[0][None], None

        return step

    # Whole signals

    def _encode_whole(self, wave: Wave) -> Codes:
        self._check_length(wave.shape[1] // self.model.hop_length)
        (codes,) = self._graphs["encoder"].run(self._threads, {AUDIO: wave[None]})
        return np.asarray(codes[0], np.int32)

    def _decode_whole(self, codes: Codes) -> Wave:
        self._check_length(codes.shape[1])
        inputs = {CODES: self._all_codebooks(codes[None])}
        (wave,) = self._graphs["decoder"].run(self._threads, inputs)
        return np.asarray(wave[0], np.float32)

    def _all_codebooks(self, codes: Array) -> Array:
        """Return codes ``(1, K, F)``, int64; those of codebooks that are not given are absent."""
        missing = len(self.model.codebook_sizes) - codes.shape[1]
        absent = ((0, 0), (0, missing), (0, 0))
        return np.pad(codes.astype(np.int64), absent, constant_values=ABSENT_CODE)

    def _check_length(self, frames: int) -> None:
        if frames > self._max_frames:
            seconds = self._max_frames * self.model.hop_length // self.model.sample_rate
            raise AudioError(
                f"longer than the {seconds} s that {self.model.family} processes at once in ONNX "
                "Runtime; cut it, or use `--runtime torch` with the checkpoint"
            )

    def _refuse_features(self) -> NoReturn:
        raise UsageError('latents and features need PyTorch: load the model with runtime="torch"')


class ArrayStreams:
    """A stream for each of C channels."""

    def __init__(self, make: Callable[[], ArrayStream], channels: int) -> None:
        self._streams = [make() for _ in range(channels)]

    def push(self, x: Array) -> Array:
        """Add input ``(C, rows, T)``; return the output that is ready."""
        outputs = [s.push(row[None]) for s, row in zip(self._streams, x, strict=True)]
        return np.concatenate(outputs)

    def flush(self) -> Array:
        """End the signals; return the rest of the output."""
        return np.concatenate([stream.flush() for stream in self._streams])
