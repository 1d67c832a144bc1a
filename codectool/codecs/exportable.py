"""`ExportPart`: a part of a codec model that can be traced for `torch.export` and ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from codectool.nn.quantize import ResidualQuantizer

PartName = Literal["encoder", "decoder", "encoder_step", "decoder_step"]
EXAMPLE_FRAMES = 11  # beyond the shortest input; a number that no layer has, or it would be fixed
MAX_FRAMES = 1 << 24


@dataclass(frozen=True)
class ExportPart:
    """A module that computes one part of a codec, for any number of frames.

    Attributes:
        name: what it computes.
        module: ``forward(x, *states)`` returns y, or with states ``(y, *new_states)``. Of x and y
            one is audio, float32 ``(1, 1, N)``, the other is codes, int64 ``(1, K, F)``, in which
            -1 stands for a code that was not transmitted.
        states: shapes of the states by name, including the batch axis.
        chunk_frames: of a step: frames per call that give the tokens of `CodecModel.encode`.
        delay_frames: of a step: frames by which its audio is late.
        translations: dotted paths of the ONNX translations of operators that only serve tracing.
        substitutes: the operators of PyTorch that they stand for.
    """

    name: PartName
    module: nn.Module
    states: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    chunk_frames: int | None = None
    delay_frames: int = 0
    translations: Mapping[Any, str] = field(default_factory=dict)
    substitutes: Mapping[Any, Any] = field(default_factory=dict)

    @property
    def is_encoder(self) -> bool:
        """Whether it maps audio to codes."""
        return self.name.startswith("encoder")

    @torch.no_grad()
    def trace(self, hop_length: int, num_codebooks: int, min_frames: int) -> ExportedProgram:
        """Trace the module; the number of frames stays dynamic from ``min_frames`` on."""
        count = min_frames + EXAMPLE_FRAMES
        frames = Dim("frames", min=min_frames, max=MAX_FRAMES)
        if self.is_encoder:
            example = torch.zeros(1, 1, count * hop_length)
            dynamic = {2: frames if hop_length == 1 else hop_length * frames}
        else:
            example = torch.zeros(1, num_codebooks, count, dtype=torch.int64)
            dynamic = {2: frames}
        states = tuple(torch.zeros(shape) for shape in self.states.values())
        shapes = (dynamic, tuple(None for _ in states)) if states else (dynamic,)
        # Do not treat signals of one frame as a special case, which others must not be.
        with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            return torch.export.export(
                self.module.eval(), (example, *states), dynamic_shapes=shapes, strict=False
            )


def lookup_present(quantizer: ResidualQuantizer, codes: Tensor) -> Tensor:
    """Return the latent ``(B, F, D)`` of codes ``(B, K, F)``; codes of -1 contribute nothing."""
    parts = [
        stage.lookup(stage_codes.clamp(min=0)).where((stage_codes >= 0).unsqueeze(-1), 0.0)
        for stage, stage_codes in zip(quantizer.layers, codes.unbind(1), strict=True)
    ]
    return sum(parts[1:], parts[0])
