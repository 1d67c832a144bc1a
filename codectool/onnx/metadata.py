"""Metadata of exported graphs: what a program needs to know to run them.

Each graph holds it as JSON in its ``metadata_props``, under the key ``codectool``; see
docs/reference/onnx.md.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from msgspec import Meta

from codectool.codecs.properties import count_frames
from codectool.errors import UnsupportedError
from codectool.schema import Config, PositiveInt, from_json, parse_json, to_json
from codectool.tokens import MAX_CODEBOOK_BITS, MAX_CODEBOOKS, MAX_SAMPLE_RATE, TokenLayout

METADATA_KEY = "codectool"
FORMAT_VERSION = 1
AUDIO = "audio"  # input of encoders, output of decoders: float32 (1, 1, N)
CODES = "codes"  # output of encoders, input of decoders: int64 (1, K, F)
ABSENT_CODE = -1  # stands for a code that was not transmitted; it contributes nothing

Part = Literal["encoder", "decoder", "encoder_step", "decoder_step"]
NonNegativeInt = Annotated[int, Meta(ge=0)]
CodebookSize = Annotated[int, Meta(ge=1, le=1 << MAX_CODEBOOK_BITS)]


class StateTensor(Config, frozen=True):
    """Memory of a layer, float32: zeros for the first chunk, then the output of the last call.

    Attributes:
        input: name of the graph's input.
        output: name of the graph's output, of the same shape.
        shape: including the batch axis, which is 1.
    """

    input: str
    output: str
    shape: Annotated[tuple[PositiveInt, ...], Meta(min_length=1, max_length=8)]


class StepMetadata(Config, frozen=True):
    """How to run a graph chunk by chunk.

    Attributes:
        chunk_frames: frames per call that give the tokens of `codectool encode`; other numbers, at
            least 1, reduce the latency and differ by rounding.
        delay_frames: frames by which the audio of a decoder is late. Drop the samples of this many
            frames at the start, and at the end push this many frames of `ABSENT_CODE`.
        states: in the order of the layers.
    """

    chunk_frames: PositiveInt
    delay_frames: NonNegativeInt
    states: tuple[StateTensor, ...]


class GraphMetadata(Config, frozen=True):
    """Metadata of one graph.

    Attributes:
        format_version: of these metadata and of the graph's inputs and outputs.
        part: what the graph computes.
        family: codec family.
        fingerprint: of the weights, eight hexadecimal digits; None for a graph whose initializers
            are external and named after the tensors of a checkpoint.
        token_fingerprint: of the parts that make tokens, as in `.hcd` files; None if the
            fingerprint is, or in graphs of earlier versions.
        same_tokens_as: other fingerprints whose tokens mean the same.
        model: hyper-parameters of the model.
        sample_rate: sampling rate in Hz.
        hop_length: samples per frame.
        codebook_sizes: number of codes of each codebook.
        min_frames: shortest input of the graph; pad shorter audio with zeros, and repeat the last
            frame of shorter codes.
        min_padding: zeros that are appended at least to a signal before it is padded to whole
            frames.
        extra_frames: frames of zeros beyond those that the signal fills.
        segment_frames: frames per segment of a model that sees a whole segment at once; None for
            other models.
        reference_padding: whether padding ``reference`` is the same as ``lossless``, or drops the
            incomplete frame at the end.
        decode_context: frames before and after a frame that its decoded samples depend on; None
            stands for the whole segment.
        decode_steps: multiples of frames from which and up to which a range is decoded bit for bit
            like the whole signal.
        latency: look-ahead of encoder and decoder in samples; None stands for the whole segment.
        versions: packages that made the graph, by name.
        step: of ``encoder_step`` and ``decoder_step`` only.
    """

    format_version: int
    part: Part
    family: str
    fingerprint: str | None
    model: dict[str, Any]
    sample_rate: Annotated[int, Meta(ge=1, le=MAX_SAMPLE_RATE)]
    hop_length: Annotated[int, Meta(ge=1, le=MAX_SAMPLE_RATE)]
    codebook_sizes: Annotated[
        tuple[CodebookSize, ...], Meta(min_length=1, max_length=MAX_CODEBOOKS)
    ]
    min_frames: PositiveInt
    min_padding: NonNegativeInt
    extra_frames: NonNegativeInt
    segment_frames: PositiveInt | None
    reference_padding: Literal["same", "drop"]
    decode_context: tuple[NonNegativeInt | None, NonNegativeInt | None]
    latency: tuple[NonNegativeInt | None, NonNegativeInt | None]
    versions: dict[str, str]
    step: StepMetadata | None = None
    decode_steps: tuple[PositiveInt, PositiveInt] = (1, 1)
    token_fingerprint: str | None = None
    same_tokens_as: tuple[str, ...] = ()

    @property
    def layout(self) -> TokenLayout:
        """Shape of the tokens."""
        sizes = self.codebook_sizes
        return TokenLayout.of_sizes(self.family, self.sample_rate, self.hop_length, sizes)

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames that hold ``num_samples`` at the model's rate."""
        return count_frames(
            num_samples, self.hop_length, self.min_frames, self.min_padding, self.extra_frames
        )

    def reference_frames(self, num_samples: int) -> int:
        """Return the number of frames that the reference implementation has for a signal."""
        if self.reference_padding == "drop":
            return num_samples // self.hop_length
        return self.num_frames(num_samples) or -(-self.min_padding // self.hop_length)

    def to_text(self) -> str:
        """Return the JSON that a graph holds."""
        return json.dumps(to_json(self))


def parse_metadata(text: str, name: str) -> GraphMetadata:
    """Read the JSON of a graph; ``name`` stands for its file in messages.

    Raises:
        UnsupportedError: It was made for a later version.
        ConfigError: It is damaged.
    """
    values = parse_json(text, name)
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UnsupportedError(
            f"{name}: was exported by a later codectool (format {version}); update codectool, or "
            "export the model again"
        )
    metadata: GraphMetadata = from_json(GraphMetadata, values, name)
    return metadata
