"""Tables for a person, drawn with rich."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from tdmpc_lab.app.queue.status import JobView, Listing
from tdmpc_lab.cli.grid import fits, grid, print_grid
from tdmpc_lab.cli.queue_table import STYLES, queue_lines, win_rates
from tdmpc_lab.jobs.points import what_it_is
from tdmpc_lab.jobs.state import State
from tdmpc_lab.notes.results import mean_and_std, share_with_interval
from tdmpc_lab.notes.verdict import is_verdict_line
from tdmpc_lab.text import count, duration, number, one_line, shorten

WIDTH_OF_A_FILE = 200  # what is piped or redirected is not cut to a terminal's width
NARROW = 120  # columns: below, jobs that are over are shown on several lines each, too
WITH_CAUSE = (State.FAILED, State.TIMEOUT, State.UNKNOWN, State.CANCELLED)


def print_listing(listing: Listing, *, in_full: bool) -> None:
    """The jobs that are over, then those that wait or run as squeue shows them; `in_full` with tracebacks."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    for part in _parts(listing, console.width):
        console.print(part, soft_wrap=True, highlight=False)
    for view in listing.views:
        if in_full and view.traceback:
            console.print(Text(f"\n{view.id}:\n{view.traceback.rstrip()}"), soft_wrap=True)


def _parts(listing: Listing, width: int) -> list[RenderableType]:
    """What is printed one below the other."""
    over = [view for view in listing.views if not view.goes_on]
    going = [view for view in listing.views if view.goes_on] + listing.foreign
    parts: list[RenderableType] = []
    if listing.left_out:
        older = count(listing.left_out, "older job is", "older jobs are")
        parts += [Text(f"{older} over and not shown; all: tdmpc-lab status --all"), ""]
    if over and width >= NARROW:
        parts += _table_of_ended(over, width)
    elif over:
        parts += queue_lines(over, width)
    if going:
        parts += [*([""] if over else []), *queue_lines(going, width)]
    on_slurm = any(view.record is not None and view.record.cluster == "slurm" for view in listing.views)
    if listing.problem is not None and listing.slurm_answered and on_slurm:
        parts += ["", Text(f"your jobs outside this project are not shown: {shorten(listing.problem, 120)}", "yellow")]
    return parts


def _table_of_ended(views: Sequence[JobView], width: int) -> list[RenderableType]:
    games = any(win_rates(view) for view in views)
    titles = [
        "job",
        "experiment",
        "what it is",
        "state",
        "step",
        "return",
        *(["win"] if games else []),
        "steps/s",
        "time",
    ]
    rows = [_cells(view, games=games) for view in views]
    rows = [[*row, *[Text("")] * (len(titles) - len(row))] for row in rows]  # of a job that can't be read
    if not fits(titles, rows, width, text=2):
        return list(queue_lines(views, width))
    return [grid(titles, rows, width, left=4, text=2), *_causes(views)]


def _causes(views: Sequence[JobView]) -> list[RenderableType]:
    causes = [Text(f"{v.id} {v.state.value}: {one_line(_cause(v))}") for v in views if _cause(v)]
    return ["", *causes] if causes else []


