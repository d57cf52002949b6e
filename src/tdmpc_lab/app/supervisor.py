"""`python -m tdmpc_lab.app.supervisor ROOT ID MAX_LOCAL`: waits for a free place and runs one local job."""

from __future__ import annotations

import sys
from pathlib import Path

from tdmpc_lab.app.journal import write_note
from tdmpc_lab.app.worker import run_job
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.local import supervise


def main() -> int:
    """Run the job named on the command line; 0 when it finished."""
    root, job_id, max_local = sys.argv[1:]
    project = Project(Path(root))
    paths = project.job(job_id)
    code = supervise(project, paths, int(max_local), run_job, root, job_id)
    try:  # the job can have died without a word; what the supervisor then wrote belongs in the note too
        write_note(project, paths, None)
    except LabError as error:
        print(f"the note was not written: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
