"""The operations on folders: encode, decode, reconstruct, which does both, and thin.

`measure`, `load` and `pack` run beside the model, in any thread; `compute` and `run_single` run the
model. Operations know nothing about other files, journals or threads.
"""

from __future__ import annotations

import io
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Generic, TypeAlias, TypeVar, cast

import numpy as np
from typing_extensions import override

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
from codectool.streaming import channel_groups
from codectool.thinning import thin_file
from codectool.tokens import Tokens

Input = TypeVar("Input")
Output = TypeVar("Output")
Check: TypeAlias = Callable[[], None]
Decoded: TypeAlias = tuple[
    Tokens, Samples
]  # tokens, and their audio (C, F * hop) at the model's rate


@dataclass(frozen=True)
class EncodeOptions:
    """Options that encoded files depend on besides codec and audio.

    Attributes:
        tags: text metadata for every file.
        block_frames: frames per checked block; None for about 24 s.
        exact: encode each file as one segment, whatever its length.
        normalize: loudness in LUFS to which each file is brought; None keeps it.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    block_frames: int | None = None
    exact: bool = False
    normalize: float | None = None


@dataclass(frozen=True)
class DecodeOptions:
    """Options that decoded files depend on besides codec and tokens.

    Attributes:
        container: ``"wav"`` or ``"flac"``.
        subtype: sample format, as named by libsndfile; None for 16 bits.
        native_rate: keep the sampling rate of the model.
        force: decode even if the tokens were made with different weights.
        conceal: write silence for damaged blocks instead of rejecting the file.
        keep_loudness: do not undo gains that were applied before encoding.
    """

    container: str = "wav"
    subtype: str | None = None
    native_rate: bool = False
    force: bool = False
    conceal: bool = False
    keep_loudness: bool = False


@dataclass(frozen=True)
class Processed:
    """What became of a file.

    Attributes:
        seconds: length of the audio.
        damage: one sentence for each piece of concealed damage.
        warnings: one sentence for each fault of the audio that was read anyway.
    """

    seconds: float
    damage: Sequence[str] = ()
    warnings: Sequence[str] = ()


class NeedsStreaming(Exception):
    """Raised when reading a file shows that only `Operation.run_single` can process it."""


class Operation(ABC, Generic[Input, Output]):
    """An operation with its codec and options.

    Attributes:
        name: name of the operation.
        has_bitrate: whether the size of the outputs is a bit rate.
        input_suffixes: suffixes of inputs in a folder, in lower case; outputs lose them.
        output_suffix: suffix of outputs.
        encodes: whether it needs the encoder.
        decodes: whether it needs the decoder.
        codec: the codec.
        options: everything that outputs depend on besides codec and inputs.
    """

    name: ClassVar[str]
    has_bitrate: ClassVar[bool] = False
    input_suffixes: ClassVar[frozenset[str]] = AUDIO_SUFFIXES
    encodes: ClassVar[bool] = False
    decodes: ClassVar[bool] = False
    output_suffix: str
    codec: Codec
    options: Any

    @property
    def device_type(self) -> str:
        """Type of the device that computes, for example ``"cpu"``."""
        return self.codec.runner.device_type

    @property
    def faster_in_batches(self) -> bool:
        """Whether a CPU computes a batch of files faster than one by one."""
        return self.codec.runner.model.faster_in_batches

    def sharing_threads(self, workers: int) -> AbstractContextManager[None]:
        """Return a context in which ``workers`` threads that compute share the cores."""
        return self.codec.runner.sharing_threads(workers)

    def warm_up(self) -> None:
        """Compute a few frames: weights are packed once, before several threads need them."""
        if self.encodes:
            model = self.codec.model
            samples = np.zeros((1, model.min_frames * model.hop_length), np.float32)
            self.codec.runner.encode([samples])
        if self.decodes:
            model = self.codec.model
            codes = np.zeros((len(model.codebook_sizes), model.min_frames), np.int32)
            self.codec.runner.decode([codes])

    def target_name(self, source_name: str) -> str:
        """Return the name of the output of an input."""
        return strip_suffix(source_name, self.input_suffixes) + self.output_suffix

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return everything that outputs depend on besides the inputs, as JSON values."""

    def measure(self, source: Path) -> tuple[float, int] | None:
        """Return seconds and channels according to the header; None if it does not give them."""
        try:
            with open_audio(source, str(source)) as audio:
                if audio.num_samples is None or not 0 <= audio.num_samples < MAX_SAMPLES:
                    return None
                return audio.num_samples / audio.sample_rate, audio.channels
        except CodectoolError:
            return None  # `load` raises it again

    def fits_batch(self, seconds: float, channels: int) -> bool:
        """Return whether files of this length and number of channels can share a batch."""
        return len(channel_groups(self.codec.model, channels)) == 1

    @abstractmethod
    def load(self, source: Path, warnings: list[str]) -> Input:
        """Read a file and prepare it for the model.

        Args:
            source: the input.
            warnings: gets one sentence for each fault of the audio that was read anyway.

        Raises:
            CodectoolError: it cannot be processed.
            NeedsStreaming: it can be processed by `run_single`.
        """

    @abstractmethod
    def compute(self, inputs: Sequence[Input]) -> list[Output]:
        """Run the model; each input gets the output that it gets without the others."""

    @abstractmethod
    def pack(self, output: Output) -> tuple[memoryview, float]:
        """Return the content of the output file, and its length in seconds."""

    @abstractmethod
    def run_single(
        self, source: Path, target: Path, check: Check | None = None, strict: bool = False
    ) -> Processed:
        """Process a file chunk by chunk, in memory that does not grow with its length.

        Args:
            source: the input.
            target: the output; replaced if it exists.
            check: called before each chunk; may raise to stop.
            strict: raise an `AudioError` instead of a warning, and write no output.
        """

    def _load_clip(
        self,
        source: Path,
        tags: Mapping[str, str],
        normalize: float | None,
        warnings: list[str],
    ) -> PreparedClip:
        samples, rate = read_audio(source, str(source), warnings)
        return self.codec.prepare(samples, rate, tags, checked=True, normalize=normalize)


