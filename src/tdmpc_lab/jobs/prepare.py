"""Making a job folder so that nobody ever sees half a job."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from tdmpc_lab.errors import RecordError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.ids import new_local_id
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, write_record
from tdmpc_lab.sharing import make_folder


def prepare_job(
    project: Project,
    job_id: str | None,
    spec_text: str,
    resolved_text: str,
    make_record: Callable[[str], JobRecord],
) -> JobPaths:
    """Make the folder of a job with its spec, its resolved spec and, last, its record.

    `job_id` None takes a new local id; `make_record` gets the id. The record makes the folder a job, so
    a crash before it leaves a folder that every command ignores; an exception removes what was made.
    The folder of a given id may exist without a record: a scheduler may have opened its log there first.
    Raises RecordError when the id has a job already, UsageError for what can't be an id, and whatever
    `make_record` raises.
    """
    with _folder(project, job_id) as paths:
        make_folder(paths.checkpoints)
        write_atomic(paths.spec, spec_text)
        write_atomic(paths.resolved, resolved_text)
        write_record(paths, make_record(paths.id))
    return paths


def refuse_known(project: Project, job_ids: Iterable[str]) -> None:
    """Raise RecordError where the project has anything of a job, or of a task of an array, that has one of these ids.

    A scheduler may begin its ids anew. A note without a folder is a job's, too: folders are removed or stay on another
    machine, notes are kept.
    """
    for job_id in job_ids:
        folder, note = project.job(job_id).folder, project.note(job_id)
        tasks = [*project.jobs.glob(f"{job_id}_*"), *project.notes.glob(f"{job_id}_*.md")] if "_" not in job_id else []
        there = [path for path in (folder, note, *tasks) if path.exists() or path.is_symlink()]
        if there:
            raise RecordError(
                f"{there[0]}: exists already, so this project had a job {job_id} before, and SLURM begins its ids "
                "anew; nothing was changed, and the new job is taken out of the queue. Submit again: it gets another id"
            )


@contextlib.contextmanager
def _folder(project: Project, job_id: str | None) -> Iterator[JobPaths]:
    """Yield the folder to fill; on an exception it is as before: gone, or with what it held."""
    if job_id is None:
        paths, existed = allocate_local_folder(project, datetime.now().astimezone()), False
    else:
        paths = project.job(job_id)
        project.jobs.mkdir(parents=True, exist_ok=True)
        try:
            make_folder(paths.folder)
            existed = False
        except FileExistsError:
            existed = True
    files = (paths.spec, paths.resolved, paths.code_diff, paths.record, paths.metrics)
    folders = (paths.checkpoints, paths.opponents, paths.pool, paths.start.parent)
    ours = (*files, *folders)
    if taken := next((path for path in ours if path.exists()), None):
        raise RecordError(f"{taken}: exists already, so job {paths.id} was made before; nothing was changed")
    try:
        yield paths
    except BaseException:
        if existed:
            for path in files:
                path.unlink(missing_ok=True)
            for path in folders:
                shutil.rmtree(path, ignore_errors=True)
        else:
            shutil.rmtree(paths.folder, ignore_errors=True)
        raise


_MOST_TRIES = 10_000  # ids tried from one moment on: ten seconds' worth


def allocate_local_folder(project: Project, now: datetime) -> JobPaths:
    """Reserve a local id by making its folder; a taken id moves on by 1 ms until one is free.

    mkdir decides, so processes that submit at the same moment never share a folder. Raises RecordError when
    ten thousand ids in a row are taken, OSError when the folder can't be made.
    """
    project.jobs.mkdir(parents=True, exist_ok=True)
    for millisecond in range(_MOST_TRIES):
        paths = project.job(new_local_id(now + timedelta(milliseconds=millisecond)))
        try:
            make_folder(paths.folder)
        except FileExistsError:
            continue
        return paths
    raise RecordError(f"{project.jobs}: {_MOST_TRIES:,} ids from {new_local_id(now)} on are taken; try again")
