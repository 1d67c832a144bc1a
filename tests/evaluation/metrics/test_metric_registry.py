"""Selection of metrics: requested values, missing packages and replacements."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest

from codectool.errors import UsageError
from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave
from codectool.evaluation.metrics.distillmos import DistillMos
from codectool.evaluation.metrics.dnsmos import Dnsmos
from codectool.evaluation.metrics.pesq import PesqNarrowband, PesqWideband
from codectool.evaluation.metrics.plcmos import Plcmos
from codectool.evaluation.metrics.registry import METRIC_INFO, METRICS, Selection, select_metrics
from codectool.evaluation.metrics.si_sdr import SiSdr
from codectool.evaluation.metrics.speaker import SpeakerSimilarity
from codectool.evaluation.metrics.spectral import MelDistance
from codectool.evaluation.metrics.stoi import Stoi
from codectool.evaluation.metrics.visqol import Visqol, VisqolPolynomial
from codectool.evaluation.metrics.words import WordErrors

WITHOUT_SETTINGS = [name for name in METRIC_INFO if name not in ("wer", "cer")]


def test_metric_names_and_order() -> None:
    assert list(METRIC_INFO) == [
        *("pesq_wb", "pesq_nb", "stoi", "estoi", "visqol", "visqol_poly", "warpq"),
        *("distillmos", "dnsmos_p808", "dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "plcmos"),
        *(
            "mel_db",
            "lsd_db",
            "si_sdr_db",
            "f0_cents",
            "gpe",
            "vde",
            "wer",
            "cer",
            "per",
            "speaker",
            "buzz",
        ),
    ]
    for info in METRIC_INFO.values():
        assert info.about.endswith(".")


@pytest.fixture
def _no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Select metrics as if all packages were installed, without importing them."""
    for metric in METRICS:
        monkeypatch.setattr(metric, "packages", ())
        monkeypatch.setattr(metric, "__init__", lambda self: None)


@pytest.mark.parametrize(
    ("names", "metrics"),
    [
        (["mel_db", "pesq_nb"], [PesqNarrowband, MelDistance]),
        (["estoi"], [Stoi]),
        (["visqol"], [Visqol]),
        (["visqol_poly"], [VisqolPolynomial]),
        (["visqol_poly", "visqol"], [Visqol]),
        ([], [m for m in METRICS if m not in (VisqolPolynomial, WordErrors)]),
        (WITHOUT_SETTINGS, [m for m in METRICS if m not in (VisqolPolynomial, WordErrors)]),
    ],
)
@pytest.mark.usefixtures("_no_packages")
def test_select_metrics_computes_the_requested_values(
    names: list[str], metrics: list[type[Metric]]
) -> None:
    selection = select_metrics(names)
    assert selection.metrics == tuple(metrics)
    expected = [name for name in METRIC_INFO if name in (names or WITHOUT_SETTINGS)]
    assert [info.name for info in selection.infos] == expected
    assert selection.left_out == ()


def test_select_metrics_rejects_unknown_name() -> None:
    with pytest.raises(UsageError, match="no metric 'mos'; choose from pesq_wb, pesq_nb, stoi"):
        select_metrics(["pesq_wb", "mos"])


@pytest.mark.parametrize(
    ("package", "metrics", "line"),
    [
        (
            "pesq",
            [PesqWideband],
            "PESQ-wb is left out: package `pesq` is missing; run `pip install 'codectool[eval]'`",
        ),
        ("pystoi", [Stoi], "STOI, ESTOI are left out: package `pystoi` is missing;"),
        (
            "visqol",
            [Visqol, VisqolPolynomial],
            "ViSQOL, ViSQOL-poly are left out: package `visqol` is missing;",
        ),
        ("distillmos", [DistillMos], "DistillMOS is left out: package `distillmos` is missing;"),
        (
            "speechmos",
            [Dnsmos, Plcmos],
            "DNSMOS P.808, DNSMOS overall, DNSMOS speech, DNSMOS background are left out: package "
            "`speechmos` is missing;",
        ),
        (
            "resemblyzer",
            [SpeakerSimilarity],
            "speaker similarity is left out: package `resemblyzer` is missing; run `pip install "
            "--no-deps Resemblyzer`",
        ),
    ],
)
def test_select_metrics_leaves_out_missing_packages(
    package: str, metrics: list[type[Metric]], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    selection = select_metrics(metrics=[*metrics, SiSdr])
    assert selection.metrics == (SiSdr,)
    assert selection.left_out[0].startswith(line)


@pytest.mark.parametrize("names", [[], ["visqol", "visqol_poly"]])
def test_select_metrics_replaces_a_metric_that_cannot_be_used(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("visqol", "ai_edge_litert"):
        pytest.importorskip(package, reason=f"package {package} is not installed")
    both = [Visqol, VisqolPolynomial]
    assert select_metrics(names, both) == Selection((Visqol,), Visqol.outputs)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    line = (
        "ViSQOL is left out: package `ai_edge_litert` is missing; "
        "run `pip install 'codectool[eval]'`"
    )
    expected = Selection((VisqolPolynomial,), VisqolPolynomial.outputs, (line,))
    assert select_metrics(names, both) == expected


class Broken(Metric):
    rate: ClassVar[int] = 16000
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    outputs: ClassVar[tuple[MetricInfo, ...]] = (
        MetricInfo("broken", "broken", "", "lower", 2, (None, None), "Cannot be loaded."),
    )

    def __init__(self) -> None:
        raise OSError("libgone.so: cannot open shared object file\nand more")

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        raise AssertionError


def test_select_metrics_leaves_out_broken_packages() -> None:
    line = (
        "broken is left out: `numpy` cannot be loaded (libgone.so: cannot open shared object file)"
    )
    selection = select_metrics(metrics=[Broken, SiSdr])
    assert selection == Selection((SiSdr,), SiSdr.outputs, (line,))
    with pytest.raises(UsageError) as caught:
        select_metrics(metrics=[Broken])
    assert str(caught.value) == line


def test_distillmos_is_left_out_where_torchaudio_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchaudio.py").write_text("raise OSError('libtorchaudio.so: undefined symbol')")
    if find_spec("distillmos") is None:
        pytest.skip("package distillmos is not installed")
    for name in [
        name for name in sys.modules if name.split(".")[0] in ("torchaudio", "distillmos")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    selection = select_metrics(["distillmos", "mel_db"])
    assert selection.metrics == (MelDistance,)
    assert selection.left_out == (
        "DistillMOS is left out: `torch`, `distillmos` cannot be loaded (libtorchaudio.so: "
        "undefined symbol)",
    )
