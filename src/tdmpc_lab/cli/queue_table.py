"""The queue with what every job is: the columns of squeue, as lines for a terminal and for a note."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from tdmpc_lab.app.queue.status import JobView
from tdmpc_lab.jobs.metrics import opponents_of
from tdmpc_lab.jobs.points import what_it_is
from tdmpc_lab.jobs.queued import SHORT_STATES
from tdmpc_lab.jobs.state import State
from tdmpc_lab.text import duration, number, one_line, parse_time, shorten

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
    rows, widths = _fitted([HEADINGS, *(_cells(view) for view in views)], width)
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
    rows = [HEADINGS, *(_cells(view) for view in views)]
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
        found.append((f"no sign of life for {duration(view.sign_of_life_s)}", WARNING))
    elif view.sign_of_life_s is not None and ages:
        found.append((f"sign of life {duration(view.sign_of_life_s)} ago", ""))
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


def _cells(view: JobView) -> tuple[str, ...]:
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
