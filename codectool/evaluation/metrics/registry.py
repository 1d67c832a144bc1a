"""All metrics, in the order of tables, and which of them can be used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from codectool.errors import UsageError
from codectool.evaluation.metrics.base import NO_SETTINGS, Metric, MetricInfo, MetricSettings
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
from codectool.evaluation.metrics.words import WordErrors

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
    WordErrors,
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
        settings: settings of the metrics.
    """

    metrics: tuple[type[Metric], ...]
    infos: tuple[MetricInfo, ...]
    left_out: tuple[str, ...] = ()
    settings: MetricSettings = NO_SETTINGS


def select_metrics(
    names: Collection[str] = (),
    metrics: Sequence[type[Metric]] = METRICS,
    settings: MetricSettings = NO_SETTINGS,
) -> Selection:
    """Select the metrics that compute the requested values and can be used here.

    A metric is skipped if others already compute its values: `VisqolPolynomial` replaces `Visqol`
    where the latter cannot be used, or where only ``visqol_poly`` is requested. The packages of the
    selected metrics are imported.

    Args:
        names: requested values; empty selects all but those that need a setting which is not made.
        metrics: metrics to select from.
        settings: settings of the metrics.

    Raises:
        UsageError: a name is unknown, a setting that it needs is not made or is wrong, or none of
            the requested metrics can be used.
    """
    known = dict.fromkeys(info.name for metric in metrics for info in metric.outputs)
    for name in names:
        if name not in known:
            raise UsageError(f"there is no metric {name!r}; choose from {', '.join(known)}")
    unset = {metric: metric.missing_setting(settings) for metric in metrics}
    for metric, problem in unset.items():
        for name in metric.names() & set(names):
            if problem:
                raise UsageError(f"{name}: {problem}")
    metrics = [metric for metric in metrics if not unset[metric]]
    wanted = set(names or (info.name for metric in metrics for info in metric.outputs))
    selected: list[type[Metric]] = []
    problems: dict[type[Metric], str] = {}
    computed: set[str] = set()
    # Metrics that compute nothing but requested values come first.
    for metric in sorted(metrics, key=lambda metric: not metric.names() <= wanted):
        if wanted & metric.names() - computed:
            problem = unusable(metric, settings)
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
    infos = (
        replace(info, about=f"{info.about} Model: {settings.asr_model}.")
        if info.takes_text
        else info
        for metric in ordered
        for info in metric.outputs
        if info.name in wanted
    )
    return Selection(ordered, tuple(infos), tuple(left_out), settings)


def unusable(metric: type[Metric], settings: MetricSettings = NO_SETTINGS) -> str:
    """Return why a metric cannot be used; empty if it can.

    Raises:
        UsageError: a setting is wrong.
    """
    if unset := metric.missing_setting(settings):
        return unset
    missing = [name for name in metric.packages if find_spec(name) is None]
    if missing:
        return f"package `{missing[0]}` is missing; run `pip install {metric.install}`"
    try:
        metric.load(settings)
    except UsageError:
        raise
    except Exception as error:  # a package built for another NumPy may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"`{'`, `'.join(metric.packages)}` cannot be loaded ({reason})"
    return ""
