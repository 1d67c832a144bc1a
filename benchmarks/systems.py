"""Systems under test: the same weights in three forms, and the speech they are timed on.

- ``codectool``: `CodecModel` as the commands use it.
- ``plain``: the same model with ``cpu_fast_path = False``, that is, ordinary PyTorch modules.
- ``reference``: `benchmarks.reference_models`, written directly from the papers.
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

import codectool
from benchmarks.reference_models import (
    ReferenceBigCodec,
    ReferenceHac,
    ReferenceModel,
    ReferenceSuperCodec,
)
from codectool.audio.samples import resample
from codectool.checkpoints.load import read_weights
from codectool.checkpoints.native import write_model
from codectool.codec import Codec, PreparedClip
from codectool.codecs.hac.model import fold
from codectool.errors import UsageError
from tests import full_size_weights
from tests.hac_models import load_preset, untrained_network

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
BUNDLED_SPEECH = (ROOT / "assets" / "speech_flite.flac", ROOT / "assets" / "speech_espeak.flac")
TINY = {"bigcodec": "bigcodec_micro.pt", "supercodec": "supercodec_micro"}

Wave = npt.NDArray[np.float32]
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SystemUnderTest:
    """One set of weights in all forms.

    Attributes:
        name: name in tables.
        checkpoint: path of the weights.
        codec: codectool's codec.
        reference: the reference model; None for HAC weights, which are stored folded.
    """

    name: str
    checkpoint: Path
    codec: Codec
    reference: ReferenceModel | None

    def forms(self) -> dict[str, tuple[Function, Function]]:
        """Return encode and decode functions on ``(1, 1, N)`` and ``(1, K, F)``, by name."""
        model = self.codec.model

        def run(method: str, fast: bool) -> Function:
            def call(x: Tensor) -> Tensor:
                model.cpu_fast_path = fast
                try:
                    return torch.stack(getattr(model, method)(list(x)))
                finally:
                    model.cpu_fast_path = True

            return call

        forms = {
            "codectool": (run("encode", True), run("decode", True)),
            "plain": (run("encode", False), run("decode", False)),
        }
        if self.reference is not None:
            forms["reference"] = (self.reference.encode, self.reference.decode)
        return forms

    def whole_frames(self, wave: Wave) -> Tensor:
        """Cut ``(N,)`` to whole frames: ``(1, 1, N')``."""
        hop = self.codec.hop_length
        return torch.from_numpy(wave[: len(wave) // hop * hop].copy())[None, None]

    def padded(self, clip: PreparedClip) -> Tensor:
        """Return a mono clip as the model gets it, ``(1, 1, F * hop_length)``."""
        return torch.from_numpy(clip.samples)[None]

    def operations(self) -> dict[str, float]:
        """Return the floating-point operations per second of audio, by direction.

        Counts convolutions, matrix products and LSTMs. Filters of activations and the codebook
        search are small and left out.
        """
        if self.reference is None or isinstance(self.reference, ReferenceHac):
            model = self.codec.model
            sides = {
                "encode": (model.encoder, self.codec.sample_rate),
                "decode": (model.decoder, self.codec.frame_rate),
            }
            return {name: 2 * stack.macs_per_second(rate) for name, (stack, rate) in sides.items()}
        frames = 20
        wave = torch.zeros(1, 1, frames * self.codec.hop_length)
        encoded = OperationCounter(self.reference, self.reference.encode, wave)
        decoded = OperationCounter(self.reference, self.reference.decode, encoded.output)
        rate = self.codec.frame_rate / frames
        return {"encode": encoded.operations * rate, "decode": decoded.operations * rate}


class OperationCounter:
    """Run a model and count multiplications and additions of its layers.

    Attributes:
        output: result of the model.
        operations: number of operations.
    """

    def __init__(self, model: nn.Module, function: Function, x: Tensor) -> None:
        self.operations = 0
        kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.Linear, nn.LSTM)
        layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
        hooks = [layer.register_forward_hook(self._count) for layer in layers]
        self.output = function(x)
        for hook in hooks:
            hook.remove()

    def _count(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.LSTM):  # (T, B, C)
            weights = [weight for name, weight in layer.named_parameters() if "weight" in name]
            self.operations += 2 * sum(weight.numel() for weight in weights) * len(inputs[0])
        elif isinstance(layer, nn.Linear):
            self.operations += 2 * layer.weight.numel() * (output.numel() // layer.out_features)
        else:
            columns = inputs[0] if isinstance(layer, nn.ConvTranspose1d) else output
            self.operations += 2 * layer.weight.numel() * columns.shape[-1]


def open_system(family: str, checkpoint: Path | None, folder: Path, tiny: bool) -> SystemUnderTest:
    """Open a codec in all forms.

    Args:
        family: name of the family.
        checkpoint: weights; None uses weights of the published size, generated from the names of
            the tensors, and for HAC an untrained network.
        folder: folder for generated weights.
        tiny: use small weights instead.
    """
    if family == "hac":
        return _open_hac(checkpoint, folder, tiny)
    if checkpoint is None:
        checkpoint = GOLDEN / TINY[family] if tiny else generate(family, folder)
    codec = codectool.load(family, checkpoint, device="cpu")
    _, state, _ = read_weights(checkpoint)
    reference = ReferenceBigCodec if family == "bigcodec" else ReferenceSuperCodec
    name = f"{family} (tiny)" if tiny else family
    return SystemUnderTest(name, checkpoint, codec, reference(state))


def generate(family: str, folder: Path) -> Path:
    """Write weights of the published size of BigCodec or SuperCodec; return their path."""
    if family == "supercodec":
        full_size_weights.write_supercodec(folder / family)
        return folder / family
    path = folder / "bigcodec.pt"
    full_size_weights.write_bigcodec(
        path, full_size_weights.bigcodec_state(full_size_weights.golden_taps())
    )
    return path


def _open_hac(checkpoint: Path | None, folder: Path, tiny: bool) -> SystemUnderTest:
    if checkpoint is not None:
        codec = codectool.load("hac", checkpoint, device="cpu")
        return SystemUnderTest("hac", checkpoint, codec, None)
    network = untrained_network(load_preset("hac-tiny" if tiny else "hac"))
    path = folder / "hac.safetensors"
    write_model(path, fold(network), overwrite=True)
    codec = codectool.load("hac", path, device="cpu")
    return SystemUnderTest("hac-tiny" if tiny else "hac", path, codec, ReferenceHac(network))


def speech(files: Sequence[Path], sample_rate: int, seconds: float) -> Wave:
    """Return speech ``(N,)`` of a given length: the files in turn, repeated as needed."""
    length, parts = round(seconds * sample_rate), []
    while sum(map(len, parts)) < length:
        path = files[len(parts) % len(files)]
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        parts.append(resample(samples.mean(1, keepdims=True).T, rate, sample_rate)[0])
        if not any(map(len, parts)):
            raise UsageError(f"{path}: holds no samples")
    return np.concatenate(parts)[:length]


def find_speech(path: Path) -> list[Path]:
    """Return the audio files of a folder, or of a list with paths relative to its folder."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in (".flac", ".ogg", ".wav"))
    return [path.parent / line for line in path.read_text("utf-8").splitlines() if line]


def short_clips(codec: Codec, wave: Wave, lengths: Sequence[float]) -> list[PreparedClip]:
    """Cut speech into clips of the given lengths in seconds."""
    ends = np.cumsum([round(length * codec.sample_rate) for length in lengths])
    return [codec.prepare(part, codec.sample_rate) for part in np.split(wave, ends)[:-1]]


def mixed_clips(codec: Codec, files: Sequence[Path], count: int) -> list[PreparedClip]:
    """Return clips of 0.3 to 8 s from files spread over the list."""
    random = np.random.default_rng(0)
    clips = []
    for path in (files[number * len(files) // count] for number in range(count)):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        length = round(random.uniform(0.3, 8.0) * rate)
        clips.append(codec.prepare(samples[:length].mean(1), rate))
    return clips


def batches(clips: Sequence[PreparedClip], seconds: float) -> list[list[PreparedClip]]:
    """Group clips of similar length into batches of at most ``seconds`` of audio."""
    groups: list[list[PreparedClip]] = [[]]
    for clip in sorted(clips, key=lambda clip: clip.seconds):
        if groups[-1] and sum(other.seconds for other in [*groups[-1], clip]) > seconds:
            groups.append([])
        groups[-1].append(clip)
    return groups


def balanced(clips: Sequence[PreparedClip], count: int) -> list[list[PreparedClip]]:
    """Divide clips into at most ``count`` batches of about the same length."""
    groups: list[list[PreparedClip]] = [[] for _ in range(min(count, len(clips)))]
    for clip in sorted(clips, key=lambda clip: -clip.seconds):
        min(groups, key=lambda group: sum(other.seconds for other in group)).append(clip)
    return groups
