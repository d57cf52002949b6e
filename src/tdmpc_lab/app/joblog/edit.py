"""`note ID "text"`, `note ID --edit`, `verdict`: what a user has to say about a job, in its note and in MLflow."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tdmpc_lab.app.joblog.write import mlflow_description, verdict_tags, write_note
from tdmpc_lab.app.queue.status import scheduler_states
from tdmpc_lab.errors import ExternalError, LabError, NoteError, SpecError, UsageError
from tdmpc_lab.files import file_lock, write_atomic
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.find import is_recorded, require_job, tasks_of
from tdmpc_lab.jobs.ids import is_job_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import read_record
from tdmpc_lab.jobs.unsent import remind
from tdmpc_lab.notes.entries import read_log
from tdmpc_lab.notes.note import add_bullet, change_note, has_markers, merge_edited, put_verdict, take_apart
from tdmpc_lab.notes.rollup import Added, move_into, rollup
from tdmpc_lab.notes.verdict import Judgement, Verdict, format_verdict, parse_verdict, split_causes, take_causes

EDITOR = "vi"  # POSIX has it


def noted_id(project: Project, text: str) -> str:
    """The id of the job meant, or of an entry of the log that has no job folder (it came from a hand-written log).

    Raises UsageError, with the nearest ids, for what is neither.
    """
    if is_job_id(text) and project.note(text).is_file():
        return text
    return require_job(project, text).id


def lock_of(project: Project, job_id: str) -> Path:
    """What is held while this note is changed: the job's own lock, or for an entry without a job folder one for all."""
    paths = project.job(job_id)
    return paths.note_lock if paths.record.exists() else project.notes_lock


def add_words(project: Project, job_id: str, text: str) -> bytes:
    """Add a bullet to a user's part of the note; returns the note.

    Raises NoteError, and changes nothing, where the note's markers are broken or it can't be written.
    """
    ensure_note(project, job_id)
    path = project.note(job_id)
    return change_note(path, lambda note: add_bullet(note, text, str(path)), lock_of(project, job_id))


def judge(
    project: Project, job_id: str, judgement: Judgement, because: str, causes: Sequence[str] = ()
) -> tuple[Verdict, bytes]:
    """Put a verdict into the tool's block of the note, in place of an earlier one; returns it and the note.

    Raises:
        UsageError: there is no reason, or the job did not have the setting that is named as the cause.
        SpecError: a cause names a key, or gives it a value, that no config can hold.
        NoteError: the note's markers are broken or it can't be written.
    """
    from tdmpc_lab.config.causes import check_causes

    because, named = take_causes(because)  # written into the reason, as the line in the note has them
    wanted = [part for text in (*causes, *named) for part in split_causes(text)]
    if not because.strip() or because.strip().lower() == "because":
        raise UsageError(f'a verdict needs its reason: tdmpc-lab verdict {job_id} {judgement} "because …"')
    checked = check_causes(list(dict.fromkeys(wanted)))
    for cause in checked:
        _refuse_foreign_cause(project, job_id, cause)
    line = format_verdict(judgement, because, checked)
    ensure_note(project, job_id)
    path = project.note(job_id)

    def change(note: bytes) -> bytes:
        if not has_markers(note) and is_recorded(project, job_id):
            take_apart(note, str(path))  # a job's note has markers: says that they are missing
        return put_verdict(note, line, str(path))

    note = change_note(path, change, lock_of(project, job_id))
    return parse_verdict(line, by_command=True), note


def _refuse_foreign_cause(project: Project, job_id: str, cause: str) -> None:
    """Raise UsageError for a setting that the job, or every task of the array, had otherwise: new jobs with the setting
    would be warned of for what it never did. A job whose config can't be read is taken at the user's word."""
    from tdmpc_lab.config.causes import other_value
    from tdmpc_lab.config.loader import load_resolved

    had = []
    for task in tasks_of(project, job_id) or [job_id]:
        try:
            config = project.job(task).resolved
            other = other_value(load_resolved(config), cause) if config.exists() else None
        except (SpecError, OSError):
            other = None
        if other is None:
            return
        had.append(other)
    told = " or ".join(dict.fromkeys(had))
    raise UsageError(
        f"--cause {cause}: {job_id} had {told}. A cause is a setting that the judged job had, and new jobs with it are "
        "warned of: give that one, or leave --cause out and say in the reason what would have been better"
    )


