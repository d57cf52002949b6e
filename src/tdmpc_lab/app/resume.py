"""`resume`: a new job that goes on from the last checkpoint of an old one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tdmpc_lab.app.resources import refuse_profile
from tdmpc_lab.app.specs import check_environments, refuse_sweep
from tdmpc_lab.app.status import job_views
from tdmpc_lab.app.submit import Plan
from tdmpc_lab.config.diff import diff
from tdmpc_lab.config.loader import load_resolved, load_stored
from tdmpc_lab.config.rules import NETWORK_KEYS
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import flatten, to_dict
from tdmpc_lab.errors import RecordError, UsageError
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.state import State

# What a checkpoint is bound to: the networks' shapes, and what the running episodes and random draws come from.
FIXED = (
    "env.id",
    "train.seed",
    "train.envs",
    "train.start_from",
    "phases",
    *NETWORK_KEYS,
)


def plan_resume(project: Project, job: str, overrides: Sequence[str], steps: int | None) -> Plan:
    """What a job that continues `job` would be: the old one's config, with overrides and perhaps more steps.

    Raises:
        UsageError: no such job, it is still going on, it has no checkpoint, or no step is left to do.
        SpecError: the overrides do not fit, or the environment can't be made.
        RecordError: the old job's files can't be read.
    """
    old = project.require_job(job)
    view = job_views(project, [old.id])[0]
    if view.status is None or view.record is None:
        raise RecordError(f"job {old.id} can't be read: {view.problem}")
    if view.status.state in (State.PENDING, State.RUNNING):
        why = f" ({view.status.cause})" if view.status.cause else ""
        raise UsageError(
            f"job {old.id} is {view.status.state}{why}; it goes on by itself. To go on as a new job instead, first: "
            f"tdmpc-lab cancel {old.id} --save"
        )
    if not any(old.checkpoints.glob("step_*.pt")):
        raise UsageError(f"job {old.id} left no checkpoint to go on from; start it afresh: tdmpc-lab rerun {old.id}")
    refuse_profile(old.id, overrides)
    words = list(overrides) + ([f"train.steps={steps}"] if steps is not None else [])
    loaded = load_stored(old.resolved, words)
    refuse_sweep(loaded, "resumed")
    _refuse_what_no_checkpoint_fits(old, loaded.spec)
    reached = max(int(path.stem.removeprefix("step_")) for path in old.checkpoints.glob("step_*.pt"))
    if loaded.spec.train.steps <= reached:
        raise UsageError(
            f"job {old.id} has a checkpoint at step {reached:,} and train.steps is {loaded.spec.train.steps:,}: no "
            "step is left to do; give more with --steps N"
        )
    check_environments(project, [loaded], old)
    changes = tuple(str(change) for change in diff(load_resolved(old.resolved), loaded.spec))
    text = old.spec.read_text(encoding="utf-8")
    item = replace(loaded, text=text, overrides=tuple(words))
    return Plan(item, changes if loaded.spec.compare_to else (), goes_on_from=old)


def _refuse_what_no_checkpoint_fits(old: JobPaths, spec: Spec) -> None:
    """Raise UsageError for a changed key that the old job's networks, episodes or random state can't follow."""
    before, now = flatten(to_dict(load_resolved(old.resolved))), flatten(to_dict(spec))
    changed = [key for key in FIXED if before.get(key) != now.get(key)]
    if changed:
        listed = ", ".join(f"{key} ({before.get(key)} → {now.get(key)})" for key in changed)
        raise UsageError(
            f"a resumed job can't change {listed}: the checkpoint was made with the old value; submit a new job instead"
        )
