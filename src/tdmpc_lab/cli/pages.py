"""The page of a job and of an array, drawn with rich."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tdmpc_lab.app.queue.show import JobPage, array_commands, commands, note_entry
from tdmpc_lab.app.queue.status import JobView
from tdmpc_lab.cli.tables import STYLES, WARNING, WIDTH_OF_A_FILE, facts, latest_result, print_grid
from tdmpc_lab.jobs.metrics import as_float, as_int, opponents_of
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.variants import place_text, point_text
from tdmpc_lab.notes.entries import Entry, rollup_lines
from tdmpc_lab.notes.render import outcome_line, what_line
from tdmpc_lab.notes.results import evenly, later_line, latest_of_each, mean_and_std, share_with_interval
from tdmpc_lab.notes.verdict import is_verdict_line
from tdmpc_lab.text import duration, heading_time, number, one_line, size_text, sparkline

_LABEL = 12
_EVALUATIONS = 10  # rows of the table; --json has all
_FILES = 6
_WARNINGS = 5
_MOST_POINTS = 40
_VERDICTS = {"good": "green", "bad": "red", "unclear": "yellow"}


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)


def print_page(project: Project, page: JobPage) -> None:
    """Everything about a job."""
    console = _console()
    parts: tuple[Callable[[JobPage], Lines], ...] = (_what, _doing, _attempts, _newest)
    for part in parts:
        for label, text in part(page):
            _print(console, label, text)
    _print_evaluations(console, page)
    for label, text in _files(project, page):
        _print(console, label, text)
    for label, text in _note(project, page):
        _print(console, label, text)
    if page.view.traceback:
        console.print(Text(f"\n{page.view.traceback.rstrip()}"), soft_wrap=True)
    _print_commands(console, commands(page))


def print_entry(entry: Entry) -> None:
    """A job of a hand-written log, which has no folder here."""
    console = _console()
    for line in rollup_lines(entry):
        console.print(Text(line), soft_wrap=True, highlight=False)
    console.print(Text("it is known from a hand-written log: there is no folder of it here", "dim"), soft_wrap=True)


def print_array(project: Project, array: str, views: Sequence[JobView]) -> None:
    """A line per task of an array, and what can be done with all of it."""
    console = _console()
    records = [view.record for view in views if view.record is not None]
    states = Counter(view.state for view in views)
    counts = ", ".join(f"{count} {state.value}" for state, count in states.items())
    console.print(Text(f"{array}  {counts}", "bold"))
    if records:
        _print(console, "what", Text(records[0].about or records[0].experiment))
        _print(console, "", Text(what_line(records[0], seed=False, links=False)))
        if records[0].why:
            _print(console, "why", Text(records[0].why))
    _print_tasks(console, views)
    entry = note_entry(project, array.partition("_")[0])
    if entry is not None:
        for line in _said(entry):
            _print(console, "note", line)
    _print_commands(console, array_commands(array, views))


def _print_tasks(console: Console, views: Sequence[JobView]) -> None:
    rows: list[list[Text | str]] = []
    for view in views:
        s, state = view.status, Text(view.state.value, STYLES[view.state])
        if view.record is None or s is None:
            rows.append([view.id, one_line(view.problem or ""), state, "", "", "", ""])
            continue
        steps = f"{number(s.step or 0)}/{number(s.steps)}"
        speed = "" if s.steps_per_s is None else number(s.steps_per_s)
        time = "" if s.elapsed_s is None else duration(s.elapsed_s)
        rows.append([view.id, point_text(view.record), state, steps, latest_result(view), speed, time])
    print_grid(console, ("task", "point", "state", "step", "result", "steps/s", "time"), rows, left=3, text=1)


def _print(console: Console, label: str, text: Text) -> None:
    """A line of the page; what is longer than the terminal continues below its own beginning."""
    room = max(20, console.width - _LABEL)
    for index, line in enumerate(text.wrap(console, room) or [Text()]):
        line.rstrip()
        console.print(Text(f"{label if index == 0 else '':<{_LABEL}}").append_text(line), soft_wrap=True)


Lines = Iterable[tuple[str, Text]]


def _what(page: JobPage) -> Lines:
    r = page.record
    yield "job", Text(f"{r.id}  ", "bold").append(page.view.state.value, f"bold {STYLES[page.view.state]}")
    yield "what", Text(r.about or r.experiment)
    if r.why:
        yield "why", Text(r.why)
    if r.sweep:
        yield "sweep", Text(place_text(r))
    yield "", Text(what_line(r, links=False))
    if r.starts_from:
        yield "starts from", Text(r.starts_from)
    if r.compare_to:
        for index, change in enumerate(r.diff or ("no difference",)):
            yield f"vs {r.compare_to}"[: _LABEL - 1] if index == 0 else "", Text(change)
    if r.overrides:
        yield "overrides", Text(" ".join(r.overrides))
    for text in r.warned:
        yield "warned of", Text(text, "yellow")


def _doing(page: JobPage) -> Lines:
    view, s = page.view, page.view.status
    if s is None:
        yield "state", Text(f"UNKNOWN: {view.problem}", WARNING)
        return
    yield "state", Text(outcome_line(s, page.evaluations), STYLES[s.state])
    if view.goes_on:
        doing = [Text(text, style) for text, style in facts(view)]
        if doing:
            yield "", Text(" · ").join(doing)
    by = f" by {view.user}" if view.user else ""
    waited = page.attempts[0].started_at if page.attempts else None
    wait = "" if waited is None else f", began {duration((waited - page.record.submitted).total_seconds())} later"
    yield "submitted", Text(f"{heading_time(page.record.submitted)}{by}{wait}")
    if page.record.command:
        yield "", Text(" ".join(page.record.command))
    if page.hardware:
        h = page.hardware
        parts = [
            h.get("gpu") or h.get("device"),
            f"{h.get('threads')} thread{'' if h.get('threads') == 1 else 's'}",
            f"torch {h.get('torch')}",
            h.get("replay"),
        ]
        yield "hardware", Text(" · ".join(str(part) for part in parts if part))
    for problem in page.problems:
        yield "problem", Text(problem, WARNING)


def _attempts(page: JobPage) -> Lines:
    for index, attempt in enumerate(page.attempts):
        begin, end = attempt.started_at, attempt.ended_at
        parts = [f"{attempt.number}", f"on {attempt.node}" if attempt.node else ""]
        parts.append("" if begin is None else f"from {begin:%Y-%m-%d %H:%M:%S}")
        parts.append("" if begin is None or end is None else f"for {duration((end - begin).total_seconds())}")
        text = " ".join(part for part in parts if part)
        yield "attempts" if index == 0 else "", Text(f"{text}: {attempt.ending}" if attempt.ending else text)


def _newest(page: JobPage) -> Lines:
    values = {
        key: value
        for key, value in page.latest.items()
        if key not in ("step", "wall_s") and not key.startswith("diag/")
    }
    if values:
        at = as_int(page.latest.get("step"))
        words = [] if at is None else [f"step {number(at)}"]
        yield "latest", Text(" · ".join([*words, *(f"{key} {number(value)}" for key, value in values.items())]))


def _print_evaluations(console: Console, page: JobPage) -> None:
    rows = page.evaluations
    if rows:
        for label, values in _curves(rows):
            finite = [value for value in values if value is not None]
            line = sparkline([float("nan") if value is None else value for value in values], _MOST_POINTS)
            _print(
                console, label, Text(f"{line}  {number(finite[0])} → {number(finite[-1])}, best {number(max(finite))}")
            )
        _print_evaluation_table(console, rows)
        if len(rows) > _EVALUATIONS:
            console.print(
                Text(f"{_EVALUATIONS} of {number(len(rows))} evaluations; all: show {page.record.id} --json", "dim")
            )
    for row in latest_of_each(page.later):
        _print(console, "", Text(later_line(row)))


def _curves(rows: Sequence[dict[str, Any]]) -> Iterable[tuple[str, list[float | None]]]:
    games = opponents_of(rows[-1])
    for name, suffix in games:
        yield f"vs {name}"[: _LABEL - 1], [as_float(row.get(f"win{suffix}")) for row in rows]
    returns = [as_float(row.get("return_mean")) for row in rows]
    if any(value is not None for value in returns):
        yield "return", returns


def _print_evaluation_table(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    games = opponents_of(rows[-1])
    titles = ("step", *(f"win vs {name}" for name, _ in games), "return", "lowest", "highest", "episodes")
    found = []
    for index in evenly(len(rows), _EVALUATIONS):
        row = rows[index]
        ends = [number(as_float(row.get(key))) for key in ("return_min", "return_max")]
        won = [share_with_interval(row, suffix) for _, suffix in games]
        step, episodes = (number(as_int(row.get(key))) for key in ("step", "episodes"))
        found.append([step, *won, mean_and_std(row), *ends, episodes])
    print_grid(console, titles, found, left=0)


def _files(project: Project, page: JobPage) -> Lines:
    for index, checkpoint in enumerate(page.checkpoints[-_FILES:]):
        path = checkpoint.path.relative_to(project.root)
        text = f"step {number(checkpoint.step)}, {size_text(checkpoint.size)}, {path}"
        yield "checkpoints" if index == 0 else "", Text(text)
    for index, video in enumerate(page.videos[-_FILES:]):
        yield "videos" if index == 0 else "", Text(str(video.relative_to(project.root)))
    if page.tracking is not None:
        from tdmpc_lab.tracking.store import run_url

        t = page.tracking
        store = str(t.get("store"))
        where = run_url(store, str(t.get("experiment_id")), str(t.get("run_id"))) if store.startswith("http") else store
        yield "MLflow", Text(f"run {t.get('run_id')} · {where}")
    yield "folder", Text(str(page.paths.folder.relative_to(project.root)))
    for text in dict.fromkeys(page.warnings[-_WARNINGS:]):
        yield "warning", Text(text, "yellow")


def _note(project: Project, page: JobPage) -> Lines:
    yield "note", Text(str(project.note(page.record.id).relative_to(project.root)))
    if page.entry is not None:
        for line in _said(page.entry):
            yield "", line


def _said(entry: Entry) -> list[Text]:
    """A user's lines, and the verdict."""
    lines = [Text(line, "bold" if is_verdict_line(line) else "") for line in entry.words]
    verdict = entry.verdict
    if verdict is not None and verdict.by_command:
        lines.append(Text(verdict.line, f"bold {_VERDICTS[verdict.judgement]}"))
    return lines


def _print_commands(console: Console, listed: Sequence[tuple[str, str]]) -> None:
    console.print(Text("\ncontinue with", "bold"))
    width = max(len(command) for command, _ in listed)
    for command, what in listed:
        console.print(Text(f"  {command:<{width}}  ").append(what, "dim"), soft_wrap=True)
