"""What the whole suite shares: where cases lie, and a home folder of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codectool.checkpoints.native import write_model
from codectool.codec import Codec
from codectool.codecs.hac.codec import untrained
from codectool.codecs.hac.config import load_preset
from codectool.loading import load

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's list of known checkpoints, nor writes to it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CODECTOOL_HOME", str(home))
    return home


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small models on small machines: a second thread mostly waits for the first."""
    torch.set_num_threads(1)


def shared(*parts: str) -> Path:
    """A file of the developers' shared folder; the test is skipped where there is no such folder.

    Users have none. Where it is present, every file of it must be.
    """
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED}: its cases are for developers")
    path = SHARED.joinpath(*parts)
    assert path.exists(), f"{path} is missing"
    return path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small checkpoint of every family."""
    hac = tmp_path_factory.mktemp("hac") / "hac-tiny.safetensors"
    write_model(hac, untrained(load_preset("hac-tiny")))
    return {
        "bigcodec": GOLDEN / "bigcodec_micro.pt",
        "supercodec": GOLDEN / "supercodec_micro",
        "hac": hac,
    }


@pytest.fixture(scope="session")
def codecs(checkpoints: dict[str, Path]) -> dict[str, Codec]:
    """A small codec of every family, on the CPU."""
    return {family: load(family, path, device="cpu") for family, path in checkpoints.items()}


@pytest.fixture(params=["bigcodec", "supercodec", "hac"])
def codec(request: pytest.FixtureRequest, codecs: dict[str, Codec]) -> Codec:
    """Each of them."""
    return codecs[request.param]
