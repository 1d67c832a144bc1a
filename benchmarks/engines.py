"""BigCodec in other engines beside ours: ONNX Runtime, OpenVINO, `torch.compile`.

    python -m benchmarks.engines [--engine NAME ...] [--checkpoint bigcodec.pt] [--seconds 4]

The networks are exported as written in `benchmarks.upstream_way`, weight norm folded, at one fixed
length. Every engine takes turns with ours on the same speech; the tokens of its latents are
compared with ours. Needs `onnx` and the engine's own package, which codectool does not ask for.
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

from benchmarks.speed_models import SHIPPED_SPEECH, Contender, open_contender, speech
from benchmarks.speed_pairs import Comparison
from benchmarks.speed_table import table
from benchmarks.speed_timing import Turns, machine, threads
from benchmarks.upstream_way import AliasFree, UpstreamBigCodec
from codectool.errors import UsageError

Work = Callable[[Tensor], Tensor]
Engine = Callable[[nn.Module, Tensor, Path, int], Work]


class Latent(nn.Module):
    """The encoder: samples ``(1, 1, N)`` to what is quantized ``(1, F, D)``."""

    def __init__(self, model: UpstreamBigCodec) -> None:
        super().__init__()
        self.layers = model.CodecEnc["block"]

    def forward(self, wave: Tensor) -> Tensor:
        return self.layers(wave).transpose(1, 2)


class Samples(nn.Module):
    """The decoder after its look-up: ``(1, D, F)`` to samples ``(1, 1, N)``."""

    def __init__(self, model: UpstreamBigCodec) -> None:
        super().__init__()
        self.layers = model.generator["model"]

    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(self.layers(latent))


class Activation(nn.Module):
    """The alias-free activation with its filters spelled out, which ONNX can hold."""

    def __init__(self, of: AliasFree) -> None:
        super().__init__()
        channels = len(of.act.alpha)
        self.act = of.act
        self.up = nn.ConvTranspose1d(channels, channels, 12, 2, groups=channels, bias=False)
        self.down = nn.Conv1d(channels, channels, 12, 2, groups=channels, bias=False)
        self.up.weight.data = 2 * of.upsample.filter.repeat(channels, 1, 1)
        self.down.weight.data = of.downsample["lowpass"].filter.repeat(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(edges(x, 5, 5))[..., 15:-15]
        return self.down(edges(self.act(x), 5, 6))


def edges(x: Tensor, before: int, after: int) -> Tensor:
    """Repeat the first and the last column."""
    return torch.cat([x[..., :1]] * before + [x] + [x[..., -1:]] * after, -1)


def onnx_runtime(network: nn.Module, x: Tensor, folder: Path, count: int) -> Work:
    engine = needed("onnxruntime")
    settings = engine.SessionOptions()
    settings.intra_op_num_threads = count
    path = str(exported(network, x, folder))
    session = engine.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def open_vino(network: nn.Module, x: Tensor, folder: Path, count: int) -> Work:
    engine = needed("openvino")
    settings = {"INFERENCE_NUM_THREADS": count, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = engine.Core().compile_model(str(exported(network, x, folder)), "CPU", settings)
    return lambda x: torch.from_numpy(compiled([x.numpy()])[0])


def compiled(network: nn.Module, x: Tensor, folder: Path, count: int) -> Work:
    work = torch.compile(network, dynamic=False)
    # Its blocks share their code but no shape, and each is compiled for itself.
    with torch._dynamo.config.patch(recompile_limit=256):
        work(x)
    return work


ENGINES: dict[str, Engine] = {
    "onnxruntime": onnx_runtime,
    "openvino": open_vino,
    "torch.compile": compiled,
}


def needed(package: str) -> Any:
    """A package that codectool does not depend on.

    Raises:
        UsageError: it is missing.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(
            f"{error}: `python -m venv VENV --system-site-packages` and there "
            f"`pip install onnx onnxscript {package}`"
        ) from error


