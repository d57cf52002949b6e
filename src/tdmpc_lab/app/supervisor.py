"""`python -m tdmpc_lab.app.supervisor ROOT ID MAX_LOCAL`: waits for a free place and runs one local job."""

from __future__ import annotations

import sys
from pathlib import Path

from tdmpc_lab.app.joblog import refresh_rollup
from tdmpc_lab.app.journal import write_note
from tdmpc_lab.app.mirroring import end_run_of
from tdmpc_lab.app.worker import run_job
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.launch.local import supervise


def main() -> int:
    """Run the job named on the command line; 0 when it finished."""
    root, job_id, max_local = sys.argv[1:]
    project = Project(Path(root))
    paths = project.job(job_id)
    return supervise(
        project, paths, int(max_local), run_job, root, job_id, after=lambda whole: close_books(project, paths, whole)
    )


def close_books(project: Project, paths: JobPaths, whole: bool) -> None:
    """Note and MLflow say what the job's files say, also when the job died without a word (not `whole`).

    Troubles are printed, to the supervisor's log, and change nothing.
    """
    note = _write_note(project, paths)
    if whole:
        return
    refresh_rollup(project)
    try:
        problem = end_run_of(project, paths, note)
    except (LabError, OSError) as error:
        problem = str(error)
    if problem is not None:
        print(f"MLflow is not complete: {problem}", file=sys.stderr)
    _write_note(project, paths)  # again: only now the run's id is sure to be known


def _write_note(project: Project, paths: JobPaths) -> str | None:
    try:
        return write_note(project, paths, None)
    except (LabError, OSError) as error:
        print(f"the note was not written: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
