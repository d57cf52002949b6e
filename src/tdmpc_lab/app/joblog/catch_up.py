"""The notes of jobs that ended without a word of their own: nobody is left to write them but whoever looks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from tdmpc_lab.app.joblog.write import refresh_rollup, write_array_note, write_note
from tdmpc_lab.app.queue.status import JobView, job_views
from tdmpc_lab.errors import LabError, NoteError
from tdmpc_lab.files import nearest
from tdmpc_lab.jobs.find import tasks_of
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import State
from tdmpc_lab.launch.attempts import DEAD_S, last_sign_s
from tdmpc_lab.notes.entries import read_entry


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
    still = last_sign_s(project.job(view.id).attempts)
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
