"""`ExportMetadata`: the JSON value that every export carries, enough to import it without flags."""

from __future__ import annotations

from typing import Any

from codectool._version import __version__
from codectool.corpus.layouts import BitsPerCodebook, SequenceLayout
from codectool.errors import ConfigError, UnsupportedError
from codectool.schema import Config, PositiveInt, from_json, to_json
from codectool.tokens import TokenLayout, check_fingerprint

FORMAT_VERSION = 1


class ExportMetadata(Config, frozen=True):
    """What the ids of an export mean; make one with `describe`.

    Attributes:
        format_version: of this value.
        codectool_version: version of codectool that wrote the export.
        family: codec family.
        fingerprint: eight hexadecimal digits that name the weights.
        model_sample_rate: sampling rate of the model in Hz.
        hop_length: samples per frame at the model's rate.
        frame_rate: frames per second.
        bits_per_codebook: bits per code of each codebook.
        codebook_sizes: number of values of each codebook.
        layout: how codes are arranged as ids.
        ids_per_frame: ids per frame and channel.
        vocabulary_size: one past the largest id, with ``id_base`` and the pad.
    """

    format_version: PositiveInt
    codectool_version: str
    family: str
    fingerprint: str
    model_sample_rate: PositiveInt
    hop_length: PositiveInt
    frame_rate: float
    bits_per_codebook: BitsPerCodebook
    codebook_sizes: tuple[PositiveInt, ...]
    layout: SequenceLayout
    ids_per_frame: PositiveInt
    vocabulary_size: PositiveInt

    def __post_init__(self) -> None:
        try:
            token_layout = self.token_layout
            check_fingerprint(self.fingerprint)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        derived = _derive(token_layout, self.layout)
        for name, value in derived.items():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"`{name}` is {getattr(self, name)}, but the other values give {value}"
                )
        if self.layout.bits_per_codebook != self.bits_per_codebook:
            raise ConfigError("`layout.bits_per_codebook` differs from `bits_per_codebook`")

    @classmethod
    def describe(
        cls, token_layout: TokenLayout, fingerprint: str, layout: SequenceLayout
    ) -> ExportMetadata:
        """Return the metadata of an export of tokens of one codec in one layout."""
        return cls(
            format_version=FORMAT_VERSION,
            codectool_version=__version__,
            family=token_layout.family,
            fingerprint=fingerprint,
            model_sample_rate=token_layout.sample_rate,
            hop_length=token_layout.hop_length,
            bits_per_codebook=token_layout.bits_per_codebook,
            layout=layout,
            **_derive(token_layout, layout),
        )

    @property
    def token_layout(self) -> TokenLayout:
        """Shape of the codec's tokens."""
        return TokenLayout(
            self.family, self.model_sample_rate, self.hop_length, self.bits_per_codebook
        )

    def to_json(self) -> dict[str, Any]:
        """Return the metadata as JSON values."""
        value: dict[str, Any] = to_json(self)
        return value

    @classmethod
    def from_json(cls, value: Any) -> ExportMetadata:
        """Undo `to_json`, for JSON values from a file.

        Raises:
            ConfigError: a key is missing, unknown or wrong, or keys contradict each other.
            UnsupportedError: a later version wrote it.
        """
        version = value.get("format_version") if isinstance(value, dict) else None
        if type(version) is int and version > FORMAT_VERSION:
            raise UnsupportedError(
                f"the metadata have version {version}; this codectool reads version "
                f"{FORMAT_VERSION}: update codectool"
            )
        return from_json(cls, value)


def _derive(token_layout: TokenLayout, layout: SequenceLayout) -> dict[str, Any]:
    """Return the values that follow from others and spare readers arithmetic."""
    return {
        "frame_rate": token_layout.frame_rate,
        "codebook_sizes": tuple(1 << bits for bits in token_layout.bits_per_codebook),
        "ids_per_frame": layout.ids_per_frame,
        "vocabulary_size": layout.vocabulary_size,
    }
