"""Jobs with their evaluations, and one measure of them over environment steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.metrics import Row, as_float, as_int, opponents_of
from tdmpc_lab.jobs.record import JobRecord

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
