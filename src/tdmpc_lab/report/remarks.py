"""What has to be known to read a comparison's figures: which runs are left out, and why; in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tdmpc_lab.config.diff import STEPS
from tdmpc_lab.report.figures import Summary
from tdmpc_lab.report.runs import Metric, Run, Series, opponents
from tdmpc_lab.text import count, number


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
        return f"{run.id} goes on from {by.id} and has not come as far: {by.id} counts"
    return f"{run.id} has seed {run.record.seed} like {by.id}, which came as far or farther: {by.id} counts"


def _changed_on_the_way(run: Run) -> str:
    """Of a job that was resumed with another config: its first evaluations are of the old one."""
    changed = [text for text in run.record.overrides if not text.startswith(f"{STEPS}=")]
    if run.record.parent is None or not changed:
        return ""
    how = f"{run.id} goes on from {run.record.parent} with {', '.join(changed)}"
    return f"{how}: what was evaluated before is of the old config"


def _goes_beyond(one: Summary, series: Mapping[str, Series], end: int) -> bool:
    return any(int(series[figures.run.id].steps[-1]) > end for figures in one.figures)


def _lost(run: Run, metric: Metric, series: Mapping[str, Series]) -> int:
    has = sum(metric.name in row for row in run.rows)
    return max(0, has - len(series[run.id].steps))
