"""`notes`: the job log, its roll-up `notes/JOBS.md`, and its page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tdmpc_lab.app.joblog.edit import ensure_note, lock_of
from tdmpc_lab.app.queue.status import JobView, job_views
from tdmpc_lab.errors import LabError, NoteError
from tdmpc_lab.files import file_lock, write_atomic
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.notes.entries import Entry, is_outcome, state_of_all
from tdmpc_lab.notes.log import in_order, read_log
from tdmpc_lab.notes.note import change_note
from tdmpc_lab.notes.render import markdown_line, outcome_line
from tdmpc_lab.notes.rollup import Added, RollupEditedError, check_unedited, move_into, rollup
from tdmpc_lab.text import heading_time

_MAY_CHANGE = ("PENDING", "RUNNING", "UNKNOWN")


def log_entries(project: Project) -> tuple[list[Entry], list[str]]:
    """The whole log, oldest first, and what is wrong with single notes.

    States are those of now: of a job whose note says that it waits or runs, its files and its scheduler are asked. A
    job without a note has an entry all the same.
    """
    from tdmpc_lab.app.joblog.catch_up import catch_up_notes

    entries, problems = read_log(project.notes)
    folders = set(project.folder_names())
    named = {path.stem for path in project.notes.glob("*.md")}
    missing = [name for name in folders - named if name.partition("_")[0] not in named]
    missing = [name for name in missing if project.is_recorded(name)]
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


def make_rollup(project: Project) -> Path:
    """Write `notes/JOBS.md` anew from the notes.

    Raises:
        RollupEditedError: a person has written into it; it is as it was.
        NoteError: it can't be written.
    """
    try:
        with file_lock(project.rollup_lock):  # from reading the notes on: of two, the later one has all
            entries, problems = read_log(project.notes)
            for problem in problems:  # the entry is left out, or stands there without what the tool wrote
                print(f"warning: {problem}", file=sys.stderr)
            fresh = rollup(entries)
            now = _content(project.rollup)
            check_unedited(_name(project), now, _content(project.rollup_copy), fresh)
            if now != fresh:
                project.notes.mkdir(parents=True, exist_ok=True)
                write_atomic(project.rollup_copy, fresh)
                write_atomic(project.rollup, fresh)
    except OSError as error:
        raise NoteError(f"{project.rollup}: can't be written: {error}") from error
    return project.rollup


def refresh_rollup(project: Project) -> None:
    """The same after a note has changed: what stands in its way is told, and changes nothing."""
    try:
        make_rollup(project)
    except RollupEditedError as error:
        print(f"note: {str(error).splitlines()[0].rstrip(':')}; see: tdmpc-lab notes --rollup", file=sys.stderr)
    except LabError as error:
        print(f"warning: {error}", file=sys.stderr)


def move_edits(project: Project, added: Sequence[Added]) -> list[str]:
    """Put a person's lines out of the roll-up into the notes of their jobs, and write it anew; the ids of those notes.

    Raises:
        NoteError: a line stands below no job's heading, or a note can't be written. Lines that were moved before
            that stand in both places then.
    """
    lost = [line for one in added if one.job_id is None or not _is_noted(project, one.job_id) for line in one.lines]
    if lost:
        raise NoteError(
            f"{_name(project)}: these lines belong to no job that has a note; put them elsewhere, or below a job's "
            "heading:\n" + "\n".join(f"  {line}" for line in lost)
        )
    moved = []
    for one in added:
        job_id = one.job_id or ""
        ensure_note(project, job_id)
        path = project.note(job_id)
        change_note(path, partial(move_into, lines=one.lines, name=str(path)), lock_of(project, job_id))
        moved.append(job_id)
    with file_lock(project.rollup_lock):
        fresh = rollup(read_log(project.notes)[0])
        write_atomic(project.rollup_copy, fresh)
        write_atomic(project.rollup, fresh)
    return moved


def _is_noted(project: Project, job_id: str) -> bool:
    return project.note(job_id).exists() or project.is_recorded(job_id)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _name(project: Project) -> str:
    return str(project.rollup.relative_to(project.root))