class Screen:
    """What `--watch` shows: a terminal's whole screen, again and again; elsewhere one listing below the other."""

    def __init__(self) -> None:
        self._console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
        live = Live(console=self._console, screen=True, auto_refresh=False)
        self._live = live if self._console.is_terminal else None
        self._last: list[RenderableType] = []

    def show(self, listing: Listing, instead: str) -> None:
        """This listing, in the place of the one before; `instead` where there are no jobs. The queue comes first:
        what does not fit into the height is cut off, the oldest of the jobs that are over."""
        width, height = self._console.size
        now = datetime.now()
        head = Text(f"{now:%Y-%m-%d %H:%M:%S}   Ctrl-C ends the looking, no job", "dim")
        self._last = [Text(instead)] if instead else []
        self._last += _parts(listing, width)
        if self._live is None:
            self._console.print(Text(f"{now:%Y-%m-%d %H:%M:%S}"), *self._last, "", sep="\n", soft_wrap=True)
            sys.stdout.flush()
            return
        going = [view for view in listing.views if view.goes_on] + listing.foreign
        lines = [head, *([Text(instead)] if instead else []), *(queue_lines(going, width) if going else [])]
        if listing.problem or not listing.slurm_answered:
            lines.append(Text("SLURM does not answer: its jobs are shown as last known", "bold red"))
        over = [view for view in listing.views if not view.goes_on]
        while over and len(lines) + 1 + len(queue_lines(over, width)) > height - 1:
            over = over[1:]
        lines += [Text(""), *queue_lines(over, width)] if over else []
        self._live.update(Group(*lines[: height - 1]), refresh=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The terminal as it was, with the last listing on it."""
        if self._live is not None:
            self._live.stop()
            for part in self._last:
                self._console.print(part, soft_wrap=True, highlight=False)


def _cause(view: JobView) -> str:
    if view.status is None:
        return view.problem or ""
    return (view.status.cause or "") if view.status.state in WITH_CAUSE else ""


def _cells(view: JobView, *, games: bool) -> list[Text]:
    """Of a job that is over, or can't be read."""
    if view.record is None or view.status is None:
        return [Text(view.id), Text(""), Text(""), Text("UNKNOWN", STYLES[State.UNKNOWN])]
    s = view.status
    evaluation = s.latest_eval or {}
    latest = evaluation.get("return_mean", s.latest_return)
    return [
        Text(view.id),
        Text(view.record.experiment),
        Text(what_it_is(view.record)),
        Text(s.state.value, STYLES[s.state]),
        Text(f"{number(s.step or 0)}/{number(s.steps)}"),
        Text("" if latest is None else number(latest)),
        *([Text(win_rates(view))] if games else []),
        Text("" if s.steps_per_s is None else number(s.steps_per_s)),
        Text("" if s.elapsed_s is None else duration(s.elapsed_s)),
    ]


def print_evaluation(rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per opponent: shares of games, return, length."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    games = "win" in rows[0]
    titles = ["opponent", "win", "win starting", "win receiving", "draw", "loss"] if games else []
    titles += ["return", "lowest", "highest", "length"]
    found = []
    for row in rows:
        cells = []
        if games:
            cells = [str(row["opponent"]), share_with_interval(row)]
            shares = (row.get(key) for key in ("win_starting", "win_receiving", "draw", "loss"))
            cells += ["" if share is None else f"{share:.2f}" for share in shares]
        cells += [mean_and_std(row), *(number(row[key]) for key in ("return_min", "return_max", "length_mean"))]
        found.append(cells)
    print_grid(console, titles, found, left=1 if games else 0)


def print_rewards(rows: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> None:
    """One line per episode: its return raw, shaped and after backprop."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    print("weights: " + ", ".join(f"{name} {number(weight)}" for name, weight in weights.items()))
    titles = ("episode", "outcome", "against", "steps", "raw return", "shaped", "after backprop")
    found = []
    for episode, row in enumerate(rows, start=1):
        returns = [number(row[key]) for key in ("return", "return_shaped", "return_backprop")]
        found.append([str(episode), row["outcome"], row["opponent"] or "", number(row["steps"]), *returns])
    print_grid(console, titles, found, left=3)


def print_entries(blocks: Sequence[Sequence[str]], judgements: Sequence[str]) -> None:
    """Entries of the job log: headings bold, verdicts in their colour."""
    console = Console()
    colours = {"good": "green", "bad": "red", "unclear": "yellow"}
    for block, judgement in zip(blocks, judgements, strict=True):
        for index, line in enumerate(block):
            style = "bold" if index == 0 else colours.get(judgement, "") if is_verdict_line(line) else ""
            console.print(Text(line, style), soft_wrap=True, highlight=False)
        console.print()
