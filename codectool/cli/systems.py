"""From options to the systems that `codectool evaluate` runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from codectool.cli.console import working
from codectool.codecs.registry import FAMILIES

if TYPE_CHECKING:
    from codectool.evaluation.systems.spec import SystemChoice


def choose_systems(
    models: Sequence[str],
    checkpoints: Sequence[str],
    codecs: Sequence[str],
    config: Path | None,
    device: str,
) -> list[SystemChoice]:
    """Every system is opened once, so that what is wrong is told before any work is done.

    Args:
        models: families; one that a checkpoint belongs to is that checkpoint.
        checkpoints: ``PATH`` or ``NAME=PATH``.
        codecs: ``opus@6`` and the like, or a family with the weights that ship.
        config: hyper-parameters of checkpoints.
        device: where codecs of ours run.

    Raises:
        CodectoolError: there is no such system, its program is missing, or its weights are bad.
    """
    from codectool.evaluation.systems.spec import CodecChoice, SystemChoice

    found = []
    families = set()
    for text in checkpoints:
        name, path = _name_and_path(text)
        with working(f"loading {path}"):
            codec = CodecChoice(None, path, config, device).load()
        families.add(codec.layout.family)
        where = str(codec.device)
        found.append(SystemChoice(name, codec=CodecChoice(None, path, config, where)))
    shipped = [model for model in models if model not in families]
    shipped += [name for name in codecs if name in FAMILIES]
    for number, model in enumerate(shipped):
        with working(f"loading {model}"):
            where = str(CodecChoice(model, device=device).load().device)
        choice = SystemChoice(model, codec=CodecChoice(model, device=where))
        found.insert(number, choice)
    for program in codecs:
        if program not in FAMILIES:
            choice = SystemChoice(program, program)
            choice.open()
            found.append(choice)
    return found


def _name_and_path(text: str) -> tuple[str, Path]:
    path = Path(text)
    name, mark, rest = text.partition("=")
    if mark and not path.exists():
        return name, Path(rest)
    return path.stem, path
