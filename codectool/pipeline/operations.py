"""The three kinds of work: encode, decode, and both in a row. Each is a handful of small verbs.

`measure`, `load` and `pack` run beside the model, in any thread; `compute` and `alone` run the
model. No verb knows of other files, journals or threads.

Letters used in shapes: C channels, K codebooks, F frames, N samples.
"""

from __future__ import annotations

import io
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Generic, TypeVar, cast

from codectool.audio.discovery import AUDIO_SUFFIXES, strip_suffix
from codectool.audio.files import read_audio
from codectool.audio.samples import MAX_SAMPLES, Samples
from codectool.audio.sink import audio_bytes, check_format
from codectool.audio.source import open_audio
from codectool.codec import Codec, PreparedClip
from codectool.container import Reader, read, write
from codectool.decoding import decode_file
from codectool.encoding import encode_file
from codectool.errors import CodectoolError, ContainerError
from codectool.tokens import Tokens

Input = TypeVar("Input")
Output = TypeVar("Output")
Decoded = tuple[Tokens, Samples]  # what was decoded, and (C, F * hop) at the model's rate


@dataclass(frozen=True)
class EncodeOptions:
    """What encoding depends on beside codec and audio.

    Attributes:
        tags: text to go with every file.
        block_frames: frames per checked block; None is about 24 s.
        exact: encode every file as one whole, however long.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    block_frames: int | None = None
    exact: bool = False


@dataclass(frozen=True)
class DecodeOptions:
    """What decoding depends on beside codec and tokens.

    Attributes:
        container: ``"wav"`` or ``"flac"``.
        subtype: libsndfile's name of the sample format; None is 16 bit.
        native_rate: leave the audio at the model's own sampling rate.
        force: decode tokens of other weights, too.
        conceal: write silence for damaged blocks instead of refusing the file.
    """

    container: str = "wav"
    subtype: str | None = None
    native_rate: bool = False
    force: bool = False
    conceal: bool = False


@dataclass(frozen=True)
class Done:
    """What a file that was worked on alone became.

    Attributes:
        seconds: of audio.
        damage: one sentence for each thing that had to be concealed.
    """

    seconds: float
    damage: tuple[str, ...] = ()


class NotInBatch(Exception):
    """A file that has to be worked on alone, as reading it has shown."""


class Work(ABC, Generic[Input, Output]):
    """One kind of work with its codec and its options.

    Attributes:
        verb: its name.
        compresses: whether the size of the outputs makes a bit rate.
        input_suffixes: suffixes of inputs in a folder, in lower case; an output loses them.
        output_suffix: suffix of outputs.
        codec: what does it.
        options: what the outputs depend on beside codec and inputs.
    """

    verb: ClassVar[str]
    compresses: ClassVar[bool] = False
    input_suffixes: frozenset[str]
    output_suffix: str
    codec: Codec
    options: Any

    def target_name(self, source_name: str) -> str:
        """Return the name of an output."""
        return strip_suffix(source_name, self.input_suffixes) + self.output_suffix

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that the outputs depend on beside the inputs, as JSON values."""

    @abstractmethod
    def measure(self, source: Path) -> tuple[float, int] | None:
        """Seconds and channels as a file's header has them; None if it does not say."""

    def fits(self, seconds: float) -> bool:
        """Whether files of this length can go through the model with others."""
        return True

    @abstractmethod
    def load(self, source: Path) -> Input:
        """Read a file and make it ready for the model.

        Raises:
            CodectoolError: it cannot be.
            NotInBatch: it can, by `alone`.
        """

    @abstractmethod
    def compute(self, inputs: Sequence[Input]) -> list[Output]:
        """Run the model; each input gets what it would get alone."""

    @abstractmethod
    def pack(self, output: Output) -> tuple[memoryview, float]:
        """The bytes of the output's file, and its seconds of audio."""

    @abstractmethod
    def alone(self, source: Path, target: Path) -> Done:
        """Read, run the model and write piece by piece, in memory that does not grow."""


class Encoding(Work[PreparedClip, Tokens]):
    """Audio to `.hcd`."""

    verb = "encode"
    compresses = True
    input_suffixes = AUDIO_SUFFIXES
    output_suffix = ".hcd"

    def __init__(self, codec: Codec, options: EncodeOptions) -> None:
        self.codec = codec
        self.options = options

    @property
    def settings(self) -> dict[str, Any]:
        """Weights and how they are used, and what goes into the file beside tokens."""
        return {"verb": self.verb, **_of_encoder(self.codec), **vars(self.options)}

    def measure(self, source: Path) -> tuple[float, int] | None:
        """By the audio file's header."""
        return measure_audio(source)

    def fits(self, seconds: float) -> bool:
        """Anything does but what is longer than the segment that ``exact`` does without."""
        segment = self.codec.model.segment_frames
        longest = None if segment is None else (segment - 1) / self.codec.frame_rate
        return not self.options.exact or longest is None or seconds <= longest

    def load(self, source: Path) -> PreparedClip:
        """Samples at the model's rate."""
        return load_clip(self.codec, source, self.options.tags)

    def compute(self, inputs: Sequence[PreparedClip]) -> list[Tokens]:
        """Audio to tokens."""
        return self.codec.encode_clips(inputs)

    def pack(self, output: Tokens) -> tuple[memoryview, float]:
        """Tokens to bytes."""
        packed = io.BytesIO()
        write(packed, output, block_frames=self.options.block_frames)
        return packed.getbuffer(), output.duration

    def alone(self, source: Path, target: Path) -> Done:
        """Window by window."""
        options = self.options
        encoded = encode_file(
            self.codec,
            source,
            target,
            tags=options.tags,
            block_frames=options.block_frames,
            exact=options.exact,
            overwrite=True,
        )
        return Done(encoded.seconds)


