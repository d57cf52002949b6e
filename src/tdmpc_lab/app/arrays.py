"""`submit` to SLURM: one job, or the points of a sweep as a job array."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tdmpc_lab.app.code import JobCode
from tdmpc_lab.app.journal import write_array_note
from tdmpc_lab.app.submit import Plan, Submitted, prepare, submitted, tell_parent
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.prepare import refuse_known
from tdmpc_lab.notes.note import is_untouched


def submit_slurm(
    project: Project, group: Sequence[Plan], code: JobCode, on_recorded: Callable[[Sequence[Submitted]], None]
) -> None:
    """Submit held, write every record, release: no job starts before its record is complete.

    All or none: what fails on the way cancels what was submitted and removes what was written. If this process
    is killed, held jobs stay in the queue, which `status` finds by their mark.

    Raises:
        ExternalError, UsageError: SLURM is missing, or refused the jobs.
        LabError, OSError: a record can't be written.
    """
    from tdmpc_lab.launch.arrays import even_chunks, max_array_size, task_ids
    from tdmpc_lab.launch.slurm import release
    from tdmpc_lab.launch.unfinished import submitting

    chunks = even_chunks(group, max_array_size()) if len(group) > 1 else [list(group)]
    with submitting(project) as mark, _undone_on_error(project) as made:
        jobs = []
        for chunk in chunks:
            # A limit holds for the whole sweep: its arrays wait for each other.
            previous = made.arrays[-1] if made.arrays and chunk[0].item.spec.slurm.array_limit else None
            made.arrays.append(_submit_held(project, chunk, code, mark, previous, made.arrays))
            ids = list(dict.fromkeys([made.arrays[-1], *task_ids(made.arrays[-1], len(chunk))]))
            refuse_known(project, ids)
            made.ids += ids
        for array_id, chunk in zip(made.arrays, chunks, strict=True):
            for job_id, ready in zip(task_ids(array_id, len(chunk)), chunk, strict=True):
                jobs.append(submitted(project, _record(project, ready, code, job_id), ready, "slurm"))
            _write_whole_note(project, array_id)
        for array_id in made.arrays:
            release(array_id)
    for ready, job in zip(group, jobs, strict=True):
        tell_parent(ready, job.id)
    on_recorded(jobs)


def _submit_held(
    project: Project, chunk: Sequence[Plan], code: JobCode, mark: str, after: str | None, siblings: Sequence[str]
) -> str:
    from tdmpc_lab.app.worker import run_job
    from tdmpc_lab.launch.slurm import submit_held

    spec = chunk[0].item.spec
    return submit_held(
        project,
        spec.slurm,
        spec.name,
        run_job,
        str(project.root),
        comment=mark,
        workplace=code.workplace,
        tasks=len(chunk),
        after=after,
        siblings=siblings,
    )


def _record(project: Project, ready: Plan, code: JobCode, job_id: str) -> JobPaths:
    from tdmpc_lab.launch.logs import link_logs
    from tdmpc_lab.launch.sbatch import submit_folder

    paths = prepare(project, ready, "slurm", code, job_id, None)
    link_logs(paths, submit_folder(project), job_id)
    return paths


def _write_whole_note(project: Project, array_id: str) -> None:
    try:
        write_array_note(project, array_id)
    except LabError as error:  # the jobs are recorded; the note can be written again at any time
        print(f"warning: the note of array {array_id} was not written: {error}", file=sys.stderr)


@dataclass
class _Made:
    """What one submit has made so far, to be taken back should it fail."""

    arrays: list[str] = field(default_factory=list)
    """Jobs and arrays in SLURM's queue."""
    ids: list[str] = field(default_factory=list)
    """Jobs and arrays of which the project had nothing before: what it has now was made here."""


@contextlib.contextmanager
def _undone_on_error(project: Project) -> Iterator[_Made]:
    """What is put in here is taken back on an exception; a note in which somebody wrote meanwhile stays."""
    from tdmpc_lab.launch.slurm import cancel_ids

    made = _Made()
    try:
        yield made
    except BaseException:
        cancel_ids(made.arrays)  # a job without a record must not run
        for job_id in made.ids:
            shutil.rmtree(project.job(job_id).folder, ignore_errors=True)
            note = project.note(job_id)
            if note.exists() and is_untouched(note.read_bytes()):
                note.unlink()
        raise