def exported(network: nn.Module, x: Tensor, folder: Path) -> Path:
    """Write a network as ONNX, for inputs of the length of ``x``."""
    needed("onnx")
    path = folder / f"{type(network).__name__}.onnx"
    if not path.exists():
        with warnings.catch_warnings():
            # This exporter is deprecated, but the other one unrolls LSTMs step by step.
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (x,), str(path), input_names=["x"], dynamo=False)
    return path


def prepare(model: nn.Module) -> None:
    """Make a network fit for export: its weights folded, its activations spelled out."""
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
    contender: Contender, name: str, x: Tensor, turns: int, count: int, folder: Path
) -> dict[str, Any]:
    """One engine beside ours, encoding and decoding ``(1, 1, N)``."""
    ours, model = contender.codec.model, contender.upstream
    assert isinstance(model, UpstreamBigCodec)
    seconds = x.shape[-1] / contender.codec.sample_rate
    codes = ours.encode(x)
    quantized = model.lookup(codes)
    encoding, decoding, comparison = Turns(), Turns(), Comparison(contender)
    began = time.perf_counter()
    encode = ENGINES[name](Latent(model), x, folder, count)
    decode = ENGINES[name](Samples(model), quantized, folder, count)
    ready = time.perf_counter() - began
    encode(x), decode(quantized)  # the first calls set up things
    for _ in range(turns):
        codes, latent = encoding.take(lambda: ours.encode(x), lambda: encode(x))
    for _ in range(turns):
        wave, other = decoding.take(lambda: ours.decode(codes), lambda: decode(quantized))
    comparison.add(x, codes, model.quantize(latent))
    return {
        "engine": name,
        "version": getattr(sys.modules.get(name), "__version__", torch.__version__).split("-")[0],
        "ready": ready,
        "encode": encoding.row(seconds),
        "decode": decoding.row(seconds),
        "tokens": comparison.row(),
        "wave_error": float((wave - other).abs().max() / wave.abs().max()),
    }


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The figures as a Markdown table; ratios above one are in our favour."""
    head = ["engine", "direction", "ours", "engine's", "ratio", "of turns", "ready after"]
    head += ["tokens", "differing", "waveform error"]
    return table(head, [_line(row, way) for row in rows for way in ("encode", "decode")])


def _line(row: dict[str, Any], direction: str) -> list[str]:
    pair, tokens = row[direction], row["tokens"]
    low, high = pair["ratios"]
    return [
        f"{row['engine']} {row['version']}",
        direction,
        f"{pair['ours']:.3f}",
        f"{pair['upstream']:.3f}",
        f"{pair['ratio']:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{row['ready']:.0f} s",
        str(tokens["tokens"]),
        str(tokens["differing"]),
        f"{row['wave_error']:.1e}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--engine", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    add("--checkpoint", type=Path, help="default: the published size, made from tensor names")
    add("--tiny", action="store_true", help="small weights: does it run?")
    add("--seconds", type=float, default=4.0, help="of audio")
    add("--turns", type=int, default=3)
    add("--threads", type=int, default=2)
    add("--json", type=Path, help="where the figures go, too")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, threads(options.threads):
        folder = Path(name)
        contender = open_contender("bigcodec", options.checkpoint, folder, options.tiny)
        assert contender.upstream is not None
        prepare(contender.upstream)
        wave = speech(SHIPPED_SPEECH, contender.codec.sample_rate, options.seconds)
        x = contender.whole_frames(wave)
        for engine in options.engine:
            try:
                row = measure(contender, engine, x, options.turns, options.threads, folder)
            except UsageError as error:
                print(f"{engine}: left out. {error}", file=sys.stderr)
                continue
            rows.append(row)
            print(render([row]), flush=True)
    if rows:
        print(render(rows))
    if options.json:
        found = {"machine": machine(), "engines": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