def edit(project: Project, job_id: str) -> bytes:
    """Have the note edited in $VISUAL, $EDITOR or vi; returns what it became.

    The editor gets a copy, so that the job and colleagues may continue writing; what it saved is put around the tool's
    block of then.

    Raises:
        UsageError: none was chosen, and there is no terminal that vi could use.
        ExternalError: there is no such editor, or it failed.
        NoteError: what was saved can't be put in place without losing something; the copy is kept, and named.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--edit: there is no terminal here, and EDITOR names no editor that does without")
    ensure_note(project, job_id)
    path = project.note(job_id)
    base = _read(path)
    fd, name = tempfile.mkstemp(prefix=f"{job_id}-", suffix=".md")
    copy = Path(name)
    os.close(fd)
    copy.write_bytes(base)
    _run_editor(editor or EDITOR, copy)
    edited = copy.read_bytes()
    try:
        note = change_note(path, lambda now: merge_edited(base, edited, now, str(path)), lock_of(project, job_id))
    except NoteError as error:
        raise NoteError(f"{error}; nothing was changed, and what you wrote is in {copy}") from error
    copy.unlink()
    return note


def _run_editor(words: str, path: Path) -> None:
    """Raises ExternalError."""
    try:
        code = subprocess.run([*shlex.split(words), str(path)], check=False).returncode
    except (OSError, ValueError) as error:
        path.unlink()
        raise ExternalError(f"the editor {words!r} can't be started ({error}); set EDITOR to another one") from error
    if code != 0:
        raise ExternalError(
            f"the editor {words!r} ended with exit code {code}; the note is as it was, the copy: {path}"
        )


def ensure_note(project: Project, job_id: str) -> None:
    """Write the job's note if there is none yet, or an empty one. Raises NoteError, RecordError."""
    paths, note = project.job(job_id), project.note(job_id)
    if not note.exists() or (note.is_file() and not note.stat().st_size and paths.record.exists()):
        write_note(project, paths, scheduler_states([(paths, read_record(paths))])[job_id])


def tell_mlflow(project: Project, job_id: str, note: bytes, verdict: Verdict | None = None) -> str | None:
    """The note as the description of the job's MLflow run, a verdict as its tag too; what went wrong, in one line.

    A job without a run is left alone, without loading MLflow: it came from a hand-written log, or its run gets the
    verdict when it is made. A verdict on a whole array goes to the runs of its tasks that have none of their own.
    """
    if tasks := tasks_of(project, job_id):
        told = [_tell_task(project, task) for task in tasks] if verdict is not None else []
        return next(filter(None, told), None)
    return _tell_run(project, job_id, note, {} if verdict is None else verdict.tags)


def _tell_task(project: Project, job_id: str) -> str | None:
    try:
        return _tell_run(project, job_id, _read(project.note(job_id)), verdict_tags(project, job_id))
    except NoteError as error:
        return str(error)


def _tell_run(project: Project, job_id: str, note: bytes, tags: Mapping[str, str]) -> str | None:
    from tdmpc_lab.tracking.run import describe_run
    from tdmpc_lab.tracking.store import store_uri

    paths = project.job(job_id)
    try:
        if not any(event.get("event") == "tracking" for event in read_events(paths.events)):
            return None
        record = read_record(paths)
        scheduler = scheduler_states([(paths, record)]).get(job_id)
        text = mlflow_description(paths, scheduler, note.decode(errors="replace"))
        problem = describe_run(store_uri(project.root), project.root, record, text, tags)
    except LabError as error:
        problem = str(error)
    if problem is not None:
        remind(project, job_id)
    return problem


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NoteError(f"{path}: the note can't be read: {error.strerror}") from error


def move_edits(project: Project, added: Sequence[Added]) -> list[str]:
    """Put a user's lines out of the roll-up into the notes of their jobs, and write it anew; the ids of those notes.

    Raises:
        NoteError: a line stands below no job's heading, or a note can't be written. Lines that were moved before
            that stand in both places then.
    """
    lost = [line for one in added if one.job_id is None or not _is_noted(project, one.job_id) for line in one.lines]
    if lost:
        raise NoteError(
            f"{project.rollup.relative_to(project.root)}: these lines belong to no job that has a note; put them "
            "elsewhere, or below a job's heading:\n" + "\n".join(f"  {line}" for line in lost)
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
    return project.note(job_id).exists() or is_recorded(project, job_id)
