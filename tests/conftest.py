"""Shared fixtures: small codecs, test data, and an empty home folder for every test."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from codectool.checkpoints.native import write_model
from codectool.codec import Codec
from codectool.loading import load
from tests.hac_models import load_preset, untrained

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test an empty checkpoint registry instead of the user's."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CODECTOOL_HOME", str(home))
    return home


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Use one thread: a second one does not speed up small models."""
    torch.set_num_threads(1)


def shared(*parts: str) -> Path:
    """Return a file of the developers' shared folder; skip the test if there is no such folder.

    A folder that is present must be complete.
    """
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED}: its test data is for developers")
    path = SHARED.joinpath(*parts)
    assert path.exists(), f"{path} is missing"
    return path


def load_torchaudio() -> Any:
    """Return `torchaudio.functional`; skip the test if it does not load with this torch."""
    try:
        return importlib.import_module("torchaudio.functional")
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchaudio does not load with torch {torch.__version__}: {error}")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small checkpoints by codec family."""
    hac = tmp_path_factory.mktemp("hac") / "hac-tiny.safetensors"
    write_model(hac, untrained(load_preset("hac-tiny")))
    return {
        "bigcodec": GOLDEN / "bigcodec_micro.pt",
        "supercodec": GOLDEN / "supercodec_micro",
        "hac": hac,
    }


@pytest.fixture(scope="session")
def codecs(checkpoints: dict[str, Path]) -> dict[str, Codec]:
    """Small codecs on the CPU by family."""
    return {family: load(family, path, device="cpu") for family, path in checkpoints.items()}


@pytest.fixture(params=["bigcodec", "supercodec", "hac"])
def codec(request: pytest.FixtureRequest, codecs: dict[str, Codec]) -> Codec:
    """Each of the small codecs."""
    return codecs[request.param]


# Files whose tests start processes, browsers or Ray, train, or build models of the published size.
SLOW_FILES = frozenset(
    {
        *("test_archive_bombs.py", "test_pickle_bombs.py"),
        *(
            "test_graphs.py",
            "test_programs.py",
            "test_export_command.py",
            "test_deployment_guide.py",
        ),
        *("test_bad_input.py", "test_channels.py", "test_codec_benchmark.py", "test_data.py"),
        *("test_decoding.py", "test_directories.py", "test_evaluate.py"),
        *("test_evaluate_command.py", "test_evaluate_tokens.py", "test_folders.py"),
        *("test_frozen.py", "test_full_size.py", "test_hcd_memory.py", "test_interrupts.py"),
        *("test_matrix.py", "test_metric_all.py", "test_metric_warpq.py", "test_parallel.py"),
        *("test_metric_listening.py", "test_evaluate_stability.py"),
        *("test_pipeline_kills.py", "test_pipeline_ray.py", "test_pipeline_run.py"),
        *("test_pipes.py", "test_report_browser.py", "test_run.py"),
        *("test_supercodec_chunked.py", "test_supercodec_quantizer.py", "test_train.py"),
        *("test_training_benchmark.py", "test_workers.py"),
        *("test_memory.py", "test_names.py", "test_standard_streams.py", "test_wrong_files.py"),
        *("test_processes.py", "test_torch_settings.py"),
        *("test_completion.py", "test_doctor.py", "test_site.py"),
        *("test_download.py", "test_exported_models.py"),
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests, which `make test-fast` leaves out."""
    for item in items:
        if item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)
