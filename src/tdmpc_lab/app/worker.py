"""The name of a job's code in its pickle; it must stay where it is.

Jobs wait in the queue while the tool is updated, and `rerun` starts today's pickle with the package of an old snapshot:
both find `run_job` here.
"""

from __future__ import annotations

from typing import Any


def run_job(root: str, job_id: str | None = None) -> dict[str, Any]:
    """Run a job of the project at `root`: see `tdmpc_lab.app.run.worker.run_job`."""
    from tdmpc_lab.app.run.worker import run_job as run

    return run(root, job_id)
