"""All metrics, in the order of tables, and which of them can be used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from codectool.errors import UsageError
from codectool.evaluation.metrics.base import Metric, MetricInfo
from codectool.evaluation.metrics.distillmos import DistillMos
from codectool.evaluation.metrics.dnsmos import Dnsmos
from codectool.evaluation.metrics.periodicity import TokenPeriodicity
from codectool.evaluation.metrics.pesq import PesqNarrowband, PesqWideband
from codectool.evaluation.metrics.phonemes import PhonemeErrors
from codectool.evaluation.metrics.pitch import PitchError, VoicingError
from codectool.evaluation.metrics.plcmos import Plcmos
from codectool.evaluation.metrics.si_sdr import SiSdr
from codectool.evaluation.metrics.speaker import SpeakerSimilarity
from codectool.evaluation.metrics.spectral import LogSpectralDistance, MelDistance
from codectool.evaluation.metrics.stoi import Stoi
from codectool.evaluation.metrics.visqol import Visqol, VisqolPolynomial
from codectool.evaluation.metrics.warpq import WarpQ

METRICS: tuple[type[Metric], ...] = (
    PesqWideband,
    PesqNarrowband,
    Stoi,
    Visqol,
    VisqolPolynomial,
    WarpQ,
    DistillMos,
    Dnsmos,
    Plcmos,
    MelDistance,
    LogSpectralDistance,
    SiSdr,
    PitchError,
    VoicingError,
    PhonemeErrors,
    SpeakerSimilarity,
    TokenPeriodicity,
)
METRIC_INFO = {info.name: info for metric in METRICS for info in metric.outputs}


@dataclass(frozen=True)
class Selection:
    """Metrics to compute.

    Attributes:
        metrics: the metrics, in the order of tables.
        infos: the requested values, in the order of tables.
        left_out: one line for each metric that was requested but cannot be used.
    """

    metrics: tuple[type[Metric], ...]
    infos: tuple[MetricInfo, ...]
    left_out: tuple[str, ...] = ()


def select_metrics(
    names: Collection[str] = (), metrics: Sequence[type[Metric]] = METRICS
) -> Selection:
    """Select the metrics that compute the requested values and can be used here.

    A metric is skipped if others already compute its values: `VisqolPolynomial` replaces `Visqol`
    where the latter cannot be used, or where only ``visqol_poly`` is requested. The packages of the
    selected metrics are imported.

    Args:
        names: requested values; empty selects all.
        metrics: metrics to select from.

    Raises:
        UsageError: a name is unknown, or none of the requested metrics can be used.
    """
    known = dict.fromkeys(info.name for metric in metrics for info in metric.outputs)
    for name in names:
        if name not in known:
            raise UsageError(f"there is no metric {name!r}; choose from {', '.join(known)}")
    wanted = set(names or known)
    selected: list[type[Metric]] = []
    problems: dict[type[Metric], str] = {}
    computed: set[str] = set()
    # Metrics that compute nothing but requested values come first.
    for metric in sorted(metrics, key=lambda metric: not metric.names() <= wanted):
        if wanted & metric.names() - computed:
            problem = unusable(metric)
            if problem:
                problems[metric] = problem
            else:
                selected.append(metric)
                computed |= metric.names()
    left_out = []
    for metric, problem in problems.items():
        lost = [info for info in metric.outputs if info.name in wanted - computed]
        computed |= metric.names()  # each value is mentioned once
        if lost:
            titles = ", ".join(info.title for info in lost)
            left_out.append(f"{titles} {'is' if len(lost) == 1 else 'are'} left out: {problem}")
    if not selected:
        raise UsageError("; ".join(left_out))
    ordered = tuple(metric for metric in metrics if metric in selected)
    infos = (info for metric in ordered for info in metric.outputs if info.name in wanted)
    return Selection(ordered, tuple(infos), tuple(left_out))


def unusable(metric: type[Metric]) -> str:
    """Return why a metric cannot be used; empty if it can."""
    missing = [name for name in metric.packages if find_spec(name) is None]
    if missing:
        return f"package `{missing[0]}` is missing; run `pip install {metric.install}`"
    try:
        metric()
    except Exception as error:  # a package built for another NumPy may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"`{'`, `'.join(metric.packages)}` cannot be loaded ({reason})"
    return ""
