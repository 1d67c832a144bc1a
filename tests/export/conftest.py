"""Small models as graphs, made once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codectool.checkpoints.native import write_model
from codectool.codec import Codec
from codectool.codecs.bigcodec.model import BigCodec
from codectool.export.run import ExportedFile, export_codec
from codectool.loading import load
from tests.bigcodec_configs import mirrored_config
from tests.hac_models import preset_with_source, untrained

Exported = dict[str, tuple[Codec, Path, dict[str, ExportedFile]]]


def require_onnx() -> None:
    """Skip the test if the packages of the extra `export` are missing."""
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra `export` is not installed")


@pytest.fixture(scope="session")
def small_bigcodec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """Return a BigCodec with few layers, which is traced in seconds."""
    config = mirrored_config(
        sample_rate=16000,
        ngf=4,
        initial_channel=16,
        up_ratios=(2, 5),
        dilations=(1,),
        latent_dim=12,
        rnn_layers=(2, 1),
        codebooks=(2, 64, 4),
        bidirectional=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BigCodec(config)
    path = tmp_path_factory.mktemp("bigcodec") / "small.safetensors"
    write_model(path, model)
    return load(checkpoint=path, device="cpu")


@pytest.fixture(scope="session")
def small_hac(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """Return a small HAC whose decoder has a source."""
    path = tmp_path_factory.mktemp("hac") / "small.safetensors"
    write_model(path, untrained(preset_with_source(sharpening=0.4, phase_advance=80)))
    return load(checkpoint=path, device="cpu")


@pytest.fixture(scope="session")
def graphs(
    codecs: dict[str, Codec],
    small_bigcodec: Codec,
    small_hac: Codec,
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    """Return codec, folder and files of the ONNX graphs by family."""
    require_onnx()
    exported = {}
    for family, codec in (codecs | {"bigcodec": small_bigcodec, "hac": small_hac}).items():
        folder = tmp_path_factory.mktemp(f"{family}-onnx")
        files = {file.name: file for file in export_codec(codec, folder)}
        exported[family] = codec, folder, files
    return exported
