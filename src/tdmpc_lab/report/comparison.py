"""Variants compared: figures over their seeds at the same environment step, and who is better.

Also here: what has to be known to read a comparison's figures: which runs are left out, and why; in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tdmpc_lab.config.diff import STEPS
from tdmpc_lab.errors import UsageError
from tdmpc_lab.report.figures import Summary, figures_of, strata_of, summary_of
from tdmpc_lab.report.runs import Metric, Run, Series, choose_metric, opponents, series_of
from tdmpc_lab.report.statistics import ENOUGH_SEEDS, Estimate, improvement
from tdmpc_lab.report.variants import By, Difference, Variant, differences, stratum, variants_of
from tdmpc_lab.text import count, number


@dataclass(frozen=True)
class Pair:
    """One variant against the one that all are compared with."""

    name: str
    over: str
    improvement: Estimate
    seeds: tuple[int, int]

    @property
    def judgement(self) -> str:
        """What may be said of it."""
        if min(self.seeds) < ENOUGH_SEEDS:
            return "too few seeds to tell"
        _, low, high = self.improvement
        if low is None or high is None or low <= 0.5 <= high:
            return "no difference to be told"
        return "better" if low > 0.5 else "worse"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of it."""

    metric: Metric
    begin: int
    """First step of the common range: that of the latest first evaluation."""
    end: int
    """Last step of the common range."""
    until: bool
    """Whether the end was asked for."""
    threshold: float | None
    over: tuple[str, ...]
    reference: str
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    pairs: tuple[Pair, ...]
    remarks: tuple[str, ...]
    """What has to be known to read the figures: who is left out and why."""

    @property
    def runs(self) -> list[Run]:
        """Every run, those left out too."""
        return [run for s in self.summaries for run in (*s.variant.runs, *(double for double, _ in s.variant.doubles))]


def compare(
    runs: Sequence[Run],
    *,
    metric: str | None = None,
    lower: bool = False,
    threshold: float | None = None,
    over: Sequence[str] = (),
    by: By = "config",
    until: int | None = None,
    reference: str | None = None,
) -> Comparison:
    """Compare the variants among `runs`.

    `threshold` is a value of the metric to be reached, `until` the step to compare at (default: as far as every
    variant goes), `reference` the variant that the others are compared with.
    Raises UsageError: no evaluation has the metric, none goes as far as `until`, no variant is called `reference`.
    """
    variants = variants_of(runs, over=over, by=by)
    chosen = choose_metric([run for variant in variants for run in variant.runs], metric, lower=lower)
    series = {run.id: series_of(run, chosen) for run in runs}
    end = _end(variants, series, until)
    counted = [[run for run in variant.runs if _counts(series[run.id], end)] for variant in variants]
    begin = max((int(series[run.id].steps[0]) for group in counted for run in group), default=0)
    summaries = tuple(
        summary_of(
            variant,
            [figures_of(run, series[run.id], chosen, begin, end, threshold) for run in group],
            series,
            chosen,
            over,
        )
        for variant, group in zip(variants, counted, strict=True)
    )
    against = _reference(summaries, reference)
    pairs = [_pair(against, one, chosen, over) for one in summaries if one is not against]
    told = remarks(summaries, chosen, end, series, asked=until is not None)
    if over and None in pairs:
        told.append(f"no probability of improvement where two variants have no value of {', '.join(over)} in common")
    return Comparison(
        metric=chosen,
        begin=begin,
        end=end,
        until=until is not None,
        threshold=threshold,
        over=tuple(over),
        reference=against.name,
        summaries=summaries,
        differences=tuple(change for change in differences(variants) if change.key not in over),
        pairs=tuple(pair for pair in pairs if pair is not None),
        remarks=tuple(told),
    )


def _end(variants: Sequence[Variant], series: Mapping[str, Series], until: int | None) -> int:
    """The last step that every variant with evaluations reaches."""
    steps = [[series[run.id].steps for run in variant.runs if len(series[run.id].steps)] for variant in variants]
    if until is not None:
        within = [int(step) for group in steps for run in group for step in run[run <= until]]
        if not within and any(steps):
            first = min(int(run[0]) for group in steps for run in group)
            raise UsageError(f"--until {until}: the first evaluation is at step {first:,}; give at least that")
        return max(within, default=0)
    return min((_reach(variant, series) for variant, group in zip(variants, steps, strict=True) if group), default=0)


