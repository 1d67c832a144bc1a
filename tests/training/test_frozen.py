"""Training of the decoder alone: cached tokens, crops, saved weights, resume, errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codectool.checkpoints.load import read_weights
from codectool.encoding import encode_file
from codectool.loading import load
from codectool.training import run as running
from codectool.training.config import WITHOUT_ENCODER
from codectool.training.filelist import Clip, scan
from codectool.training.run import Callbacks, train
from codectool.training.tokens import cache_tokens, token_name
from tests.training import small

CPU = torch.device("cpu")
FAMILIES = {"hac": small.HAC, "supercodec": small.SUPERCODEC, "bigcodec": small.BIGCODEC}


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small.speech(tmp_path_factory.mktemp("frozen") / "speech", seconds=1.2)
    rng = np.random.default_rng(1)  # two channels at another rate, and a clip shorter than a crop
    soundfile.write(folder / "stereo.flac", 0.1 * rng.normal(size=(20_000, 2)), 11_025)
    soundfile.write(folder / "short.wav", 0.1 * rng.normal(size=1000), 8000)
    return folder


@pytest.fixture(scope="module")
def starts(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of a few steps per family."""
    folder = tmp_path_factory.mktemp("starts")
    for family, values in FAMILIES.items():
        train(small.with_data(small.config(values, max_steps=3), speech), folder / family)
    return {family: folder / family for family in FAMILIES}


def frozen(values: Mapping[str, Any], data: Path, valid: Path | None = None, **more: Any) -> Any:
    """A config whose encoder is fixed."""
    config = small.config(values, **{**WITHOUT_ENCODER, "freeze": "encoder", **more})
    return small.with_data(config, data, valid)


def list_of(speech: Path, names: list[str], path: Path) -> Path:
    path.write_text("".join(f"{speech / name}\n" for name in names))
    return path


class Recorded(Callbacks):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []
        super().__init__(on_message=self.messages.append, on_warning=self.warnings.append)

    @property
    def tokens(self) -> str:
        return next(line for line in self.messages if line.startswith("tokens of"))


# -- runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_changes_and_tokens_stay(
    family: str, speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    """Bit for bit, also of tensors in another type."""
    start = tmp_path / "start.safetensors"
    running.FrozenStart  # noqa: B018
    path, state, config = read_weights(starts[family])
    from codectool.checkpoints.native import write_native

    assert config is not None
    write_native(start, path, config, state, torch.bfloat16)
    assert train(
        frozen(FAMILIES[family], speech, speech), tmp_path / "run", start_from=start
    ).finished
    before, after = load_file(start), load_file(tmp_path / "run" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if small.differing(tensor, after[name])}
    trained = {"hac": "decoder.", "supercodec": "decoder.", "bigcodec": "generator.model."}[family]
    assert all(name.startswith(trained) for name in changed)
    assert len(changed) > 0.5 * sum(name.startswith(trained) for name in before)
    codecs = [load(checkpoint=path, device="cpu") for path in (start, tmp_path / "run")]
    wave = 0.2 * np.random.default_rng(0).normal(size=9000).astype(np.float32)
    codes = [codec.encode(wave, 8000).codes for codec in codecs]
    assert np.array_equal(*codes)
    assert not np.array_equal(
        *(codec.decode(codecs[0].encode(wave, 8000), force=True) for codec in codecs)
    )
    assert codecs[1].converted_from == {codecs[0].fingerprint}


def test_cached_tokens_are_those_of_encode(
    speech: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    for family, start in starts.items():
        cache, codec = tmp_path / family, load(checkpoint=start, device="cpu")
        folder, report = cache_tokens(codec, "0a0b0c0d", scan_clips(speech), cache)
        assert report.done == 8
        assert folder == cache / "0a0b0c0d"
        for clip in speech.iterdir():
            encode_file(codec, clip, tmp_path / "one.hcd", overwrite=True)
            assert (folder / token_name(clip)).read_bytes() == (tmp_path / "one.hcd").read_bytes()


def scan_clips(speech: Path) -> list[Clip]:
    return scan(running.read_list(speech))[0]
