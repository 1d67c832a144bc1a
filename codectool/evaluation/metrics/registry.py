"""All judges, in the order of tables, and which of them can work here."""

from __future__ import annotations

from collections.abc import Sequence

from codectool.errors import UsageError
from codectool.evaluation.metrics.base import Metric, MetricInfo
from codectool.evaluation.metrics.log_spectral import LogSpectralDistance
from codectool.evaluation.metrics.mel import MelDistance
from codectool.evaluation.metrics.pesq import PesqNarrow, PesqWide
from codectool.evaluation.metrics.pitch import PitchError, VoicingError
from codectool.evaluation.metrics.si_sdr import WaveformMatch
from codectool.evaluation.metrics.stoi import Stoi
from codectool.evaluation.metrics.visqol import Visqol, VisqolPolynomial
from codectool.evaluation.metrics.warpq import WarpQ

METRICS: tuple[type[Metric], ...] = (
    PesqWide,
    PesqNarrow,
    Stoi,
    Visqol,
    VisqolPolynomial,  # only where Visqol, which gives the same and more, cannot work
    WarpQ,
    MelDistance,
    LogSpectralDistance,
    WaveformMatch,
    PitchError,
    VoicingError,
)
# By name, each once.
METRIC_INFO: dict[str, MetricInfo] = {
    metric.name: metric for judge in METRICS for metric in judge.metrics
}


def choose(names: Sequence[str]) -> list[type[Metric]]:
    """The judges that give these metrics, in the order of tables; some give others as well.

    Raises:
        UsageError: there is no metric of that name.
    """
    for name in names:
        if name not in METRIC_INFO:
            raise UsageError(f"there is no metric {name!r}; there are {', '.join(METRIC_INFO)}")
    wanted, chosen = set(names), []
    for name in dict.fromkeys(names):
        judges = [judge for judge in METRICS if name in _names(judge)]
        # rather one that gives nothing that was not asked for
        chosen.append(next((judge for judge in judges if _names(judge) <= wanted), judges[0]))
    if Visqol in chosen and "visqol_poly" in wanted:
        chosen.append(VisqolPolynomial)
    return [judge for judge in METRICS if judge in chosen]


def available(
    judges: Sequence[type[Metric]] = METRICS,
) -> tuple[list[type[Metric]], list[str]]:
    """Which judges can work here. Their packages are imported, so ask when there is work to do.

    Returns:
        Judges, none of which gives only what one before it gives; and a line for each that is left
        out, with the reason.
    """
    working: list[type[Metric]] = []
    problems: dict[type[Metric], str] = {}
    for judge in judges:
        if _names(judge) <= _all_names(working):
            continue
        problem = _problem(judge)
        if problem:
            problems[judge] = problem
        else:
            working.append(judge)
    lines, told = [], _all_names(working)
    for judge, problem in problems.items():
        lost = [metric.title for metric in judge.metrics if metric.name not in told]
        told |= _names(judge)
        if lost:
            verb = "is" if len(lost) == 1 else "are"
            lines.append(f"{', '.join(lost)} {verb} left out: {problem}")
    return working, lines


def _names(judge: type[Metric]) -> set[str]:
    return {metric.name for metric in judge.metrics}


def _all_names(judges: Sequence[type[Metric]]) -> set[str]:
    return {name for judge in judges for name in _names(judge)}


def _problem(judge: type[Metric]) -> str:
    """Why it cannot work; nothing if it can."""
    cure = "`pip install 'codectool[eval]'` adds it"
    missing = judge.missing()
    if missing:
        return f"the package `{missing[0]}` is missing; {cure}"
    try:
        judge()
    except Exception as error:  # a package made for another numpy may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"`{'`, `'.join(judge.packages)}` cannot be loaded ({reason})"
    return ""
