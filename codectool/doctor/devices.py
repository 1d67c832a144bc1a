"""PyTorch and the devices that codecs can run on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from codectool.cores import cores
from codectool.doctor.finding import Finding, reason
from codectool.doctor.machine import has_fast_bf16
from codectool.doctor.packages import version_of

NEWEST_FOR_TORCHAUDIO = (2, 14)  # later ones do not load the last torchaudio
SECONDS = 4  # of audio for the trial of a device


def check_devices() -> Iterator[Finding]:
    """Check PyTorch, and try the bundled codec on each device."""
    version = version_of("torch")
    if version is None:
        yield from _without_torch()
        return
    try:
        torch = import_module("torch")
    except Exception as error:
        advice = (
            "install torch again as https://pytorch.org describes for this system, in a new "
            "environment"
        )
        value = f"{version}, cannot be imported: {reason(error)}"
        yield Finding("devices", "torch", value, "error", advice)
        return
    yield _torch(torch)
    yield _torchaudio(torch)
    yield _threads(torch)
    yield from _devices(torch)


def _without_torch() -> Iterator[Finding]:
    runtime = version_of("onnxruntime")
    if runtime is None:
        advice = "run `pip install torch`, or `pip install onnxruntime` for `--runtime onnx`"
        yield Finding("devices", "torch", "not installed", "error", advice)
        return
    advice = "HAC and exported models run with `--runtime onnx`; other commands need torch"
    yield Finding("devices", "torch", "not installed", "note", advice)
    yield _try_codec("cpu", f"ONNX Runtime {runtime}", runtime="onnx")


def _torch(torch: Any) -> Finding:
    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if getattr(torch.version, "hip", None):
        kind = f"ROCm {torch.version.hip}"
    value = f"{torch.__version__}, built for {kind}"
    if torch.version.debug:
        advice = "this is a debug build: install a release of torch, which is many times faster"
        return Finding("devices", "torch", value, "warning", advice)
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        advice = (
            "PyTorch uses no vector instructions: unset ATEN_CPU_CAPABILITY, or use another CPU"
        )
        return Finding("devices", "torch", value, "warning", advice)
    if not torch.version.cuda and Path("/dev/nvidia0").exists():
        advice = "this machine has an NVIDIA GPU: install torch for CUDA, see https://pytorch.org"
        return Finding("devices", "torch", value, "warning", advice)
    return Finding("devices", "torch", value)


def _torchaudio(torch: Any) -> Finding:
    """Check torchaudio, which only the Whisper loss of training uses."""
    version = version_of("torchaudio")
    if version is None:
        advice = "needed only for the Whisper loss: run `pip install torchaudio`"
        return Finding("devices", "torchaudio", "not installed", "note", advice)
    try:
        import_module("torchaudio.functional")
    except Exception as error:
        found = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
        advice = "needed only for the Whisper loss: " + (
            "install torch 2.14 or earlier"
            if found > NEWEST_FOR_TORCHAUDIO
            else "run `pip install --force-reinstall torchaudio`"
        )
        value = f"{version}, cannot be imported: {reason(error)}"
        return Finding("devices", "torchaudio", value, "note", advice)
    return Finding("devices", "torchaudio", version)


def _threads(torch: Any) -> Finding:
    threads, usable = torch.get_num_threads(), cores()
    value = f"{threads} of PyTorch"
    if threads > usable:
        advice = f"set OMP_NUM_THREADS={usable}: more threads than cores are slower than one"
        return Finding("devices", "threads", value, "warning", advice)
    return Finding("devices", "threads", value)


def _devices(torch: Any) -> Iterator[Finding]:
    fast = has_fast_bf16()
    names = {"cpu": "fp32 and bf16" if fast else "fp32; bf16 is not faster on this CPU"}
    try:
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = f"{properties.total_memory / 1e9:.0f} GB"
            capability = f"compute capability {properties.major}.{properties.minor}"
            names[f"cuda:{index}"] = f"{properties.name}, {memory}, {capability}"
    except Exception as error:  # such as a driver that is too old
        advice = "update the NVIDIA driver, or install torch for the CUDA version of the driver"
        yield Finding("devices", "cuda", reason(error), "warning", advice)
    if torch.version.cuda and len(names) == 1 and Path("/dev/nvidia0").exists():
        advice = "see what `nvidia-smi` says; update the driver, or check CUDA_VISIBLE_DEVICES"
        yield Finding("devices", "cuda", "there is a GPU that torch cannot use", "warning", advice)
    if torch.backends.mps.is_available():
        names["mps"] = "Apple GPU"
    for device, value in names.items():
        yield _try_codec(device, value)


def _try_codec(device: str, value: str, **options: str) -> Finding:
    """Encode and decode on a device with the bundled codec."""
    try:
        numpy, loading = import_module("numpy"), import_module("codectool.loading")
        codec = loading.load(device=device, **options)
        codec.runner.limit_threads()
        rate = codec.sample_rate
        samples = 0.1 * numpy.random.default_rng(0).normal(size=SECONDS * rate)
        codec.decode(codec.encode(samples[:rate], rate))
        started = time.perf_counter()
        tokens = codec.encode(samples, rate)
        encoded = time.perf_counter()
        codec.decode(tokens)
        decoded = time.perf_counter()
    except Exception as error:
        advice = (
            "reinstall codectool and torch or onnxruntime"
            if device == "cpu"
            else "use `--device cpu`, or install a torch that supports this GPU"
        )
        state = "error" if device == "cpu" else "warning"
        return Finding("devices", device, f"{value}: {reason(error)}", state, advice)
    speeds = (SECONDS / (encoded - started), SECONDS / (decoded - encoded))
    text = "HAC encodes {:.0f} and decodes {:.0f} times as fast as real time".format(*speeds)
    value = f"{value}; {text}"
    if min(speeds) < 2:
        return Finding("devices", device, value, "warning", "too slow for live streams")
    return Finding("devices", device, value)
