"""Running a job in this process, for a debugger."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tdmpc_lab.launch.environment import clean_process_environment


def run_debug(folder: Path, function: Callable[..., Any], *args: Any) -> Any:
    """Run `function(*args)` here and now through submitit, and return what it returns.

    Whatever it raises comes out as it is, with its own traceback; nothing stops at a prompt. The environment
    is as before afterwards.
    """
    from submitit import DebugExecutor

    with clean_process_environment():
        job = DebugExecutor(folder).submit(function, *args)
        os.environ.update(SUBMITIT_EXECUTOR="debug", SUBMITIT_DEBUG_JOB_ID=job.job_id, SUBMITIT_FOLDER=str(folder))
        error = job.exception()  # runs it; asking for the result instead would open pdb on an error
        if error is not None:
            raise error
        return job.result()