AnyOperation: TypeAlias = Operation[Any, Any]


class EncodeOperation(Operation[PreparedClip, Tokens]):
    """Audio to `.hcd`."""

    name = "encode"
    has_bitrate = True
    encodes = True
    output_suffix = ".hcd"

    def __init__(self, codec: Codec, options: EncodeOptions) -> None:
        self.codec = codec
        self.options: EncodeOptions = options

    @property
    @override
    def settings(self) -> dict[str, Any]:
        options = _option_settings(self.options)
        settings = {"operation": self.name, **_encoder_settings(self.codec), **options}
        return settings | {"weights": self.codec.token_fingerprint}

    @override
    def fits_batch(self, seconds: float, channels: int) -> bool:
        segment: int | None = self.codec.model.segment_frames
        if not super().fits_batch(seconds, channels):
            return False
        if not self.options.exact or segment is None:
            return True
        return seconds <= (segment - 1) / self.codec.frame_rate

    @override
    def load(self, source: Path, warnings: list[str]) -> PreparedClip:
        return self._load_clip(source, self.options.tags, self.options.normalize, warnings)

    @override
    def compute(self, inputs: Sequence[PreparedClip]) -> list[Tokens]:
        return self.codec.encode_clips(inputs)

    @override
    def pack(self, output: Tokens) -> tuple[memoryview, float]:
        packed = io.BytesIO()
        write(packed, output, block_frames=self.options.block_frames)
        return packed.getbuffer(), output.duration

    @override
    def run_single(
        self, source: Path, target: Path, check: Check | None = None, strict: bool = False
    ) -> Processed:
        options = vars(self.options)
        encoded = encode_file(
            self.codec, source, target, overwrite=True, strict=strict, check=check, **options
        )
        return Processed(encoded.seconds, warnings=encoded.warnings)


class _AudioOutput(Operation[Input, Decoded]):
    """An operation that writes audio."""

    def __init__(self, codec: Codec, options: DecodeOptions) -> None:
        self.codec = codec
        self.options: DecodeOptions = options
        self.output_suffix = f".{options.container}"
        self._subtype = check_format(options.container, options.subtype)

    @property
    def _output_settings(self) -> dict[str, Any]:
        options = {**_option_settings(self.options), "subtype": self._subtype}
        return {
            "precision": self.codec.decode_precision,
            **_runtime_settings(self.codec),
            **options,
        }

    @override
    def pack(self, output: Decoded) -> tuple[memoryview, float]:
        tokens, wave = output
        codec, options = self.codec, self.options
        samples = codec.resample_output(
            tokens, wave, native_rate=options.native_rate, keep_loudness=options.keep_loudness
        )
        rate = codec.sample_rate if options.native_rate else tokens.sample_rate
        return audio_bytes(samples, rate, options.container, options.subtype), tokens.duration


class DecodeOperation(_AudioOutput[Tokens]):
    """`.hcd` to audio."""

    name = "decode"
    decodes = True
    input_suffixes = frozenset({".hcd"})

    @property
    @override
    def settings(self) -> dict[str, Any]:
        weights = self.codec.fingerprint  # several decoders may decode the same tokens
        return {"operation": self.name, "weights": weights, **self._output_settings}

    @override
    def measure(self, source: Path) -> tuple[float, int] | None:
        return _measure_tokens(source)

    @override
    def load(self, source: Path, warnings: list[str]) -> Tokens:
        try:
            tokens = read(source)
        except ContainerError as error:
            if self.options.conceal:
                raise NeedsStreaming from error
            raise
        self.codec.check_compatible(tokens.layout, tokens.fingerprint, self.options.force)
        return tokens

    @override
    def compute(self, inputs: Sequence[Tokens]) -> list[Decoded]:
        return list(zip(inputs, self.codec.decode_clips(inputs), strict=True))

    @override
    def run_single(
        self, source: Path, target: Path, check: Check | None = None, strict: bool = False
    ) -> Processed:
        options = vars(self.options)
        decoding = decode_file(self.codec, source, target, overwrite=True, check=check, **options)
        seconds = (decoding.num_samples or 0) / decoding.sample_rate
        return Processed(seconds, decoding.damage)


