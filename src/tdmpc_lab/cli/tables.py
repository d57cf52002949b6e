"""Tables and queues for a terminal or a file, drawn with rich."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from textwrap import wrap
from typing import Any, Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tdmpc_lab.app.queue.status import JobView, Listing
from tdmpc_lab.jobs.metrics import opponents_of
from tdmpc_lab.jobs.queued import SHORT_STATES
from tdmpc_lab.jobs.state import State
from tdmpc_lab.jobs.variants import what_it_is
from tdmpc_lab.notes.results import mean_and_std, share_with_interval
from tdmpc_lab.notes.verdict import is_verdict_line
from tdmpc_lab.text import count, duration, number, one_line, parse_time, shorten

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
        head = Text(f"{now:%Y-%m-%d %H:%M:%S}   Press Ctrl-C to stop watching; jobs continue.", "dim")
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


HEADINGS = ("JOBID", "PARTITION", "NAME", "USER", "ST", "TIME", "NODES", "NODELIST(REASON)")
STYLES = {
    State.PENDING: "yellow",
    State.RUNNING: "cyan",
    State.COMPLETED: "green",
    State.FAILED: "red",
    State.TIMEOUT: "red",
    State.CANCELLED: "magenta",
    State.UNKNOWN: "bold red",
}
WARNING = "bold red"
LONG_NAME, SHORT_NAME = 20, 8  # squeue cuts names at 8
_NAME, _STATE, _TIME, _NODES, _PLACE = 2, 4, 5, 6, 7  # places of columns
_LEAST_WHAT = 40  # columns that `-> what it is` needs to stand on the job's own line
_LEAST_PLACE = 6

Fact = tuple[str, str]
"""Text and style."""


def queue_lines(views: Sequence[JobView], width: int) -> list[Text]:
    """A heading, and per job its line of squeue, `-> what it is`, and how it is doing, in `width` columns."""
    rows, widths = _fitted([HEADINGS, *(_queue_cells(view) for view in views)], width)
    head = sum(widths) + len(widths)
    beside = width - head >= _LEAST_WHAT
    lines = [Text(_join(rows[0], widths).rstrip(), "bold")]
    for view, row in zip(views, rows[1:], strict=True):
        line = Text(_join(row, widths))
        line.stylize(STYLES[view.state], *_span(widths, _STATE))
        what = f"-> {what_is(view)}"
        if beside:
            lines.append(line.append(f" {shorten(what, width - head - 1)}"))
        else:
            line.rstrip()
            lines += [line, Text(f"  {shorten(what, width - 2)}")]
        lines += _flow(facts(view), width, indent=5)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def queue_markdown(views: Sequence[JobView]) -> str:
    """The same as a code block to paste into a note: one line a job, nothing cut off."""
    rows = [HEADINGS, *(_queue_cells(view) for view in views)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = [_join(rows[0], widths).rstrip()]
    for view, row in zip(views, rows[1:], strict=True):
        said = " · ".join([what_is(view), *(text for text, _ in facts(view, ages=False))])
        lines.append(f"{_join(row, widths)} -> {said}")
    return "\n".join(["```", *lines, "```"])


def what_is(view: JobView) -> str:
    """What this job is, in a line."""
    if view.record is None:
        return one_line(view.problem or "")
    return what_it_is(view.record) or view.record.experiment


def facts(view: JobView, *, ages: bool = True) -> list[Fact]:
    """How a job is doing: steps, result, speed, time; what it waits for, or how it ended. `ages`: also what is no
    longer true a minute later."""
    s = view.status
    if s is None or view.record is None:
        return _begin(view)
    found: list[Fact] = []
    if s.step is not None or s.state is not State.PENDING:
        share = f" ({100 * (s.step or 0) / s.steps:.0f} %)" if s.steps and s.state is not State.COMPLETED else ""
        found.append((f"step {number(s.step or 0)}/{number(s.steps)}{share}", ""))
    result = latest_result(view)
    found += [(result, "")] if result else []
    if s.steps_per_s is not None and s.state is not State.PENDING:
        found.append((f"{number(s.steps_per_s)} steps/s", ""))
    found += _time_left(view)
    if s.attempt > 1:
        found.append((f"attempt {s.attempt}", ""))
    if view.silent:
        found.append((f"no heartbeat for {duration(view.sign_of_life_s)}", WARNING))
    elif view.sign_of_life_s is not None and ages:
        found.append((f"heartbeat {duration(view.sign_of_life_s)} ago", ""))
    if s.cause:
        bad = s.state not in (State.PENDING, State.RUNNING)
        waits = "waits: " if s.state is State.PENDING and view.slurm_answered else ""
        found.append((f"{waits}{one_line(s.cause)}", "red" if bad else "yellow"))
    return [*found, *_begin(view)]


def latest_result(view: JobView) -> str:
    """`win strong 0.87`, or where there are no games `return −150`; empty before there is any."""
    evaluation = (view.status.latest_eval if view.status else None) or {}
    if rates := win_rates(view):
        return f"win {rates}"
    latest = evaluation.get("return_mean", view.status.latest_return if view.status else None)
    return "" if latest is None else f"return {number(latest)}"


def win_rates(view: JobView) -> str:
    """The share of games won in the latest evaluation, by opponent; nothing where there was no game."""
    row = (view.status.latest_eval if view.status else None) or {}
    return " ".join(f"{name} {row[f'win{suffix}']:.2f}" for name, suffix in opponents_of(row))


def _time_left(view: JobView) -> list[Fact]:
    """What is left of a running job, against SLURM's time limit where that is near enough to matter."""
    s, limit = view.status, view.limit_left_s
    if s is None or s.state is not State.RUNNING:
        return []
    if view.done_at_limit is not None:
        reaches = f"reaches {100 * view.done_at_limit:.0f} % before the limit"
        return [(f"{reaches} in {duration(limit)} ({duration(s.eta_s)} to go)", "yellow")]
    if s.eta_s is not None:
        return [(f"{duration(s.eta_s)} left", "")]
    return [] if limit is None else [(f"time limit in {duration(limit)}", "")]


