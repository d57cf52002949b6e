"""`cancel`: ask jobs of this project to stop."""

from __future__ import annotations

from collections.abc import Sequence

from tdmpc_lab.app.status import job_views
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import Project


def cancel(project: Project, ids: Sequence[str]) -> dict[str, str]:
    """Cancel the jobs named; what was done to each, in words.

    A job that waits never starts; a running local one saves a checkpoint and stops.

    Raises:
        ExternalError: SLURM can't be reached.
        LabError: a job could not be told, because it runs on another machine.
    """
    from tdmpc_lab.launch.local import cancel_local
    from tdmpc_lab.launch.slurm import cancel_ids

    done: dict[str, str] = {}
    slurm: list[str] = []
    for view in job_views(project, ids):
        if view.status is not None and view.status.state.ended:
            done[view.id] = f"was over already: {view.status.state}"
        elif view.record is not None and view.record.cluster == "slurm":
            slurm.append(view.id)
        else:
            paths = project.job(view.id)
            if not cancel_local(paths, read_events(paths.events)):
                raise LabError(f"{view.id}: no process of it lives on this machine; see tdmpc-lab status {view.id}")
            done[view.id] = "asked to stop"
    if slurm:
        cancel_ids(slurm)
        done |= dict.fromkeys(slurm, "cancelled in SLURM")
    return {job_id: done[job_id] for job_id in ids}
