"""`resume`: a new job that goes on from the last checkpoint of an old one."""

from __future__ import annotations

from collections.abc import Sequence

from tdmpc_lab.app.specs import check_environments
from tdmpc_lab.app.status import job_views
from tdmpc_lab.app.submit import Plan
from tdmpc_lab.config.diff import diff
from tdmpc_lab.config.loader import LoadedSpec, load_resolved, load_spec
from tdmpc_lab.errors import RecordError, UsageError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import State


def plan_resume(project: Project, job: str, overrides: Sequence[str], steps: int | None) -> Plan:
    """What a job that continues `job` would be: the old one's config, with overrides and perhaps more steps.

    Raises:
        UsageError: no such job, it is still going on, it has no checkpoint, or no step is left to do.
        SpecError, EnvironmentSpecError: the overrides do not fit.
        RecordError: the old job's files can't be read.
    """
    old = project.require_job(job)
    view = job_views(project, [old.id])[0]
    if view.status is None or view.record is None:
        raise RecordError(f"job {old.id} can't be read: {view.problem}")
    if view.status.state in (State.PENDING, State.RUNNING):
        raise UsageError(f"job {old.id} is {view.status.state}; it goes on by itself")
    if not any(old.checkpoints.glob("step_*.pt")):
        raise UsageError(f"job {old.id} left no checkpoint to go on from; submit it again instead")
    words = list(overrides) + ([f"train.steps={steps}"] if steps is not None else [])
    loaded = load_spec(old.resolved, words)
    if view.status.state is State.COMPLETED and loaded.spec.train.steps <= (view.status.step or 0):
        raise UsageError(f"job {old.id} has done all its {view.status.step:,} steps; give more with --steps N")
    check_environments([loaded])
    changes = tuple(str(change) for change in diff(load_resolved(old.resolved), loaded.spec))
    text = old.spec.read_text(encoding="utf-8")
    item = LoadedSpec(loaded.spec, text, old.resolved, (*view.record.overrides, *words))
    return Plan(item, changes if loaded.spec.compare_to else (), goes_on_from=old)
