"""`Tokens`: the value that codecs produce and containers store."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from codectool.deprecation import warn_renamed
from codectool.errors import TokensError
from codectool.messages import shorten_repr

MAX_CHANNELS = 1024  # as in libsndfile
MAX_CODEBOOKS = 64
MAX_CODEBOOK_BITS = 24
MAX_SAMPLE_RATE = 10_000_000
MAX_LENGTH = (1 << 63) - 1  # in samples or frames
MAX_GAIN_DB = 120.0


@dataclass(frozen=True)
class TokenLayout:
    """The shape of a codec's tokens and how they relate to time.

    Attributes:
        family: codec family, for example ``"bigcodec"`` (lower-case ASCII letters, digits, ``-``).
        sample_rate: sampling rate of the model in Hz.
        hop_length: samples per frame at the model's rate.
        bits_per_codebook: bits per token of each codebook, for example ``(10, 10)`` for two
            codebooks of 1024 entries. HAC's 18 binary scalars are one codebook of 18 bits.
    """

    family: str
    sample_rate: int
    hop_length: int
    bits_per_codebook: tuple[int, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", self.family):
            family = shorten_repr(self.family, 60)
            raise TokensError(f"codec family {family} is not a short lower-case ASCII name")
        check_integer("sampling rate in Hz", self.sample_rate, 1, MAX_SAMPLE_RATE)
        check_integer("hop length", self.hop_length, 1, MAX_SAMPLE_RATE)
        check_integer("number of codebooks", self.num_codebooks, 1, MAX_CODEBOOKS)
        for bits in self.bits_per_codebook:
            check_integer("bits per token", bits, 1, MAX_CODEBOOK_BITS)

    @classmethod
    def of_sizes(
        cls, family: str, sample_rate: int, hop_length: int, codebook_sizes: Sequence[int]
    ) -> TokenLayout:
        """Return the layout of codebooks with these numbers of codes."""
        bits = tuple(max(1, (size - 1).bit_length()) for size in codebook_sizes)
        return cls(family, sample_rate, hop_length, bits)

    def __str__(self) -> str:
        """Return for example ``bigcodec at 16000 Hz, hop 200, 13 bits per frame``."""
        bits = "+".join(map(str, self.bits_per_codebook))
        return (
            f"{self.family} at {self.sample_rate} Hz, hop {self.hop_length}, {bits} bits per frame"
        )

    @property
    def num_codebooks(self) -> int:
        """Number of codebooks per channel."""
        return len(self.bits_per_codebook)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def bits_per_frame(self) -> int:
        """Bits per frame of one channel."""
        return sum(self.bits_per_codebook)

    @property
    def bit_rate(self) -> float:
        """Bits per second of one channel, without the container."""
        return self.bits_per_frame * self.frame_rate

    def model_samples(self, num_samples: int, sample_rate: int) -> int:
        """Return the samples at the model's rate of ``num_samples`` at ``sample_rate`` Hz."""
        return -(-num_samples * self.sample_rate // sample_rate)

    @property
    def num_streams(self) -> int:
        """Old name of `num_codebooks`."""
        warn_renamed("num_streams", "num_codebooks")
        return self.num_codebooks

    @property
    def stream_bits(self) -> tuple[int, ...]:
        """Old name of `bits_per_codebook`."""
        warn_renamed("stream_bits", "bits_per_codebook")
        return self.bits_per_codebook


@dataclass(frozen=True, eq=False, repr=False)
class Tokens:
    """Speech as integers, with everything that decoding needs.

    Attributes:
        codes: int32 ``(C, K, F)``, each value below ``2 ** layout.bits_per_codebook[k]``.
        layout: the meaning of the integers.
        fingerprint: eight hexadecimal digits that name the weights.
        sample_rate: sampling rate in Hz of the audio that was encoded.
        num_samples: samples per channel at ``sample_rate`` that decoding returns.
        segment_frames: frames per independently encoded segment; None if there is only one.
        tags: text metadata, for example ``{"speaker": "p253"}``.
        gain_db: gain in dB that was applied before encoding and is undone after decoding; files
            store two decimals.
    """

    codes: npt.NDArray[np.int32]
    layout: TokenLayout
    fingerprint: str
    sample_rate: int
    num_samples: int
    segment_frames: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    gain_db: float = 0.0

    def __post_init__(self) -> None:
        codes = np.asarray(self.codes)
        check_codes(codes, self.layout.bits_per_codebook)
        check_integer("number of channels", codes.shape[0], 1, MAX_CHANNELS)
        check_fingerprint(self.fingerprint)
        check_integer("sampling rate in Hz", self.sample_rate, 1, MAX_SAMPLE_RATE)
        check_integer("num_samples", self.num_samples, 0, MAX_LENGTH)
        needed = self.layout.model_samples(self.num_samples, self.sample_rate)
        if needed > codes.shape[2] * self.layout.hop_length:
            raise TokensError(f"{codes.shape[2]} frames are too few for {self.num_samples} samples")
        if self.segment_frames is not None:
            check_integer("segment_frames", self.segment_frames, 1, MAX_LENGTH)
        for key, value in self.tags.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TokensError(f"tag {key!r:.40} must map text to text, not to {value!r:.40}")
        check_gain(self.gain_db)
        object.__setattr__(self, "codes", codes.astype(np.int32, copy=False))

    def __repr__(self) -> str:
        channels = f"{self.num_channels} channel{'s' if self.num_channels > 1 else ''}"
        return (
            f"Tokens({self.layout.family} {self.fingerprint}, {channels}, "
            f"{self.num_frames} frames, {self.duration:.3f} s)"
        )

    @property
    def num_channels(self) -> int:
        """Number of channels C."""
        return int(self.codes.shape[0])

    @property
    def num_frames(self) -> int:
        """Number of frames F."""
        return int(self.codes.shape[2])

    @property
    def duration(self) -> float:
        """Length of the audio in seconds."""
        return self.num_samples / self.sample_rate

    @property
    def bits(self) -> npt.NDArray[np.uint8]:
        """Bits of each frame, most significant first: uint8 ``(C, F, bits_per_frame)``.

        For HAC these are the 18 binary scalars, 1 for +1 and 0 for -1.
        """
        columns = [
            (self.codes[:, codebook, :, None] >> np.arange(bits - 1, -1, -1, dtype=np.int32)) & 1
            for codebook, bits in enumerate(self.layout.bits_per_codebook)
        ]
        return np.concatenate(columns, axis=-1).astype(np.uint8)


def check_codes(codes: npt.NDArray[np.integer], bits_per_codebook: Sequence[int]) -> None:
    """Raise a `TokensError` if the codes are not ``(C, K, F)`` integers that fit their widths."""
    if codes.ndim != 3 or codes.shape[1] != len(bits_per_codebook) or codes.dtype.kind not in "iu":
        raise TokensError(
            f"codes must be integers of shape (channels, {len(bits_per_codebook)}, frames), "
            f"not {codes.dtype} {codes.shape}"
        )
    for codebook, bits in enumerate(bits_per_codebook):
        row = codes[:, codebook]
        if row.size and (int(row.min()) < 0 or int(row.max()) >> bits):
            raise TokensError(f"codes of codebook {codebook} are not all in 0..{(1 << bits) - 1}")


def check_fingerprint(fingerprint: str) -> None:
    """Raise a `TokensError` if ``fingerprint`` is not eight hexadecimal digits."""
    if not re.fullmatch(r"[0-9a-f]{8}", fingerprint):
        raise TokensError(f"fingerprint {fingerprint!r} is not eight hexadecimal digits")


def check_gain(gain_db: float) -> None:
    """Raise a `TokensError` if a gain is not a number of dB in -120..120."""
    if not isinstance(gain_db, int | float | np.floating) or not abs(gain_db) <= MAX_GAIN_DB:
        raise TokensError(
            f"gain must be in -{MAX_GAIN_DB:g}..{MAX_GAIN_DB:g} dB, not {gain_db!r:.40}"
        )


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """Raise a `TokensError` if ``value`` is not an integer in ``low..high``."""
    if (
        not isinstance(value, int | np.integer)
        or isinstance(value, bool)
        or not low <= value <= high
    ):
        raise TokensError(f"{name} must be an integer in {low}..{high}, not {value!r:.40}")
