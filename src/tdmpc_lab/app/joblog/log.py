"""`notes`: the job log, its roll-up `notes/JOBS.md`, and its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tdmpc_lab.app.queue.status import JobView, job_views
from tdmpc_lab.jobs.find import folder_names, is_recorded
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.notes.entries import Entry, is_outcome, state_of_all
from tdmpc_lab.notes.log import in_order, read_log
from tdmpc_lab.notes.render import markdown_line, outcome_line
from tdmpc_lab.text import heading_time

_MAY_CHANGE = ("PENDING", "RUNNING", "UNKNOWN")


def log_entries(project: Project) -> tuple[list[Entry], list[str]]:
    """The whole log, oldest first, and what is wrong with single notes.

    States are those of now: of a job whose note says that it waits or runs, its files and its scheduler are asked. A
    job without a note has an entry all the same.
    """
    from tdmpc_lab.app.joblog.catch_up import catch_up_notes

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
