"""`python -m tdmpc_lab.app.supervisor ROOT ID MAX_LOCAL`: waits for a free place and runs one local job.

Like `app/worker.py` it must stay where it is: `rerun` starts it out of the package of an old snapshot.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tdmpc_lab.app.joblog.write import refresh_rollup, write_note
from tdmpc_lab.app.mlflow.mirror import end_run_of
from tdmpc_lab.app.worker import run_job
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.events import EventLog, read_events
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.launch.local import supervise
from tdmpc_lab.launch.process import last_start
from tdmpc_lab.sharing import reason, share_new_files


def main() -> int:
    """Run the job named on the command line; 0 when it finished."""
    root, job_id, max_local = sys.argv[1:]
    project = Project(Path(root))
    share_new_files(project.root)
    paths = project.job(job_id)
    try:
        return supervise(
            project,
            paths,
            int(max_local),
            run_job,
            root,
            job_id,
            after=lambda whole: close_books(project, paths, whole),
        )
    except OSError as error:
        _never_began(paths, error)
        raise


def _never_began(paths: JobPaths, error: OSError) -> None:
    """Put the outcome of a job on file that could not even wait for its turn, unless it began and has its own."""
    if last_start(read_events(paths.events)) is None:
        cause = f"it could not be started: {reason(error)}"
        EventLog(paths.events).append("failed", cause=cause, error=type(error).__name__, traceback="", step=None)


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