class Decoding(Work[Tokens, Decoded]):
    """`.hcd` to audio."""

    verb = "decode"
    input_suffixes = frozenset({".hcd"})

    def __init__(self, codec: Codec, options: DecodeOptions) -> None:
        self.codec = codec
        self.options = options
        self.output_suffix = f".{options.container}"
        check_format(options.container, options.subtype)

    @property
    def settings(self) -> dict[str, Any]:
        """How audio is written; the weights are the file's own affair unless it is forced."""
        weights = self.codec.fingerprint if self.options.force else None
        return {"verb": self.verb, "weights": weights, **_of_decoder(self.codec, self.options)}

    def measure(self, source: Path) -> tuple[float, int] | None:
        """By the file's header, or the end of a stream."""
        return measure_hcd(source)

    def load(self, source: Path) -> Tokens:
        """All tokens, every check passed."""
        try:
            tokens = read(source)
        except ContainerError as error:
            if self.options.conceal:
                raise NotInBatch from error
            raise
        self.codec.check_compatible(tokens.layout, tokens.fingerprint, self.options.force)
        return tokens

    def compute(self, inputs: Sequence[Tokens]) -> list[Decoded]:
        """Tokens to audio at the model's rate."""
        return list(zip(inputs, self.codec.decode_clips(inputs), strict=True))

    def pack(self, output: Decoded) -> tuple[memoryview, float]:
        """Audio to the rate and length of the input, and to bytes."""
        return pack_audio(self.codec, output, self.options)

    def alone(self, source: Path, target: Path) -> Done:
        """Block by block."""
        decoding = decode_file(self.codec, source, target, overwrite=True, **vars(self.options))
        seconds = (decoding.num_samples or 0) / decoding.sample_rate
        return Done(seconds, tuple(decoding.damage))


class Reconstruction(Work[PreparedClip, Decoded]):
    """Audio to tokens and back to audio: what a listener would get."""

    verb = "reconstruct"
    input_suffixes = AUDIO_SUFFIXES

    def __init__(self, codec: Codec, options: DecodeOptions) -> None:
        self.codec = codec
        self.options = options
        self.output_suffix = f".{options.container}"
        check_format(options.container, options.subtype)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of encoding and decoding."""
        decoder = _of_decoder(self.codec, self.options)
        return {"verb": self.verb, **_of_encoder(self.codec), **decoder}

    def measure(self, source: Path) -> tuple[float, int] | None:
        """By the audio file's header."""
        return measure_audio(source)

    def load(self, source: Path) -> PreparedClip:
        """Samples at the model's rate."""
        return load_clip(self.codec, source, {})

    def compute(self, inputs: Sequence[PreparedClip]) -> list[Decoded]:
        """Audio to tokens to audio at the model's rate."""
        tokens = self.codec.encode_clips(inputs)
        return list(zip(tokens, self.codec.decode_clips(tokens), strict=True))

    def pack(self, output: Decoded) -> tuple[memoryview, float]:
        """Audio to the rate and length of the input, and to bytes."""
        return pack_audio(self.codec, output, self.options)

    def alone(self, source: Path, target: Path) -> Done:
        """By way of a `.hcd` file that nobody sees."""
        with tempfile.TemporaryDirectory(prefix="codectool-") as folder:
            packed = Path(folder, "tokens.hcd")
            encode_file(self.codec, source, packed)
            return Decoding(self.codec, self.options).alone(packed, target)


def measure_audio(path: Path) -> tuple[float, int] | None:
    """Seconds and channels as the header has them; None if it does not say."""
    try:
        with open_audio(path, str(path)) as audio:
            length = audio.num_samples
            known = length is not None and 0 <= length < MAX_SAMPLES
            return (cast(int, length) / audio.sample_rate, audio.channels) if known else None
    except CodectoolError:
        return None  # `load` will say what is wrong with it


def measure_hcd(path: Path) -> tuple[float, int] | None:
    """Seconds and channels as the header has them, or the end of a stream; None if neither does."""
    try:
        with path.open("rb") as file:
            reader = Reader(cast(BinaryIO, file), str(path))
            reader.scan()
            length = cast(int, reader.num_samples)
            return length / reader.header.sample_rate, reader.header.channels
    except (CodectoolError, OSError):
        return None


def load_clip(codec: Codec, path: Path, tags: Mapping[str, str]) -> PreparedClip:
    """Read audio and bring it to the model's rate."""
    samples, rate = read_audio(path, str(path))
    return codec.prepare(samples, rate, tags)


def pack_audio(codec: Codec, output: Decoded, options: DecodeOptions) -> tuple[memoryview, float]:
    """An audio file in memory, and its length in seconds."""
    tokens, wave = output
    samples = codec.resample_output(tokens, wave, native_rate=options.native_rate)
    rate = codec.sample_rate if options.native_rate else tokens.sample_rate
    return audio_bytes(samples, rate, options.container, options.subtype), tokens.duration


def _of_encoder(codec: Codec) -> dict[str, Any]:
    return {
        "weights": codec.fingerprint,
        "streams": codec.layout.num_codebooks,
        "segment": codec.model.segment_frames,
        "padding": codec.padding,
        "precision": codec.precision,
    }


def _of_decoder(codec: Codec, options: DecodeOptions) -> dict[str, Any]:
    subtype = check_format(options.container, options.subtype)
    return {"precision": codec.precision, **vars(options), "subtype": subtype}
