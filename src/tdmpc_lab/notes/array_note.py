"""The tool's part of the note of a whole job array: what the sweep is, and one line for each of its tasks."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from tdmpc_lab.jobs.points import point_of, point_text
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, State
from tdmpc_lab.notes.render import code_span, markdown_line, outcome_line, overrides_line, what_line
from tdmpc_lab.text import heading_time


def render_array_note(array_id: str, tasks: Sequence[tuple[JobRecord, JobStatus]]) -> str:
    """The note's part as Markdown, without the markers, ending in a newline; `tasks` has at least one."""
    record = tasks[0][0]
    swept = list(dict.fromkeys(key for task, _ in tasks for key in point_of(task)))
    starts = dict.fromkeys(task.starts_from for task, _ in tasks)
    lines = [
        f"##### {array_id} - {heading_time(record.submitted)}",
        f"- {markdown_line(record.about or record.experiment)}",
        *([f"- why: {markdown_line(record.why)}"] if record.why else []),
        f"- sweep of {_of_all(record, len(tasks))}: {markdown_line(', '.join(swept) or 'rows written out')}",
        *overrides_line(record),
        f"- {markdown_line(what_line(record, seed='train.seed' not in swept))}",
        *(f"- starts from {markdown_line(text)}" for text in starts if text),
        f"- {_counts([status for _, status in tasks])}",
        *(
            f"- warning: {markdown_line(text)}"
            for text in dict.fromkeys(said for task, _ in tasks for said in task.warned)
        ),
        f"- folders {code_span(f'jobs/{array_id}_*')} · submitted by {code_span(shlex.join(record.command))}",
        "",
    ]
    lines += [
        f"- {code_span(task.id)} {markdown_line(point_text(task) or 'nothing changed')}: "
        f"{markdown_line(outcome_line(status))}"
        for task, status in tasks
    ]
    return "\n".join(lines) + "\n"


def _of_all(record: JobRecord, here: int) -> str:
    """How many jobs; a sweep that is larger than one array may be has several."""
    count = (record.sweep or {}).get("count")
    return f"{here}" if count in (None, here) else f"{here} of {count}"


def _counts(statuses: Sequence[JobStatus]) -> str:
    count = Counter(status.state for status in statuses)
    return ", ".join(f"{count[state]} {state}" for state in State if count[state])
