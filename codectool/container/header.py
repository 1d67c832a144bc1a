"""`Header`: everything a file says about its tokens, checked for sense."""

from __future__ import annotations

from dataclasses import dataclass

from codectool.container.bitpack import packed_bytes
from codectool.container.layout import (
    MAX_BLOCK_TOKENS,
    MAX_FRAME_SAMPLES,
    PROFILE_NUMBERS,
    PROFILES,
    default_block_frames,
)
from codectool.tokens import MAX_CHANNELS, TokenLayout, check_fingerprint, check_sample_rate


@dataclass(frozen=True)
class Header:
    """What a `.hcd` file says about its tokens.

    Attributes:
        layout: what the tokens mean.
        fingerprint: eight hexadecimal digits naming the weights that made them.
        sample_rate: sampling rate in Hz of the audio that was encoded.
        channels: number of channels, 1..1024.
        num_samples: samples per channel at ``sample_rate``; None when a stream did not know yet.
        extra_frames: frames beyond those that ``num_samples`` asks for.
        segment_frames: frames that a whole-signal codec saw at once; None if it does not matter.
        block_frames: frames per block; 0 asks for the default, about 24 s.
    """

    layout: TokenLayout
    fingerprint: str
    sample_rate: int
    channels: int = 1
    num_samples: int | None = None
    extra_frames: int = 0
    segment_frames: int | None = None
    block_frames: int = 0

    def __post_init__(self) -> None:
        check_fingerprint(self.fingerprint)
        check_sample_rate(self.sample_rate)
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ValueError(f"{self.channels} channels is not in 1..{MAX_CHANNELS}")
        # A frame may be one bit, so this bounds how much audio a byte can ask a decoder to write.
        hop, rate = self.layout.hop_length, self.layout.sample_rate
        if hop > MAX_FRAME_SAMPLES or hop * self.sample_rate > MAX_FRAME_SAMPLES * rate:
            raise ValueError(f"one frame stands for more than {MAX_FRAME_SAMPLES} samples")
        if self.num_samples is not None and not 0 <= self.num_samples < 1 << 63:
            raise ValueError(f"{self.num_samples} samples is not in 0..2^63 - 1")
        if not 0 <= self.extra_frames < 1 << 63:
            raise ValueError(f"{self.extra_frames} extra frames is not in 0..2^63 - 1")
        if self.num_samples is None and self.extra_frames:
            raise ValueError("extra frames are not known before the number of samples is")
        if self.segment_frames is not None and not 1 <= self.segment_frames < 1 << 63:
            raise ValueError(f"segments of {self.segment_frames} frames are not in 1..2^63 - 1")
        if self.block_frames == 0:
            default = default_block_frames(self.layout, self.channels)
            object.__setattr__(self, "block_frames", default)
        most = MAX_BLOCK_TOKENS // (self.channels * self.layout.num_streams)
        if not 1 <= self.block_frames <= most:
            raise ValueError(f"blocks of {self.block_frames} frames are not in 1..{most}")

    @property
    def profile(self) -> int:
        """Number of the standard profile with this layout; 0 if there is none."""
        return PROFILE_NUMBERS.get(self.layout, 0)

    @property
    def profile_name(self) -> str:
        """Name of the standard profile, or ``"custom"``."""
        return PROFILES[self.profile].name if self.profile else "custom"

    @property
    def num_frames(self) -> int | None:
        """Frames per channel, or None when the header does not know."""
        if self.num_samples is None:
            return None
        return self.frames_for(self.num_samples, self.extra_frames)

    @property
    def num_blocks(self) -> int | None:
        """Number of blocks, at least one, or None when the header does not know."""
        frames = self.num_frames
        return None if frames is None else max(1, -(-frames // self.block_frames))

    @property
    def block_payload_bytes(self) -> int:
        """Bytes of tokens in a full block."""
        return self.payload_bytes(self.block_frames)

    def payload_bytes(self, frames: int) -> int:
        """Bytes of tokens in a block of ``frames`` frames."""
        return packed_bytes(self.channels, self.layout.stream_bits, frames)

    def frames_for(self, num_samples: int, extra_frames: int = 0) -> int:
        """Frames of ``num_samples`` samples: ``ceil(ceil(n * model / input) / hop) + extra``."""
        samples = self.layout.model_samples(num_samples, self.sample_rate)
        return -(-samples // self.layout.hop_length) + extra_frames

    def samples_in(self, frames: int) -> int:
        """Most samples at ``sample_rate`` that ``frames`` frames stand for."""
        return frames * self.layout.hop_length * self.sample_rate // self.layout.sample_rate
