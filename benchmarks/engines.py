"""BigCodec in other engines: ONNX Runtime, OpenVINO, `torch.compile`.

    python -m benchmarks engines [--engine NAME ...] [--checkpoint bigcodec.pt] [--seconds 4]

The reference models are exported with folded weight norm at one fixed length. Every engine takes
turns with codectool on the same speech, and the tokens are compared. Needs `onnx` and the package
of the engine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks.codecs import TokenComparison
from benchmarks.reference_models import AliasFree, ReferenceBigCodec
from benchmarks.systems import BUNDLED_SPEECH, SystemUnderTest, open_system, speech
from benchmarks.tables import table
from benchmarks.timing import InterleavedTimer, machine, threads
from codectool.errors import UsageError

Work = Callable[[Tensor], Tensor]
Engine = Callable[[nn.Module, Tensor, Path, int], Work]


class Latent(nn.Module):
    """The encoder: samples ``(1, 1, N)`` to the quantizer input ``(1, F, D)``."""

    def __init__(self, model: ReferenceBigCodec) -> None:
        super().__init__()
        self.layers = model.CodecEnc["block"]

    def forward(self, wave: Tensor) -> Tensor:
        return self.layers(wave).transpose(1, 2)


class Samples(nn.Module):
    """The decoder after the codebook lookup: ``(1, D, F)`` to samples ``(1, 1, N)``."""

    def __init__(self, model: ReferenceBigCodec) -> None:
        super().__init__()
        self.layers = model.generator["model"]

    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(self.layers(latent))


class Activation(nn.Module):
    """The alias-free activation as layers that ONNX can represent."""

    def __init__(self, of: AliasFree) -> None:
        super().__init__()
        channels = len(of.act.alpha)
        self.act = of.act
        self.up = nn.ConvTranspose1d(channels, channels, 12, 2, groups=channels, bias=False)
        self.down = nn.Conv1d(channels, channels, 12, 2, groups=channels, bias=False)
        self.up.weight.data = 2 * of.upsample.filter.repeat(channels, 1, 1)
        self.down.weight.data = of.downsample["lowpass"].filter.repeat(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(replicate_pad(x, 5, 5))[..., 15:-15]
        return self.down(replicate_pad(self.act(x), 5, 6))


def replicate_pad(x: Tensor, before: int, after: int) -> Tensor:
    """Repeat the first and the last column."""
    return torch.cat([x[..., :1]] * before + [x] + [x[..., -1:]] * after, -1)


def onnx_runtime(network: nn.Module, x: Tensor, folder: Path, count: int) -> Work:
    engine = require("onnxruntime")
    settings = engine.SessionOptions()
    settings.intra_op_num_threads = count
    path = str(exported(network, x, folder))
    session = engine.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def open_vino(network: nn.Module, x: Tensor, folder: Path, count: int) -> Work:
    engine = require("openvino")
    settings = {"INFERENCE_NUM_THREADS": count, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = engine.Core().compile_model(str(exported(network, x, folder)), "CPU", settings)
    return lambda x: torch.from_numpy(compiled([x.numpy()])[0])


def compiled(network: nn.Module, x: Tensor, folder: Path, count: int) -> Work:
    work = torch.compile(network, dynamic=False)
    # Blocks share their code but not their shapes, so each is compiled separately.
    with torch._dynamo.config.patch(recompile_limit=256):
        work(x)
    return work


ENGINES: dict[str, Engine] = {
    "onnxruntime": onnx_runtime,
    "openvino": open_vino,
    "torch.compile": compiled,
}


def require(package: str) -> Any:
    """Import a package that codectool does not depend on."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(
            f"{error}: `python -m venv VENV --system-site-packages` and there "
            f"`pip install onnx onnxscript {package}`"
        ) from error


