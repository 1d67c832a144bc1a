"""What is wrong with a file, in sentences: name, block, time range, byte, and what to do next."""

from __future__ import annotations

from codectool.container.header import Header
from codectool.errors import DamagedError, TruncatedError


class Complaints:
    """Makes the errors of one file.

    Args:
        name: what messages call it.
        header: what it says about its tokens.
    """

    def __init__(self, name: str, header: Header) -> None:
        self._name = name
        self._header = header

    def damaged(
        self, index: int, position: int, reason: str, frames: int | None = None
    ) -> DamagedError:
        """Block ``index``, of so many frames if they are not all, is not what was written."""
        return DamagedError(
            f"{self._name}: {self._where(index, frames)} at byte {position}: {reason}; "
            "`codectool verify` lists all damage, `codectool decode --conceal` writes silence there"
        )

    def truncated(self, index: int, reason: str) -> TruncatedError:
        """The data end before block ``index`` does."""
        return TruncatedError(
            f"{self._name}: {reason}: cut off before the end of {self._where(index)}; "
            "`codectool decode --conceal` decodes what is there"
        )

    def trailing(self, position: int) -> DamagedError:
        """The data go on behind the end."""
        return DamagedError(
            f"{self._name}: something follows the end of the file at byte {position}; "
            "`codectool decode --conceal` ignores it"
        )

    def without_advice(self, error: Exception) -> str:
        """What an error of this file says, to be part of another one."""
        return str(error).removeprefix(f"{self._name}: ").partition(";")[0]

    def _where(self, index: int, frames: int | None = None) -> str:
        """Block number and time range in words."""
        first = index * self._header.block_frames
        last = first + (self._header.block_frames if frames is None else frames)
        if self._header.num_frames is not None:
            last = max(first, min(last, self._header.num_frames))
        return f"block {index} ({self._clock(first)} to {self._clock(last)})"

    def _clock(self, frame: int) -> str:
        """Time at which a frame begins: 4:36.0 is four minutes and 36 seconds."""
        tenths = 10 * frame * self._header.layout.hop_length // self._header.layout.sample_rate
        minutes, tenths = divmod(tenths, 600)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
        return f"{clock}:{tenths // 10:02}.{tenths % 10}"


def mismatch(computed: int, stored: int) -> str:
    """Two checks that should be equal."""
    return f"CRC-32 is {computed:08x}, expected {stored:08x}"
