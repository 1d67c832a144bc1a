"""TensorBoard's view of a run: curves, sound and spectrograms, if the package is there."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from codectool.training.pictures import spectrogram_pair

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def open_board(folder: Path, resume_step: int = 0) -> Board | None:
    """Open a folder of event files, or return None where TensorBoard is not installed.

    Args:
        folder: of the event files.
        resume_step: TensorBoard is told to forget what it was shown of later steps; with 0, of
            all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn of things that are not ours
        try:
            importlib.import_module("tensorboard")
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
    forget_from = resume_step + 1 if resume_step else 0
    return Board(SummaryWriter(str(folder), purge_step=forget_from if folder.is_dir() else None))


class Board:
    """Writes TensorBoard's event files."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves; ``group/name`` puts curves of a group together."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, step: int, message: str) -> None:
        """Words."""
        self._writer.add_text("events", message, step)

    def audio(self, step: int, name: str, samples: Tensor, rate: int) -> None:
        """Sound to play: ``(N,)`` in [-1, 1] at ``rate`` Hz."""
        wave = samples.detach().float().cpu().clamp(-1, 1)
        self._writer.add_audio(name, wave[None], step, sample_rate=rate)

    def spectrogram(
        self, step: int, name: str, reference: Tensor, output: Tensor, rate: int
    ) -> None:
        """Two signals ``(N,)`` as one picture; see `spectrogram_pair`."""
        picture = spectrogram_pair(reference, output, rate)
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write all that is pending."""
        self._writer.close()
