"""How long a run will take: from jobs of this project that did the same work, or from a measurement on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import EvalConfig, Spec
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.find import all_records
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import State, status_of
from tdmpc_lab.text import duration, number

NEWEST = 5  # jobs that an estimate is made from
_LOOKED_AT = 50  # jobs whose config is read, at most: it takes a few milliseconds each


@dataclass(frozen=True)
class RunTimeEstimate:
    """Wall time from the first step that is to be done to the last, evaluations included, waiting left out."""

    seconds: float
    basis: str
    """What it was made from, in words."""

    def __str__(self) -> str:
        return f"about {duration(self.seconds)} ({self.basis})"

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {"seconds": round(self.seconds), "basis": self.basis}


def estimate_run_time(project: Project, spec: Spec, cluster: str, done: int = 0) -> RunTimeEstimate | None:
    """From the newest whole jobs that did the same work per step on the same kind of hardware; None without any.
    `done` are the steps of a job that continues from another one.

    Jobs that continued from another one are left out, as are those of which less than all was done: their first steps
    are random and cost next to nothing.
    """
    rates = list(_seconds_per_step(project, spec, cluster))
    if not rates:
        return None
    per_step = statistics.median(rate for _, rate in rates)
    ids = [job_id for job_id, _ in rates]
    basis = f"as {ids[0]} took" if len(ids) == 1 else f"median of {len(ids)} such jobs, the last {ids[0]}"
    return RunTimeEstimate(per_step * (spec.train.steps - done), basis)


def alike(spec: Spec, cluster: str, done: int = 0) -> str:
    """The same text for specs that take the same time."""
    return repr((spec.train.steps, spec.train.seed_steps, done, _work(spec, cluster)))


def measure_run_time(
    spec: Spec, observation_dim: int, action_dim: int, episode_length: int, done: int = 0
) -> RunTimeEstimate:
    """From a few plans and updates on this machine, at full size; takes about as long as those.

    Raises LabError for what can't be built.
    """
    from tdmpc_lab.agent.bench import bench
    from tdmpc_lab.training.build import one_thread, set_threads

    with one_thread():  # puts the number of threads back after
        set_threads(spec.train)
        result = bench(
            observation_dim,
            action_dim,
            spec.agent,
            spec.planner,
            batch_size=spec.train.batch_size,
            envs=spec.train.envs,
            device=spec.train.device,
            repeats=2,
            warm_up=1,
        )
    basis = (
        f"measured on this machine: a plan {number(result.plan_ms)} ms, an update {number(result.update_ms)} ms; "
        f"the environment's own time is not in it"
    )
    return RunTimeEstimate(run_seconds(spec, result.plan_ms, result.update_ms, 0.0, episode_length, done), basis)


def run_seconds(
    spec: Spec, plan_ms: float, update_ms: float, step_ms: float, episode_length: int, done: int = 0
) -> float:
    """Wall time of a training whose parts take these times: a plan for all environments at once, an update, a step
    of one environment. `done` steps lie behind it."""
    steps, seed_steps = spec.train.steps, spec.train.seed_steps
    random = max(1000, 5 * episode_length) if seed_steps is None else seed_steps
    learning = max(0, steps - max(random, done))
    evaluated = _evaluation_steps(spec.eval, steps - done, episode_length)
    # Those of the first, random steps are made up for when these are over.
    updates = (steps if done < random else steps - done) * spec.train.updates_per_step
    planned = (learning + evaluated) * plan_ms / spec.train.envs
    stepped = steps - done + 2 * evaluated  # an evaluation is played a second time, by the policy alone
    return (planned + updates * update_ms + stepped * step_ms) / 1000


def _evaluation_steps(evaluation: EvalConfig | None, steps: int, episode_length: int) -> int:
    if evaluation is None:
        return 0
    times = max(1, steps // evaluation.every)
    return times * evaluation.episodes * max(1, len(evaluation.opponents)) * episode_length


def _seconds_per_step(project: Project, spec: Spec, cluster: str) -> Iterator[tuple[str, float]]:
    """Id and seconds per environment step of jobs like this one, newest first."""
    wanted, found, looked = _work(spec, cluster), 0, 0
    for paths, record in reversed(all_records(project)):
        if not isinstance(record, JobRecord) or not _may_be_like(record, spec, cluster):
            continue
        looked += 1
        if looked > _LOOKED_AT:
            return
        try:
            old = load_resolved(paths.resolved)
            status = status_of(paths, record, None)
        except LabError:  # a job that can't be read says nothing of its time
            continue
        if _work(old, cluster) != wanted or status.state is not State.COMPLETED:
            continue
        if status.elapsed_s and status.step and status.step == status.steps:
            yield record.id, status.elapsed_s / status.step
            found += 1
            if found == NEWEST:
                return


def _may_be_like(record: JobRecord, spec: Spec, cluster: str) -> bool:
    return record.cluster == cluster and record.env_id == spec.env.id and record.parent is None


def _work(spec: Spec, cluster: str) -> Mapping[str, Any]:
    """What a step's time depends on: sizes, counts, environment and hardware; not learning rates and the like."""
    sizes = {
        f"{section}.{f.name}": value
        for section, part in (("agent", spec.agent), ("planner", spec.planner))
        for f in fields(part)
        if not isinstance(value := getattr(part, f.name), float) and value is not None
    }
    train = spec.train
    evaluation = None if spec.eval is None else (spec.eval.every, spec.eval.episodes, spec.eval.opponents)
    hardware = (spec.slurm.gpus, spec.slurm.cpus) if cluster == "slurm" else None
    return sizes | {
        "env": (spec.env.id, spec.env.options, spec.env.opponent),
        "train": (train.envs, train.batch_size, train.updates_per_step, train.device, train.threads),
        "eval": evaluation,
        "hardware": hardware,
    }
