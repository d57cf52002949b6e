"""Tables for a person, drawn with rich."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tdmpc_lab.app.status import JobView
from tdmpc_lab.jobs.points import what_it_is
from tdmpc_lab.jobs.state import State
from tdmpc_lab.notes.results import mean_and_std, opponents_of, share_with_interval
from tdmpc_lab.notes.verdict import is_verdict_line
from tdmpc_lab.text import duration, number, one_line

WIDTH_OF_A_FILE = 200  # what is piped or redirected is not cut to a terminal's width
STYLES = {
    State.PENDING: "yellow",
    State.RUNNING: "cyan",
    State.COMPLETED: "green",
    State.FAILED: "red",
    State.TIMEOUT: "red",
    State.CANCELLED: "magenta",
    State.UNKNOWN: "bold red",
}
WITH_CAUSE = (State.RUNNING, State.FAILED, State.TIMEOUT, State.UNKNOWN, State.CANCELLED, State.PENDING)


def print_status(views: Sequence[JobView], *, in_full: bool, left_out: int = 0) -> None:
    """One line a job; below, why the jobs that did not end well did not, and `in_full` their tracebacks.

    `left_out`: older jobs that are over and not among them.
    """
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("job", no_wrap=True)
    table.add_column("experiment", no_wrap=True)
    table.add_column("what it is", ratio=1)
    table.add_column("state", no_wrap=True)
    games = any(_win_rate(view) for view in views)
    for title in ("step", "return", *(("win",) if games else ()), "steps/s", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for view in views:
        table.add_row(*_cells(view, games=games))
    console.print(table)
    if left_out:
        console.print(
            f"\n{number(left_out)} older jobs are over and not shown; all: tdmpc-lab status --all", highlight=False
        )
    causes = [(v.id, v.status.state.value if v.status else "UNKNOWN", _cause(v)) for v in views if _cause(v)]
    if causes:
        console.print()
    for job_id, state, cause in causes:
        console.print(Text(f"{job_id} {state}: {one_line(cause)}"), soft_wrap=True)
    for view in views:
        if in_full and view.traceback:
            console.print(Text(f"\n{view.id}:\n{view.traceback.rstrip()}"), soft_wrap=True)


def _cause(view: JobView) -> str:
    if view.status is None:
        return view.problem or ""
    return (view.status.cause or "") if view.status.state in WITH_CAUSE else ""


def _win_rate(view: JobView) -> str:
    """The share of games won in the latest evaluation, by opponent; nothing where there was no game."""
    row = (view.status.latest_eval if view.status else None) or {}
    return " ".join(f"{name} {row[f'win{suffix}']:.2f}" for name, suffix in opponents_of(row))


def _cells(view: JobView, *, games: bool) -> list[Text]:
    if view.record is None or view.status is None:
        return [Text(view.id), Text(""), Text(""), Text("UNKNOWN", STYLES[State.UNKNOWN])]
    s = view.status
    evaluation = s.latest_eval or {}
    latest = evaluation.get("return_mean", s.latest_return)
    running = s.state is State.RUNNING
    time = f"{duration(s.eta_s)} left" if running and s.eta_s is not None else _elapsed(s.elapsed_s)
    return [
        Text(view.id),
        Text(view.record.experiment),
        Text(what_it_is(view.record)),
        Text(s.state.value, STYLES[s.state]),
        Text(f"{number(s.step or 0)}/{number(s.steps)}"),
        Text("" if latest is None else number(latest)),
        *([Text(_win_rate(view))] if games else []),
        Text("" if s.steps_per_s is None else number(s.steps_per_s)),
        Text(time),
    ]


def _elapsed(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def print_evaluation(rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per opponent: shares of games, return, length."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    games = "win" in rows[0]
    if games:
        table.add_column("opponent", no_wrap=True)
    titles = ("win", "win starting", "win receiving", "draw", "loss") if games else ()
    for title in (*titles, "return", "lowest", "highest", "length"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        cells = []
        if games:
            cells = [str(row["opponent"]), share_with_interval(row)]
            shares = (row.get(key) for key in ("win_starting", "win_receiving", "draw", "loss"))
            cells += ["" if share is None else f"{share:.2f}" for share in shares]
        cells += [mean_and_std(row), *(number(row[key]) for key in ("return_min", "return_max", "length_mean"))]
        table.add_row(*map(Text, cells))
    console.print(table)


def print_rewards(rows: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> None:
    """One line per episode: its return raw, shaped and after backprop."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    print("weights: " + ", ".join(f"{name} {number(weight)}" for name, weight in weights.items()))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("episode", "outcome", "against"):
        table.add_column(title, no_wrap=True)
    for title in ("steps", "raw return", "shaped", "after backprop"):
        table.add_column(title, justify="right", no_wrap=True)
    for count, row in enumerate(rows, start=1):
        returns = [number(row[key]) for key in ("return", "return_shaped", "return_backprop")]
        table.add_row(str(count), row["outcome"], row["opponent"] or "", number(row["steps"]), *returns)
    console.print(table)


def print_entries(blocks: Sequence[Sequence[str]], judgements: Sequence[str]) -> None:
    """Entries of the job log: headings bold, verdicts in their colour."""
    console = Console()
    colours = {"good": "green", "bad": "red", "unclear": "yellow"}
    for block, judgement in zip(blocks, judgements, strict=True):
        for index, line in enumerate(block):
            style = "bold" if index == 0 else colours.get(judgement, "") if is_verdict_line(line) else ""
            console.print(Text(line, style), soft_wrap=True, highlight=False)
        console.print()