def _begin(view: JobView) -> list[Fact]:
    """When SLURM expects to start a job that waits."""
    waits = view.line is not None and not view.line.held and view.state is State.PENDING
    moment = parse_time(view.line.begin) if view.line is not None and waits else None
    return [] if moment is None else [(f"SLURM expects to start it {moment:%a %Y-%m-%d %H:%M}", "")]


def _queue_cells(view: JobView) -> tuple[str, ...]:
    line, s = view.line, view.status
    word = line.word if line is not None else view.state.value
    if line is not None and line.used:
        time = line.used
    else:
        time = "" if s is None or s.elapsed_s is None else duration(s.elapsed_s)
    node = (s.node if s is not None else None) or ""
    place = line.place if line is not None else node or ("(waits)" if view.state is State.PENDING else "")
    name = view.record.experiment if view.record is not None else line.name if line is not None else ""
    nodes = (line.nodes if line is not None else "") or ("1" if view.record is not None else "")
    cells = (view.id, view.partition, name, view.user or "", SHORT_STATES.get(word, word), time, nodes, place)
    return tuple(one_line(cell) or "-" for cell in cells)


def _fitted(rows: Sequence[tuple[str, ...]], width: int) -> tuple[list[tuple[str, ...]], list[int]]:
    """The rows cut so that they fit, and the columns' widths: names shorter, then without NODES, then the last cut."""
    fitted = list(rows)
    for most, without_nodes in ((LONG_NAME, False), (SHORT_NAME, False), (SHORT_NAME, True)):
        fitted = [_changed(row, _NAME, shorten(row[_NAME], most)) for row in rows]
        if without_nodes:
            fitted = [_changed(row, _NODES, "") for row in fitted]
        widths = [max(map(cell_len, column)) for column in zip(*fitted, strict=True)]
        if sum(widths) + len(widths) - 1 <= width:
            return fitted, widths
    room = max(_LEAST_PLACE, width - sum(widths[:_PLACE]) - len(widths) + 1)
    widths[_PLACE] = min(widths[_PLACE], room)
    return [_changed(row, _PLACE, shorten(row[_PLACE], room)) for row in fitted], widths


