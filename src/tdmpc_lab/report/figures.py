"""The figures of one run, and of a variant over its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from tdmpc_lab.intervals import wilson
from tdmpc_lab.report.runs import Metric, Run, Series, opponents
from tdmpc_lab.report.statistics import ENOUGH_SEEDS, Estimate, Scores, iqm_of
from tdmpc_lab.report.variants import Variant, stratum


@dataclass(frozen=True)
class Figures:
    """One run within the common range."""

    run: Run
    series: Series
    final: float
    """At its last evaluation within the range."""
    final_step: int
    """That evaluation's."""
    best: float
    area: float
    """Area under its curve by the width of the range: the mean height, in the metric's unit."""
    steps_to: int | None = None
    """Environment steps to the first evaluation at the threshold or beyond it."""
    hours_to: float | None = None


@dataclass(frozen=True)
class Reached:
    """How many runs reach the threshold, and after how much: median, least and most of those that do.

    A run that does not counts as later than all others: the median is None where half of them do not reach it.
    """

    count: int
    of: int
    median: float | None
    least: float | None
    most: float | None


@dataclass(frozen=True)
class Wins:
    """Games of the last evaluations of all runs together, against one opponent; None: against all of them."""

    opponent: str | None
    won: int
    played: int
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """One variant."""

    variant: Variant
    figures: tuple[Figures, ...]
    """Of the runs that count: those that come to the end of the common range."""
    short: tuple[Run, ...]
    """Runs with evaluations that do not."""
    empty: tuple[Run, ...]
    """Runs without any."""
    final: Estimate | None
    best: Estimate | None
    area: Estimate | None
    wins: tuple[Wins, ...]
    steps_to: Reached | None
    hours_to: Reached | None

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def seeds(self) -> int:
        """Runs that count."""
        return len(self.figures)

    @property
    def enough(self) -> bool:
        """Whether its interval is one to rely on."""
        return self.seeds >= ENOUGH_SEEDS


def figures_of(run: Run, series: Series, metric: Metric, begin: int, end: int, threshold: float | None) -> Figures:
    """The figures of a run that has an evaluation within the range and goes to its end."""
    inside = series.steps <= end
    steps, values, hours = series.steps[inside], series.values[inside], series.hours[inside]
    reached = np.zeros(0, dtype=np.int64)
    if threshold is not None:
        reached = np.flatnonzero(values <= threshold if metric.lower else values >= threshold)
    first = int(reached[0]) if len(reached) else None
    return Figures(
        run,
        series,
        final=float(values[-1]),
        final_step=int(steps[-1]),
        best=float(values.min() if metric.lower else values.max()),
        area=mean_height(series, begin, end),
        steps_to=None if first is None else int(steps[first]),
        hours_to=None if first is None or np.isnan(hours[first]) else float(hours[first]),
    )


def mean_height(series: Series, begin: int, end: int) -> float:
    """Area under the curve, straight lines between evaluations, from `begin` to `end`, by their distance."""
    inside = (series.steps > begin) & (series.steps < end)
    steps = np.concatenate([[begin], series.steps[inside], [end]]).astype(np.float64)
    values = np.interp(steps, series.steps, series.values)
    if begin == end:
        return float(values[0])
    return float(np.trapezoid(values, steps) / (end - begin))


def summary_of(
    variant: Variant, figures: list[Figures], series: Mapping[str, Series], metric: Metric, over: Sequence[str]
) -> Summary:
    """The figures of a variant over those of its runs; `series` are of all runs by job id."""
    counted = {one.run.id for one in figures}
    left = [run for run in variant.runs if run.id not in counted]
    finals, bests, areas = (strata_of(figures, over, name) for name in ("final", "best", "area"))
    return Summary(
        variant,
        tuple(figures),
        short=tuple(run for run in left if len(series[run.id].steps)),
        empty=tuple(run for run in left if not len(series[run.id].steps)),
        final=iqm_of(finals) if figures else None,
        best=iqm_of(bests) if figures else None,
        area=iqm_of(areas) if figures else None,
        wins=tuple(_wins(figures, metric)),
        steps_to=_reached([one.steps_to for one in figures]),
        hours_to=_reached([one.hours_to for one in figures]),
    )


def strata_of(figures: Sequence[Figures], over: Sequence[str], name: str) -> list[Scores]:
    """The runs' figures of one kind, an array for each stratum, in the order of the strata's values."""
    found: dict[tuple[str, ...], list[float]] = {}
    for one in figures:
        found.setdefault(stratum(one.run, over), []).append(getattr(one, name))
    return [np.array(found[key]) for key in sorted(found)]


def _reached(values: Sequence[float | None]) -> Reached:
    known = [value for value in values if value is not None]
    middle = median([*known, *[np.inf] * (len(values) - len(known))]) if values else np.inf
    return Reached(
        len(known),
        len(values),
        None if np.isinf(middle) else float(middle),
        min(known, default=None),
        max(known, default=None),
    )


def _wins(figures: Sequence[Figures], metric: Metric) -> list[Wins]:
    """Games of all runs pooled, with Wilson's interval: against each opponent, and of several against all."""
    if not metric.is_share or not figures:
        return []
    rows = [next(row for row in reversed(one.run.rows) if row["step"] == one.final_step) for one in figures]
    outcome, _, opponent = metric.name.partition("_")
    names = dict.fromkeys(name for one in figures for name in opponents(one.run))
    asked: list[str | None] = [opponent] if opponent else [*([None] if len(names) > 1 else []), *names]
    found = []
    for name in asked:
        of = Metric(f"{outcome}_{name}" if name else outcome)
        games = [counts for row in rows if (counts := of.games(row)) is not None]
        won, played = sum(count for count, _ in games), sum(count for _, count in games)
        if played:
            found.append(Wins(name, won, played, *wilson(won, played)))
    return found
