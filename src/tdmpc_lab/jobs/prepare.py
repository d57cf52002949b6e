"""Making a job folder so that nobody ever sees half a job."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime

from tdmpc_lab.errors import RecordError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.ids import allocate_local_folder
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, write_record


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
        paths.checkpoints.mkdir(mode=0o750)
        write_atomic(paths.spec, spec_text)
        write_atomic(paths.resolved, resolved_text)
        write_record(paths, make_record(paths.id))
    return paths


@contextlib.contextmanager
def _folder(project: Project, job_id: str | None) -> Iterator[JobPaths]:
    """Yield the folder to fill; on an exception it is as before: gone, or with what it held."""
    if job_id is None:
        paths, existed = allocate_local_folder(project, datetime.now().astimezone()), False
    else:
        paths = project.job(job_id)
        project.jobs.mkdir(parents=True, exist_ok=True)
        try:
            paths.folder.mkdir(mode=0o750)
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
