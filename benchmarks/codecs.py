"""Speed and memory of the codecs: codectool, plain modules and reference models in turns.

    python -m benchmarks codecs [--model NAME ...] [--only PART ...] [--quick] [--json FILE]
    python -m benchmarks codecs --model bigcodec --parity 200 --files LIST
    python -m benchmarks codecs --markdown bench.json

Prints tables and writes the same values as JSON. All forms run in one process and their tokens are
compared. Without ``--checkpoint``, weights of the published size are generated; speed does not
depend on their values.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import codectool
from benchmarks.systems import (
    BUNDLED_SPEECH,
    SystemUnderTest,
    Wave,
    balanced,
    batches,
    find_speech,
    mixed_clips,
    open_system,
    short_clips,
    speech,
)
from benchmarks.tables import render
from benchmarks.timing import InterleavedTimer, machine, peak_rates, threads
from codectool.allocator import keep_freed_memory
from codectool.codec import PreparedClip
from codectool.codecs.registry import FAMILIES
from codectool.container.bitpack import pack_codes, unpack_codes
from codectool.errors import CodectoolError
from codectool.pipeline.executor import CPU_BATCH_SECONDS, LARGE_CPU_BATCH_SECONDS

TIE = 1e-5  # relative distance; rounding of a deep float32 network
PUSH_SECONDS = 0.02
HOUR = 3600.0
# Frames per chunk of streams; None is the model's own, which gives the codes of whole files.
CHUNKS: dict[str, tuple[int | None, ...]] = {
    "bigcodec": (1, 20, None),
    "supercodec": (50, None),
    "hac": (1, 15, None),
}
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot")
KINDS = ("convolutions", "filters", "products", "LSTM", "sine", "other operators", "no operator")
# Runs a command and prints its peak memory and time. A process of its own, importing little,
# because memory of the parent must not count.
CHILD = """
import contextlib, json, sys, time
from codectool.cli import main
start = time.perf_counter()
try:
    with contextlib.redirect_stdout(sys.stderr):
        main(sys.argv[1:])
except SystemExit as done:
    if done.code:
        raise
