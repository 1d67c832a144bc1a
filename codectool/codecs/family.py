"""`CodecFamily`: metadata of a codec, without PyTorch.

Each codec states it once, as `FAMILY` in the `__init__.py` of its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from codectool.errors import UsageError
from codectool.tokens import TokenLayout

if TYPE_CHECKING:
    from codectool.codecs.base import CodecModel
    from codectool.codecs.exportable import ExportPart
    from codectool.codecs.trainable import TrainableCodec


@dataclass(frozen=True)
class Profile:
    """A token layout that a file header names by one byte instead of six or more.

    Attributes:
        number: the byte; it is part of the file format and never reused.
        name: shown by `codectool info`.
    """

    number: int
    name: str
    layout: TokenLayout


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata of a model of the published size.

    Attributes:
        layout: rates and tokens.
        paper: where the model is described.
        parameters: number of learned values.
        encoder_lookahead: see `codectool.codecs.base.Latency`.
        decoder_lookahead: see `codectool.codecs.base.Latency`.
        segment_seconds: length of the segments of a model that sees a whole segment at once; None
            for other models.
    """

    layout: TokenLayout
    paper: str
    parameters: int
    encoder_lookahead: int | None
    decoder_lookahead: int | None
    segment_seconds: int | None = None

    @property
    def latency_ms(self) -> float | None:
        """Algorithmic latency in ms: one frame plus both look-aheads; None for segments.

        It is the time from the arrival of a frame's first sample to its decoded first sample, if
        computation and transmission took no time.
        """
        if self.encoder_lookahead is None or self.decoder_lookahead is None:
            return None
        samples = self.layout.hop_length + self.encoder_lookahead + self.decoder_lookahead
        return 1000 * samples / self.layout.sample_rate


@dataclass(frozen=True)
class TokenParts:
    """The parts of a checkpoint that decide which tokens audio gets and what they mean.

    They are the encoder, the quantizer with the values that decoding reads, and their config. A
    decoder can be replaced without them.

    Attributes:
        tensors: patterns of canonical names of tensors, in which ``*`` stands for any text.
        config: keys of the model config; ``a.b`` is key ``b`` of section ``a``. Keys that a config
            does not have are left out.
    """

    tensors: tuple[str, ...]
    config: tuple[str, ...]

    def has_tensor(self, name: str) -> bool:
        """Return whether a tensor belongs to these parts."""
        return any(fnmatchcase(name, pattern) for pattern in self.tensors)

    def select_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of these parts by key."""
        selected = {}
        for key in self.config:
            value: Any = config
            for name in key.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is not None:
                selected[key] = value
        return selected


@dataclass(frozen=True)
class CodecFamily:
    """A codec family: its name, classes, numbers in the file format, and published model.

    Classes and functions are dotted paths, ``"package.module:name"``, so that listing the families
    does not import PyTorch.

    Attributes:
        name: as in ``--model``: lower-case ASCII letters, digits, ``-``.
        model: path of the `CodecModel` subclass.
        token_parts: what makes tokens; by default, all tensors and the whole config.
        export: path of a function ``(model) -> list[ExportPart]``; None if it cannot be exported.
        trainable: path of the `TrainableCodec` subclass; None if codectool cannot train it.
        training_translator: path of a function that translates a training config in the layout of
            the model's authors: ``(values) -> dict``, or None if ``values`` have another layout.
        container_number: number in the headers of files without a profile; None: the header spells
            the name out.
        profiles: layouts with a profile number.
        published: metadata of the published model.
        weights_hint: what to look for if the weights are not bundled, for error messages.
    """

    name: str
    model: str
    token_parts: TokenParts | None = None
    export: str | None = None
    trainable: str | None = None
    training_translator: str | None = None
    container_number: int | None = None
    profiles: tuple[Profile, ...] = ()
    published: ModelMetadata | None = None
    weights_hint: str = ""

    def model_class(self) -> type[CodecModel]:
        """Import the class of the model."""
        return cast("type[CodecModel]", import_object(self.model))

    def export_parts(self, model: CodecModel) -> list[ExportPart]:
        """Return the parts of a model that can be exported.

        Raises:
            UsageError: codectool cannot export this family.
        """
        if self.export is None:
            raise UsageError(f"codectool cannot export {self.name}")
        return cast("list[ExportPart]", import_object(self.export)(model))

    def trainable_class(self) -> type[TrainableCodec]:
        """Import the class for training.

        Raises:
            UsageError: codectool cannot train this family.
        """
        if self.trainable is None:
            raise UsageError(f"codectool cannot train {self.name}")
        return cast("type[TrainableCodec]", import_object(self.trainable))

    def translate_training_config(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Translate a training config in the layout of the model's authors; None for another.

        Raises:
            ConfigError: the layout is theirs, but a key is wrong.
        """
        if self.training_translator is None:
            return None
        translate = import_object(self.training_translator)
        return cast("dict[str, Any] | None", translate(values))


def import_object(path: str) -> Any:
    """Import what a dotted path names, ``"package.module:name"``."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
