"""What is measured: each codec by ours and by the upstream way, and speech for both.

Letters used in shapes: C channels, K codebooks, F frames, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import codectool
from benchmarks.upstream_way import EagerHac, UpstreamBigCodec, UpstreamModel, UpstreamSuperCodec
from codectool.audio.samples import resample
from codectool.checkpoints.load import read_weights
from codectool.checkpoints.native import write_model
from codectool.codec import Codec, PreparedClip
from codectool.codecs.hac.codec import fold, layer_costs
from codectool.codecs.hac.config import AnyHacConfig, load_preset
from codectool.codecs.hac.network import HacNetwork
from codectool.errors import UsageError
from tests import recipe

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
SHIPPED_SPEECH = (ROOT / "assets" / "speech_flite.flac", ROOT / "assets" / "speech_espeak.flac")

TINY = {"bigcodec": "bigcodec_micro.pt", "supercodec": "supercodec_micro"}

Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Contender:
    """One set of weights, opened twice.

    Attributes:
        name: for the table.
        checkpoint: where the weights lie.
        codec: ours.
        upstream: the upstream way; None where there is none for these weights.
    """

    name: str
    checkpoint: Path
    codec: Codec
    upstream: UpstreamModel | None

    def whole_frames(self, wave: Wave) -> Tensor:
        """``(N,)`` -> ``(1, 1, N')``: as much of it as makes whole frames."""
        hop = self.codec.hop_length
        return torch.from_numpy(wave[: len(wave) // hop * hop].copy())[None, None]

    def padded(self, clip: PreparedClip) -> Tensor:
        """A clip of one channel as the model gets it, ``(1, 1, F * hop_length)``."""
        return torch.from_numpy(clip.samples)[None]

    def operations(self) -> dict[str, float]:
        """Floating-point operations that a second of audio takes at least, by direction.

        Convolutions, matrix products and LSTMs, a multiplication and an addition each; filters of
        activations and the search for codewords, which are small, are left out.
        """
        if self.upstream is None or isinstance(self.upstream, EagerHac):
            model, rate = self.codec.model, self.codec.frame_rate
            sides = {"encode": (model.encoder, self.codec.sample_rate)}
            sides["decode"] = (model.decoder, rate)
            return {
                name: 2 * sum(cost.macs for cost in layer_costs(stack, start))
                for name, (stack, start) in sides.items()
            }
        frames = 20
        wave = torch.zeros(1, 1, frames * self.codec.hop_length)
        encoded = Counted(self.upstream, self.upstream.encode, wave)
        decoded = Counted(self.upstream, self.upstream.decode, encoded.made)
        rate = self.codec.frame_rate / frames
        return {"encode": encoded.operations * rate, "decode": decoded.operations * rate}


class Counted:
    """Work done by a model, and the operations of its layers.

    Attributes:
        made: what came out.
        operations: multiplications with a weight and additions.
    """

    def __init__(self, model: nn.Module, work: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.operations = 0
        kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.Linear, nn.LSTM)
        layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
        hooks = [layer.register_forward_hook(self._note) for layer in layers]
        self.made = work(x)
        for hook in hooks:
            hook.remove()

    def _note(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.LSTM):  # (T, B, C)
            matrices = [weight for name, weight in layer.named_parameters() if "weight" in name]
            self.operations += 2 * sum(matrix.numel() for matrix in matrices) * len(inputs[0])
            return
        if isinstance(layer, nn.Linear):
            places = output.numel() // layer.out_features
        else:
            places = (inputs[0] if isinstance(layer, nn.ConvTranspose1d) else output).shape[-1]
        self.operations += 2 * layer.weight.numel() * places


def open_contender(family: str, checkpoint: Path | None, folder: Path, tiny: bool) -> Contender:
    """Open one codec both ways.

    Args:
        family: its name.
        checkpoint: its weights; None takes weights of the published size made from names, and for
            HAC an untrained network.
        folder: where such weights are written.
        tiny: take small weights instead.
    """
    if family == "hac":
        return _open_hac(checkpoint, folder, tiny)
    if checkpoint is None:
        checkpoint = GOLDEN / TINY[family] if tiny else _made(family, folder)
    codec = codectool.load(family, checkpoint, device="cpu")
    _, state, _ = read_weights(checkpoint)
    way = UpstreamBigCodec if family == "bigcodec" else UpstreamSuperCodec
    return Contender(f"{family} (tiny)" if tiny else family, checkpoint, codec, way(state))


def _made(family: str, folder: Path) -> Path:
    if family == "supercodec":
        recipe.write_supercodec(folder / family)
        return folder / family
    path = folder / "bigcodec.pt"
    recipe.write_bigcodec(path, recipe.bigcodec_state(recipe.golden_taps()))
    return path


def _open_hac(checkpoint: Path | None, folder: Path, tiny: bool) -> Contender:
    if checkpoint is not None:  # folded weights: what they were before cannot be told
        codec = codectool.load("hac", checkpoint, device="cpu")
        return Contender("hac", checkpoint, codec, None)
    name = "hac-tiny" if tiny else "hac"
    network = _balanced(load_preset(name))
    path = folder / f"{name}.safetensors"
    write_model(path, fold(network), overwrite=True)
    return Contender(name, path, codectool.load("hac", path, device="cpu"), EagerHac(network))


def _balanced(config: AnyHacConfig) -> HacNetwork:
    """A network of random weights whose running averages have seen noise: its bits are balanced."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = HacNetwork(config).train()
        for _ in range(4):
            level = 10 ** torch.empty(4, 1, 32).uniform_(-2, -0.5)
            noise = torch.randn(4, 1, 64 * config.hop_length)
            with torch.no_grad():
                network(noise * F.interpolate(level, noise.shape[-1]))
    return network.eval()


def speech(files: Sequence[Path], sample_rate: int, seconds: float) -> Wave:
    """So much speech: the files one after the other, as often as it takes, ``(N,)``."""
    wanted, parts = round(seconds * sample_rate), []
    while sum(map(len, parts)) < wanted:
        path = files[len(parts) % len(files)]
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        parts.append(resample(samples.mean(1, keepdims=True).T, rate, sample_rate)[0])
        if not any(map(len, parts)):
            raise UsageError(f"{path}: holds no samples")
    return np.concatenate(parts)[:wanted]


def clip_lengths(count: int, shortest: float, longest: float) -> list[float]:
    """Lengths of clips in seconds, the same ones every time."""
    return np.random.default_rng(0).uniform(shortest, longest, count).tolist()


def cut(codec: Codec, wave: Wave, lengths: Sequence[float]) -> list[PreparedClip]:
    """Cut speech into clips of these lengths, in seconds, one after the other."""
    ends = np.cumsum([round(length * codec.sample_rate) for length in lengths])
    pieces = np.split(wave, ends)[:-1]
    return [codec.prepare(piece, codec.sample_rate) for piece in pieces]


def batches(clips: Sequence[PreparedClip], seconds: float) -> list[list[PreparedClip]]:
    """Clips of like length together, so many seconds at once."""
    made: list[list[PreparedClip]] = [[]]
    for clip in sorted(clips, key=lambda clip: clip.seconds):
        if made[-1] and sum(other.seconds for other in [*made[-1], clip]) > seconds:
            made.append([])
        made[-1].append(clip)
    return made