line = next(row for row in open("/proc/self/status") if row.startswith("VmHWM"))
print(json.dumps({"bytes": int(line.split()[1]) * 1024, "seconds": time.perf_counter() - start}))
"""


@dataclass(frozen=True)
class BenchmarkSize:
    """How much is measured; lengths in seconds of audio unless stated otherwise."""

    file_seconds: float = 10.0
    turns: int = 3
    clips: int = 64
    clip_seconds: tuple[float, float] = (2.0, 6.0)
    stream_seconds: float = 4.0
    stream_limit: float = 20.0  # seconds of wall-clock time
    memory_seconds: tuple[float, ...] = (10.0, 60.0)
    packing_seconds: float = 0.5  # of wall-clock time
    runs: int = 5
    matrix: int = 2048
    shrink: int = 1


QUICK = BenchmarkSize(0.5, 1, 4, (0.2, 0.6), 0.3, 2.0, (1.0,), 0.01, 1, 128, 100)


class TokenComparison:
    """Count tokens that differ between two forms, and how close the alternatives were."""

    def __init__(self, system: SystemUnderTest) -> None:
        self.system = system
        self.tokens = self.differing = 0
        self.gaps: list[float] = []

    def add(self, wave: Tensor, codes: Tensor, other: Tensor) -> None:
        """Compare codes ``(1, K, F)`` of ``(1, 1, F * hop_length)``."""
        assert codes.shape == other.shape, f"{codes.shape} and {other.shape}"
        self.tokens += codes.numel()
        self.differing += int((codes != other).sum())
        reference = self.system.reference
        if reference is not None and not torch.equal(codes, other):
            with torch.inference_mode():
                gaps = reference.gaps(reference.latent(wave), codes, other)
            self.gaps += gaps[(codes != other).any(1)].tolist()

    def row(self) -> dict[str, Any]:
        """Return the counts; ``ties``: all differences are within rounding, None if unknown."""
        known = not self.differing or bool(self.gaps)
        return {
            "tokens": self.tokens,
            "differing": self.differing,
            "largest_gap": max(self.gaps, default=None),
            "ties": max(self.gaps, default=0.0) < TIE if known else None,
        }


class Benchmark:
    """Measure systems, one method per part.

    Args:
        size: how much to measure.
        files: speech.
        folder: folder for temporary files.
    """

    def __init__(self, size: BenchmarkSize, files: Sequence[Path], folder: Path) -> None:
        self.size, self.files, self.folder = size, files, folder
        self.rates: dict[str, dict[str, float]] = {}

    def measure(self, system: SystemUnderTest, parts: Sequence[str]) -> dict[str, Any]:
        """Return the values of all parts."""
        most = thread_counts(system)[-1]
        results: dict[str, Any] = {"name": system.name, "threads": str(most)}
        for part in parts:
            print(f"{system.name}: {part}", file=sys.stderr)
            with threads(most):
                results[part] = getattr(self, part)(system)
        return results

    def one_file(self, system: SystemUnderTest) -> dict[str, Any]:
        """Encode and decode one file, for each number of threads, and compare with the floor."""
        rows: dict[str, Any] = {}
        wave = self._speech(system, self.size.file_seconds)
        for count in thread_counts(system):
            with threads(count):
                self._update_rates(count)
                self._one_file(system, wave[: 2 * system.codec.sample_rate], 1)  # warm-up
                rows[str(count)] = self._one_file(system, wave, self.size.turns)
                self._update_rates(count)
        for direction, operations in system.operations().items():
            for count, row in rows.items():
                floor = operations / max(self.rates[count].values())
                share = floor / row[direction]["rtf"]["codectool"]
                row[direction] |= {"floor": floor, "share": share}
        return rows

    @torch.inference_mode()
    def _one_file(self, system: SystemUnderTest, wave: Wave, turns: int) -> dict[str, Any]:
        x = system.whole_frames(wave)
        seconds = x.shape[-1] / system.codec.sample_rate
        forms = system.forms()
        encode, decode = InterleavedTimer(), InterleavedTimer()
        for _ in range(turns):
            codes = encode.run({name: lambda f=f: f(x) for name, (f, _) in forms.items()})
        ours = codes["codectool"]
        for _ in range(turns):
            waves = decode.run({name: lambda f=f: f(ours) for name, (_, f) in forms.items()})
        row: dict[str, Any] = {"encode": encode.row(seconds), "decode": decode.row(seconds)}
        row["tokens"], row["wave_error"] = {}, {}
        for name in forms.keys() - {"codectool"}:
            comparison = TokenComparison(system)
            comparison.add(x, ours, codes[name])
            row["tokens"][name] = comparison.row()
            error = (waves["codectool"] - waves[name]).abs().max() / waves[name].abs().max()
            row["wave_error"][name] = float(error)
        return row

    def short_files(self, system: SystemUnderTest) -> dict[str, Any]:
        """Encode and decode short clips: codectool in batches on every core, others one by one."""
        keep_freed_memory(32 << 20)  # as in folders; the other forms have larger tensors
        clips = self._short_clips(system)
        seconds = sum(clip.seconds for clip in clips)
        encode, decode, comparison = InterleavedTimer(), InterleavedTimer(), TokenComparison(system)
        cores, codec = os.cpu_count() or 1, system.codec
        others = {name: form for name, form in system.forms().items() if name != "codectool"}
        limit = LARGE_CPU_BATCH_SECONDS if codec.model.faster_in_batches else CPU_BATCH_SECONDS
        groups = balanced(clips, cores * math.ceil(seconds / (cores * limit)))  # as in folders
        for part in (groups[first : first + cores] for first in range(0, len(groups), cores)):
            waves = [system.padded(clip) for group in part for clip in group]
            with torch.inference_mode():
                work: dict[str, Callable[[], Any]] = {
                    "codectool": lambda part=part: on_all_cores(codec.encode_clips, part)
                }
                for name, (function, _) in others.items():
                    work[name] = lambda f=function, waves=waves: [f(wave) for wave in waves]
                results = encode.run(work)
                tokens = results["codectool"]
                codes = [as_tensor(clip.codes) for group in tokens for clip in group]
                others_codes = results.get("reference", results["plain"])
                for wave, ours, other in zip(waves, codes, others_codes, strict=True):
                    comparison.add(wave, ours, other)
                work = {"codectool": lambda t=tokens: on_all_cores(codec.decode_clips, t)}
                for name, (_, function) in others.items():
                    work[name] = lambda f=function, codes=codes: [f(clip) for clip in codes]
                decode.run(work)
        return {
            "clips": len(clips),
            "encode": encode.row(seconds, parts=True),
            "decode": decode.row(seconds, parts=True),
            "tokens": comparison.row(),
        }

    @torch.inference_mode()
    def profile(self, system: SystemUnderTest) -> dict[str, Any]:
        """Return the shares of time by kind of operator, on one thread."""
        x = system.whole_frames(self._speech(system, self.size.stream_seconds))
        forms = system.forms()
        with threads(1):
            codes = forms["codectool"][0](x)
            return {
                name: {
                    "encode": operator_shares(lambda f=encode: f(x)),
                    "decode": operator_shares(lambda f=decode: f(codes)),
                }
                for name, (encode, decode) in forms.items()
            }

    @torch.inference_mode()
    def streams(self, system: SystemUnderTest) -> list[dict[str, Any]]:
        """Push 20 ms at a time, in the CPU form and in plain modules."""
        model = system.codec.model
        x = system.whole_frames(self._speech(system, self.size.stream_seconds))
        whole = system.forms()["codectool"][0](x)
        rows = []
        for chunk in CHUNKS[system.codec.layout.family]:
            row: dict[str, Any] = {"chunk_frames": chunk}
            for form, fast in (("codectool", True), ("plain", False)):
                model.cpu_fast_path = fast
                try:
                    row[form] = self._stream(system, x, chunk, whole)
                finally:
                    model.cpu_fast_path = True
            rows.append(row)
        return rows

    def _stream(
        self, system: SystemUnderTest, x: Tensor, chunk: int | None, whole: Tensor
    ) -> dict[str, Any]:
        codec, model, limit = system.codec, system.codec.model, self.size.stream_limit
        rate, hop = codec.sample_rate, codec.hop_length
        size = round(PUSH_SECONDS * rate)
        encoding = Pushes(model.stream_encoder(chunk), x, lambda: size, limit)
        codes = torch.cat(encoding.outputs, -1)
        frames = max(1, round(PUSH_SECONDS * codec.frame_rate))
        decoding = Pushes(model.stream_decoder(chunk), codes, lambda: frames, limit)
        comparison = TokenComparison(system)
        if encoding.finished and (chunk is None or model.segment_frames is None):
            comparison.add(x, codes, whole)
        before_output, decode_before_output = encoding.before_output, decoding.before_output
        return {
            "first_code_after": None if before_output is None else before_output / rate,
            "first_sample_after": None
            if decode_before_output is None
            else decode_before_output * hop / rate,
            "encode": encoding.seconds * rate / encoding.pushed,
            "decode": decoding.seconds * rate / (decoding.pushed * hop) if codes.numel() else None,
            "slowest_push": encoding.slowest,
            "tokens": comparison.row() if comparison.tokens else None,
        }

    def packing(self, system: SystemUnderTest) -> dict[str, float]:
        """Return tokens per second packed to and unpacked from blocks, on one core."""
        bits = system.codec.layout.bits_per_codebook
        frames = round(24 * system.codec.frame_rate)
        random = np.random.default_rng(0)
        codes = np.stack([random.integers(0, 1 << width, frames) for width in bits])[None]
        codes = codes.astype(np.int32)
        packed = pack_codes(codes, bits)
        work = {
            "pack": lambda: pack_codes(codes, bits),
            "unpack": lambda: unpack_codes(packed, 1, bits, frames),
        }
        seconds = self.size.packing_seconds
        return {name: codes.size * best_rate(call, seconds) for name, call in work.items()}

    def sizes(self, system: SystemUnderTest) -> list[dict[str, Any]]:
        """Return the size of files of 3 and 60 s."""
        codec, rows = system.codec, []
        for seconds in (3, 60):
            frames = codec.model.num_frames(seconds * codec.sample_rate)
            shape = (1, codec.layout.num_codebooks, frames)
            tokens = codec.make_tokens(
                np.zeros(shape, np.int32), codec.sample_rate, seconds * codec.sample_rate
            )
            file = io.BytesIO()
            codectool.write(file, tokens)
            size, payload = file.tell(), -(-frames * codec.bits_per_frame // 8)
            rows.append({"seconds": seconds, "file": size, "tokens": payload})
        return rows

    def memory(self, system: SystemUnderTest) -> list[dict[str, Any]]:
        """Return peak memory of `codectool encode` and `decode`, for single files and a folder."""
        lengths = self.size.memory_seconds
        wave = self._speech(system, min(60.0, max(lengths)))
        rows = [self._memory(system, wave, seconds) for seconds in lengths]
        return [*rows, self._folder_memory(system)]

    def hour(self, system: SystemUnderTest) -> dict[str, Any]:
        """Return the memory for an hour of audio; BigCodec with small weights."""
        if system.codec.layout.family == "bigcodec":
            system = open_system("bigcodec", None, self.folder, tiny=True)
        return self._memory(system, self._speech(system, 60.0), HOUR)

    def _memory(self, system: SystemUnderTest, wave: Wave, seconds: float) -> dict[str, Any]:
        source, packed = self.folder / "long.wav", self.folder / "long.hcd"
        write_repeated(source, wave, system.codec.sample_rate, seconds)
        paths = source, packed, self.folder / "back.wav"
        return {"audio": f"{seconds:g} s", **self._run_commands(system, *paths)}

    def _folder_memory(self, system: SystemUnderTest) -> dict[str, Any]:
        """Return the memory for a folder of the clips of `short_files`."""
        source, packed, back = (self.folder / name for name in ("clips", "tokens", "back"))
        source.mkdir(exist_ok=True)
        clips = self._short_clips(system)
        for number, clip in enumerate(clips):
            soundfile.write(source / f"{number}.wav", clip.samples[0], system.codec.sample_rate)
        row = self._run_commands(system, source, packed, back)
        return {"audio": f"{len(clips)} files", **row}

    def _run_commands(
        self, system: SystemUnderTest, source: Path, packed: Path, back: Path
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"weights": system.name}
        for name, before, after in (("encode", source, packed), ("decode", packed, back)):
            arguments = _arguments(system, name, before, after)
            row[name] = json.loads(_output([sys.executable, "-c", CHILD, *arguments]))
        return row

    def start(self, system: SystemUnderTest) -> dict[str, float]:
        """Return the median seconds of short commands with a warm disk cache."""
        source, packed, back = (self.folder / name for name in ("s.wav", "s.hcd", "back.wav"))
        write_repeated(source, self._speech(system, 2.0), system.codec.sample_rate, 2.0)
        tool = [sys.executable, "-m", "codectool"]
        commands = {
            "--help": [*tool, "--help"],
            "encode 2 s": [*tool, *_arguments(system, "encode", source, packed)],
            "info": [*tool, "info", str(packed)],
            "verify": [*tool, "verify", str(packed)],
            "decode 2 s": [*tool, *_arguments(system, "decode", packed, back)],
            "import torch": [sys.executable, "-c", "import torch"],
        }
        return {name: self._median(command) for name, command in commands.items()}

    def _median(self, command: Sequence[str]) -> float:
        times = []
        for _ in range(self.size.runs + 1):  # the first one warms the disk cache
            start = time.perf_counter()
            _output(command)
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:] or times)

    @torch.inference_mode()
    def parity(self, system: SystemUnderTest, count: int) -> dict[str, Any]:
        """Compare the tokens of clips alone with a batch, a stream, plain and reference models."""
        codec = system.codec
        clips = mixed_clips(codec, self.files, count)
        others = {name: form for name, form in system.forms().items() if name != "codectool"}
        comparisons = {name: TokenComparison(system) for name in ("batch", "stream", *others)}
        for group in batches(clips, CPU_BATCH_SECONDS):
            for clip, batched in zip(group, codec.encode_clips(group), strict=True):
                wave = system.padded(clip)
                alone = as_tensor(codec.encode_clips([clip])[0].codes)
                comparisons["batch"].add(wave, as_tensor(batched.codes), alone)
                random = np.random.default_rng(wave.shape[-1])
                sizes = lambda random=random: int(random.integers(1, codec.sample_rate))  # noqa: E731
                pushes = Pushes(codec.model.stream_encoder(), wave, sizes, float("inf"))
                comparisons["stream"].add(wave, torch.cat(pushes.outputs, -1), alone)
                for name, (encode, _) in others.items():
                    comparisons[name].add(wave, encode(wave), alone)
        rows = {name: comparison.row() for name, comparison in comparisons.items()}
        return {"clips": len(clips), **rows}

    def _short_clips(self, system: SystemUnderTest) -> list[PreparedClip]:
        random = np.random.default_rng(0)
        lengths = random.uniform(*self.size.clip_seconds, self.size.clips).tolist()
        return short_clips(system.codec, self._speech(system, sum(lengths) + 1), lengths)

    def _speech(self, system: SystemUnderTest, seconds: float) -> Wave:
        return speech(self.files, system.codec.sample_rate, seconds)

    def _update_rates(self, count: int) -> None:
        rates = peak_rates(self.size.matrix, 5, self.size.shrink)
        before = self.rates.setdefault(str(count), rates)
        self.rates[str(count)] = {name: max(rates[name], before[name]) for name in rates}


PARTS = ("one_file", "short_files", "profile", "streams", "packing", "sizes", "memory", "start")


class Pushes:
    """Push a signal into a stream, for a limited time.

    Attributes:
        outputs: output of each push.
        before_output: columns pushed before the first output; None if there was none.
        pushed: columns pushed.
        seconds: total time.
        slowest: time of the slowest push.
        finished: whether the whole signal was pushed and flushed.
    """

    def __init__(self, stream: Any, x: Tensor, size: Callable[[], int], limit: float) -> None:
        self.outputs: list[Tensor] = []
        self.before_output: int | None = None
        self.pushed, self.seconds, self.slowest = 0, 0.0, 0.0
        while self.pushed < x.shape[-1] and self.seconds < limit:
            last = min(x.shape[-1], self.pushed + size())
            self._time(lambda part=x[..., self.pushed : last]: stream.push(part))
            self.pushed = last
            if self.before_output is None and self.outputs[-1].shape[-1]:
                self.before_output = self.pushed
        self.finished = self.pushed == x.shape[-1]
        if self.finished:
            self._time(stream.flush)

    def _time(self, work: Callable[[], Tensor]) -> None:
        start = time.perf_counter()
        self.outputs.append(work())
        seconds = time.perf_counter() - start
        self.seconds += seconds
        self.slowest = max(self.slowest, seconds)


def operator_shares(work: Callable[[], Any]) -> dict[str, float]:
    """Return the shares of time by kind of operator; they add up to one."""
    work()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        start = time.perf_counter()
        work()
        total = time.perf_counter() - start
    seconds = dict.fromkeys(KINDS, 0.0)
    for event in profiler.key_averages(group_by_input_shape=True):
        kind = operator_kind(event.key, event.input_shapes)
        seconds[kind] += event.self_cpu_time_total / 1e6
    seconds["no operator"] = max(0.0, total - sum(seconds.values()))
    return {name: value / sum(seconds.values()) for name, value in seconds.items()}


def operator_kind(operator: str, shapes: list[list[int]]) -> str:
    """Return the kind of an operator from its name and the shapes of its arguments."""
    name = operator.rpartition("::")[2].rstrip("_")
    if "rnn" in name or "lstm" in name:
        return "LSTM"
    if "conv" in name:  # a filter convolves each channel separately
        weight = shapes[1] if len(shapes) > 1 else []
        is_filter = len(weight) > 2 and weight[1] == 1 and shapes[0][1] > 1
        return "filters" if is_filter else "convolutions"
    if name in PRODUCTS or "linear" in name:
        return "products"
    return "sine" if name in ("sin", "cos") else "other operators"


def on_all_cores(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """Call a function for each part in a thread with one core."""
    with threads(1), ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(function, parts))


def as_tensor(codes: np.ndarray) -> Tensor:
    """Return codes as int64."""
    return torch.from_numpy(codes.astype(np.int64))


def best_rate(work: Callable[[], Any], seconds: float) -> float:
    """Return calls per second: the best of five runs of a fifth of the time each."""
    work()
    best = 0.0
    for _ in range(5):
        rounds, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds / 5 or not rounds:
            work()
            rounds += 1
        best = max(best, rounds / elapsed)
    return best


def write_repeated(path: Path, wave: Wave, rate: int, seconds: float) -> None:
    """Write speech, repeated up to a length, as 16-bit WAV."""
    left = round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        while left:
            part = wave[:left]
            file.write(part)
            left -= len(part)


def thread_counts(system: SystemUnderTest) -> list[int]:
    """Return 1 and the largest useful number of threads."""
    cores = os.cpu_count() or 1
    return sorted({1, min(cores, system.codec.model.cpu_threads or cores)})


def _arguments(system: SystemUnderTest, name: str, source: Path, target: Path) -> list[str]:
    weights = ["--checkpoint", str(system.checkpoint), "--device", "cpu"]
    return [name, str(source), str(target), "--overwrite", *weights]


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CodectoolError(f"`{' '.join(command[-8:])}` failed: {done.stderr.strip()}")
    return done.stdout


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure everything the command line asks for."""
    size = QUICK if options.quick else BenchmarkSize()
    size = replace(size, turns=options.turns or size.turns, clips=options.clips or size.clips)
    benchmark = Benchmark(size, options.files or BUNDLED_SPEECH, folder)
    models = {}
    for family in options.model:
        system = open_system(family, options.checkpoint, folder, options.quick)
        models[family] = benchmark.measure(system, () if options.parity else options.only)
        if options.parity:
            with threads(thread_counts(system)[-1]):
                models[family]["parity"] = benchmark.parity(system, options.parity)
        if options.hour:
            models[family].setdefault("memory", []).append(benchmark.hour(system))
    return {"machine": machine(), "peaks": benchmark.rates, "models": models}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    add("--checkpoint", type=Path, help="weights; needs a single --model")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    add("--files", type=Path, help="folder or list of speech files; default: assets/")
    add("--turns", type=int, help="repetitions on one file")
    add("--clips", type=int, help="number of short files")
    add("--hour", action="store_true", help="also measure the memory for an hour of audio")
    add("--parity", type=int, metavar="CLIPS", help="only compare tokens, on this many clips")
    add("--quick", action="store_true", help="small weights and little audio, as a smoke test")
    add("--json", type=Path, default=Path("bench.json"), help="output file for all values")
    add("--markdown", type=Path, metavar="JSON", help="only print the tables of this file")
    options = parser.parse_args(arguments)
    if options.checkpoint and len(options.model) != 1:
        parser.error("--checkpoint needs a single --model")
    if options.files:
        options.files = find_speech(options.files)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(arguments)
    if options.markdown:
        print(render(json.loads(options.markdown.read_text("utf-8"))), end="")
        return
    with tempfile.TemporaryDirectory() as folder:
        results = run(options, Path(folder))
    print(render(results), end="")
    options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
