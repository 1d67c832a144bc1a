"""Which judges there are, which are asked for, and which can work."""

from __future__ import annotations

import sys
from typing import ClassVar

import pytest

from codectool.errors import UsageError
from codectool.evaluation.metrics.mel import MelDistance
from codectool.evaluation.metrics.pesq import PesqNarrow, PesqWide
from codectool.evaluation.metrics.registry import METRIC_INFO, METRICS, available, choose
from codectool.evaluation.metrics.si_sdr import WaveformMatch
from codectool.evaluation.metrics.stoi import Stoi
from codectool.evaluation.metrics.visqol import Visqol, VisqolPolynomial


def test_order_and_names() -> None:
    assert list(METRIC_INFO) == [
        *("pesq_wb", "pesq_nb", "stoi", "estoi", "visqol", "visqol_poly", "warpq"),
        *("mel_db", "lsd_db", "si_sdr_db", "f0_cents", "gpe", "vde"),
    ]
    for metric in METRIC_INFO.values():
        assert metric.about.endswith(".")


@pytest.mark.parametrize(
    ("names", "judges"),
    [
        (["mel_db", "pesq_nb"], [PesqNarrow, MelDistance]),
        (["estoi"], [Stoi]),
        (["visqol"], [Visqol]),
        (["visqol_poly"], [VisqolPolynomial]),
        (["visqol_poly", "visqol"], [Visqol, VisqolPolynomial]),
        ([], []),
        (list(METRIC_INFO), list(METRICS)),
    ],
)
def test_choice(names: list[str], judges: list[type]) -> None:
    assert choose(names) == judges


def test_unknown_metric() -> None:
    with pytest.raises(UsageError, match="no metric 'mos'; there are pesq_wb, pesq_nb, stoi"):
        choose(["pesq_wb", "mos"])


@pytest.mark.parametrize(
    ("package", "judges", "line"),
    [
        (
            "pesq",
            [PesqWide],
            "PESQ-wb is left out: the package `pesq` is missing; "
            "`pip install 'codectool[eval]'` adds it",
        ),
        ("pystoi", [Stoi], "STOI, ESTOI are left out: the package `pystoi` is missing;"),
        (
            "visqol",
            [Visqol, VisqolPolynomial],
            "ViSQOL, ViSQOL-poly are left out: the package `visqol` is missing;",
        ),
    ],
)
def test_missing_packages(
    package: str, judges: list[type], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    working, lines = available([*judges, WaveformMatch])
    assert working == [WaveformMatch]
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_one_stands_in_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("visqol", "ai_edge_litert"):
        pytest.importorskip(package, reason=f"the package {package} is not here")
    both = [Visqol, VisqolPolynomial]
    assert available(both) == ([Visqol], [])
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    working, lines = available(both)
    assert working == [VisqolPolynomial]
    assert lines == [
        "ViSQOL is left out: the package `ai_edge_litert` is missing; "
        "`pip install 'codectool[eval]'` adds it"
    ]


class Broken(MelDistance):
    packages: ClassVar[tuple[str, ...]] = ("numpy",)

    def __init__(self) -> None:
        raise OSError("libgone.so: cannot open shared object file\nand more")


def test_broken_packages() -> None:
    assert available([Broken]) == (
        [],
        [
            "mel distance is left out: `numpy` cannot be loaded (libgone.so: cannot open shared "
            "object file)"
        ],
    )
