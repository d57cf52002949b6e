"""The notes of SLURM jobs that ended without a word of their own: nobody is left to write them but whoever looks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tdmpc_lab.app.joblog import refresh_rollup
from tdmpc_lab.app.journal import write_array_note, write_note
from tdmpc_lab.app.status import JobView, job_views, scheduler_states
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.events import OUTCOMES, read_events
from tdmpc_lab.jobs.paths import Project


def catch_up_notes(project: Project, ids: Sequence[str]) -> None:
    """Have the notes of those among these jobs that SLURM ended say so. Troubles are told and change nothing."""
    silent = [
        (project.job(view.id), view.record)
        for view in job_views(project, ids)
        if view.record is not None and _ended_in_silence(project, view)
    ]
    states = scheduler_states(silent)
    for paths, record in silent:
        try:
            write_note(project, paths, states[record.id])
        except (LabError, OSError) as error:
            print(f"warning: the note of {record.id} was not brought up to date: {error}", file=sys.stderr)
    arrays = dict.fromkeys(record.array_id for _, record in silent if record.array_id is not None)
    for array_id in arrays:
        views = job_views(project, project.tasks_of(array_id))
        try:
            write_array_note(project, array_id, {view.id: view.status for view in views if view.status is not None})
        except LabError as error:
            print(f"warning: the note of array {array_id} was not brought up to date: {error}", file=sys.stderr)
    if silent:
        refresh_rollup(project)


def _ended_in_silence(project: Project, view: JobView) -> bool:
    """Whether SLURM ended the job, and the job has put no outcome on file."""
    if view.record is None or view.status is None or view.record.cluster != "slurm":
        return False
    events = read_events(project.job(view.id).events)
    return view.status.state.ended and not any(event.get("event") in OUTCOMES for event in events[-5:])
