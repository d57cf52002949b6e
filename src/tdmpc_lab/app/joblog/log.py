"""`notes`: the job log as it is now.

Jobs that ended without writing an outcome have their notes caught up first.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from tdmpc_lab.app.joblog.write import refresh_rollup, write_array_note, write_note
from tdmpc_lab.app.queue.status import JobView, job_views
from tdmpc_lab.errors import LabError, NoteError
from tdmpc_lab.files import nearest
from tdmpc_lab.jobs.find import folder_names, is_recorded, tasks_of
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import State
from tdmpc_lab.launch.attempts import DEAD_S, last_heartbeat_s
from tdmpc_lab.notes.entries import Entry, in_order, is_outcome, read_entry, read_log, state_of_all
from tdmpc_lab.notes.render import markdown_line, outcome_line
from tdmpc_lab.text import heading_time


def catch_up_notes(project: Project, views: Sequence[JobView]) -> None:
    """Have the notes, and the roll-up, of those among these jobs that ended in silence say so: killed, or their node
    failed. Every command that looks at jobs calls it with what it saw.

    Costs nothing for the others. A note that this user can't write is left to who can; other troubles are told and
    change nothing.
    """
    behind = [view for view in views if _ended_in_silence(project, view) and _is_behind(project, view)]
    for view in behind:
        try:
            write_note(project, project.job(view.id), None, view.status)
        except (LabError, OSError) as error:
            print(f"warning: the note of {view.id} was not brought up to date: {error}", file=sys.stderr)
    arrays = dict.fromkeys(view.record.array_id for view in behind if view.record is not None and view.record.array_id)
    for array_id in arrays:
        tasks = job_views(project, tasks_of(project, array_id))
        try:
            write_array_note(project, array_id, {view.id: view.status for view in tasks if view.status is not None})
        except LabError as error:
            print(f"warning: the note of array {array_id} was not brought up to date: {error}", file=sys.stderr)
    if behind:
        refresh_rollup(project)


def _ended_in_silence(project: Project, view: JobView) -> bool:
    """Whether the job is over, and has put no outcome on file.

    Of one whose process is gone while nobody knows how, only when it has been still for long: a SLURM job is for a
    moment in neither queue nor accounts.
    """
    status, record = view.status, view.record
    if status is None or record is None or status.ended_at is not None:
        return False
    if status.state is not State.UNKNOWN:
        return status.state.ended
    still = last_heartbeat_s(project.job(view.id).attempts)
    return (time.time() - record.submitted.timestamp() if still is None else still) > DEAD_S


def _is_behind(project: Project, view: JobView) -> bool:
    """Whether the note says another state than the job is in, and may be written."""
    note = project.note(view.id)
    if not os.access(nearest(note), os.W_OK):
        return False
    try:
        return read_entry(note).state != view.state.value
    except NoteError:  # it is not there, or broken: what stands in its way is told by who writes it
        return True


_MAY_CHANGE = ("PENDING", "RUNNING", "UNKNOWN")


def log_entries(project: Project) -> tuple[list[Entry], list[str]]:
    """The whole log, oldest first, and what is wrong with single notes.

    States are those of now: of a job whose note says that it waits or runs, its files and its scheduler are asked. A
    job without a note has an entry all the same.
    """
    entries, problems = read_log(project.notes)
    folders = set(folder_names(project))
    named = {path.stem for path in project.notes.glob("*.md")}
    missing = [name for name in folders - named if name.partition("_")[0] not in named]
    missing = [name for name in missing if is_recorded(project, name)]
    asked = {entry.id: _jobs_of(entry.id, folders) for entry in entries if entry.state in _MAY_CHANGE}
    ids = [*missing, *(job_id for ids in asked.values() for job_id in ids)]
    views = {view.id: view for view in job_views(project, ids)} if ids else {}
    catch_up_notes(project, list(views.values()))
    entries = [_now(entry, [views[job_id] for job_id in asked.get(entry.id, ())]) for entry in entries]
    entries += [_without_note(views[name]) for name in missing]
    return [entry for entry, _ in in_order(entries)], problems


def _jobs_of(job_id: str, folders: set[str]) -> list[str]:
    """The jobs that tell an entry's state: itself, or the tasks of a whole array."""
    return [job_id] if job_id in folders else sorted(name for name in folders if name.startswith(f"{job_id}_"))


def _now(entry: Entry, views: Sequence[JobView]) -> Entry:
    """The entry with the state of now, and of a single job with the line that tells it."""
    statuses = [view.status for view in views if view.status is not None]
    state = state_of_all(status.state.value for status in statuses)
    if state is None or state == entry.state:
        return entry
    if [view.id for view in views] != [entry.id]:
        return replace(entry, state=state)
    line = f"- {markdown_line(outcome_line(statuses[0]))}"
    shown = tuple(line if index > 0 and is_outcome(old) else old for index, old in enumerate(entry.lines))
    return replace(entry, state=state, lines=shown)


def _without_note(view: JobView) -> Entry:
    if view.record is None or view.status is None:
        return Entry(view.id, f"##### {view.id}", (), (), state="UNKNOWN", problem=view.problem)
    record = view.record
    lines = (f"- {markdown_line(record.about or record.experiment)}", f"- {markdown_line(outcome_line(view.status))}")
    return Entry(
        id=view.id,
        heading=f"##### {view.id} - {heading_time(record.submitted)}",
        lines=lines,
        words=(),
        time=record.submitted.replace(tzinfo=None),
        state=view.status.state.value,
        experiment=record.experiment,
        text="\n".join(lines),
    )
