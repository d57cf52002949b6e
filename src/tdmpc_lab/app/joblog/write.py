"""A job's note, kept in sync with the job's files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tdmpc_lab.errors import LabError, NoteError, RecordError
from tdmpc_lab.files import file_lock, read_jsonl, write_atomic
from tdmpc_lab.jobs.events import OUTCOMES, cancelled_since, read_events, read_requests
from tdmpc_lab.jobs.find import tasks_of
from tdmpc_lab.jobs.ids import array_of
from tdmpc_lab.jobs.metrics import eval_rows, without_superseded
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.jobs.state import JobStatus, SchedulerState, status_of, traceback_of
from tdmpc_lab.notes.curve import curves_of, svg
from tdmpc_lab.notes.entries import read_entry, read_log
from tdmpc_lab.notes.note import update_note
from tdmpc_lab.notes.render import NotePlaces, describe_for_mlflow, render_array_note, render_note
from tdmpc_lab.notes.rollup import RollupEditedError, check_unedited, rollup
from tdmpc_lab.text import parse_time
from tdmpc_lab.tracking.store import run_url, web_address


def write_note(
    project: Project, paths: JobPaths, scheduler: SchedulerState | None, status: JobStatus | None = None
) -> str:
    """Bring the tool's part of the job's note in sync with its files; returns the whole note, a user's words included.

    `status` is told where it is known already, and then nothing is made of the scheduler's word.

    Raises:
        NoteError: the note's markers are broken, or it can't be written. The job's files say all the same.
        RecordError: a file of the job can't be read.
    """
    record = read_record(paths)
    events = read_events(paths.events)
    status = status or status_of(paths, record, scheduler, events)
    warnings = [str(event.get("message")) for event in events if event.get("event") == "warning"]
    rows = eval_rows(paths)
    text = render_note(
        record,
        status,
        rows,
        traceback_of(events),
        _places(project, paths, record, status, events, rows),
        error=_error_of(events),
        warnings=warnings,
        happened=[event for event in events if event.get("event") in ("phase", "video")],
        later=read_jsonl(paths.evals)[0],
    )
    note = update_note(project.note(paths.id), text, paths.note_lock)
    return note.decode(errors="replace")


def _places(
    project: Project,
    paths: JobPaths,
    record: JobRecord,
    status: JobStatus,
    events: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> NotePlaces:
    checkpoints = sorted(path.name for path in paths.checkpoints.glob("step_*.pt"))
    tracking = [event for event in events if event.get("event") == "tracking"]
    store, *run = (tracking[-1].get(key) for key in ("store", "experiment_id", "run_id")) if tracking else [None]
    return NotePlaces(
        checkpoint=checkpoints[-1] if checkpoints else None,
        plot=_draw(project, record, rows) if status.state.ended else None,
        run=run_url(web_address(str(store)), *map(str, run)) if store and all(run) else None,
        gpu=_gpu(record, events),
    )


def _gpu(record: JobRecord, events: Sequence[Mapping[str, Any]]) -> str | None:
    """What the last attempt trains on: the GPU, or that it has none though it asked for one."""
    ready = [event for event in events if event.get("event") == "ready"]
    if not ready:
        return None
    if gpu := ready[-1].get("gpu"):
        return str(gpu)
    return f"{ready[-1].get('device')}, though a GPU was asked for" if record.resources.get("gpus") else None


def _draw(project: Project, record: JobRecord, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw the curve of the evaluations beside the note; the link to it, or None where there is nothing to draw."""
    curves = [curve for curve in curves_of(without_superseded(map(dict, rows))) if len(curve.values) > 1]
    if not curves:
        return None
    path = project.plot(record.id)
    picture = svg(curves, f"{record.id}: {record.experiment}").encode(errors="replace")
    try:
        if not path.exists() or path.read_bytes() != picture:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, picture)
    except OSError:  # the note, which has the numbers, says it if nothing can be written at all
        return None
    return f"{path.parent.name}/{path.name}"


def _error_of(events: Sequence[Mapping[str, Any]]) -> str:
    """The name of the Python error of the job's last failure."""
    failures = [event for event in events if event.get("event") == "failed"]
    return str(failures[-1].get("error") or "") if failures else ""


def write_array_note(project: Project, array_id: str, known: Mapping[str, JobStatus] | None = None) -> None:
    """Bring the note of a whole job array in sync with the files of its tasks.

    SLURM is not asked: `known` are the statuses of tasks for which that was done. A task whose record can't be
    read is left out. Raises NoteError like `write_note`.
    """
    # Held from reading to writing: of two tasks that end at once, the later writer has seen the other's end.
    try:
        with file_lock(project.jobs / ".arrays" / f"{array_id}.lock"):
            tasks = _tasks(project, array_id, known or {})
            if tasks:
                text = render_array_note(array_id, tasks)
                update_note(project.note(array_id), text, project.notes_lock)
    except OSError as error:
        raise NoteError(f"{project.note(array_id)}: the note can't be updated: {error}") from error


def _tasks(project: Project, array_id: str, known: Mapping[str, JobStatus]) -> list[tuple[JobRecord, JobStatus]]:
    tasks = []
    for job_id in tasks_of(project, array_id):
        paths = project.job(job_id)
        with contextlib.suppress(RecordError):  # a damaged job is `status`'s to report
            record, events = read_record(paths), read_events(paths.events)
            status = known.get(job_id)
            ended = any(event.get("event") in OUTCOMES for event in events[-5:])
            if status is None or ended:
                status = status_of(paths, record, _by_files(paths, events), events)
            tasks.append((record, status))
    return tasks


def _by_files(paths: JobPaths, events: Sequence[Mapping[str, Any]]) -> SchedulerState:
    """What is taken for true of a task without an outcome, where the scheduler is not asked."""
    marks = [event for event in events if event.get("event") in ("started", "preempted")]
    runs = bool(marks) and marks[-1]["event"] == "started"
    if by := cancelled_since(read_requests(paths), parse_time(marks[-1].get("time")) if marks else None):
        return SchedulerState("GONE", f"CANCELLED by {by}")
    return SchedulerState("RUNNING" if runs else "PENDING")


def mlflow_description(paths: JobPaths, scheduler: SchedulerState | None, note: str) -> str:
    """The note as the MLflow run's description: outcome first, as plain text."""
    record = read_record(paths)
    return describe_for_mlflow(record, status_of(paths, record, scheduler), note)


def verdict_tags(project: Project, job_id: str) -> dict[str, str]:
    """What was made of a job, as tags of its MLflow run: by its own note, else by that of its whole array; nothing
    where nobody has judged it, or no note can be read.
    """
    array = array_of(job_id)
    for noted in (job_id, *([array[0]] if array else [])):
        with contextlib.suppress(NoteError):  # there is none, or `notes` tells what is wrong with it
            if (verdict := read_entry(project.note(noted)).verdict) is not None:
                return verdict.tags
    return {}


def read_note(project: Project, job_id: str) -> str:
    """The whole note, a user's words included.

    Raises:
        NoteError: there is none, or it can't be read.
    """
    path = project.note(job_id)
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise NoteError(f"{path}: the note can't be read: {error.strerror}") from error


def make_rollup(project: Project) -> Path:
    """Write `notes/JOBS.md` anew from the notes.

    Raises:
        RollupEditedError: a user has written into it; it is as it was.
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


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _name(project: Project) -> str:
    return str(project.rollup.relative_to(project.root))
