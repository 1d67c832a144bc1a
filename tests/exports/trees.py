"""Small trees of `.hcd` files with known codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codectool.container import write
from codectool.tokens import TokenLayout, Tokens

HAC = TokenLayout("hac", 24000, 320, (18,))
SUPERCODEC = TokenLayout("supercodec", 16000, 320, (10, 10))
NAMES = ("p253/one", "p253/two", "p300/three")


def make_tokens(
    name: str,
    layout: TokenLayout = HAC,
    frames: int = 20,
    channels: int = 1,
    fingerprint: str = "1d8631bb",
    tags: Mapping[str, str] | None = None,
) -> Tokens:
    """Random tokens that depend on the name; the last frame is not full."""
    rng = np.random.default_rng(list(name.encode()))
    shape = (channels, 1, frames)
    codes = np.concatenate(
        [rng.integers(0, 1 << bits, shape) for bits in layout.bits_per_codebook], axis=1
    )
    samples = max(0, frames * layout.hop_length - 11)
    return Tokens(
        codes.astype(np.int32), layout, fingerprint, layout.sample_rate, samples, tags=tags or {}
    )


def make_tree(folder: Path, names: Sequence[str] = NAMES, **options: Any) -> dict[str, Tokens]:
    """Write a file per name; the lengths differ."""
    made = {}
    for number, name in enumerate(names):
        path = folder / f"{name}.hcd"
        path.parent.mkdir(parents=True, exist_ok=True)
        made[name] = make_tokens(name, **{"frames": 20 + number, **options})
        write(path, made[name])
    return made