def _changed(row: tuple[str, ...], index: int, text: str) -> tuple[str, ...]:
    return (*row[:index], text, *row[index + 1 :])


def _join(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = []
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        if width == 0:
            continue
        right = index in (_TIME, _NODES)
        cells.append(" " * (width - cell_len(cell)) + cell if right else set_cell_size(cell, width))
    return " ".join(cells)


def _span(widths: Sequence[int], column: int) -> tuple[int, int]:
    begin = sum(width + 1 for width in widths[:column] if width)
    return begin, begin + widths[column]


def _flow(found: Sequence[Fact], width: int, indent: int) -> list[Text]:
    """The facts one after the other, on as many lines as they need: a figure or an advice that is cut is none."""
    lines: list[Text] = []
    for text, style in found:
        pieces = wrap(text, max(20, width - indent), break_long_words=False, break_on_hyphens=False)
        if lines and len(pieces) == 1 and lines[-1].cell_len + 3 + cell_len(text) <= width:
            lines[-1].append(" · ").append(text, style)
        else:
            lines += [Text(" " * indent).append(piece, style) for piece in pieces]
    return lines


_GAP = 2  # columns between two of a table
_LEAST_TEXT = 24  # columns that the one with running text needs to be readable

Cells = Sequence[Text | str]


def print_grid(
    console: Console, titles: Sequence[str], rows: Sequence[Cells], *, left: int = 1, text: int | None = None
) -> None:
    """Print a table; see `grid`."""
    console.print(grid(titles, rows, console.width, left=left, text=text))


def grid(
    titles: Sequence[str], rows: Sequence[Cells], width: int, *, left: int = 1, text: int | None = None
) -> RenderableType:
    """A table in `width` columns, or, where that is too narrow for it, every row as a heading with a line for each of
    its other cells.

    The first `left` columns stand left, the others right. `text` is the number of the column whose cells may take
    several lines; titles may where there is no room for them on one.
    """
    sizes = _fitting(titles, rows, width, text)
    if sizes is None:
        return _blocks(titles, rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, (title, size) in enumerate(zip(titles, sizes, strict=True)):
        stands_left = column < left or column == text
        table.add_column(title, justify="left" if stands_left else "right", width=None if column == text else size)
    for row in rows:
        table.add_row(*map(_styled, row))
    return table


def fits(titles: Sequence[str], rows: Sequence[Cells], width: int, text: int | None = None) -> bool:
    """Whether a table can be shown in `width` columns."""
    return _fitting(titles, rows, width, text) is not None


def _fitting(titles: Sequence[str], rows: Sequence[Cells], width: int, text: int | None) -> list[int] | None:
    """The widths of the columns so that each takes its longest cell and its title, or the title's longest word; None
    where that is more than there is."""
    for least in (map(cell_len, titles), (max(map(cell_len, title.split()), default=0) for title in titles)):
        sizes = [max([size, *(_styled(row[n]).cell_len for row in rows)]) for n, size in enumerate(least)]
        taken = sum(min(size, _LEAST_TEXT) if n == text else size for n, size in enumerate(sizes))
        if taken + _GAP * (len(sizes) - 1) <= width:
            return sizes
    return None


def _blocks(titles: Sequence[str], rows: Sequence[Cells]) -> RenderableType:
    width = max(map(cell_len, titles[1:]), default=0)
    lines: list[Text] = []
    for row in rows:
        lines.append(Text(f"{titles[0]} ", "bold").append_text(_styled(row[0])))
        for title, cell in zip(titles[1:], row[1:], strict=True):
            if value := _styled(cell):
                lines.append(Text(f"  {title}{' ' * (width - cell_len(title))}  ").append_text(value))
    return Group(*lines)


def _styled(cell: Text | str) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)
