"""The rows of the jobs that are compared, by run; and `load`, the metric rows of jobs as one pandas table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.find import job_ids, select_jobs
from tdmpc_lab.jobs.metrics import Row, as_float, as_int, eval_rows, opponents_of, without_replaced
from tdmpc_lab.jobs.paths import find_project
from tdmpc_lab.jobs.record import JobRecord, read_record

if TYPE_CHECKING:
    import pandas as pd


RETURN = "return_mean"
_OUTCOMES = ("win", "draw", "loss")
_NO_MEASURES = frozenset({"step", "attempt", "episodes", "wall_s"})
_WORDS = {RETURN: "evaluation return", "return_min": "lowest return", "return_max": "highest return"}
_HARDEST_LAST = ("none", "random", "weak", "strong")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One job, with what its evaluations found."""

    record: JobRecord
    state: str
    """As `status` tells it: COMPLETED, RUNNING, …"""
    cause: str = ""
    """Why it ended, where it did not end well."""
    step: int | None = None
    """Environment steps done."""
    node: str | None = None
    spec: Spec | None = None
    """What it ran; None where this version can't read its config."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The same as plain nested values."""
    rows: tuple[Row, ...] = ()
    """Its evaluations by rising step."""

    @property
    def id(self) -> str:
        return self.record.id

    @cached_property
    def last_step(self) -> int:
        """Of the last evaluation; −1 without one."""
        return int(self.rows[-1]["step"]) if self.rows else -1

    @property
    def code(self) -> str:
        """What tells its code from other jobs': equal for equal code, empty where nothing is known."""
        return self.record.snapshot or self.record.code


@dataclass(frozen=True)
class Metric:
    """A number of every evaluation."""

    name: str
    """As the rows call it: `return_mean`, `win`; of one of several opponents `win_strong`."""
    lower: bool = False
    """Whether less is better."""

    @property
    def is_share(self) -> bool:
        """Whether it is a share of games."""
        return self.name.partition("_")[0] in _OUTCOMES

    @property
    def label(self) -> str:
        """For a table's or an axis' title."""
        outcome, _, opponent = self.name.partition("_")
        if outcome in _OUTCOMES:
            return f"{outcome} rate{f' vs {opponent}' if opponent else ''}"
        return _WORDS.get(self.name, self.name)

    def of(self, row: Row) -> float | None:
        """Its value in a row; None where there is none, or no finite one."""
        value = as_float(row.get(self.name))
        outcome, _, opponent = self.name.partition("_")
        if value is None and opponent and row.get("opponent") == opponent and outcome in _OUTCOMES:
            return as_float(row.get(outcome))  # the only opponent: its keys have no ending
        return value

    def games(self, row: Row) -> tuple[int, int] | None:
        """Of a share: games counted, and played."""
        share, played = self.of(row), as_int(row.get("episodes"))
        if not self.is_share or share is None or played is None:
            return None
        if "_" in self.name and self.name in row:  # every opponent of a row is played the same number of games
            played //= max(1, len(opponents_of(row)))
        return round(share * played), played


@dataclass(frozen=True)
class Series:
    """One metric of one run, by rising step."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    hours: NDArray[np.float64]
    """Hours trained until then; NaN where that is not on file."""


def series_of(run: Run, metric: Metric) -> Series:
    """The evaluations that have a finite value of it."""
    points = [(row["step"], value, row.get("wall_s")) for row in run.rows if (value := metric.of(row)) is not None]
    hours = [np.nan if (wall := as_float(seconds)) is None else wall / 3600 for _, _, seconds in points]
    return Series(
        np.array([step for step, _, _ in points], dtype=np.int64),
        np.array([value for _, value, _ in points], dtype=np.float64),
        np.array(hours, dtype=np.float64),
    )


def opponents(run: Run) -> tuple[str, ...]:
    """Who the last evaluation was played against; nobody where there was no game."""
    return tuple(name for name, _ in opponents_of(run.rows[-1])) if run.rows else ()


def choose_metric(runs: Sequence[Run], name: str | None, *, lower: bool = False) -> Metric:
    """The metric that was asked for; without one the win rate where all runs played games, else the return.

    Of runs that met different opponents it is the win rate against the hardest one that all of them met.
    Raises UsageError, naming what there is, where no evaluation has it.
    """
    evaluated = [run for run in runs if run.rows]
    if name is not None:
        metric = Metric(name, lower)
        if any(metric.of(row) is not None for run in evaluated for row in run.rows) or not evaluated:
            return metric
        raise UsageError(f"--metric {name}: no evaluation has it; there are: {', '.join(_names(evaluated))}")
    met = [opponents(run) for run in evaluated]
    if not met or not all(met):
        return Metric(RETURN, lower)
    common = [one for one in met[0] if all(one in others for others in met)]
    if not common or all(set(one) == set(met[0]) for one in met):
        return Metric("win", lower)
    rank = {one: place for place, one in enumerate(_HARDEST_LAST)}
    return Metric(f"win_{max(common, key=lambda one: rank.get(one, -1))}", lower)


def _names(runs: Sequence[Run]) -> list[str]:
    found = dict.fromkeys(key for run in runs for key in run.rows[-1])
    names = [name for name in found if any(as_float(run.rows[-1].get(name)) is not None for run in runs)]
    return [name for name in names if name not in _NO_MEASURES]


COLUMNS = ["job", "experiment", "group", "seed"]


def load(
    jobs: Sequence[str] | str | None = None, *, split: Literal["train", "eval"] | None = None, root: Path | None = None
) -> pd.DataFrame:
    """Every metric row of the jobs named (default: all of the project), one table row each.

    `jobs` are words as `compare` takes them: experiments, groups, ids. `split` keeps the rows of the evaluations or of
    the training alone (evaluations alone are read much faster). Columns: `job`, `experiment`, `group`, `seed`, then
    those of the rows (`step`, `split`, `return_mean`, …); what a row does not have is NaN. What a restarted attempt did
    again is left out. `root` is a folder in the project, default the working directory.

    Raises:
        UsageError: no project here, or a word means no job.
        RecordError: a job's record or metrics can't be read.
    """
    import pandas as pd

    project = find_project(root)
    if jobs is None:
        chosen = [(paths, read_record(paths)) for paths in map(project.job, job_ids(project))]
    else:
        chosen = select_jobs(project, [jobs] if isinstance(jobs, str) else jobs)
    tables = []
    for paths, record in chosen:
        rows = eval_rows(paths) if split == "eval" else without_replaced(read_jsonl(paths.metrics)[0])
        table = pd.DataFrame([row for row in rows if split in (None, row.get("split"))])
        known: list[str | int] = [record.id, record.experiment, record.group, record.seed]
        for position, (name, value) in enumerate(zip(COLUMNS, known, strict=True)):
            table.insert(position, name, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