class ReconstructOperation(_AudioOutput[PreparedClip]):
    """Audio to tokens and back to audio."""

    name = "reconstruct"
    encodes = decodes = True

    def __init__(
        self, codec: Codec, options: DecodeOptions, normalize: float | None = None
    ) -> None:
        super().__init__(codec, options)
        self._normalize = normalize

    @property
    @override
    def settings(self) -> dict[str, Any]:
        encoder = _encoder_settings(self.codec)
        if self.codec.encode_precision != self.codec.decode_precision:
            encoder["encode_precision"] = self.codec.encode_precision
        if self._normalize is not None:
            encoder["normalize"] = self._normalize
        return {"operation": self.name, **encoder, **self._output_settings}

    @override
    def load(self, source: Path, warnings: list[str]) -> PreparedClip:
        return self._load_clip(source, {}, self._normalize, warnings)

    @override
    def compute(self, inputs: Sequence[PreparedClip]) -> list[Decoded]:
        tokens = self.codec.encode_clips(inputs)
        return list(zip(tokens, self.codec.decode_clips(tokens), strict=True))

    @override
    def run_single(
        self, source: Path, target: Path, check: Check | None = None, strict: bool = False
    ) -> Processed:
        with tempfile.TemporaryDirectory(prefix="codectool-") as folder:
            packed = Path(folder, "tokens.hcd")
            encoded = encode_file(
                *(self.codec, source, packed),
                normalize=self._normalize,
                strict=strict,
                check=check,
            )
            decoded = DecodeOperation(self.codec, self.options).run_single(packed, target, check)
            return replace(decoded, warnings=encoded.warnings)


class ThinOperation(Operation[None, None]):
    """`.hcd` to `.hcd` with fewer codebooks; every file is streamed, and there is no codec."""

    name = "thin"
    has_bitrate = True
    input_suffixes = frozenset({".hcd"})
    output_suffix = ".hcd"
    device_type = "cpu"
    faster_in_batches = False

    def __init__(self, codebooks: int) -> None:
        self._codebooks = codebooks

    @property
    @override
    def settings(self) -> dict[str, Any]:
        return {"operation": self.name, "codebooks": self._codebooks}

    @override
    def sharing_threads(self, workers: int) -> AbstractContextManager[None]:
        return nullcontext()

    @override
    def measure(self, source: Path) -> tuple[float, int] | None:
        return _measure_tokens(source)

    @override
    def fits_batch(self, seconds: float, channels: int) -> bool:
        return False

    @override
    def load(self, source: Path, warnings: list[str]) -> None:
        raise NeedsStreaming

    @override
    def compute(self, inputs: Sequence[None]) -> list[None]:
        raise NeedsStreaming

    @override
    def pack(self, output: None) -> tuple[memoryview, float]:
        raise NeedsStreaming

    @override
    def run_single(
        self, source: Path, target: Path, check: Check | None = None, strict: bool = False
    ) -> Processed:
        thinned = thin_file(source, target, self._codebooks, overwrite=True, check=check)
        return Processed(thinned.seconds, warnings=thinned.warnings)


def _measure_tokens(source: Path) -> tuple[float, int] | None:
    try:
        with source.open("rb") as file:
            reader = Reader(cast(BinaryIO, file), str(source))
            reader.scan()  # the length of a stream stands at its end
            seconds = cast(int, reader.num_samples) / reader.header.sample_rate
            return seconds, reader.header.channels
    except (CodectoolError, OSError):
        return None


def _option_settings(options: EncodeOptions | DecodeOptions) -> dict[str, Any]:
    """Return options without new ones that are off, so that journals of earlier versions hold."""
    off = {"normalize": None, "keep_loudness": False}
    return {name: v for name, v in vars(options).items() if name not in off or v != off[name]}


def _encoder_settings(codec: Codec) -> dict[str, Any]:
    return {
        "weights": codec.fingerprint,
        "codebooks": codec.layout.num_codebooks,
        "segment": codec.model.segment_frames,
        "padding": codec.padding,
        "precision": codec.encode_precision,
        **_runtime_settings(codec),
    }


def _runtime_settings(codec: Codec) -> dict[str, Any]:
    # not for PyTorch, so that journals of earlier versions stay valid
    return {} if codec.runner.runtime == "torch" else {"runtime": codec.runner.runtime}
