"""The notes of SLURM jobs that ended without a word of their own: nobody is left to write them but whoever looks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tdmpc_lab.app.journal import write_array_note, write_note
from tdmpc_lab.app.status import job_views, scheduler_states
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.events import OUTCOMES, read_events
from tdmpc_lab.jobs.paths import Project


def catch_up_notes(project: Project, ids: Sequence[str]) -> None:
    """Have the notes of those among these jobs that SLURM ended say so. Troubles are told and change nothing."""
    arrays: dict[str, None] = {}
    for view in job_views(project, ids):
        if view.record is None or view.status is None or view.record.cluster != "slurm":
            continue
        paths = project.job(view.id)
        if not view.status.state.ended or any(e.get("event") in OUTCOMES for e in read_events(paths.events)[-5:]):
            continue
        try:
            write_note(project, paths, scheduler_states([(paths, view.record)])[view.id])
        except (LabError, OSError) as error:
            print(f"warning: the note of {view.id} was not brought up to date: {error}", file=sys.stderr)
        if view.record.array_id is not None:
            arrays[view.record.array_id] = None
    for array_id in arrays:
        views = job_views(project, project.tasks_of(array_id))
        try:
            write_array_note(project, array_id, {view.id: view.status for view in views if view.status is not None})
        except LabError as error:
            print(f"warning: the note of array {array_id} was not brought up to date: {error}", file=sys.stderr)