def exported(network: nn.Module, x: Tensor, folder: Path) -> Path:
    """Export a network to ONNX for inputs of the length of ``x``."""
    require("onnx")
    path = folder / f"{type(network).__name__}.onnx"
    if not path.exists():
        with warnings.catch_warnings():
            # This exporter is deprecated, but the new one unrolls LSTMs.
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (x,), str(path), input_names=["x"], dynamo=False)
    return path


def prepare(model: nn.Module) -> None:
    """Fold weight norm and replace activations by exportable layers."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, AliasFree):
                setattr(module, name, Activation(child))
    model.requires_grad_(False)


@torch.inference_mode()
def measure(
    system: SystemUnderTest, name: str, x: Tensor, turns: int, count: int, folder: Path
) -> dict[str, Any]:
    """Time an engine against codectool on ``(1, 1, N)``."""
    model = system.reference
    assert isinstance(model, ReferenceBigCodec)
    encode, decode = system.forms()["codectool"]
    seconds = x.shape[-1] / system.codec.sample_rate
    codes = encode(x)
    quantized = model.lookup(codes)
    start = time.perf_counter()
    other_encode = ENGINES[name](Latent(model), x, folder, count)
    other_decode = ENGINES[name](Samples(model), quantized, folder, count)
    ready = time.perf_counter() - start
    other_encode(x), other_decode(quantized)  # warm-up
    encoding, decoding, comparison = InterleavedTimer(), InterleavedTimer(), TokenComparison(system)
    for _ in range(turns):
        latents = encoding.run({"codectool": lambda: encode(x), "engine": lambda: other_encode(x)})
    for _ in range(turns):
        waves = decoding.run(
            {"codectool": lambda: decode(codes), "engine": lambda: other_decode(quantized)}
        )
    comparison.add(x, codes, model.quantize(latents["engine"]))
    error = (waves["codectool"] - waves["engine"]).abs().max() / waves["codectool"].abs().max()
    return {
        "engine": name,
        "version": getattr(sys.modules.get(name), "__version__", torch.__version__).split("-")[0],
        "ready": ready,
        "encode": encoding.row(seconds),
        "decode": decoding.row(seconds),
        "tokens": comparison.row(),
        "wave_error": float(error),
    }


def render(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table; a ratio above 1 means that codectool is faster."""
    head = ["engine", "direction", "codectool", "engine's", "ratio", "ready after", "tokens"]
    head += ["differing", "waveform error"]
    return table(head, [_line(row, way) for row in rows for way in ("encode", "decode")])


def _line(row: dict[str, Any], direction: str) -> list[str]:
    times, tokens = row[direction], row["tokens"]
    ratio, low, high = times["ratios"]["engine"]
    return [
        f"{row['engine']} {row['version']}",
        direction,
        f"{times['rtf']['codectool']:.3f}",
        f"{times['rtf']['engine']:.3f}",
        f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        f"{row['ready']:.0f} s",
        str(tokens["tokens"]),
        str(tokens["differing"]),
        f"{row['wave_error']:.1e}",
    ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--engine", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    add("--checkpoint", type=Path, help="default: generated weights of the published size")
    add("--tiny", action="store_true", help="small weights, as a smoke test")
    add("--seconds", type=float, default=4.0, help="length of the audio")
    add("--turns", type=int, default=3)
    add("--threads", type=int, default=2)
    add("--json", type=Path, help="also write the values to this file")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, threads(options.threads):
        folder = Path(name)
        system = open_system("bigcodec", options.checkpoint, folder, options.tiny)
        assert system.reference is not None
        prepare(system.reference)
        x = system.whole_frames(speech(BUNDLED_SPEECH, system.codec.sample_rate, options.seconds))
        for engine in options.engine:
            try:
                rows.append(measure(system, engine, x, options.turns, options.threads, folder))
            except UsageError as error:
                print(f"{engine}: skipped: {error}", file=sys.stderr)
    if rows:
        print(render(rows))
    if options.json:
        results = {"machine": machine(), "engines": rows}
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