def _reach(variant: Variant, series: Mapping[str, Series]) -> int:
    """The step that more than half of its completed runs come to; of all its runs where none has completed. So one
    short trial pulls nobody back, and one run that was resumed for longer leaves nobody behind."""
    runs = [run for run in variant.runs if len(series[run.id].steps)]
    completed = [run for run in runs if run.state == "COMPLETED"] or runs
    last = sorted((int(series[run.id].steps[-1]) for run in completed), reverse=True)
    return last[len(last) // 2]


def _counts(series: Series, end: int) -> bool:
    return len(series.steps) > 0 and series.steps[0] <= end <= series.steps[-1]


def _reference(summaries: Sequence[Summary], name: str | None) -> Summary:
    """The one that was named; else the one that most others say they are to be compared with; else the first."""
    if name is not None:
        for one in summaries:
            if name in (one.name, one.variant.runs[0].record.experiment, *(run.id for run in one.variant.runs)):
                return one
        raise UsageError(f"--reference {name}: no such variant; there are: {', '.join(s.name for s in summaries)}")
    said = [run.record.compare_to for one in summaries for run in one.variant.runs[:1] if run.record.compare_to]
    for wanted in sorted(set(said), key=lambda text: (-said.count(text), said.index(text))):
        for one in summaries:
            first = one.variant.runs[0].record
            if wanted in (first.experiment, *(run.id for run in one.variant.runs)) and first.compare_to != wanted:
                return one
    return summaries[0]


def _pair(old: Summary, new: Summary, metric: Metric, over: Sequence[str]) -> Pair | None:
    """None where they have no stratum in common, or no runs."""
    kinds = [{stratum(one.run, over) for one in side.figures} for side in (old, new)]
    common = kinds[0] & kinds[1]
    if not common:
        return None
    sides = [
        strata_of([one for one in side.figures if stratum(one.run, over) in common], over, "final")
        for side in (old, new)
    ]
    if metric.lower:
        sides = [[-scores for scores in side] for side in sides]
    return Pair(new.name, old.name, improvement(*sides), (old.seeds, new.seeds))


def remarks(
    summaries: Sequence[Summary], metric: Metric, end: int, series: Mapping[str, Series], *, asked: bool
) -> list[str]:
    """One line each; `asked`: the end of the range was asked for."""
    told = []
    for one in summaries:
        for run in one.short:
            steps = series[run.id].steps
            why = (
                f"its evaluations begin at step {steps[0]:,}" if steps[0] > end else f"evaluated to step {steps[-1]:,}"
            )
            told.append(f"{one.name}: {_ending(run)}, {why}: not in the figures, which are of step {end:,}")
        told += [f"{one.name}: {_ending(run)}: {_why_empty(run, metric)}" for run in one.empty]
        told += [f"{one.name}: {_why_double(run, by)}" for run, by in one.variant.doubles]
        going = [figures.run.id for figures in one.figures if figures.run.state in ("RUNNING", "PENDING")]
        if going:
            told.append(f"{one.name}: still going on: {', '.join(going)}")
        told += [f"{one.name}: {text}" for run in one.variant.runs if (text := _changed_on_the_way(run))]
        if not one.figures:
            told.append(f"{one.name}: no run comes to step {end:,}, so there are no figures of it")
    if not asked and (beyond := sorted({s.name for s in summaries if _goes_beyond(s, series, end)})):
        told.append(
            f"compared up to step {end:,}, as far as every variant goes; farther there are {', '.join(beyond)} alone "
            "(--until STEP compares elsewhere)"
        )
    met = {frozenset(opponents(figures.run)) for s in summaries for figures in s.figures}
    if metric.is_share and "_" not in metric.name and len(met) > 1:
        told.append("they were evaluated against different opponents, so that win rates can't be compared")
    bad = {
        run.id: lost for run in (r for s in summaries for r in s.variant.runs) if (lost := _lost(run, metric, series))
    }
    told += [
        f"{job}: {count(lost, 'evaluation')} without a finite {metric.name}, left out" for job, lost in bad.items()
    ]
    return told


def _ending(run: Run) -> str:
    cause = f" ({run.cause})" if run.cause else ""
    return f"{run.id} is {run.state} at step {number(run.step or 0)} of {number(run.record.steps_total)}{cause}"


def _why_empty(run: Run, metric: Metric) -> str:
    if run.rows:
        return f"no evaluation has {metric.name}"
    if run.spec is not None and run.spec.eval is None:
        return "eval is off in its spec"
    return "no evaluation yet" if run.state in ("RUNNING", "PENDING") else "no evaluation"


def _why_double(run: Run, by: Run) -> str:
    if by.record.parent == run.id:
        return f"{run.id} was continued as {by.id}, which has its evaluations too"
    if run.record.parent == by.id:
        return f"{run.id} continues from {by.id} and has not come as far: {by.id} counts"
    return f"{run.id} has seed {run.record.seed} like {by.id}, which came as far or farther: {by.id} counts"


def _changed_on_the_way(run: Run) -> str:
    """Of a job that was resumed with another config: its first evaluations are of the old one."""
    changed = [text for text in run.record.overrides if not text.startswith(f"{STEPS}=")]
    if run.record.parent is None or not changed:
        return ""
    how = f"{run.id} continues from {run.record.parent} with {', '.join(changed)}"
    return f"{how}: what was evaluated before is of the old config"


def _goes_beyond(one: Summary, series: Mapping[str, Series], end: int) -> bool:
    return any(int(series[figures.run.id].steps[-1]) > end for figures in one.figures)


def _lost(run: Run, metric: Metric, series: Mapping[str, Series]) -> int:
    has = sum(metric.name in row for row in run.rows)
    return max(0, has - len(series[run.id].steps))
