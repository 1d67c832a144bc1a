"""`TrainableCodec`: a codec as it is trained, the base of one class per codec family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from codectool.codecs.base import CodecModel
from codectool.errors import ConfigError
from codectool.nn.loading import copy_tensors


@dataclass(frozen=True)
class SourcePrediction:
    """What a decoder predicts for its source of harmonics and noise, for losses on it.

    Frame i stands for the samples of the target from ``i frame`` on.

    Attributes:
        frame: samples per frame.
        pitch: ``(B, T, bins)``, logits of the pitch.
        lowest_pitch: pitch of the first bin in Hz.
        bins_per_octave: number of bins per octave.
        voicing: ``(B, T)``, logits of the voicing.
        phase: ``(B, T, 2)``, cosine and sine of the phase of the pulses, times how sure it is.
        phase_offset: samples from the start of a frame to where its phase belongs.
        levels: ``(B, T', M)``, natural logarithms of the amplitude of harmonics and noise together
            in the bands that they make alone, with unit power as 0.
        level_hop: samples from one row of the levels to the next.
        level_offset: samples from the start of the target to the centre of the first row.
        bands: ``(K, M)``, weights of the bins of a power spectrum in the bands; they sum to 1.
    """

    frame: int
    pitch: Tensor
    lowest_pitch: float
    bins_per_octave: int
    voicing: Tensor
    phase: Tensor
    phase_offset: int
    levels: Tensor
    level_hop: int
    level_offset: int
    bands: Tensor


@dataclass(frozen=True)
class Reconstruction:
    """Output of a forward pass in training; signals are float32 ``(B, 1, N')``.

    Attributes:
        audio: the output.
        target: what it is compared with.
        auxiliary_losses: losses of the quantizer: scalars without their weights.
        others: outputs of the same tokens that differ in what is random, if anything is.
        source: predictions of a decoder with a source.
        pitch: pitch of the target in the frames of the source, as `track_pitch` returns it.
    """

    audio: Tensor
    target: Tensor
    auxiliary_losses: dict[str, Tensor]
    others: tuple[Tensor, ...] = ()
    source: SourcePrediction | None = None
    pitch: Tensor | None = None


@dataclass(frozen=True)
class CropTokens:
    """Tokens of a batch of crops of F frames, with the frames around them that a decoder needs.

    Attributes:
        codes: int64 ``(B, K, before + F + after)``; codes outside the signal are not defined.
        starts: bool ``(B,)``: the signal begins with the crop.
        num_frames: int64 ``(B,)``: frames of the signal from the start of the crop on, at most
            ``F + after``.
        before: frames before the crop.
        after: frames after the crop.
    """

    codes: Tensor
    starts: Tensor
    num_frames: Tensor
    before: int
    after: int

    def to(self, device: torch.device) -> CropTokens:
        """Return the tokens on a device."""
        return replace(
            self,
            codes=self.codes.to(device, non_blocking=True),
            starts=self.starts.to(device, non_blocking=True),
            num_frames=self.num_frames.to(device, non_blocking=True),
        )

    def chunk(self, count: int) -> list[CropTokens]:
        """Split the batch like `torch.Tensor.chunk`."""
        parts = (self.codes, self.starts, self.num_frames)
        return [
            CropTokens(codes, starts, num_frames, self.before, self.after)
            for codes, starts, num_frames in zip(*(p.chunk(count) for p in parts), strict=True)
        ]


@dataclass(frozen=True)
class CropSpec:
    """What a model requires of training crops."""

    sample_rate: int  # in Hz
    hop_length: int  # in samples; crops are a multiple of it
    min_frames: int = 1  # length of the shortest crop
    source_frame: int | None = None  # samples per frame of a decoder's source, if it has one
    num_codebooks: int = 1


class TrainableCodec(nn.Module, ABC):
    """A codec as it is trained: one forward pass from crop to reconstruction.

    Methods that are not abstract suit a family that is trained in the class that also runs it,
    `model`, with weight norm that only a copy for inference folds.

    Attributes:
        auxiliary_loss_names: keys of `Reconstruction.auxiliary_losses`.
        has_ema_codebooks: codebooks follow the data by moving averages, and dead codes can be
            replaced.
        sample_rate: in Hz.
        model: the inference class before its weights are folded.
    """

    auxiliary_loss_names: ClassVar[tuple[str, ...]]
    has_ema_codebooks: ClassVar[bool] = False
    sample_rate: int
    model: CodecModel

    @staticmethod
    def parse_config(config: Mapping[str, Any], /) -> Any:
        """Return the config of a model, which the constructor takes."""
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def crop_spec(cls, config: Mapping[str, Any]) -> CropSpec:
        """Return what a model with this config requires of crops.

        Raises:
            ConfigError: A value is wrong.
        """

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the model; its weights are drawn from torch's global generator.

        Raises:
            ConfigError: A value is wrong.
        """
        return cls(cls.parse_config(config))

    @abstractmethod
    def forward(self, wave: Tensor) -> Reconstruction:
        """Encode and decode crops ``(B, 1, N)``, N a multiple of the hop."""

    def freeze_encoder(self) -> None:
        """Drop the encoder and fix the quantizer; of the forward passes, `decode_crops` remains.

        Raises:
            ConfigError: The model has no parts of these names.
        """
        if not {"encoder", "decoder"} <= dict(self.model.named_children()).keys():
            raise ConfigError(
                "`training.freeze`: this model has no parts `encoder` and `decoder`; set it to null"
            )
        self.model.add_module("encoder", nn.Identity())
        self.model.requires_grad_(False)
        self.decoder.requires_grad_(True)

    @property
    def decoder(self) -> nn.Module:
        """The decoder, which has all parameters that `freeze_encoder` leaves trainable."""
        return self.model.get_submodule("decoder")

    def synthesize(self, latents: Tensor) -> Tensor:
        """Decode latents ``(B, F, D)`` to ``(B, 1, N)``."""
        audio: Tensor = self.decoder(latents.mT)
        return audio

    def decoder_state(self) -> dict[str, Tensor]:
        """Return the tensors of the decoder by the names of `stored_model`."""
        return {f"decoder.{name}": tensor for name, tensor in self.decoder.state_dict().items()}

    def crop_context(self) -> tuple[int, int]:
        """Return how many frames before and after a crop the decoder gets in `decode_crops`.

        A decoder that depends on the whole segment gets none: a crop is decoded as a segment.
        """
        context = self.model.decode_context
        return context.before or 0, context.after or 0

    def decode_crops(self, tokens: CropTokens, target: Tensor) -> Reconstruction:
        """Decode the tokens of crops.

        Samples that would need tokens after the end of the signal are zero in output and target.

        Args:
            tokens: tokens of the crops.
            target: their audio, ``(B, 1, F * hop)``.
        """
        hop, before, after = self.model.hop_length, tokens.before, tokens.after
        latents = self.model.dequantize(tokens.codes)
        audio = target.new_zeros(len(latents), 1, (latents.shape[1] - before) * hop)
        # nothing precedes a crop with which the signal begins
        for rows, first in ((~tokens.starts, 0), (tokens.starts, before)):
            if rows.any():
                wave = self.synthesize(latents[rows, first:])
                audio[rows] = wave.float()[..., (before - first) * hop :]
        (audio,), target = mask_crops([audio], target, (tokens.num_frames - after) * hop)
        return Reconstruction(audio, target, {})

    def prepare_step(self, step: int, progress: float) -> None:
        """Apply schedules after a number of steps and a fraction of the run, 0 to 1."""

    def set_dead_code_threshold(self, threshold: float) -> None:
        """Replace codewords whose moving average of uses falls below a threshold; 0 for none."""
        raise NotImplementedError(f"{type(self).__name__} has no codebooks of moving averages")

    def compile_parts(self) -> None:
        """Compile encoder and decoder; the quantizer between them branches on values."""
        for name in ("encoder", "decoder"):
            self.model.get_submodule(name).compile(dynamic=False)

    def inference_model(self) -> CodecModel:
        """Return a copy of the present weights for inference.

        Raises:
            CheckpointError: The codebooks have not been initialised by a training step.
        """
        state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return type(self.model).from_state(state, self.model.hyper_parameters)

    def stored_model(self) -> CodecModel:
        """Return the model in the form that checkpoints store; it may share weights."""
        return self.model

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights of a checkpoint, by the names of `stored_model`.

        Raises:
            TensorMismatchError: Names or shapes do not match.
        """
        copy_tensors(self.model, state)

    def load_decoder(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights of a checkpoint after `freeze_encoder`: decoder and quantizer.

        Raises:
            TensorMismatchError: Names or shapes do not match.
        """
        parts = {name: t for name, t in state.items() if not name.startswith("encoder.")}
        copy_tensors(self.model, parts)

    def calibrate(self, crops: Callable[[], tuple[Tensor, CropTokens | None]]) -> None:
        """Measure on crops what a checkpoint does not hold, after the weights are loaded.

        Args:
            crops: returns crops ``(B, 1, N)``, and after `freeze_encoder` their tokens.
        """

    def parameters_in_order(self, names: Iterable[str]) -> list[nn.Parameter]:
        """Return the parameters among names of `stored_model`, in their order.

        None are returned if weights are stored in another form than they are trained in.
        """
        parameters = dict(self.model.named_parameters())
        return [parameters[name] for name in names if name in parameters]

    def has_weight_decay(self, name: str, parameter: Tensor) -> bool:
        """Return whether weight decay applies to a parameter."""
        return True


def mask_crops(
    outputs: Iterable[Tensor], target: Tensor, lengths: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Cut outputs ``(B, 1, N')`` to their target, and set all to zero after lengths ``(B,)``."""
    known = torch.arange(target.shape[-1], device=target.device) < lengths[:, None, None]
    cut = [audio[..., : target.shape[-1]].where(known, 0.0) for audio in outputs]
    return cut, target.where(known, 0.0)
